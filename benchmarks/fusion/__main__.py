"""What fusion and cascades are worth on real data, through running fleets.

Members are trained here; fusions are fitted, thresholds set and the best fusion chosen on rows that no member has
seen, by ``semaforo graph fit``; what is reported comes from other rows again, asked of the fleet as users do. The
best single member is chosen by the rows that are reported on, which favours it. The interval of a gain resamples
rows and takes both sides of the same rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.fusion.data import Array, Data, digits, intents
from benchmarks.fusion.fleets import FITTED, LARGE, Served, ask
from benchmarks.fusion.members import of_digits, of_texts
from benchmarks.report import Report, options, table
from semaforo import Fleet

GIVE_UP = 0.001
_RESAMPLES = 2000


class Outcome(msgspec.Struct):
    """What was said of the rows of all splits.

    Attributes:
        truth: Right classes.
        said: Member, fusion or ``cascade`` → classes that it said.
        chosen_by: Fusion → quality on the rows that were fitted on, cross-validated.
        calls: Rows of which the cascade asked the large model.
    """

    truth: Array
    said: dict[str, Array]
    chosen_by: dict[str, float]
    calls: int


def main() -> None:
    """Run the benchmark and report."""
    asked = options("fusion", __doc__)
    report = Report("fusion", "Fusion and cascades: what several models are worth", asked)
    for data in (digits(asked.quick), intents(asked.quick)):
        members = ["sums", "pixels", "edges", "coarse", "forest"]
        small = "pixels"
        if data.name != "digits":
            members, small = ["words", "letters", "network", "topics", LARGE], "words"
        found = measured(report, data, members, small, asked.quick)
        show(report, data, found, members)
    report.finish()


def measured(report: Report, data: Data, fused: list[str], small: str, quick: bool) -> Outcome:
    """Train, fit and ask the fleet of each split of some data."""
    parts: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, split in enumerate(data.splits):
            report.progress(f"{data.name}: training, split {number + 1} of {len(data.splits)}")
            if data.name == "digits":
                members, kind = of_digits(*split.train), "fp32[64]"
            else:
                members, kind = of_texts(*split.train, data.classes, quick), "bytes"
            served = Served(Path(folder) / str(number), members, data.classes, kind, fused, small)
            report.progress(f"{data.name}: fitting")
            chosen_by = served.fit(*split.fit, give_up=GIVE_UP)
            report.progress(f"{data.name}: asking")
            rows, truth = split.test
            with Fleet.open(served.file) as fleet:
                plain = ask(fleet, "every-way", split.fit[0])
                said = ask(fleet, "every-way", rows)
                said[LARGE] = ask(fleet, LARGE, rows)["label"]
                served.calls()
                said["cascade"] = ask(fleet, "cascade", rows)["label"]
                calls = served.calls()
            for name, labels in plain.items():
                if name not in fused and name not in chosen_by:
                    chosen_by[name] = float((labels == split.fit[1]).mean())
            parts.append(Outcome(truth, said, chosen_by, calls))
    return Outcome(
        np.concatenate([part.truth for part in parts]),
        {name: np.concatenate([part.said[name] for part in parts]) for name in parts[0].said},
        {name: float(np.mean([part.chosen_by[name] for part in parts])) for name in parts[0].chosen_by},
        sum(part.calls for part in parts),
    )


def show(report: Report, data: Data, found: Outcome, members: list[str]) -> None:
    """Add the figures of one set of data."""
    right = {name: (labels == found.truth).astype(float) for name, labels in found.said.items()}
    best = max(members, key=lambda name: right[name].mean())
    fusion = max(found.chosen_by, key=found.chosen_by.__getitem__)
    end = "" if data.name == "clinc150" else f"_{data.name}"
    report.add(f"best_member{end}", resampled(right[best]))
    report.add(f"best_fusion{end}", resampled(right[fusion]))
    gain = resampled(100 * (right[fusion] - right[best]))
    report.add(f"fusion_gain_points{end}", gain, "points", aim=0.0, better="more")
    gap = resampled(100 * (right[LARGE] - right["cascade"]))
    report.add(f"cascade_gap_points{end}", gap, "points", aim=0.2)
    calls = found.calls / len(found.truth)
    report.add(f"cascade_large_calls{end}", (calls, calls, calls), "", aim=0.25)
    shown = table(f"{data.name}: accuracy", "who", "held out", "95 %", "where fitted")
    for name in sorted(right, key=lambda name: -right[name].mean()):
        value, low, high = resampled(right[name])
        kind = "member" if name in members else "fusion" if name in found.chosen_by else "beside"
        fitted = f"{found.chosen_by[name]:.4f}" if name in found.chosen_by else ""
        shown.add_row(f"{name} ({kind})", f"{value:.4f}", f"{low:.3f} … {high:.3f}", fitted)
    report.tables.append(shown)
    report.note(
        f"{data.told}; best member {best}, best fusion {fusion} (chosen where fitted, {', '.join(FITTED)} and "
        f"weighted_vote cross-validated there); cascade set to lose at most {GIVE_UP:.1%} there, at 25 % of "
        "calls at most"
    )


def resampled(values: Array) -> tuple[float, float, float]:
    """Return the mean of some rows' figures and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
