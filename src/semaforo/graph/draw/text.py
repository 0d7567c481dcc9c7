"""A graph as lines of characters: boxes in layers, links as lines between them."""

from __future__ import annotations

from collections.abc import Sequence

from semaforo.graph.draw.layout import Layout, layout
from semaforo.graph.draw.picture import Box, Picture

_GAP = 3
_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_JOINTS = " ╵╷│╴╯╮┤╶╰╭├─┴┬┼"
Style = str
Line = list[tuple[str, Style]]


def drawn(what: Picture, width: int) -> list[Line] | None:
    """Return the lines of a picture, each as pieces with a style (``""``, ``critical``, ``quiet`` or ``name``).

    Args:
        what: The picture.
        width: Columns there are.

    Returns:
        None where it is wider; `listed` needs less room.
    """
    sizes = {box.name: _width(box) for box in what.boxes}
    placed = layout(what, {name: float(size) for name, size in sizes.items()}, _GAP)
    if placed.width > width:
        return None
    return _Canvas(what, placed, sizes).lines()


def listed(what: Picture) -> list[Line]:
    """Return a picture as a list: every box with what it is linked from."""
    found: list[Line] = []
    for box in what.boxes:
        sources = [
            f"{link.source}{f' ({link.label})' if link.label else ''}"
            for link in what.links
            if link.target == box.name
        ]
        mark = "critical" if box.critical else "name"
        found.append([(box.name, mark), (f"  {'; '.join(box.lines)}", "")])
        if sources:
            found.append([(f"  ← {', '.join(sources)}", "quiet")])
    return found


def _title(box: Box) -> str:
    return f"{box.name} ⊞" if box.nested else box.name


def _width(box: Box) -> int:
    inner = max(len(_title(box)) + 2, *(len(line) + 2 for line in box.lines), 7)
    # Odd, so that there is a middle for links to meet.
    return inner + 2 + (inner + 1) % 2


class _Canvas:
    def __init__(self, what: Picture, placed: Layout, sizes: dict[str, int]) -> None:
        self._what, self._placed, self._sizes = what, placed, sizes
        self._boxes = {box.name: box for box in what.boxes}
        self._cells: dict[tuple[int, int], tuple[str, Style]] = {}
        self._joints: dict[tuple[int, int], int] = {}
        self._owners: dict[tuple[int, int], set[str]] = {}
        self._styles: dict[tuple[int, int], Style] = {}
        self._dashed: dict[tuple[int, int], bool] = {}

    def lines(self) -> list[Line]:
        """Draw everything."""
        top = 0
        heights = [
            max((len(self._boxes[name].lines) + 2 for name in layer), default=1)
            for layer in self._placed.layers
        ]
        bottoms: list[int] = []
        for number, layer in enumerate(self._placed.layers):
            for name in layer:
                self._box(self._boxes[name], top)
            bottoms.append(top + heights[number])
            if number + 1 < len(heights):
                top = self._links(number, heights[number], top)
        return self._rows(bottoms[-1])

    def _middle(self, place: float) -> int:
        return round(place)

    def _box(self, box: Box, top: int) -> None:
        size = self._sizes[box.name]
        left = self._middle(self._placed.middles[box.name]) - size // 2
        style = "critical" if box.critical else "quiet" if box.kind in ("input", "session", "answer") else ""
        title = _title(box)
        edge = "─" * (size - len(title) - 5)
        self._put(top, left, f"╭─ {title} {edge}╮", style)
        for at, ch in enumerate(title):
            self._cells[top, left + 3 + at] = (ch, "critical" if box.critical else "name")
        for row, line in enumerate(box.lines, top + 1):
            self._put(row, left, f"│ {line:<{size - 3}}│", style)
            for at, ch in enumerate(line):
                self._cells[row, left + 2 + at] = (ch, "")
        self._put(top + len(box.lines) + 1, left, f"╰{'─' * (size - 2)}╯", style)

    def _put(self, row: int, left: int, text: str, style: Style) -> None:
        for at, ch in enumerate(text):
            self._cells[row, left + at] = (ch, style)

    def _links(self, number: int, height: int, top: int) -> int:
        """Draw what goes from one layer to the next; return where the next layer begins."""
        hops = []
        for way in self._placed.ways:
            if way.first <= number < way.first + len(way.middles) - 1:
                at = number - way.first
                start, end = self._middle(way.middles[at]), self._middle(way.middles[at + 1])
                if at == len(way.middles) - 2 and abs(start - end) <= 2:
                    # A box is wide enough to be met a little beside its middle.
                    end = start
                hops.append((way, start, end))
        # Links of one source share a track; those that would lie on each other get tracks of their own.
        spans: dict[tuple[str, int], list[int]] = {}
        for way, start, end in hops:
            if start != end:
                spans.setdefault((way.link.source, start), []).extend((start, end))
        tracks: list[list[tuple[int, int]]] = []
        track_of: dict[tuple[str, int], int] = {}
        for key, columns in sorted(spans.items(), key=lambda item: max(item[1]) - min(item[1])):
            low, high = min(columns), max(columns)
            free = (
                at
                for at, taken in enumerate(tracks)
                if all(high < other_low or low > other_high for other_low, other_high in taken)
            )
            track = next(free, len(tracks))
            if track == len(tracks):
                tracks.append([])
            tracks[track].append((low, high))
            track_of[key] = track
        below = top + height
        last = below + len(tracks) + 1
        for way, start, end in hops:
            row = below + track_of.get((way.link.source, start), 0)
            ends_here = number == way.first + len(way.middles) - 2
            begins_here = number == way.first
            box = self._boxes[way.link.source]
            begin = top + (len(box.lines) + 2 if begins_here else 0)
            owner = way.link.source
            style = "critical" if way.link.critical else "quiet"
            self._vertical(start, begin, row, owner, style, way.link.dashed)
            self._horizontal(row, start, end, owner, style, way.link.dashed)
            self._vertical(end, row, last, owner, style, way.link.dashed)
            if ends_here:
                self._joints.pop((last, end), None)
                self._cells[last, end] = ("▼", style)
            else:
                self._join(last, end, _UP | _DOWN, owner, style, way.link.dashed)
        return last + 1

    def _vertical(self, column: int, top: int, bottom: int, owner: str, style: Style, dashed: bool) -> None:
        for row in range(top, bottom + 1):
            bits = (0 if row == top else _UP) | (0 if row == bottom else _DOWN)
            if row == top:
                bits |= _UP if (row - 1, column) in self._cells or (row - 1, column) in self._joints else 0
            if row == bottom:
                bits |= _UP
            self._join(row, column, bits, owner, style, dashed)

    def _horizontal(self, row: int, start: int, end: int, owner: str, style: Style, dashed: bool) -> None:
        low, high = min(start, end), max(start, end)
        for column in range(low, high + 1) if low != high else ():
            bits = (0 if column == low else _LEFT) | (0 if column == high else _RIGHT)
            self._join(row, column, bits, owner, style, dashed)

    def _join(self, row: int, column: int, bits: int, owner: str, style: Style, dashed: bool) -> None:
        key = (row, column)
        before = self._joints.get(key, 0)
        owners = self._owners.setdefault(key, set())
        across, along = _LEFT | _RIGHT, _UP | _DOWN
        if owners and owner not in owners and {before, bits} == {across, along}:
            # Two links that only cross: the one that goes down lies on top.
            bits, before = along, 0
        owners.add(owner)
        self._joints[key] = before | bits
        self._dashed[key] = dashed and self._dashed.get(key, True)
        if style == "critical" or key not in self._styles:
            self._styles[key] = style

    def _rows(self, height: int) -> list[Line]:
        for key, bits in self._joints.items():
            if key in self._cells:
                continue
            ch = _JOINTS[bits]
            if self._dashed[key]:
                ch = {"│": "┆", "─": "┄"}.get(ch, ch)
            self._cells[key] = (ch, self._styles[key])
        rows: list[Line] = []
        for row in range(height):
            columns = [column for at, column in self._cells if at == row]
            cells = [
                self._cells.get((row, column), (" ", "")) for column in range(max(columns, default=-1) + 1)
            ]
            rows.append(_runs(cells))
        return rows


def _runs(cells: Sequence[tuple[str, Style]]) -> Line:
    found: Line = []
    for ch, style in cells:
        if found and found[-1][1] == style:
            found[-1] = (found[-1][0] + ch, style)
        else:
            found.append((ch, style))
    return found
