"""A graph as an SVG file that is readable on light and on dark ground."""

from __future__ import annotations

from xml.sax.saxutils import escape

from semaforo.graph.draw.layout import Layout, Way, layout
from semaforo.graph.draw.picture import Box, Picture

_LETTER, _SMALL = 7.9, 7.0
_PAD, _LINE, _TITLE = 12.0, 16.0, 24.0
_GAP, _BETWEEN, _MARGIN = 28.0, 54.0, 20.0
_STYLE = """
  text { font: 11.5px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #334155 }
  .name { font-size: 13px; font-weight: 600; fill: #0f172a }
  .title { font: 600 15px system-ui, 'DejaVu Sans', sans-serif; fill: #0f172a }
  .label { font-size: 10.5px; fill: #475569; stroke: #ffffff; stroke-width: 4px; paint-order: stroke }
  .ground { fill: #ffffff }
  .box { fill: #f8fafc; stroke: #94a3b8; stroke-width: 1.2 }
  .ask .box, .loop .box { fill: #eff6ff; stroke: #3b82f6 }
  .call .box { fill: #fefce8; stroke: #ca8a04 }
  .fuse .box { fill: #f0fdf4; stroke: #16a34a }
  .critical .box { stroke-width: 2.6 }
  .link { fill: none; stroke: #94a3b8; stroke-width: 1.4 }
  .link.critical { stroke: #ea580c; stroke-width: 2.4 }
  .dashed { stroke-dasharray: 5 4 }
  .head { fill: #94a3b8 }
  .head.critical { fill: #ea580c }
  @media (prefers-color-scheme: dark) {
    text { fill: #cbd5e1 } .name, .title { fill: #f1f5f9 } .ground { fill: #0f172a }
    .label { fill: #94a3b8; stroke: #0f172a }
    .box { fill: #1e293b; stroke: #64748b }
    .ask .box, .loop .box { fill: #172554; stroke: #60a5fa }
    .call .box { fill: #422006; stroke: #facc15 }
    .fuse .box { fill: #052e16; stroke: #4ade80 }
    .link { stroke: #64748b } .head { fill: #64748b }
  }
"""


def svg(what: Picture) -> str:
    """Return a picture as the text of an SVG file."""
    sizes = {box.name: _width(box) for box in what.boxes}
    placed = layout(what, sizes, _GAP, thin=12.0)
    tops: list[float] = []
    boxes = {box.name: box for box in what.boxes}
    top = _MARGIN + 34.0
    for layer in placed.layers:
        tops.append(top)
        top += max((_height(boxes[name]) for name in layer), default=0.0) + _BETWEEN
    height = top - _BETWEEN + _MARGIN
    width = max(placed.width + 2 * _MARGIN, len(what.title) * 9.0 + 2 * _MARGIN)
    shift = (width - placed.width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(what.title)}</title>",
        f"<style>{_STYLE}</style>",
        '<rect class="ground" width="100%" height="100%"/>',
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 12}">{escape(what.title)}</text>',
    ]
    labels: list[str] = []
    ends = _ends(placed, sizes)
    for number, way in enumerate(placed.ways):
        parts.append(_link(way, ends[number], boxes, tops, shift, labels))
    parts += [_box(box, placed, sizes, tops, shift) for box in what.boxes]
    return "\n".join([*parts, *labels, "</svg>"]) + "\n"


def _ends(placed: Layout, sizes: dict[str, float]) -> dict[int, tuple[float, float]]:
    """Return how far from the middle of its boxes each link begins and ends, so that none hides another."""
    found = dict.fromkeys(range(len(placed.ways)), (0.0, 0.0))
    for side, next_to in ((0, 1), (1, -2)):
        at: dict[str, list[tuple[float, int]]] = {}
        for number, way in enumerate(placed.ways):
            name = way.link.target if side else way.link.source
            at.setdefault(name, []).append((way.middles[next_to], number))
        for name, links in at.items():
            apart = min(34.0, sizes[name] / (len(links) + 1))
            for place, (_, number) in enumerate(sorted(links)):
                offset = apart * (place - (len(links) - 1) / 2)
                begin, end = found[number]
                found[number] = (begin, offset) if side else (offset, end)
    return found


def _width(box: Box) -> float:
    inner = max(
        len(box.name) * _LETTER + (18 if box.nested else 0), *(len(s) * _SMALL for s in box.lines), 48
    )
    return inner + 2 * _PAD


def _height(box: Box) -> float:
    return _TITLE + _LINE * len(box.lines) + 8


def _box(box: Box, placed: Layout, sizes: dict[str, float], tops: list[float], shift: float) -> str:
    level = next(number for number, layer in enumerate(placed.layers) if box.name in layer)
    left, top = placed.middles[box.name] - sizes[box.name] / 2 + shift, tops[level]
    classes = f"{box.kind} critical" if box.critical else box.kind
    radius = 14 if box.kind in ("input", "session", "answer") else 6
    lines = "".join(
        f'<text x="{left + _PAD:.1f}" y="{top + _TITLE + _LINE * number + 10:.1f}">{escape(line)}</text>'
        for number, line in enumerate(box.lines)
    )
    mark = (
        f'<text class="name" x="{left + sizes[box.name] - _PAD - 10:.1f}" y="{top + 18:.1f}">⊞</text>'
        if box.nested
        else ""
    )
    return (
        f'<g class="{classes}"><rect class="box" x="{left:.1f}" y="{top:.1f}" width="{sizes[box.name]:.1f}" '
        f'height="{_height(box):.1f}" rx="{radius}"/>'
        f'<text class="name" x="{left + _PAD:.1f}" y="{top + 18:.1f}">{escape(box.name)}</text>{mark}{lines}</g>'
    )


def _link(
    way: Way,
    ends: tuple[float, float],
    boxes: dict[str, Box],
    tops: list[float],
    shift: float,
    labels: list[str],
) -> str:
    x, y = way.middles[0] + ends[0] + shift, tops[way.first] + _height(boxes[way.link.source])
    path = [f"M{x:.1f} {y:.1f}"]
    last = len(way.middles) - 1
    for number, middle in enumerate(way.middles[1:], 1):
        level = way.first + number
        end_x = middle + shift + (ends[1] if number == last else 0.0)
        end_y = tops[level] - (7 if number == last else 0)
        half = (y + end_y) / 2
        path.append(f"C{x:.1f} {half:.1f} {end_x:.1f} {half:.1f} {end_x:.1f} {end_y:.1f}")
        if number == last and way.link.label:
            # Nearer to the target, where links of one source have parted.
            at_x, at_y = x + (end_x - x) * 0.72, y + (end_y - y) * 0.66 + 4
            labels.append(
                f'<text class="label" text-anchor="middle" x="{at_x:.1f}" y="{at_y:.1f}">'
                f"{escape(way.link.label)}</text>"
            )
        if number < last:
            # Through a layer it goes straight down.
            following = tops[level] + (tops[level + 1] - tops[level] - _BETWEEN)
            path.append(f"L{end_x:.1f} {following:.1f}")
            end_y = following
        x, y = end_x, end_y
    classes = "link" + (" dashed" if way.link.dashed else "") + (" critical" if way.link.critical else "")
    head = f"M{x - 4.5:.1f} {y:.1f}h9l-4.5 7z"
    critical = " critical" if way.link.critical else ""
    return f'<path class="{classes}" d="{" ".join(path)}"/><path class="head{critical}" d="{head}"/>'
