"""The queue on disk behind a served fleet: what is admitted, run, told and kept, and for whom."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from semaforo.catalog.state import Catalog
from semaforo.server.deferred.settings import DeferredSettings
from semaforo.server.settings import KeySettings, ServerSettings
from served_fleet import Served, serving, small_fleet

IMAGE = {"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
QUEUE = {"semaforo-mode": "queue"}
ENDED = {"done", "failed", "expired", "cancelled"}
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, yes").decode()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return small_fleet(tmp_path_factory.mktemp("models"))


def settings(folder: Path, keys: dict[str, KeySettings] | None = None, **deferred: Any) -> ServerSettings:
    kept = DeferredSettings(path=folder / "deferred.db", **deferred)
    return ServerSettings(port=0, grace_s=2.0, keys=keys or {}, deferred=kept)


@pytest.fixture
def client(catalog: Catalog, tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(catalog, settings(tmp_path)) as served, _client(served) as client:
        yield client


def _client(served: Served) -> httpx.Client:
    return httpx.Client(base_url=served.url, timeout=20)


def infer(model: str, *inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"url": f"/v2/models/{model}/infer", "json": {"inputs": list(inputs), **more}}


def seconds(value: float) -> dict[str, Any]:
    return infer("wait", {"name": "seconds", "shape": [1], "datatype": "FP32", "data": [value]})


def admitted(response: httpx.Response) -> str:
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/semaforo/v1/deferred/{response.json()['id']}"
    return str(response.json()["id"])


def until(client: httpx.Client, name: str, *wanted: str) -> dict[str, Any]:
    """Poll, as a client would, until a request has one of these statuses."""
    for _ in range(2000):
        status: dict[str, Any] = client.get(f"/semaforo/v1/deferred/{name}").json()
        if status["status"] in (wanted or ENDED):
            return status
        time.sleep(0.01)
    raise AssertionError(status)


def test_a_queued_request_gets_what_the_direct_call_gets(client: httpx.Client) -> None:
    call = infer("net", IMAGE, id="seven")
    direct = client.post(**call)
    name = admitted(client.post(**call, headers=QUEUE))
    status = until(client, name)
    assert (status["status"], status["target"], status["attempts"]) == ("done", "net", 1)
    assert status["created_at"] <= status["started_at"] <= status["ended_at"]
    result = client.get(status["result"]["url"])
    assert (result.status_code, result.content) == (direct.status_code, direct.content)
    own = {"date", "semaforo-request-id"}
    assert {k: v for k, v in result.headers.items() if k not in own} == {
        k: v for k, v in direct.headers.items() if k not in own
    }


def test_a_parameter_asks_for_the_queue_and_binary_tensors_are_kept(client: httpx.Client) -> None:
    blob = b"\0\0\x80?" * 4
    head = {
        "inputs": [
            {"name": "image", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
        ],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}],
    }
    results = []
    for parameters in ({}, {"semaforo_mode": "queue", "semaforo_min_quality": 0.95}):
        text = json.dumps(head | {"parameters": parameters}).encode()
        headers = {"inference-header-content-length": str(len(text))}
        response = client.post("/v2/models/net/infer", content=text + blob, headers=headers)
        if parameters:
            response = client.get(f"{response.headers['location']}/result", params=_done(client, response))
        results.append((response.headers["inference-header-content-length"], response.content))
    assert results[0] == results[1]


def _done(client: httpx.Client, response: httpx.Response) -> dict[str, str]:
    assert until(client, admitted(response))["status"] == "done"
    return {}


def test_what_is_wrong_is_said_before_anything_is_queued(client: httpx.Client) -> None:
    wrong: list[tuple[dict[str, Any], dict[str, str], int, str]] = [
        (infer("net"), QUEUE, 400, "image"),
        (infer("no-such-model", IMAGE), QUEUE, 404, "no-such-model"),
        (infer("net", IMAGE), {"semaforo-mode": "later"}, 400, "it takes queue"),
        (infer("net", IMAGE), {"semaforo-webhook": "https://a.example"}, 400, "goes with semaforo-mode"),
        (infer("net", IMAGE), QUEUE | {"semaforo-webhook": "https://a.example"}, 403, "allows none"),
        (infer("net", IMAGE), QUEUE | {"semaforo-deadline-ms": "soon"}, 400, "milliseconds"),
        (
            {"url": "/v2/models/wait/generate_stream", "json": {"seconds": 0}},
            QUEUE,
            400,
            "whole answer",
        ),
    ]
    for call, headers, status, says in wrong:
        response = client.post(**call, headers=headers)
        assert (response.status_code, says in response.json()["error"]) == (status, True), response.text
    assert client.get("/semaforo/v1/deferred").json()["data"] == []


def test_a_model_that_fails_ends_the_request_with_its_error(client: httpx.Client) -> None:
    call = infer("fail", {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]})
    direct = client.post(**call)
    name = admitted(client.post(**call, headers=QUEUE))
    status = until(client, name)
    assert (status["status"], status["error"]["code"]) == ("failed", "model_failed")
    result = client.get(f"/semaforo/v1/deferred/{name}/result")
    assert (result.status_code, result.content) == (direct.status_code, direct.content)


def test_the_queue_has_an_order_and_what_waits_or_runs_can_be_cancelled(
    catalog: Catalog, tmp_path: Path
) -> None:
    with serving(catalog, settings(tmp_path, in_flight=1)) as served, _client(served) as client:
        running = admitted(client.post(**seconds(1.5), headers=QUEUE))
        until(client, running, "running")
        waiting = [admitted(client.post(**seconds(0.0), headers=QUEUE)) for _ in range(3)]
        early = client.get(f"/semaforo/v1/deferred/{running}/result")
        assert (early.status_code, early.headers["retry-after"], early.json()["status"]) == (
            202,
            "1",
            "running",
        )
        assert [client.get(f"/semaforo/v1/deferred/{name}").json()["position"] for name in waiting] == [
            0,
            1,
            2,
        ]
        assert client.delete(f"/semaforo/v1/deferred/{waiting[0]}").json()["status"] == "cancelled"
        assert client.delete(f"/semaforo/v1/deferred/{running}").json()["status"] == "cancelled"
        # The place of what was called off is free at once, though its model may sleep on.
        assert [until(client, name)["status"] for name in waiting] == ["cancelled", "done", "done"]
        gone = client.get(f"/semaforo/v1/deferred/{running}/result")
        assert (gone.status_code, "cancelled" in gone.json()["error"]) == (409, True)
        assert client.delete(f"/semaforo/v1/deferred/{waiting[2]}").json()["status"] == "done"
        pages = [client.get("/semaforo/v1/deferred", params={"limit": 3}).json()]
        pages.append(client.get("/semaforo/v1/deferred", params={"after": pages[0]["last_id"]}).json())
        assert [page["has_more"] for page in pages] == [True, False]
        assert [entry["id"] for page in pages for entry in page["data"]] == [*reversed(waiting), running]
        listed = client.get("/semaforo/v1/deferred", params={"status": "cancelled,failed"}).json()["data"]
        assert [entry["id"] for entry in listed] == [waiting[0], running]
        wrong = client.get("/semaforo/v1/deferred", params={"status": "finished"})
        assert (wrong.status_code, "is none of" in wrong.json()["error"]) == (400, True)
        figures = client.get("/metrics").text
        assert 'semaforo_deferred{status="cancelled"} 2.0' in figures
        assert "semaforo_deferred_oldest_seconds 0.0" in figures


def test_a_deadline_ends_what_waits_and_what_runs(catalog: Catalog, tmp_path: Path) -> None:
    with serving(catalog, settings(tmp_path, in_flight=1)) as served, _client(served) as client:
        runs = admitted(client.post(**seconds(1.0), headers=QUEUE | {"semaforo-deadline-ms": "400"}))
        until(client, runs, "running")
        waits = admitted(client.post(**seconds(0.0), headers=QUEUE | {"semaforo-deadline-ms": "100"}))
        assert [until(client, name)["status"] for name in (waits, runs)] == ["expired", "expired"]
        for name in (waits, runs):
            result = client.get(f"/semaforo/v1/deferred/{name}/result")
            assert result.status_code == 504, result.text


def test_work_that_has_no_replica_waits_for_one(catalog: Catalog, tmp_path: Path) -> None:
    with serving(catalog, settings(tmp_path)) as served, _client(served) as client:
        client.post("/v2/repository/models/net/unload", json={}).raise_for_status()
        name = admitted(client.post(**infer("net", IMAGE), headers=QUEUE))
        other = admitted(client.post(**infer("linear", IMAGE), headers=QUEUE))
        assert until(client, other)["status"] == "done"
        while client.get(f"/semaforo/v1/deferred/{name}").json()["attempts"] == 0:
            time.sleep(0.01)
        assert until(client, name, "queued", *ENDED)["status"] == "queued"
        client.post("/v2/repository/models/net/load", json={}).raise_for_status()
        assert until(client, name)["status"] == "done"


def test_direct_calls_go_first(catalog: Catalog, tmp_path: Path) -> None:
    with serving(catalog, settings(tmp_path, in_flight=4)) as served, _client(served) as client:
        begun = time.time()
        direct = [threading.Thread(target=lambda: client.post(**seconds(0.1))) for _ in range(6)]
        for thread in direct:
            thread.start()
        served.await_in_flight(6)
        names = [admitted(client.post(**seconds(0.01), headers=QUEUE)) for _ in range(3)]
        ended = [until(client, name) for name in names]
        for thread in direct:
            thread.join()
    assert [status["status"] for status in ended] == ["done"] * 3
    # One replica, one row at a time: the last direct call has begun when five have slept.
    assert min(status["started_at"] for status in ended) >= begun + 0.5
    assert [status["attempts"] for status in ended] == [1, 1, 1]


def test_a_key_is_one_request_and_the_bound_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    bounded = settings(tmp_path, in_flight=1, max_items=2)
    with serving(catalog, bounded) as served, _client(served) as client:
        key = QUEUE | {"semaforo-idempotency-key": "k1"}
        first = client.post(**seconds(0.5), headers=key)
        again = client.post(**seconds(0.5), headers=key)
        assert admitted(again) == admitted(first)
        assert again.headers["idempotent-replayed"] == "true"
        assert client.post(**seconds(0.4), headers=key).status_code == 409
        admitted(client.post(**seconds(0.0), headers=QUEUE))
        full = client.post(**seconds(0.0), headers=QUEUE)
        assert (full.status_code, "retry-after" in full.headers) == (429, True)
        until(client, admitted(first))
        assert client.post(**seconds(0.5), headers=key).json()["status"] == "done"


def test_tenants_see_only_their_own(catalog: Catalog, tmp_path: Path) -> None:
    keys = {
        "acme-key": KeySettings("acme"),
        "zeta-key": KeySettings("zeta"),
        "reader-key": KeySettings("acme", ("read",)),
        "admin-key": KeySettings("", ("admin",), True),
    }
    with serving(catalog, settings(tmp_path, keys)) as served:
        acme, zeta, reader, admin = (
            httpx.Client(base_url=served.url, headers={"x-api-key": key}, timeout=20) for key in keys
        )
        with acme, zeta, reader, admin:
            name = admitted(acme.post(**infer("net", IMAGE), headers=QUEUE))
            status = until(acme, name)
            assert (status["status"], status["tenant"]) == ("done", "acme")
            for path in (f"/semaforo/v1/deferred/{name}", f"/semaforo/v1/deferred/{name}/result"):
                assert zeta.get(path).status_code == 404
                assert reader.get(path).status_code == 403
                assert admin.get(path).status_code == 200
            assert zeta.delete(f"/semaforo/v1/deferred/{name}").status_code == 404
            assert zeta.get("/semaforo/v1/deferred").json()["data"] == []
            assert len(admin.get("/semaforo/v1/deferred").json()["data"]) == 1
            other = {"semaforo-tenant": "zeta"}
            assert acme.post(**infer("net", IMAGE), headers=QUEUE | other).status_code == 403
            assert acme.get("/semaforo/v1/deferred", headers=other).status_code == 403
            spoken = admitted(admin.post(**infer("net", IMAGE), headers=QUEUE | other))
            assert until(zeta, spoken)["status"] == "done"
            assert admin.get("/semaforo/v1/deferred", headers=other).json()["data"][0]["id"] == spoken
            form = {"files": {"file": ("a.jsonl", b"{}\n")}, "data": {"purpose": "batch"}}
            file = acme.post("/v1/files", **form).json()["id"]
            assert zeta.get(f"/v1/files/{file}/content").status_code == 404
            wanted = {"input_file_id": file, "endpoint": "/v2/models/net/infer", "completion_window": "24h"}
            assert zeta.post("/v1/batches", json=wanted).status_code == 400


def test_without_a_queue_every_way_in_says_how_to_have_one(catalog: Catalog) -> None:
    with serving(catalog) as served, _client(served) as client:
        for response in (
            client.post(**infer("net", IMAGE), headers=QUEUE),
            client.get("/semaforo/v1/deferred"),
            client.get("/v1/batches"),
            client.post("/v1/files", content=b"x"),
        ):
            assert response.status_code in (400, 404)
            assert "deferred: {path: deferred.db}" in response.text


class Receiver(ThreadingHTTPServer):
    """Takes webhooks: refuses the first, redirects the second, takes the third."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.elsewhere = 0
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Hook)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/"

    def await_hooks(self, most: int, wanted: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(wanted, most), self.got


class _Hook(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.changed:
            if not self.path.startswith("/hooks/"):
                self.server.elsewhere += 1
            self.server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            status = {1: 500, 2: 307}.get(len(self.server.got), 204)
            self.server.changed.notify_all()
        self.send_response(status)
        if status == 307:
            self.send_header("location", "/internal")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def test_a_webhook_is_told_signed_until_it_is_taken_and_over_restarts(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semaforo.server.deferred.hooks._AGAIN_S", (0.05, 1.0))
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, args=(0.05,))
    thread.start()
    try:
        allowed = settings(tmp_path, webhooks=(receiver.url,), secret=SECRET)
        with serving(catalog, allowed) as served, _client(served) as client:
            for url in (
                receiver.url.replace("/hooks/", "/other/"), receiver.url + "../internal", "http://10.0.0.1/hooks/",
                receiver.url.replace("http", "ftp"), receiver.url.replace("127", "user@127"),
                receiver.url.replace("127.0.0.1", "127.0.0.1.example"), receiver.url + "%2e%2e/internal",
                receiver.url[:-1] + "x/", "not a url",
            ):  # fmt: skip
                refused = client.post(**infer("net", IMAGE), headers=QUEUE | {"semaforo-webhook": url})
                assert refused.status_code in (400, 403), (url, refused.text)
            hook = QUEUE | {"semaforo-webhook": receiver.url + "done?x=1"}
            name = admitted(client.post(**infer("net", IMAGE), headers=hook))
            receiver.await_hooks(10, lambda: len(receiver.got) >= 2)
            direct = client.post(**infer("net", IMAGE)).json()
        with serving(catalog, allowed) as served, _client(served) as client:
            receiver.await_hooks(10, lambda: len(receiver.got) >= 3)
            for _ in range(500):
                shown = client.get(f"/semaforo/v1/deferred/{name}").json()["webhook"]
                if shown["state"] == "over":
                    break
                time.sleep(0.01)
            assert shown == {"url": hook["semaforo-webhook"], "state": "over", "tries": 3}
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()
    assert (len(receiver.got), receiver.elsewhere) == (3, 0)
    for headers, body in receiver.got:
        signed = f"{name}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(base64.b64decode(SECRET[6:]), signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        assert headers["webhook-id"] == name
        told = json.loads(body)
        assert told["type"] == "deferred.done"
        assert told["data"]["result"]["body"] == direct


def test_what_was_queued_before_a_stop_is_run_after_it(catalog: Catalog, tmp_path: Path) -> None:
    kept = settings(tmp_path, in_flight=1)
    with serving(catalog, kept) as served, _client(served) as client:
        names = [admitted(client.post(**seconds(1.0), headers=QUEUE))]
        until(client, names[0], "running")
        names += [admitted(client.post(**seconds(0.01), headers=QUEUE)) for _ in range(3)]
    with serving(catalog, kept) as served, _client(served) as client:
        ended = [until(client, name) for name in names]
        assert [status["status"] for status in ended] == ["done"] * 4
