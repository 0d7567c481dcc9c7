"""How ``semaforo bench`` tells what it measured: a bar while it runs, then tables, or JSON."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from semaforo.errors import InvalidRequest
from semaforo.traffic.load import Load
from semaforo.traffic.process import Progress as Far
from semaforo.traffic.summary import Spread, Summary, plain

_REASONS = 8


class Report(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        title: What was asked, in a line.
        open_loop: Whether requests kept to a schedule.
        asked_s: How long requests were to be sent.
        within: Within what answers were to come, in words, or "".
        summary: The figures.
    """

    title: str
    open_loop: bool
    asked_s: float
    within: str
    summary: Summary


class Bar:
    """A bar of the time that has passed, with what has been sent and answered; it vanishes at the end."""

    def __init__(self, load: Load) -> None:
        self._seconds = load.seconds
        self._began = 0.0
        self._progress = Progress(
            BarColumn(20), TextColumn("{task.description}"), console=Console(stderr=True), transient=True
        )
        self._task = self._progress.add_task("", total=load.seconds)

    def __call__(self, far: Far) -> None:
        """Show how far it is."""
        if not self._began:
            self._began = time.monotonic()
            self._progress.start()
        passed = time.monotonic() - self._began
        waiting = passed > self._seconds and far.ended < far.taken
        shown = f"{min(passed, self._seconds):.0f} of {self._seconds:g} s"
        text = f"{shown} · {far.taken:,} sent · {far.ended:,} answered"
        if far.bad:
            text += f" · [red]{far.bad:,} badly[/]"
        if waiting:
            text += f" · waiting for {far.taken - far.ended:,}"
        self._progress.update(self._task, completed=min(passed, self._seconds), description=text)

    def close(self) -> None:
        """Take it away."""
        self._progress.stop()


def show(report: Report) -> None:
    """Print the figures for a person."""
    console = Console(highlight=False)
    found = report.summary
    console.print(report.title, style="bold", markup=False)
    if found.seconds < report.asked_s - 0.01:
        console.print(f"ended early, after {found.seconds:.1f} of {report.asked_s:g} s", style="yellow")
    console.print(_counts(report))
    console.print(f"\nlatency in ms, from {'the moment each was due' if report.open_loop else 'its sending'}")
    console.print(_latencies(report))
    if len(found.served) > 1 or any(served.name for served in found.served):
        console.print()
        console.print(_served(found))
    if found.reasons:
        console.print()
        console.print(_reasons(found))
    console.print()
    late = f"late by {_ms(found.lateness.p99)} ms (p99), " if report.open_loop else ""
    console.print(
        f"generator: {late}{found.generator_cpu:.0%} of a core, at most {found.connections:,} connections",
        style="dim",
    )
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def write_json(report: Report, asked: dict[str, Any], path: Path) -> None:
    """Write the figures, seconds and all, as JSON to a file, or to stdout where it is ``-``.

    Raises:
        InvalidRequest: The file cannot be written.
    """
    whole = {"title": report.title, "asked": asked, **plain(report.summary)}
    text = msgspec.json.format(msgspec.json.encode(whole, enc_hook=str), indent=2).decode()
    if str(path) == "-":
        print(text)
        return
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise InvalidRequest(f"--json {path}: {error.strerror}") from None


def _counts(report: Report) -> Table:
    found = report.summary
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("requests", f"{found.requests:,}", f"{found.offered:,.1f}/s", f"in {found.seconds:.1f} s")
    share = found.answered / max(1, found.requests)
    table.add_row("answered well", f"{found.answered:,}", f"{found.throughput:,.1f}/s", f"{share:.2%}")
    if report.within:
        share = found.in_time / max(1, found.requests)
        table.add_row(
            "in time", f"{found.in_time:,}", f"{found.goodput:,.1f}/s", f"{share:.2%} {report.within}"
        )
    if found.tokens_per_s:
        table.add_row("tokens", "", f"{found.tokens_per_s:,.1f}/s", "")
    sent, received = found.sent_bytes / found.seconds, found.received_bytes / found.seconds
    table.add_row("bytes", "", "", f"{_bytes(sent)}/s sent, {_bytes(received)}/s received")
    return table


def _latencies(report: Report) -> Table:
    found = report.summary
    table = _table("", "p50", "p90", "p99", "p99.9", "max", "mean")
    table.add_row("all", *_spread(found.latency))
    if found.first_token.count:
        table.add_row("first token", *_spread(found.first_token))
    if found.per_token.count:
        table.add_row("each further token", *_spread(found.per_token))
    return table


def _served(found: Summary) -> Table:
    table = _table("served by", "requests", "share", "p50", "p99")
    total = sum(served.count for served in found.served)
    for served in found.served:
        name = served.name or "not said"
        latency = served.latency
        table.add_row(
            name, f"{served.count:,}", f"{served.count / total:.1%}", _ms(latency.p50), _ms(latency.p99)
        )
    return table


def _reasons(found: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("ended badly", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    table.add_column("why, for example", overflow="fold", ratio=1)
    for status, text, count in found.reasons[:_REASONS]:
        table.add_row(status, f"{count:,}", text.replace("[", "\\["))
    rest = sum(count for *_, count in found.reasons[_REASONS:])
    if rest:
        table.add_row("", f"{rest:,}", "other reasons")
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(first, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _spread(found: Spread) -> list[str]:
    return [_ms(s) for s in (found.p50, found.p90, found.p99, found.p999, found.max, found.mean)]


def _ms(seconds: float) -> str:
    """Write seconds as milliseconds, with three figures."""
    if seconds != seconds:
        return "–"
    ms = seconds * 1e3
    return f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.2f} GB"
