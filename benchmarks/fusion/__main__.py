"""What fusion and cascades are worth on real data, through running fleets.

Members are trained here. Fusions are fitted and thresholds set by ``semaforo graph fit`` on rows that no member
has seen; what is reported comes from other rows again, asked of a fleet as users do. Which fusion is best is found
out beforehand, in a rehearsal with members that were trained on less, on the rows that this leaves. The best single
member is chosen by the rows that are reported on, which favours it. The interval of a gain resamples rows, and
takes both sides of the same rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.fusion.data import Array, Data, digits, intents
from benchmarks.fusion.fleets import FUSIONS, GIVE_UP, LARGE, MOST, Served, ask
from benchmarks.fusion.members import VIEWS, of_digits, of_texts
from benchmarks.report import Report, options, table
from semaforo import Fleet

_RESAMPLES = 2000


class Outcome(msgspec.Struct):
    """What was said of the rows of all splits.

    Attributes:
        truth: Right classes.
        said: Member, fusion or ``cascade`` → classes that it said.
        rehearsed: Fusion → quality in rehearsal.
        calls: Rows of which the cascade asked the large model.
    """

    truth: Array
    said: dict[str, Array]
    rehearsed: dict[str, float]
    calls: int


def main() -> None:
    """Run the benchmark and report."""
    asked = options("fusion", __doc__)
    report = Report("fusion", "Fusion and cascades: what several models are worth", asked)
    for data in (digits(asked.quick), intents(asked.quick)):
        members, small = list(VIEWS), "pixels"
        if data.name != "digits":
            members, small = ["words", "letters", "network", "topics", LARGE], "words"
        found = measured(report, data, members, small, asked.quick)
        show(report, data, found, members)
    report.finish()


def measured(report: Report, data: Data, fused: list[str], small: str, quick: bool) -> Outcome:
    """Train, fit and ask the fleet of each split of some data, after its rehearsal."""
    outcomes, rehearsals = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, split in enumerate(data.splits):
            # The quick form rehearses on what it reports: half the work, and figures that are not to be believed.
            for run in (split,) if quick else (split.rehearsal(), split):
                kind = "rehearsing" if run is not split else "measuring"
                report.progress(f"{data.name}: {kind}, split {number + 1} of {len(data.splits)}")
                if data.name == "digits":
                    members, types = of_digits(*run.train), "fp32[64]"
                else:
                    members, types = of_texts(*run.train, data.classes, quick), "bytes"
                place = Path(folder) / f"{number}-{kind}"
                served = Served(place, members, data.classes, types, fused, small)
                served.fit(*run.fit)
                (outcomes if run is split else rehearsals).append(answered(served, *run.test))
    rehearsals = rehearsals or outcomes
    truth = np.concatenate([part.truth for part in rehearsals])
    said = _joined(rehearsals)
    return Outcome(
        np.concatenate([part.truth for part in outcomes]),
        _joined(outcomes),
        {name: float((said[name] == truth).mean()) for name in said if name in FUSIONS},
        sum(part.calls for part in outcomes),
    )


def answered(served: Served, rows: Any, truth: Array) -> Outcome:
    """Ask a fleet for all rows."""
    with Fleet.open(served.file) as fleet:
        said = ask(fleet, "every-way", rows)
        said[LARGE] = ask(fleet, LARGE, rows)["label"]
        served.calls()
        said["cascade"] = ask(fleet, "cascade", rows)["label"]
    return Outcome(truth, said, {}, served.calls())


def _joined(parts: list[Outcome]) -> dict[str, Array]:
    return {name: np.concatenate([part.said[name] for part in parts]) for name in parts[0].said}


def show(report: Report, data: Data, found: Outcome, members: list[str]) -> None:
    """Add the figures of one set of data."""
    right = {name: (labels == found.truth).astype(float) for name, labels in found.said.items()}
    best = max(members, key=lambda name: right[name].mean())
    fusion = max(found.rehearsed, key=found.rehearsed.__getitem__)
    end = "" if data.name == "clinc150" else f"_{data.name}"
    report.add(f"best_member{end}", resampled(right[best]))
    report.add(f"best_fusion{end}", resampled(right[fusion]))
    gain = resampled(100 * (right[fusion] - right[best]))
    report.add(f"fusion_gain_points{end}", gain, "points", aim=0.0, better="more")
    gap = resampled(100 * (right[LARGE] - right["cascade"]))
    report.add(f"cascade_gap_points{end}", gap, "points", aim=0.2)
    calls = found.calls / len(found.truth)
    report.add(f"cascade_large_calls{end}", (calls, calls, calls), "", aim=0.25)
    shown = table(f"{data.name}: accuracy", "who", "held out", "95 %", "rehearsed")
    for name in sorted(right, key=lambda name: -right[name].mean()):
        value, low, high = resampled(right[name])
        kind = "member" if name in members else "fusion" if name in FUSIONS else "beside"
        fitted = f"{found.rehearsed[name]:.4f}" if name in found.rehearsed else ""
        shown.add_row(f"{name} ({kind})", f"{value:.4f}", f"{low:.3f} … {high:.3f}", fitted)
    report.tables.append(shown)
    if report.keeping:
        _plot(report, data, right, members)
    report.note(
        f"{data.told}; best member {best}, best fusion {fusion}, as rehearsed; the cascade may lose {GIVE_UP:.1%} "
        f"against the large model with 90 % confidence where it is fitted, at {MOST:.0%} of the calls at most"
    )


def _plot(report: Report, data: Data, right: dict[str, Array], members: list[str]) -> None:
    from benchmarks.plots import figure, save

    names = sorted(right, key=lambda name: right[name].mean())
    plot, axes = figure("accuracy", "")
    colours = ["C0" if n in members else "C2" if n in FUSIONS else "C7" for n in names]
    found = [resampled(right[name]) for name in names]
    spread = [[v - low for v, low, _ in found], [high - v for v, _, high in found]]
    axes.errorbar([v for v, _, _ in found], range(len(names)), xerr=spread, fmt="none", ecolor=colours)
    axes.scatter([v for v, _, _ in found], range(len(names)), c=colours, zorder=3)
    axes.set_yticks(range(len(names)), names)
    axes.set_title(f"{data.name}: members blue, fusions green, beside grey; 95 %")
    plot.set_figheight(0.28 * len(names) + 1.0)
    save(plot, report.plot_path(data.name))


def resampled(values: Array) -> tuple[float, float, float]:
    """Return the mean of some rows' figures and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
