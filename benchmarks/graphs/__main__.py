"""What graphs cost: overhead in process and beside peers, hops, cancelling, random graphs that must not hang."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.graphs import cancel, chain, deadlocks, hops, overhead, peers
from benchmarks.report import Report, arguments, chosen


def main() -> None:
    """Run the benchmark and report."""
    parser = arguments("graphs", __doc__)
    parser.add_argument(
        "--install", action="store_true", help="install the peers' environments that are missing"
    )
    given = parser.parse_args()
    asked = chosen(parser, given)
    report = Report("graphs", "Graphs: what it costs to let models work together", asked)
    with tempfile.TemporaryDirectory(prefix="semaforo-graphs-") as name:
        folder = Path(name)
        files = chain.write(folder)
        report.progress("five steps in one process")
        model_us = statistics.median(overhead.measure(report, files, asked.quick))
        peers.measure(report, files, model_us, asked.quick, given.install)
        report.progress("hops")
        hops.measure(report, folder, asked.quick)
    report.progress("clients that go away")
    cancel.measure(report, asked.quick)
    report.progress("random graphs in simulation")
    deadlocks.measure(report, asked.quick)
    if report.keeping:
        _plot(report)
    report.finish()


def _plot(report: Report) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure("bytes of the array", "µs for a hop")
    lines = {"in process": "hop_inprocess_{}_us", "between processes": "hop_{}_us",
             "shared memory and a byte": "shared_memory_{}_us"}  # fmt: skip
    for title, key in lines.items():
        found = [(4 * numbers, report.figures[key.format(size)]) for size, numbers in hops.SIZES.items()]
        spread = [[f.value - f.low for _, f in found], [f.high - f.value for _, f in found]]
        axes.errorbar(
            [x for x, _ in found], [f.value for _, f in found], yerr=spread, marker="o", label=title
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend()
    save(plot, report.plot_path("hops"))


if __name__ == "__main__":
    main()
