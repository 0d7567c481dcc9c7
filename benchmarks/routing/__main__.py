"""What learned routing is worth on public tables of scores, out of fold, beside the simplest rules.

``--table FILE`` measures a table of one's own (`semaforo router train --help` says in which form) by the same code.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import Report, arguments, chosen
from benchmarks.routing import auto, bandits, cascades, data, decisions, modalities, own, predict

MEASURES = (
    predict.measure_mmlu,
    predict.measure_nine,
    cascades.measure_gsm8k,
    bandits.measure,
    decisions.measure,
    auto.measure,
    modalities.measure,
)


def main() -> None:
    """Run the benchmark and report."""
    parser = arguments("routing", __doc__)
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="measure this table, Parquet or CSV, instead"
    )
    given = parser.parse_args()
    asked = chosen(parser, given)
    report = Report("routing", "Learned routing: the right model for each request", asked)
    if given.table is not None:
        own.measure(report, given.table, asked.quick)
    else:
        for measure in MEASURES:
            measure(report, asked.quick)
        if data.folder() is not None:
            report.notes.append(data.LABELS)
    report.finish()


if __name__ == "__main__":
    main()
