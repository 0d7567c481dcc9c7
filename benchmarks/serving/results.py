"""Figures, tables, plots and words from what the rounds found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from rich.table import Table

from benchmarks.report import ROOT, Report, bootstrap, table
from benchmarks.serving import peers as known
from benchmarks.serving.environments import requirements
from benchmarks.serving.peers import PEERS, Peer
from benchmarks.serving.rounds import Loaded, Round, Sample

STANDING = (known.BARE, known.INLINE, known.PROCESS, known.ECHO)
TITLES = {peer.name: peer.title for peer in (*STANDING, *PEERS)}
_OURS, _PROCESS, _BARE, _ECHO = known.INLINE.name, known.PROCESS.name, known.BARE.name, known.ECHO.name
_PRODUCTS = {peer.name for peer in PEERS}


def figures(report: Report, rounds: list[Round]) -> None:
    """Add the figures; those that need a peer are left out where none was measured."""
    for load in ("c32", "c128"):
        faster = _against(rounds, lambda r, load=load: _rates(r.light, load), _OURS, max)
        if faster:
            report.add(f"throughput_vs_best_peer_{load}", bootstrap(faster), "×", aim=3, better="more")
        sooner = _against(rounds, lambda r, load=load: _p99s(r.light, load), _OURS, min)
        if sooner:
            report.add(f"p99_vs_best_peer_{load}", bootstrap(sooner), "×", aim=1)
    for key, name, aim in (("cpu_vs_bare", _OURS, 1.6), ("cpu_process_vs_bare", _PROCESS, 2.2)):
        ratios = [r.light[name].loads["c32"].cpu / r.light[_BARE].loads["c32"].cpu for r in rounds]
        report.add(key, bootstrap(ratios), "×", aim=aim)
    spoken = [r for r in rounds if _ECHO in r.light]
    if spoken:
        share = [_rates(r.light, "grpc")[_OURS] / _rates(r.light, "grpc")[_ECHO] for r in spoken]
        report.add("grpc_vs_echo", bootstrap(share), "×", aim=0.6, better="more")
    heavy = [r for r in rounds if r.raw is not None]
    if heavy:
        share = [_rates(r.heavy, "heavy")[_PROCESS] / r.raw[0] for r in heavy if r.raw]
        report.add("conv_vs_onnxruntime", bootstrap(share), "×", aim=0.95, better="more")
        faster = _against(heavy, lambda r: _rates(r.heavy, "heavy"), _PROCESS, max)
        if faster:
            report.add("conv_vs_best_peer", bootstrap(faster), "×", aim=1, better="more")
        cheaper = [
            r.heavy[_PROCESS].loads["heavy"].cpu / r.heavy[_PROCESS].loads["heavy-json"].cpu for r in heavy
        ]
        report.add("binary_vs_json", bootstrap(cheaper), "×", aim=1)
    _kept(report, rounds)
    report.count("errors", sum(_errors(r) for r in rounds), aim=0)


def _kept(report: Report, rounds: list[Round]) -> None:
    names = [name for name in rounds[0].kept if name != "streams"]
    most = max(names, key=int, default=None)
    for name in rounds[0].kept:
        found = [r.kept[name] for r in rounds if name in r.kept]
        of = "stream" if name == "streams" else "connection"
        key = f"kb_per_{of}" + ("" if name in (most, "streams") else f"_{name}")
        report.add(key, bootstrap([k.kb for k in found]), "kB")
        tag = "streams" if name == "streams" else f"{name}_connections"
        report.add(f"p99_ms_{tag}", bootstrap([k.p99 for k in found]), "ms")


def _rates(found: dict[str, Sample], load: str) -> dict[str, float]:
    return {name: s.loads[load].flow.rate for name, s in found.items() if load in s.loads}


def _p99s(found: dict[str, Sample], load: str) -> dict[str, float]:
    return {name: s.loads[load].flow.p99 for name, s in found.items() if load in s.loads}


def _against(
    rounds: list[Round],
    read: Callable[[Round], dict[str, float]],
    ours: str,
    best: Callable[[Iterable[float]], float],
) -> list[float]:
    ratios = []
    for one in rounds:
        found = read(one)
        peers = [value for name, value in found.items() if name in _PRODUCTS]
        if peers:
            ratios.append(found[ours] / best(peers))
    return ratios


def _errors(one: Round) -> int:
    loads = [
        load.flow.errors for s in (*one.light.values(), *one.heavy.values()) for load in s.loads.values()
    ]
    return sum(loads) + sum(kept.errors for kept in one.kept.values())


def tables(report: Report, rounds: list[Round]) -> None:
    """Add a table for each way of asking."""
    light = [r.light for r in rounds]
    shown = table(
        "JSON, a perceptron of a few µs: medians over the rounds",
        "server", "req/s c32", "c128", "p50 ms c32", "p99 ms c32", "c128", "CPU µs",
    )  # fmt: skip
    for name in _order(light, "c32"):
        mine = [samples[name] for samples in light if name in samples]
        shown.add_row(
            TITLES[name],
            f"{_median(mine, 'c32', _rate):,.0f}",
            f"{_median(mine, 'c128', _rate):,.0f}",
            f"{_median(mine, 'c32', lambda x: x.flow.p50):.2f}",
            f"{_median(mine, 'c32', lambda x: x.flow.p99):.2f}",
            f"{_median(mine, 'c128', lambda x: x.flow.p99):.2f}",
            f"{_median(mine, 'c32', _cpu):,.0f}",
        )
    report.tables.append(shown)
    weights = table(
        "Memory of all processes after the load, and start: medians", "server", "RSS MB", "start s"
    )
    for name in _order(light, "c32"):
        mine = [samples[name] for samples in light if name in samples]
        weights.add_row(
            TITLES[name],
            f"{statistics.median(s.rss_mb for s in mine):,.0f}",
            f"{statistics.median(s.start_s for s in mine):.1f}",
        )
    report.tables.append(weights)
    if any(_order(light, "grpc")):
        report.tables.append(_plain("gRPC, the same model, 32 calls at once: medians", light, "grpc", "call"))
    heavy = [r.heavy for r in rounds if r.heavy]
    if heavy:
        made = _plain("A convolution over tensors as bytes, 32 connections: medians", heavy, "heavy", "row")
        raw = [r.raw for r in rounds if r.raw]
        made.add_row(
            f"onnxruntime alone, batch {statistics.mode(batch for _, batch in raw)}",
            f"{statistics.median(rate for rate, _ in raw):,.0f}", "", "", f"{_raw_cpu(raw):,.0f}",
        )  # fmt: skip
        report.tables.append(made)


def _raw_cpu(raw: list[tuple[float, int]]) -> float:
    return 1e6 / statistics.median(rate for rate, _ in raw)


def _plain(title: str, found: list[dict[str, Sample]], load: str, unit: str) -> Table:
    shown = table(title, "server", f"{unit}s/s", "p50 ms", "p99 ms", f"CPU µs/{unit}")
    for name in _order(found, load):
        mine = [samples[name] for samples in found if name in samples]
        shown.add_row(
            TITLES[name],
            f"{_median(mine, load, _rate):,.0f}",
            f"{_median(mine, load, lambda x: x.flow.p50):.2f}",
            f"{_median(mine, load, lambda x: x.flow.p99):.2f}",
            f"{_median(mine, load, _cpu):,.0f}",
        )
    return shown


def _rate(load: Loaded) -> float:
    return load.flow.rate


def _cpu(load: Loaded) -> float:
    return load.cpu


def _median(mine: list[Sample], load: str, read: Callable[[Loaded], float]) -> float:
    return statistics.median(read(s.loads[load]) for s in mine)


def _order(found: list[dict[str, Sample]], load: str) -> list[str]:
    """Return the servers that were asked so, the fastest first."""
    names = {name for samples in found for name, s in samples.items() if load in s.loads}
    rates = {n: _median([s[n] for s in found if n in s], load, _rate) for n in names}
    return sorted(names, key=lambda n: -rates[n])


def plots(report: Report, rounds: list[Round]) -> None:
    """Keep bars of throughput, CPU per request and p99, on logarithmic scales."""
    light = [r.light for r in rounds]
    names = _order(light, "c32")[::-1]
    shown: tuple[tuple[str, str, Callable[[Loaded], float], tuple[str, ...]], ...] = (
        ("throughput", "requests/s", _rate, ("c32", "c128")),
        ("cpu", "CPU µs per request", _cpu, ("c32",)),
        ("p99", "p99 in ms", lambda x: x.flow.p99, ("c32", "c128")),
    )
    for what, label, read, loads in shown:
        _bars(report, what, label, names, light, read, loads)


def _bars(
    report: Report,
    what: str,
    label: str,
    names: list[str],
    found: list[dict[str, Sample]],
    read: Callable[[Loaded], float],
    loads: tuple[str, ...],
) -> None:
    from benchmarks.plots import figure, save

    plot, axes = figure(label, "")
    wide = 0.8 / len(loads)
    for k, load in enumerate(loads):
        values = [_median([s[n] for s in found if n in s], load, read) for n in names]
        places = [at + (len(loads) - 1 - k) * wide for at in range(len(names))]
        bars: Any = axes.barh(places, values, wide * 0.92, label=f"{load[1:]} connections")
        axes.bar_label(bars, [f"{v:,.0f}" if v >= 10 else f"{v:.1f}" for v in values], padding=3, fontsize=8)
    axes.set_yticks([at + 0.4 - wide / 2 for at in range(len(names))], [TITLES[n] for n in names])
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.grid(visible=False, axis="y")
    if len(loads) > 1:
        axes.legend(loc="best")
    save(plot, report.plot_path(what))


def configured(measured: Iterable[Peer]) -> str:
    """Return how each server is run, as Markdown."""
    lines = [
        "## How to run it",
        "",
        "```sh",
        "python -m benchmarks.serving --keep                 # every peer, 5 rounds, about 20 minutes",
        "python -m benchmarks.serving --peers mosec,fastapi  # some of them; --peers none for none",
        "python -m benchmarks.serving --quick                # a smoke test without peers",
        "```",
        "",
        "The first run makes an environment for each peer under `.venvs/peers` (about 3.5 GB in all) from the",
        "pins in `benchmarks/peers/requirements-*.txt` and keeps it; a peer that cannot be installed is named and",
        "left out. `apt-get install wrk nghttp2-client` gives the generators it prefers; without them it uses its",
        "own, which take more of the machine. Nothing else should run meanwhile.",
        "",
        "## How each server is run",
        "",
        "One server runs at a time, in rounds whose order turns, each started afresh in every round. All bind",
        "127.0.0.1, without access logs or telemetry, with one replica of the model and one onnxruntime thread,",
        "and get the same bytes. An answer is compared with onnxruntime's before and after each load, and every",
        "status is counted. CPU and memory are sums over all processes of a server; pages that processes share",
        "count for each. *Best peer* is the best of all peers, in each round and for each figure; the bare app is",
        "not among them. Semaforo's figures beside it are those of `inline`; for the convolution, of `process`.",
        "",
    ]
    for peer in measured:
        pins = f" Pins: `{requirements(peer).relative_to(ROOT)}`." if peer.own else ""
        lines.append(f"- **{peer.title}.** {peer.how}{pins}")
    return "\n".join(lines)
