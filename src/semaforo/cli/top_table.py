"""How ``semaforo top`` looks: a header, the tasks, the replicas; columns give way where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from semaforo.cli.top_figures import Line, ReplicaLine, View
from semaforo.entities.units import show_duration
from semaforo.observe.explain import short

Row = TypeVar("Row")
_GAP = 3
_AROUND = 7
"""Lines that are no rows: empty ones, heads and their rules, and what may be said below."""
_STATES = {"ready": "green", "starting": "yellow", "draining": "yellow"}


class Column(msgspec.Struct, Generic[Row], frozen=True):
    """A column: its title, what it shows of a row, and how soon it gives way (0 = never)."""

    title: str
    show: Callable[[Row], str]
    gives_way: int = 0
    right: bool = True


_LINES: tuple[Column[Line], ...] = (
    Column("task", lambda r: r.name if r.task else f"  {r.name}", right=False),
    Column("waiting", lambda r: "" if r.waiting_rows is None else f"{r.waiting_rows:,}"),
    Column("answered/s", lambda r: _number(r.answered)),
    Column("failed/s", lambda r: _number(r.failed), 2),
    Column("p50", lambda r: _seconds(r.p50_s), 1),
    Column("p99", lambda r: _seconds(r.p99_s)),
    Column("wait", lambda r: _seconds(r.wait_s), 3),
)
_REPLICAS: tuple[Column[ReplicaLine], ...] = (
    Column("replica", lambda r: r.id, right=False),
    Column("variant", lambda r: short(r.variant), 9, right=False),
    Column("state", lambda r: r.state, right=False),
    Column("runs", lambda r: r.isolation, 5, right=False),
    Column("device", lambda r: r.device, 8, right=False),
    Column("pid", lambda r: str(r.pid or "–"), 10),
    Column("in flight", lambda r: f"{r.in_flight_rows:,}", 2),
    Column("rows/s", lambda r: _number(r.rows)),
    Column("batches/s", lambda r: _number(r.batches), 7),
    Column("batch", lambda r: "–" if r.batch_rows is None else f"{r.batch_rows:.1f}", 1),
    Column("takes", lambda r: _seconds(r.batch_s), 3),
    Column("busy", lambda r: f"{r.busy:.0%}"),
    Column("errors", lambda r: f"{r.failures:,}", 4),
    Column("restarts", lambda r: f"{r.restarts:,}", 4),
    Column("memory", lambda r: _bytes(r.memory_bytes), 6),
)


def page(
    view: View | None, url: str, width: int, height: int | None = None, note: str = ""
) -> RenderableType:
    """Return everything for a terminal of this size; `height` None = all rows."""
    parts: list[RenderableType] = [_first_line(view, url, note, width)]
    if view is None:
        return Group(*parts)
    parts.append(_totals(view))
    used = len(parts) + _AROUND
    lines, replicas = view.lines, sorted(view.replicas, key=lambda r: (r.variant, r.id))
    hidden = 0
    if height is not None:
        room = max(4, height - used)
        kept = max(room // 2, room - len(lines))
        hidden = max(0, len(replicas) - kept) + max(0, len(lines) - (room - min(kept, len(replicas))))
        lines, replicas = lines[: room - min(kept, len(replicas))], replicas[:kept]
    parts += [Text(), _table(_LINES, lines, width, [None if r.task else "dim" for r in lines]), Text()]
    parts.append(_table(_REPLICAS, replicas, width, [None] * len(replicas)))
    troubles = [r for r in view.replicas if r.last_error and r.state != "ready"]
    if height is None:
        parts += [Text(f"{r.id}: {r.last_error}", style="yellow") for r in troubles]
    elif troubles and not hidden:
        text = f"{troubles[0].id}: {troubles[0].last_error}"
        parts.append(Text(text, "yellow", no_wrap=True, overflow="ellipsis"))
    if hidden:
        parts.append(Text(f"{hidden} more lines than fit; --once prints all", style="dim"))
    return Group(*parts)


def _first_line(view: View | None, url: str, note: str, width: int) -> Text:
    text = Text(f"semaforo top · {url}", style="bold", no_wrap=True, overflow="ellipsis")
    if view is not None:
        text.append(f" · up {_age(view.uptime_s)}", style="not bold")
    if note:
        text.append(f" · {note}", style="not bold yellow")
    text.truncate(width, overflow="ellipsis")
    return text


def _totals(view: View) -> Text:
    ready = sum(replica.state == "ready" for replica in view.replicas)
    parts = [f"{_number(view.arrived)} arrive/s", f"{_number(view.outcomes.get('done', 0.0))} done/s"]
    bad = [(name, rate) for name, rate in view.outcomes.items() if name != "done" and rate > 0]
    parts += [f"{_number(rate)} {name}/s" for name, rate in bad]
    parts.append(f"{ready} of {len(view.replicas)} replicas ready")
    parts.append(f"gateway {view.cpu:.0%} CPU, {_bytes(view.rss_bytes)}")
    return Text(" · ".join(parts), style="yellow" if bad else "")


def _table(
    columns: Sequence[Column[Row]], rows: Sequence[Row], width: int, styles: Sequence[str | None]
) -> Table:
    cells = {column.title: [column.show(row) for row in rows] for column in columns}
    shown = list(columns)

    def needed() -> int:
        return sum(max(len(c.title), *map(len, cells[c.title]), 0) + _GAP for c in shown) - _GAP

    while needed() > width and any(column.gives_way for column in shown):
        shown.remove(max(shown, key=lambda column: column.gives_way))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False)
    for column in shown:
        first = column is shown[0]
        table.add_column(
            column.title, justify="right" if column.right else "left", no_wrap=True,
            overflow="ellipsis" if first else "crop", min_width=None if first else len(column.title),
        )  # fmt: skip
    for number, style in enumerate(styles):
        found = [Text(cells[c.title][number], style=_style(c.title, cells[c.title][number])) for c in shown]
        table.add_row(*found, style=style)
    return table


def _style(title: str, cell: str) -> str:
    if title == "state":
        return _STATES.get(cell, "red")
    if title in ("errors", "restarts", "failed/s") and cell not in ("0", "–", ""):
        return "yellow"
    return ""


def _number(value: float) -> str:
    return "0" if value <= 0 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else show_duration(value)


def _bytes(number: int) -> str:
    if number <= 0:
        return "–"
    if number < 1e6:
        return f"{max(1, number // 1000)} KB"
    return f"{number / 1e6:.0f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"


def _age(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    days, hours = divmod(whole // 3600, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {whole % 3600 // 60} min"
