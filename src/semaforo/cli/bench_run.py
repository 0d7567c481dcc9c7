"""What ``semaforo bench`` does: asks what the target takes, asks it once, then loads it and tells the figures."""

from __future__ import annotations

import ipaddress
import math
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from semaforo.api.contract import contract_of
from semaforo.api.inputs import tensors_of
from semaforo.cli.bench_report import Bar, Report, show, write_json
from semaforo.cli.needs import needs_matplotlib
from semaforo.cli.remote import server
from semaforo.entities import TaskType, TensorSpec
from semaforo.entities.units import parse_duration
from semaforo.errors import InvalidRequest
from semaforo.traffic.arrivals import Arrival, poisson, read_trace, uniform
from semaforo.traffic.inputs import chat_bodies, encoded, parse_shapes, random_bodies, read_objects
from semaforo.traffic.load import Encoded, Kind, Load, Server, server_at
from semaforo.traffic.process import generate
from semaforo.traffic.summary import summarise
from semaforo.wire.v2_client import contract_headers, parse_metadata, reply_error

_RATE = 100.0
_MOST_KINDS = 10_000


class Asked(msgspec.Struct, frozen=True):
    """The options as they were given."""

    url: str
    task: str
    model: str
    chat: bool
    rate: str | None
    arrivals: str
    speed: float
    concurrency: int | None
    duration: str
    max_requests: int
    data: Path | None
    rows: int
    shapes: tuple[str, ...]
    binary: bool
    stream: bool
    prompt: str
    max_tokens: int
    deadline: str | None
    priority: str
    connections: int
    processes: int
    wait: str
    seed: int
    key: str
    allow_remote: bool

    @property
    def target(self) -> str:
        """What is asked for."""
        return self.task or self.model


def run(asked: Asked, json: Path | None, plot: Path | None) -> None:
    """Measure, and print or keep what was found.

    Raises:
        SemaforoError: An option is wrong, or the server cannot be asked.
    """
    if bool(asked.task) == bool(asked.model):
        raise InvalidRequest("give --task or --model, one of them: `semaforo top` shows what a server has")
    where = server_at(asked.url)
    check_consent(where, asked.allow_remote)
    load = plan(asked, where)
    to_stdout = json is not None and str(json) == "-"
    for path in (json, plot):
        if path is not None and not to_stdout and not path.parent.is_dir():
            raise InvalidRequest(f"{path}: there is no folder {path.parent}")
    if plot is not None:
        check_plot(plot)
    _probe(asked, load)
    bar = None if to_stdout or not sys.stderr.isatty() else Bar(load)
    try:
        outcome = generate(load, asked.processes, bar)
    finally:
        if bar is not None:
            bar.close()
    summary = summarise(
        outcome, tuple(kind.deadline_s for kind in load.kinds), open_loop=load.moments is not None
    )
    report = Report(
        _title(asked, load), load.moments is not None, load.seconds, _deadline(asked, load), summary
    )
    if json is not None:
        write_json(report, msgspec.to_builtins(msgspec.structs.replace(asked, key="", data=None)), json)
    if plot is not None:
        from semaforo.cli.bench_plot import draw

        draw(report, outcome, plot)
    if not to_stdout:
        show(report)


def check_consent(where: Server, allowed: bool) -> None:
    """Refuse to load another machine without being told that it may be loaded.

    Raises:
        InvalidRequest: The server is not on this machine, or its name is not known.
    """
    if allowed:
        return
    try:
        found = {info[4][0] for info in socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise InvalidRequest(f"'{where.host}' is no known host: {error.strerror or error}") from None
    if not all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found):
        raise InvalidRequest(
            f"{where.host} is another machine, and a load can bring it down: "
            "add --allow-remote if its operator agrees"
        )


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before anything is measured.

    Raises:
        InvalidRequest: matplotlib is not installed, or does not write such files.
    """
    needs_matplotlib()
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InvalidRequest(f"--plot {path}: give a name that ends with .png, .svg or .pdf")


def parse_per_second(text: str) -> float:
    """Return requests per second for ``200/s``, ``200`` or ``600/min``.

    Raises:
        InvalidRequest: It is not written so.
    """
    number, _, unit = text.strip().partition("/")
    try:
        rate = float(number) / {"": 1.0, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}[unit.strip()]
    except (ValueError, KeyError):
        rate = math.nan
    if not 0 < rate < 1e7:
        raise InvalidRequest(f"--rate '{text}' takes requests per second, more than 0, for example 200/s")
    return rate


def plan(asked: Asked, where: Server) -> Load:
    """Return the load to run; asks the server what its model takes where that is needed.

    Raises:
        SemaforoError: An option is wrong, or the server says no.
    """
    seconds, wait_s = parse_duration(asked.duration), parse_duration(asked.wait)
    if not 0 < seconds <= 86_400:
        raise InvalidRequest(f"--duration '{asked.duration}' takes more than 0 and at most a day")
    if asked.stream and asked.binary:
        raise InvalidRequest("--binary is for tensors, --stream for chats: give one of them")
    traced = asked.arrivals not in ("poisson", "uniform")
    if asked.concurrency is not None:
        if asked.rate is not None or traced:
            raise InvalidRequest("--concurrency is a closed loop: leave --rate and --arrivals out")
        kinds = _kinds(asked, [Arrival(0.0)])
        return Load(
            where, kinds, seconds, connections=asked.concurrency, most=asked.max_requests, wait_s=wait_s
        )
    if traced:
        if asked.rate is not None:
            raise InvalidRequest("a trace says when requests are sent: leave --rate out, or use --speed")
        path = Path(asked.arrivals)
        if not path.is_file():
            raise InvalidRequest(f"--arrivals '{path}' is neither poisson nor uniform nor a file")
        trace = [arrival for arrival in read_trace(path, asked.speed) if arrival.at < seconds]
        seconds = min(seconds, trace[-1].at + 1e-3)
    else:
        rate = _RATE if asked.rate is None else parse_per_second(asked.rate)
        if rate * seconds <= asked.max_requests * 1.1 + 100:
            moments = (
                uniform(rate, seconds) if asked.arrivals == "uniform" else poisson(rate, seconds, asked.seed)
            )
            trace = [Arrival(at) for at in moments.tolist()]
        if rate * seconds > asked.max_requests:
            raise InvalidRequest(
                f"{rate:g}/s for {seconds:g} s is more than --max-requests {asked.max_requests:,}: "
                "raise it, or lower one of the others"
            )
    trace = trace[: asked.max_requests]
    if not trace:
        raise InvalidRequest("no request would be sent in this time: raise --rate or --duration")
    styles = list(dict.fromkeys(msgspec.structs.replace(arrival, at=0.0) for arrival in trace))
    if len(styles) > _MOST_KINDS:
        raise InvalidRequest(
            f"the trace mixes priorities, deadlines and tokens in {len(styles):,} ways; {_MOST_KINDS:,} may be"
        )
    number = {style: k for k, style in enumerate(styles)}
    which = tuple(number[msgspec.structs.replace(a, at=0.0)] for a in trace) if len(styles) > 1 else ()
    moments = np.array([arrival.at for arrival in trace])
    return Load(where, _kinds(asked, styles), seconds, moments, which, asked.connections, wait_s=wait_s)


def _kinds(asked: Asked, styles: Sequence[Arrival]) -> tuple[Kind, ...]:
    bodies = _chats(asked, 0) if asked.chat else _tensors(asked)
    found = []
    for style in styles:
        deadline_s = parse_duration(asked.deadline) if asked.deadline is not None else None
        contract = contract_of(asked.deadline, 0.0, None, style.priority or asked.priority, "public", "")
        if style.deadline_s is not None:
            deadline_s = style.deadline_s
            contract = msgspec.structs.replace(contract, deadline_s=deadline_s)
        headers = {"content-type": "application/json", **contract_headers(contract)}
        if asked.key:
            headers["authorization"] = f"Bearer {asked.key}"
        mine = _chats(asked, style.tokens) if asked.chat and style.tokens else bodies
        if asked.binary:
            headers["content-type"] = "application/octet-stream"
        name = contract.priority.name.lower()
        path = _chat_path(asked) if asked.chat else f"{_model_path(asked)}/infer"
        chat = ("stream" if asked.stream else "whole") if asked.chat else ""
        found.append(Kind(name, path, headers, tuple(mine), chat, deadline_s))
    return tuple(found)


def _chat_path(asked: Asked) -> str:
    return "/chat/completions" if server_at(asked.url).path.endswith("/v1") else "/v1/chat/completions"


def _model_path(asked: Asked) -> str:
    return f"/v2/models/{quote(asked.target, safe='')}"


def _chats(asked: Asked, tokens: int) -> list[Encoded]:
    prompts: list[Any] = [asked.prompt] if asked.data is None else read_objects(asked.data)
    return chat_bodies(asked.target, prompts, stream=asked.stream, tokens=tokens or asked.max_tokens)


def _tensors(asked: Asked) -> list[Encoded]:
    objects = [] if asked.data is None else read_objects(asked.data)
    if objects and all(
        isinstance(found, dict) and isinstance(found.get("inputs"), list) for found in objects
    ):
        if asked.binary:
            raise InvalidRequest("--data holds V2 bodies, which are sent as they are: leave --binary out")
        return [(msgspec.json.encode(found), None) for found in objects]
    with server(asked.url, asked.key) as client:
        path = _model_path(asked)
        response = client.get(path)
    if not response.is_success:
        raise reply_error(response.status_code, response.headers, response.content, asked.url)
    metadata = parse_metadata(response.content)
    if not objects:
        return random_bodies(
            metadata.inputs,
            rows=asked.rows,
            shapes=parse_shapes(asked.shapes),
            binary=asked.binary,
            seed=asked.seed,
        )
    return [_named(asked, metadata.inputs, values) for values in objects]


def _named(asked: Asked, inputs: Sequence[TensorSpec], values: Any) -> Encoded:
    if not isinstance(values, dict):
        raise InvalidRequest('--data takes inputs by name, as {"image": [0, 1, 2]}, whole or one a line')
    rows = tuple(
        msgspec.structs.replace(spec, shape=spec.shape[1:]) if spec.shape else spec for spec in inputs
    )
    tensors, _, _ = tensors_of(TaskType(asked.target, inputs=rows), values)
    return encoded(tensors.arrays, {spec.name: spec.dtype for spec in inputs}, asked.binary)


def _probe(asked: Asked, load: Load) -> None:
    """Ask once: what is wrong with every request is better said once than counted."""
    kind = load.kinds[0]
    with server(asked.url, asked.key) as client:
        body, json_length = kind.bodies[0]
        response = client.post(kind.path, content=body, headers=kind.headers_of(json_length))
    if 400 <= response.status_code < 500 and response.status_code != 429:
        found = reply_error(response.status_code, response.headers, response.content, asked.url)
        raise type(found)(f"the first request was answered by {response.status_code}: {found}")


def _deadline(asked: Asked, load: Load) -> str:
    if asked.deadline is not None:
        return f"within {asked.deadline}"
    return "within their deadlines" if any(kind.deadline_s is not None for kind in load.kinds) else ""


def _title(asked: Asked, load: Load) -> str:
    if load.moments is None:
        loop = f"closed loop of {load.connections}"
    elif asked.arrivals in ("poisson", "uniform"):
        loop = f"open loop, {asked.arrivals} arrivals at {asked.rate or f'{_RATE:g}/s'}"
    else:
        loop = f"open loop, trace {Path(asked.arrivals).name}"
    form = (
        ("chat, streamed" if asked.stream else "chat") if asked.chat else "binary" if asked.binary else "JSON"
    )
    return f"{asked.target} at {asked.url} · {loop} · {form}"
