"""Routing on public tables of scores; `python -m benchmarks.routing`."""
