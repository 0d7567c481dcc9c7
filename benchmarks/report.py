"""What every benchmark shares: its arguments, intervals, its table, and the JSON that others read.

Rules this module keeps:

1. A figure is measured several times, and shown with a 95 % interval, never alone.
2. A figure without an aim is information; one with an aim says whether it was met, by its value.
3. Only a full run is kept under ``docs/benchmarks``; a quick one is a smoke test.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "benchmarks"


class Figure(msgspec.Struct, frozen=True):
    """One measured number.

    Attributes:
        value: The number; `low` and `high` bound its 95 % interval.
        unit: For example ``µs``; "" for a share or a count.
        aim: What it should be at most, or at least (`better` says which); None = information only.
        better: Whether less or more is better.
    """

    value: float
    low: float
    high: float
    unit: str = ""
    aim: float | None = None
    better: Literal["less", "more"] = "less"

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.better == "less" else self.value >= self.aim


class Options(msgspec.Struct, frozen=True):
    """How a benchmark was asked to run."""

    quick: bool
    json: Path | None
    keep: bool


def arguments(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all benchmarks take."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds: a smoke test, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--keep", action="store_true", help="write figures and plots to docs/benchmarks")
    return parser


def options(name: str, doc: str | None) -> Options:
    """Read the arguments that all benchmarks take."""
    parser = arguments(name, doc)
    return chosen(parser, parser.parse_args())


def chosen(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    """Return what was asked for with the arguments that all benchmarks take."""
    if given.keep and given.quick:
        parser.error("--keep needs a full run: leave out --quick")
    return Options(given.quick, given.json, given.keep)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0…1) of the values lie, interpolated; NaN without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.median,
    resamples: int = 1000,
) -> tuple[float, float, float]:
    """Return a statistic and the bounds of its 95 % percentile-bootstrap interval (Efron, 1979)."""
    drawn = random.Random(0)
    found = [statistic(drawn.choices(values, k=len(values))) for _ in range(resamples)]
    return statistic(values), percentile(found, 0.025), percentile(found, 0.975)


def share_interval(hits: int, total: int) -> tuple[float, float, float]:
    """Return a share and its 95 % Wilson score interval (Wilson, 1927)."""
    if not total:
        return float("nan"), float("nan"), float("nan")
    z = 1.96
    p, spread = hits / total, 1 + z * z / total
    middle = (p + z * z / (2 * total)) / spread
    half = z / spread * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    return p, max(0.0, middle - half), min(1.0, middle + half)


class Report:
    """Figures and remarks of one run; `finish` prints and writes them.

    Attributes:
        sections: Markdown that ends the kept page.
    """

    def __init__(self, name: str, title: str, asked: Options) -> None:
        self.name = name
        self.figures: dict[str, Figure] = {}
        self.notes: list[str] = []
        self.tables: list[Table] = []
        self.sections: list[str] = []
        self.console = Console()
        self._title = title
        self._asked = asked
        self._others = OtherWork()

    def add(
        self,
        key: str,
        measured: tuple[float, float, float],
        unit: str = "",
        aim: float | None = None,
        better: Literal["less", "more"] = "less",
    ) -> None:
        """Add a figure given as (value, low, high)."""
        self.figures[key] = Figure(*measured, unit=unit, aim=aim, better=better)

    def count(self, key: str, value: int, aim: int | None = None) -> None:
        """Add a figure that is exact."""
        self.figures[key] = Figure(value, value, value, aim=aim)

    def note(self, text: str) -> None:
        """Add a remark that a reader needs to judge the figures."""
        self.notes.append(text)

    def progress(self, text: str) -> None:
        """Say what is being measured now."""
        self.console.print(f"[dim]{text}[/dim]", highlight=False)

    @property
    def keeping(self) -> bool:
        """Whether plots are to be kept."""
        return self._asked.keep

    def plot_path(self, what: str) -> Path:
        """Return where a plot is kept."""
        KEPT.mkdir(parents=True, exist_ok=True)
        return KEPT / f"{self.name}-{what}.svg"

    def finish(self) -> None:
        """Print the table and write the JSON files that were asked for."""
        self.notes.append(f"{machine()}; {self._others.text()}")
        table = Table(title=self._title + (" (quick: a smoke test)" if self._asked.quick else ""))
        for column in ("figure", "value", "95 % interval", "unit", "aim", ""):
            table.add_column(column, justify="left" if column in ("figure", "unit") else "right")
        for key, figure in self.figures.items():
            sign = "≤" if figure.better == "less" else "≥"
            aim = "" if figure.aim is None else f"{sign} {_number(figure.aim)}"
            verdict = {None: "", True: "[green]met[/green]", False: "[red]missed[/red]"}[figure.met]
            exact = figure.low == figure.high == figure.value
            interval = "" if exact else f"{_number(figure.low)} … {_number(figure.high)}"
            table.add_row(key, _number(figure.value), interval, figure.unit, aim, verdict)
        for extra in self.tables:
            self.console.print(extra)
        self.console.print(table)
        for text in self.notes:
            self.console.print(f"· {text}", highlight=False)
        if self._asked.json is not None:
            self._asked.json.parent.mkdir(parents=True, exist_ok=True)
            self._asked.json.write_bytes(self._encoded({k: _plain(f) for k, f in self.figures.items()}))
        if self._asked.keep:
            KEPT.mkdir(parents=True, exist_ok=True)
            whole = {"figures": {k: _plain(f) for k, f in self.figures.items()}, "notes": self.notes}
            (KEPT / f"{self.name}.json").write_bytes(self._encoded(whole))
            self._keep_page()

    def _keep_page(self) -> None:
        """Write the tables as a page that documentation can show."""
        page = Console(record=True, width=120, file=io.StringIO())
        for extra in self.tables:
            page.print(extra)
        plain = ["| figure | value | 95 % interval | unit | aim |", "| --- | ---: | ---: | --- | ---: |"]
        for key, f in self.figures.items():
            sign = "≤" if f.better == "less" else "≥"
            aim = "" if f.aim is None else f"{sign} {_number(f.aim)}"
            exact = f.low == f.high == f.value
            interval = "" if exact else f"{_number(f.low)} … {_number(f.high)}"
            plain.append(f"| `{key}` | {_number(f.value)} | {interval} | {f.unit} | {aim} |")
        lines = [f"# {self._title}", "", f"`python -m benchmarks.{self.name} --keep`", "", *plain, ""]
        if self.tables:
            lines += ["```text", page.export_text().rstrip(), "```", ""]
        lines += [f"- {text}" for text in self.notes]
        for plot in sorted(KEPT.glob(f"{self.name}-*.svg")):
            lines += ["", f"![{plot.stem}]({plot.name})"]
        for section in self.sections:
            lines += ["", section]
        (KEPT / f"{self.name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @staticmethod
    def _encoded(value: object) -> bytes:
        return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _plain(figure: Figure) -> dict[str, object]:
    return {
        "value": figure.value, "low": figure.low, "high": figure.high, "unit": figure.unit, "aim": figure.aim,
    }  # fmt: skip


def _number(value: float) -> str:
    if value != value:
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def table(title: str, *columns: str) -> Table:
    """Return a table whose first column is words and whose others are numbers."""
    made = Table(title=title)
    for at, column in enumerate(columns):
        made.add_column(column, justify="left" if at == 0 else "right")
    return made


def machine() -> str:
    """Describe the machine in one line."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{psutil.cpu_count()} × {model}, Python {platform.python_version()}"


class OtherWork:
    """How much of the machine was used by processes that are not this benchmark's, since it was made."""

    def __init__(self) -> None:
        self._start = psutil.cpu_times()
        self._mine = _own_cpu_s()

    def text(self) -> str:
        """Return the share in words."""
        now = psutil.cpu_times()

        def spent(*fields: str) -> float:
            return sum(getattr(now, f, 0.0) - getattr(self._start, f, 0.0) for f in fields)

        busy = spent("user", "system", "nice", "irq", "softirq", "steal")
        total = busy + spent("idle", "iowait")
        mine = _own_cpu_s() - self._mine
        if total <= 0:
            return "load by others unknown"
        return f"other processes used {max(0.0, busy - mine) / total:.0%} of the machine meanwhile"


def _own_cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
