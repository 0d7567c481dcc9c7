"""The same model behind Semaforo and its peers: throughput, latency, CPU, memory, start; over JSON, bytes and gRPC.

Peers run in environments of their own, made when first needed. Rounds are interleaved; ratios are taken within a
round, and a figure is their median.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from benchmarks import models
from benchmarks.report import Report, arguments, chosen
from benchmarks.serving import results
from benchmarks.serving.environments import NotInstalled, install, python_of
from benchmarks.serving.forms import case
from benchmarks.serving.peers import PEERS, Peer
from benchmarks.serving.rounds import Bench, Round, standing

_HEAVY_ROUNDS = 3
_KEPT_ROUNDS = 3


def _parser() -> argparse.ArgumentParser:
    parser = arguments("serving", __doc__)
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", metavar="a,b,…", help=f"only these, or 'none'; known: {names}")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds over JSON (default: 5)")
    return parser


def _asked_for(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Peer]:
    if given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if given.peers is None:
        return [] if given.quick else list(PEERS)
    names = [name for name in given.peers.split(",") if name and name != "none"]
    known = {peer.name: peer for peer in PEERS}
    for name in names:
        if name not in known:
            parser.error(f"--peers: '{name}' is none of {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _installed(peers: list[Peer], quick: bool, report: Report) -> list[Peer]:
    """Return the peers that can run; the others are noted. A quick run installs nothing."""
    ready = []
    for peer in peers:
        try:
            if quick and python_of(peer) is None:
                raise NotInstalled("not installed; a run without --quick installs it")
            install(peer, report.progress)
            ready.append(peer)
        except NotInstalled as error:
            report.progress(f"{peer.title} is left out: {error}")
            report.note(f"left out: {peer.title}: {error}")
    return ready


def main() -> None:
    """Measure all that was asked for."""
    parser = _parser()
    given = parser.parse_args()
    wanted = _asked_for(parser, given)
    asked = chosen(parser, given)
    report = Report("serving", "Serving beside peers", asked)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    peers = _installed(wanted, asked.quick, report)
    count, seconds, warm_s = (1, 0.4, 0.0) if asked.quick else (given.rounds, 3.0, 1.0)
    kept = {"200": 200, "streams": 50} if asked.quick else {"1000": 1000, "10000": 10_000, "streams": 1000}
    with tempfile.TemporaryDirectory(prefix="semaforo-bench-") as name:
        folder = Path(name)
        models.classifier(folder / "light.onnx")
        models.convolution(folder / "heavy.onnx")
        light = case(folder / "light.onnx", (models.FEATURES,))
        heavy = case(folder / "heavy.onnx", models.IMAGE)
        bench = Bench([*standing(), *peers], light, heavy, folder, seconds, report.progress)
        rounds = [Round() for _ in range(count)]
        for number, found in enumerate(rounds):
            report.progress(f"round {number + 1} of {count}, JSON and gRPC")
            bench.light(number, found, warm_s)
            if number < _HEAVY_ROUNDS:
                report.progress(f"round {number + 1} of {min(count, _HEAVY_ROUNDS)}, convolution")
                bench.heavy(number, found, warm_s)
            if number < _KEPT_ROUNDS:
                report.progress(f"round {number + 1} of {min(count, _KEPT_ROUNDS)}, open connections")
                bench.kept(found, kept, 1.0 if asked.quick else 5.0)
    results.figures(report, rounds)
    results.tables(report, rounds)
    for title, why in bench.left_out.items():
        report.note(f"left out after it failed: {title}: {why}")
    bodies = f"{light.rows.size} numbers in JSON; {heavy.rows.nbytes:,} bytes a row of the convolution"
    report.note(
        f"{count} interleaved rounds of {seconds:g} s a load (the convolution and open connections in at most "
        f"{_HEAVY_ROUNDS}), closed loop; {bench.generator.names}; {bodies}"
    )
    if report.keeping:
        results.plots(report, rounds)
        report.sections.append(results.configured([*standing(), *peers]))
    report.finish()


if __name__ == "__main__":
    main()
