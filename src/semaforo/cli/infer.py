"""``semaforo infer``: one question to a server, or to a fleet file run here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import typer
from rich.console import Console

from semaforo.api import AnyFleet, Client, Fleet, FleetAnswer
from semaforo.entities import Contract, Priority, Privacy
from semaforo.entities.units import show_duration
from semaforo.errors import InvalidRequest


class Question(msgspec.Struct, frozen=True):
    """What is asked, with its contract."""

    target: str
    version: str
    data: str
    text: str
    contract: Contract
    why: bool


def run(question: Question, url: str, key: str, fleet: Path | None) -> None:
    """Ask, print the outputs as JSON (or the text as it comes), and say on stderr who answered.

    Raises:
        SemaforoError: Why there is no answer.
    """
    if bool(question.data) == bool(question.text):
        raise InvalidRequest("give --data for tensors, or --text for a chat")
    if fleet is not None:
        opened = Fleet.open(fleet, journal=False)
        with Console(stderr=True).status(f"Loading {fleet}"):
            opened.start()
        with closing(opened):
            _ask(opened, question)
    else:
        with Client(url, key=key) as client:
            _ask(client, question)


def _ask(fleet: AnyFleet, question: Question) -> None:
    contract = question.contract
    asked: dict[str, Any] = {
        "deadline": contract.deadline_s,
        "min_quality": contract.min_quality,
        "max_cost": contract.max_cost,
        "priority": Priority(contract.priority).name.lower(),
        "privacy": Privacy(contract.privacy).name.lower(),
        "tenant": contract.tenant,
    }
    answer: FleetAnswer | None
    if question.text:
        with fleet.chat(question.target, question.text, **asked) as stream:
            for piece in stream:
                typer.echo(piece, nl=False)
            typer.echo()
            answer = stream.answer
    else:
        values = _values(question.data)
        answer = fleet.infer(question.target, inputs=values, version=question.version, **asked)
        _print({name: _plain(value) for name, value in answer.items()})
    if answer is not None:
        who = f"{answer.model}/{answer.variant} on {answer.replica} in {show_duration(answer.latency_s)}"
        typer.echo(f"{who} · request {answer.request_id}", err=True)
        if question.why:
            typer.echo(answer.why, err=True)


def _print(outputs: Mapping[str, Any]) -> None:
    typer.echo(msgspec.json.encode(outputs).decode())


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _values(data: str) -> dict[str, Any]:
    try:
        if data == "-":
            text = sys.stdin.buffer.read()
        else:
            text = Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
        values = msgspec.json.decode(text)
    except OSError as error:
        raise InvalidRequest(f"--data {data}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"--data is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidRequest('--data takes inputs by name, as {"image": [0, 1, 2]}')
    return _of_v2(values["inputs"]) if isinstance(values.get("inputs"), list) else values


def _of_v2(tensors: list[Any]) -> dict[str, Any]:
    """Return the inputs of a whole V2 request by name."""
    try:
        return {t["name"]: np.array(t["data"], dtype=_kind(t)).reshape(t["shape"]) for t in tensors}
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"--data has inputs as a V2 request has them, and they are wrong: {error}"
        ) from None


def _kind(tensor: Mapping[str, Any]) -> type | None:
    return object if tensor.get("datatype") == "BYTES" else None
