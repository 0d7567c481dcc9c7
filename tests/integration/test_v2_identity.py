"""Who may do what, over real sockets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from semaforo.server.settings import KeySettings, ServerSettings
from served_fleet import only, serving, small_fleet

BODY = {"inputs": [{"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
INFER, READ, OPERATE = "key-of-a-client", "key-of-a-reader", "key-of-an-operator"
KEYS = {
    INFER: KeySettings("acme", ("infer",)),
    "sha256:" + hashlib.sha256(READ.encode()).hexdigest(): KeySettings("ops", ("read",)),
    OPERATE: KeySettings("ops", ("operate", "infer"), may_set_tenant=True),
}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("models")
    with (
        serving(only(small_fleet(folder), "digits"), ServerSettings(port=0, keys=KEYS)) as served,
        httpx.Client(base_url=served.url, timeout=20) as client,
    ):
        yield client


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2", {"", INFER, READ, OPERATE}),
        ("GET", "/v2/health/ready", {"", INFER, READ, OPERATE}),
        ("GET", "/v2/models/digits/ready", {"", INFER, READ, OPERATE}),
        ("GET", "/v2/models/digits", {INFER, READ, OPERATE}),
        ("POST", "/v2/repository/index", {INFER, READ, OPERATE}),
        ("GET", "/v1/models", {INFER, READ, OPERATE}),
        ("POST", "/v2/models/digits/infer", {INFER, OPERATE}),
        ("POST", "/semaforo/v1/decide", {INFER, OPERATE}),
        ("GET", "/v2/models/digits/stats", {READ, OPERATE}),
        ("GET", "/metrics", {READ, OPERATE}),
        ("GET", "/semaforo/v1/fleet", {READ, OPERATE}),
        ("GET", "/semaforo/v1/decisions", {READ, OPERATE}),
        ("POST", "/v2/repository/models/linear/load", {OPERATE}),
        ("POST", "/semaforo/v1/models/linear/load", {OPERATE}),
        ("POST", "/semaforo/v1/variants/linear%2F3%2Ffp32/scale", {OPERATE}),
    ],
)
def test_each_route_asks_for_its_role(http: httpx.Client, method: str, path: str, allowed: set[str]) -> None:
    for key in ("", INFER, READ, OPERATE):
        content = b'{"target": "digits"}' if path.endswith("decide") else b'{"replicas": 1}'
        if path.endswith("infer"):
            content = httpx.Request("POST", "http://x", json=BODY).read()
        headers = bearer(key) if key else {}
        response = http.request(method, path, headers=headers, content=content if method == "POST" else None)
        if key in allowed:
            assert response.status_code == 200, response.text
        else:
            assert response.status_code == (403 if key else 401), (key, response.text)
            assert "error" in response.json()
            if not key:
                assert response.headers["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer KEY" in response.text
            else:
                assert key not in response.text
                assert "needs the role" in response.text


def test_a_key_may_come_in_either_header(http: httpx.Client) -> None:
    assert http.get("/v2/models", headers={"x-api-key": INFER}).status_code == 200
    assert http.get("/v2/models", headers={"authorization": f"bearer {INFER}"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"authorization": "Bearer wrong"}, "the API key is not known"),
        ({"x-api-key": "wrong"}, "the API key is not known"),
        ({"authorization": "Basic dTpw"}, "takes the scheme Bearer"),
        ({"authorization": "Bearer"}, "the API key is not known"),
    ],
)
def test_a_wrong_key_is_401_even_where_none_is_needed(
    http: httpx.Client, headers: dict[str, str], text: str
) -> None:
    for path in ("/v2/health/live", "/v2/models"):
        response = http.get(path, headers=headers)
        assert response.status_code == 401
        assert text in response.json()["error"]


def test_openai_paths_answer_in_openais_form(http: httpx.Client) -> None:
    told = http.get("/v1/models").json()
    assert told["error"]["type"] == "authentication_error"


def test_a_tenant_counts_only_from_who_may_set_it(http: httpx.Client) -> None:
    def tenant(key: str, **headers: str) -> str:
        response = http.post("/v2/models/digits/infer", json=BODY, headers=bearer(key, **headers))
        assert response.status_code == 200, response.text
        found = response.headers["semaforo-request-id"]
        told = http.get(f"/semaforo/v1/decisions/{found}", headers=bearer(READ)).json()
        return str(told["request"]["contract"]["tenant"])

    assert tenant(INFER) == "acme"
    assert tenant(INFER, **{"semaforo-tenant": "acme"}) == "acme"
    assert tenant(INFER, **{"semaforo-priority": "high"}) == "acme"
    assert tenant(OPERATE) == "ops"
    assert tenant(OPERATE, **{"semaforo-tenant": "other"}) == "other"
    response = http.post(
        "/v2/models/digits/infer", json=BODY, headers=bearer(INFER, **{"semaforo-tenant": "other"})
    )
    assert response.status_code == 403
    assert "may not speak for tenant 'other'" in response.json()["error"]
