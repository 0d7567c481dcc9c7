"""The description at ``/openapi.json``: valid, complete, and true of real answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from semaforo.server.admin import Question
from semaforo.server.openapi.operations import HEADERS, OPERATIONS
from semaforo.server.settings import ServerSettings
from semaforo.wire import contract
from served_fleet import Served, only, serving, small_fleet

IMAGE = {"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
CALLS: list[tuple[str, str, str, Any]] = [
    ("GET", "/v2", "/v2", None),
    ("GET", "/v2/health/live", "/v2/health/live", None),
    ("GET", "/v2/health/ready", "/v2/health/ready", None),
    ("GET", "/v2/models", "/v2/models", None),
    ("GET", "/v2/models/stats", "/v2/models/stats", None),
    ("GET", "/v2/models/{model}", "/v2/models/digits", None),
    ("GET", "/v2/models/{model}/versions/{version}", "/v2/models/net/versions/v9", None),
    ("GET", "/v2/models/{model}/ready", "/v2/models/digits/ready", None),
    ("GET", "/v2/models/{model}/config", "/v2/models/digits/config", None),
    ("GET", "/v2/models/{model}/stats", "/v2/models/digits/stats", None),
    ("POST", "/v2/repository/index", "/v2/repository/index", None),
    ("POST", "/v2/repository/models/{model}/load", "/v2/repository/models/net/load", {}),
    ("POST", "/v2/models/{model}/infer", "/v2/models/digits/infer", {"inputs": [IMAGE]}),
    ("POST", "/v2/models/{model}/generate", "/v2/models/digits/generate", {"image": [1, 2, 3, 4]}),
    ("GET", "/v1/models", "/v1/models", None),
    ("GET", "/semaforo/v1/fleet", "/semaforo/v1/fleet", None),
    ("GET", "/semaforo/v1/figures", "/semaforo/v1/figures", None),
    ("GET", "/semaforo/v1/decisions", "/semaforo/v1/decisions?limit=2", None),
    ("POST", "/semaforo/v1/decide", "/semaforo/v1/decide", {"target": "digits"}),
    (
        "POST",
        "/semaforo/v1/variants/{id}/scale",
        "/semaforo/v1/variants/net%2Fv9%2Fint8/scale",
        {"replicas": 1},
    ),
    ("GET", "/openapi.json", "/openapi.json", None),
]
WRONG: list[tuple[str, str, str, Any]] = [
    ("POST", "/v2/models/{model}/infer", "/v2/models/digits/infer", {"inputs": 1}),
    ("POST", "/v2/models/{model}/infer", "/v2/models/nothing/infer", {"inputs": [IMAGE]}),
    ("POST", "/v1/chat/completions", "/v1/chat/completions", {"model": "nothing", "messages": []}),
    ("POST", "/v1/embeddings", "/v1/embeddings", {"model": "digits", "input": "x"}),
    ("GET", "/v1/models/{model}", "/v1/models/nothing", None),
    ("GET", "/v1/files", "/v1/files", None),
    ("GET", "/semaforo/v1/deferred/{id}", "/semaforo/v1/deferred/nothing", None),
    (
        "POST",
        "/semaforo/v1/variants/{id}/scale",
        "/semaforo/v1/variants/net%2Fv9%2Fint8/scale",
        {"replicas": -1},
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("models")
    with serving(only(small_fleet(folder), "digits"), ServerSettings(port=0)) as found:
        yield found


@pytest.fixture(scope="module")
def described(served: Served) -> Any:
    return httpx.get(f"{served.url}/openapi.json").json()


def test_it_is_valid_and_names_every_route(described: Any) -> None:
    validate(described)
    named = {(method.upper(), path) for path, item in described["paths"].items() for method in item}
    # That nothing is served beyond it is told at the start: a route of which nothing is said is an error.
    assert named == set(OPERATIONS)


def test_every_header_of_the_contract_is_named() -> None:
    assert {name.replace("-", "_") for name in HEADERS} == set(contract._FIELDS)


def test_a_question_for_a_decision_is_described_by_what_decodes_it(described: Any) -> None:
    assert set(described["components"]["schemas"]["Question"]["properties"]) == set(
        Question.__struct_fields__
    )


@pytest.mark.parametrize(("method", "path", "url", "body"), CALLS, ids=[f"{c[0]} {c[2]}" for c in CALLS])
def test_a_real_answer_is_as_described(
    served: Served, described: Any, method: str, path: str, url: str, body: Any
) -> None:
    answer = httpx.request(method, served.url + url, json=body)
    assert answer.status_code == 200, answer.text
    _check(described, described["paths"][path][method.lower()]["responses"]["200"], answer.json())


@pytest.mark.parametrize(("method", "path", "url", "body"), WRONG, ids=[f"{c[0]} {c[2]}" for c in WRONG])
def test_a_refusal_is_as_described(
    served: Served, described: Any, method: str, path: str, url: str, body: Any
) -> None:
    answer = httpx.request(method, served.url + url, json=body)
    assert 400 <= answer.status_code < 500, answer.text
    _check(described, described["paths"][path][method.lower()]["responses"]["default"], answer.json())


def test_with_keys_it_says_so(tmp_path: Path) -> None:
    from semaforo.server.settings import KeySettings

    settings = ServerSettings(port=0, keys={"secret": KeySettings(roles=("admin",))})
    with serving(only(small_fleet(tmp_path), "digits"), settings) as found:
        described = httpx.get(f"{found.url}/openapi.json", headers={"authorization": "Bearer secret"}).json()
    validate(described)
    assert described["paths"]["/v2/models/{model}/infer"]["post"]["security"] == [{"key": []}]
    assert "security" not in described["paths"]["/v2/health/live"]["get"]


def _check(described: Any, response: Any, body: Any) -> None:
    schema = response["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": described["components"]}).validate(body)
