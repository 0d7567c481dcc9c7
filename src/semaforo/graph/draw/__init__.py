"""Pictures of graphs: what is drawn, where it is placed, and how it looks as text and as SVG."""
