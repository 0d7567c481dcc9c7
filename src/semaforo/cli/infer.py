"""``semaforo infer``: one question to a server, or to a fleet file run here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import typer

from semaforo.api import Fleet, FleetAnswer
from semaforo.api.inputs import tensors_of
from semaforo.cli.remote import body_of, server
from semaforo.entities import Contract, Priority, Privacy, TaskType, TensorSpec
from semaforo.entities.units import show_dollars, show_duration
from semaforo.errors import InvalidRequest, ModelFailed
from semaforo.wire.v2_dtypes import to_json


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
        _embedded(question, fleet)
        return
    with server(url, key) as client:
        answer = (_say if question.text else _ask)(client, question)
        if question.why:
            typer.echo(body_of(client.get(f"/semaforo/v1/decisions/{answer}"))["text"], err=True)


def _embedded(question: Question, path: Path) -> None:
    contract = question.contract
    asked: dict[str, Any] = {
        "deadline": contract.deadline_s,
        "min_quality": contract.min_quality,
        "max_cost": contract.max_cost,
        "priority": Priority(contract.priority).name.lower(),
        "privacy": Privacy(contract.privacy).name.lower(),
        "tenant": contract.tenant,
    }
    with Fleet.open(path, journal=False) as fleet:
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
            _who(answer.model, answer.variant, answer.replica, answer.request_id, answer)
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


def _who(model: str, variant: str, replica: str, request: str, answer: FleetAnswer | None = None) -> None:
    figures = f" in {show_duration(answer.latency_s)} for {show_dollars(answer.cost)}" if answer else ""
    typer.echo(f"{model}/{variant} on {replica}{figures} · request {request}", err=True)


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
    return values


def _headers(contract: Contract) -> dict[str, str]:
    headers = {"semaforo-priority": Priority(contract.priority).name.lower()}
    if contract.deadline_s is not None:
        headers["semaforo-deadline-ms"] = f"{contract.deadline_s * 1e3:g}"
    if contract.min_quality:
        headers["semaforo-min-quality"] = f"{contract.min_quality:g}"
    if contract.max_cost is not None:
        headers["semaforo-max-cost"] = f"{contract.max_cost:g}"
    if contract.privacy:
        headers["semaforo-privacy"] = Privacy(contract.privacy).name.lower()
    if contract.tenant:
        headers["semaforo-tenant"] = contract.tenant
    return headers


def _ask(client: httpx.Client, question: Question) -> str:
    path = f"/v2/models/{quote(question.target, safe='')}"
    if question.version:
        path += f"/versions/{quote(question.version, safe='')}"
    values = _values(question.data)
    if isinstance(values.get("inputs"), list):
        body = values
    else:
        body = {"inputs": _tensors(question.target, body_of(client.get(path)), values)}
    response = client.post(
        f"{path}/infer", content=msgspec.json.encode(body), headers=_headers(question.contract)
    )
    answer = body_of(response)
    _print({output["name"]: output["data"] for output in answer["outputs"]})
    return _served(response)


def _tensors(target: str, metadata: Mapping[str, Any], values: Mapping[str, Any]) -> list[dict[str, Any]]:
    specs = tuple(
        TensorSpec(spec["name"], spec["datatype"], tuple(spec["shape"][1:])) for spec in metadata["inputs"]
    )
    tensors, _, _ = tensors_of(TaskType(target, inputs=specs), values)
    types = {spec.name: spec.dtype for spec in specs}
    return [
        {
            "name": name,
            "datatype": types[name],
            "shape": list(array.shape),
            "data": to_json(name, types[name], array),
        }
        for name, array in tensors.arrays.items()
    ]


def _say(client: httpx.Client, question: Question) -> str:
    body = {
        "model": question.target,
        "messages": [{"role": "user", "content": question.text}],
        "stream": True,
    }
    with client.stream(
        "POST", "/v1/chat/completions", json=body, headers=_headers(question.contract)
    ) as response:
        if not response.is_success:
            response.read()
            body_of(response)
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = msgspec.json.decode(line[6:])
            if "error" in event:
                raise ModelFailed(str(event["error"].get("message", event["error"])))
            for choice in event.get("choices", ()):
                typer.echo(choice.get("delta", {}).get("content") or "", nl=False)
        typer.echo()
        return _served(response)


def _served(response: httpx.Response) -> str:
    of = response.headers.get
    request: str = of("semaforo-request-id", "")
    _who(of("semaforo-model", "?"), of("semaforo-variant", "?"), of("semaforo-replica", "?"), request)
    return request
