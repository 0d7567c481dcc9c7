"""The same chain of five models behind HTTP: Semaforo beside Triton, Ray Serve and BentoML, one request at a time.

Everybody gets the same V2 JSON over one kept-alive connection; rounds are interleaved. A server's overhead is its
median latency less five times the model's own time; what HTTP and JSON cost is in it, for all of them alike.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.graphs.chain import STEPS, Chain
from benchmarks.report import Report, bootstrap, table
from benchmarks.serving.environments import NotInstalled, install, python_of
from benchmarks.serving.forms import JSON
from benchmarks.serving.load import Generator
from benchmarks.serving.peers import PEERS, Peer, Place
from benchmarks.serving.served import Failed, Served

V2_PATH = "/v2/models/chain/infer"
_KNOWN = {peer.name: peer for peer in PEERS}


def _semaforo(chain: Chain) -> Peer:
    def command(place: Place) -> list[str]:
        return [
            place.python, "-m", "semaforo", "serve", str(chain.fleet), "--http-port", str(place.port),
            "--log-level", "warning",
        ]  # fmt: skip

    how = "A graph of five steps, models inline."
    return Peer(name="semaforo", title="Semaforo", command=command, how=how, path=V2_PATH, own=False)


def _of(name: str, module: str, how: str, chain: Chain, path: str = "/infer") -> Peer:
    known = _KNOWN[name]

    def command(place: Place) -> list[str]:
        if name == "bentoml":
            return [
                str(Path(place.python).with_name("bentoml")), "serve", f"benchmarks.peers.{module}:Chain",
                "--host", "127.0.0.1", "--port", str(place.port), "--do-not-track",
            ]  # fmt: skip
        return [place.python, "-m", f"benchmarks.peers.{module}"]

    environment = {**known.environment, "MODEL": str(chain.step.resolve())}
    return msgspec.structs.replace(
        known, command=command, how=how, path=path, environment=environment, home=known.home or known.name,
        runs_model=None,
    )  # fmt: skip


def peers(chain: Chain) -> list[Peer]:
    """Return who is compared."""
    return [
        _semaforo(chain),
        _of(
            "triton", "triton_chain_app",
            "An ensemble of five models of its Python back end, each of which runs onnxruntime: the server and "
            "back end that pip installs with nvidia-pytriton, started on a model repository.", chain, V2_PATH,
        ),
        _of("ray", "ray_chain_app", "Five deployments of one replica each, composed by handles in a sixth.", chain),
        _of("bentoml", "bentoml_chain_app", "Five services that a sixth depends on, each with one worker.", chain),
    ]  # fmt: skip


def measure(report: Report, chain: Chain, model_us: float, quick: bool, installing: bool) -> None:
    """Add how much less Semaforo's overhead is than each peer's."""
    rounds, seconds = (1, 1.0) if quick else (5, 3.0)
    took: dict[str, list[float]] = {}
    found: list[Peer] = []
    with ExitStack() as running, tempfile.TemporaryDirectory() as scratch:
        generator = Generator(Path(scratch))
        served: dict[str, Served] = {}
        for peer in peers(chain):
            if peer.own and quick:
                continue
            try:
                python = install(peer, report.progress) if installing else python_of(peer)
                if python is None:
                    raise NotInstalled(f"{peer.title} is not installed: --install")
                report.progress(f"starting {peer.title}")
                served[peer.name] = running.enter_context(Served(peer, python, chain.case))
                took[peer.name] = []
                found.append(peer)
            except (NotInstalled, Failed) as error:
                report.note(f"{peer.title} is not in the comparison: {error}")
        asked = JSON.write(chain.case.rows)
        for number in range(rounds + 1):
            report.progress(f"round {number} of {rounds}, over HTTP")
            order = list(served)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                one = served[name]
                flow = generator.http(one.place.port, one.peer.path, asked, 1, seconds if number else 1.0)
                if flow.errors:
                    report.note(f"{one.peer.title}: {flow.errors} errors of {flow.answers}")
                # The first round warms up.
                if number:
                    took[name].append(1e3 * flow.p50 - STEPS * model_us)
    report.add("overhead_http_us", bootstrap(took["semaforo"]), "µs")
    shown = table(
        "Overhead of five steps over HTTP, medians of rounds", "server", "µs", "beside Semaforo", "how"
    )
    for peer in found:
        if not took[peer.name]:
            continue
        ratios = [theirs / ours for theirs, ours in zip(took[peer.name], took["semaforo"], strict=True)]
        value = bootstrap(took[peer.name])[0]
        shown.add_row(peer.title, f"{value:,.0f}", f"{bootstrap(ratios)[0]:.1f} ×", peer.how)
        if peer.name != "semaforo":
            report.add(f"overhead_vs_{peer.name}", bootstrap(ratios), "×", aim=3.0, better="more")
    report.tables.append(shown)
