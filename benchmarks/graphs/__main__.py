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
    report.finish()


if __name__ == "__main__":
    main()
