"""A fleet asked in four ways, which are one: `Fleet`, `AsyncFleet`, `Client`, `AsyncClient`."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from semaforo import AnyAsyncFleet, AnyFleet, AsyncClient, AsyncFleet, Client, Fleet
from semaforo.build import blueprint
from semaforo.errors import (
    ConfigError,
    Conflict,
    Expired,
    Forbidden,
    InvalidRequest,
    ModelFailed,
    NotFound,
    NotReady,
    ProtocolError,
    SemaforoError,
    Unauthenticated,
    Unsatisfiable,
)
from semaforo.server.deferred.settings import DeferredSettings
from semaforo.server.settings import KeySettings, ServerSettings
from served_fleet import Served, serving, small_fleet
from tiny_fleet import write_fleet

SURFACE = ("infer", "decide", "chat", "explain", "names", "tasks", "replicas", "ready", "close")
OWN = {"infer": {"idempotency_key"}, "close": {"grace_s"}}
"""What a method may take beyond the surface: keys of a client's retries, the grace of a fleet's end."""


class Waiting:
    """An asynchronous fleet, asked like one that waits."""

    def __init__(self, fleet: AnyAsyncFleet, runner: asyncio.Runner) -> None:
        self._fleet, self._runner = fleet, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._fleet, name)

        def call(*values: Any, **named: Any) -> Any:
            return self._runner.run(self._whole(method(*values, **named)))

        return call

    async def _whole(self, call: Coroutine[Any, Any, Any]) -> Any:
        result = await call
        if not hasattr(result, "text"):
            return result
        async with result:
            return [piece async for piece in result], result.answer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Served]]:
    path = write_fleet(tmp_path_factory.mktemp("tiny"))
    with serving(blueprint(path).catalog) as served:
        yield path, served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(small_fleet(tmp_path_factory.mktemp("small"))) as served:
        yield served


@pytest.fixture(scope="module", params=["Fleet", "Client", "AsyncFleet", "AsyncClient"])
def fleet(request: pytest.FixtureRequest, tiny: tuple[Path, Served]) -> Iterator[Any]:
    path, served = tiny
    with ExitStack() as stack:
        if request.param == "Fleet":
            yield stack.enter_context(Fleet.open(path, journal=False))
        elif request.param == "Client":
            yield stack.enter_context(Client(served.url))
        else:
            runner = stack.enter_context(asyncio.Runner())
            made: Any = (
                AsyncFleet.open(path, journal=False)
                if request.param == "AsyncFleet"
                else AsyncClient(served.url)
            )
            runner.run(made.__aenter__())
            yield Waiting(made, runner)
            runner.run(made.__aexit__())


@pytest.mark.parametrize("name", SURFACE)
def test_all_four_have_the_same_methods(name: str) -> None:
    def told(kind: type) -> dict[str, Any]:
        parameters = inspect.signature(getattr(kind, name)).parameters
        own = OWN.get(name, set())
        return {n: (p.kind, p.default, p.annotation) for n, p in parameters.items() if n not in own}

    for kind in (Fleet, AsyncFleet, Client, AsyncClient, AnyAsyncFleet):
        assert told(kind) == told(AnyFleet), kind
    for kind, waits in ((Fleet, True), (Client, True), (AsyncFleet, False), (AsyncClient, False)):
        assert inspect.iscoroutinefunction(getattr(kind, name)) is not waits


def test_rows_texts_and_who_answered(fleet: Any) -> None:
    one = fleet.infer("double", x=[1, 2, 3], deadline="2s", min_quality=0.8, tenant="demo")
    assert one["y"].tolist() == [2, 4, 6]
    one["y"][0] = 7
    assert (one.model, one.version, one.variant) == ("exact", "1", "default")
    assert one.replica.startswith("exact")
    assert one.latency_s > 0
    assert one.cost == 0.0
    assert "deadline 2.0 s · min quality 0.8 · tenant demo" in one.why
    assert "ruled out by quality" in one.why
    assert fleet.explain(one.request_id) == one.why
    assert fleet.infer("double", inputs={"x": np.ones((2, 3))})["y"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert fleet.infer("shout", text="grün")["loud"] == "GRÜN"
    assert fleet.infer("shout", text=["a", "b"])["loud"].tolist() == ["A", "B"]


def test_what_there_is(fleet: Any) -> None:
    assert fleet.names() == ["best", "chat", "double", "exact", "parrot", "rough", "shout", "shouter"]
    double, shout, chat = fleet.tasks()
    assert [str(spec) for spec in (*double.inputs, *double.outputs)] == ["x: fp32[3]", "y: fp32[3]"]
    assert (shout.name, chat.kind, double.prefer.goal) == ("shout", "chat", "quality")
    assert {r.variant: r.state for r in fleet.replicas()}["exact/1/default"] == "ready"
    assert fleet.ready()
    assert fleet.ready("double")


def test_a_chat_comes_in_pieces(fleet: Any) -> None:
    found = fleet.chat("chat", "one two three", max_tokens=9)
    pieces, answer = found if isinstance(found, tuple) else (list(found), found.answer)
    assert pieces == ["one ", "two ", "three "]
    assert (answer["text"], answer.model) == ("one two three ", "parrot")
    assert answer.why.startswith("chat")


def test_a_decision_without_running(fleet: Any) -> None:
    decided = fleet.decide("double", x=[1, 2, 3], privacy="site")
    assert decided.pick.startswith("rough/")
    assert {c.variant: c.ruled_out for c in decided.considered}["exact/1/default"] == "privacy"
    assert fleet.decide("double", max_cost=1.0).pick.startswith("exact/")


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda f: f.infer("double", x=[1, 2]), InvalidRequest, r"input 'x' has shape \[2\]"),
        (lambda f: f.infer("double", x=["a"] * 3), InvalidRequest, "input 'x' holds"),
        (lambda f: f.infer("double", y=[1]), InvalidRequest, "takes no input 'y'"),
        (lambda f: f.infer("double"), InvalidRequest, "also takes x"),
        (lambda f: f.infer("double", x=[1, 2, 3], deadline=-1), InvalidRequest, "over before it begins"),
        (lambda f: f.infer("double", x=[1, 2, 3], priority="hi"), InvalidRequest, "Did you mean 'high'"),
        (lambda f: f.infer("double", x=[1, 2, 3], min_quality=0.95), Unsatisfiable, r"0\.9 < 0\.95"),
        (lambda f: f.infer("double", x=[1, 2, 3], version="7"), NotFound, "no version '7'"),
        (lambda f: f.infer("dubble", x=[1]), NotFound, "Did you mean 'double'"),
        (lambda f: f.infer("chat", x=1), InvalidRequest, "ask it by chat"),
        (lambda f: f.decide("dubble"), NotFound, "Did you mean 'double'"),
        (lambda f: f.chat("double", "x"), InvalidRequest, "takes tensors"),
        (lambda f: f.chat("chat", []), InvalidRequest, "at least one message"),
        (lambda f: f.chat("chat", [{"role": "usr", "content": "x"}]), InvalidRequest, "Did you mean 'user'"),
        (lambda f: f.explain("zz"), NotFound, "is kept"),
        (lambda f: f.ready("dubble"), NotFound, "Did you mean 'double'"),
    ],
)
def test_what_is_wrong_is_said_alike(
    fleet: Any, ask: Callable[[Any], Any], error: type[SemaforoError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        ask(fleet)
    assert raised.value.code == error.code


def test_what_is_not_ready_is_told_from_what_is_full(tmp_path: Path) -> None:
    with serving(small_fleet(tmp_path)) as served, Client(served.url) as client:
        served.unload("linear")
        with pytest.raises(NotReady, match="linear"):
            client.infer("linear", image=np.ones(4), deadline="1s")


# --- what only a client has --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("bool", np.array([True, False])),
        ("uint64", np.array([0, 2**64 - 1], np.uint64)),
        ("int8", np.array([-128, 127], np.int8)),
        ("fp16", np.array([0.5, 65504], np.float16)),
        ("fp64", np.array([1e-300, 0.1])),
        ("bf16", np.array([1.0, -2.5], ml_dtypes.bfloat16).view(np.uint16)),
    ],
)
def test_every_type_comes_back_as_it_went(served: Served, dtype: str, values: Any) -> None:
    with Client(served.url) as client:
        found = client.infer(f"echo-{dtype}", x=values)["y"]
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def test_versions_and_variants_are_pinned(served: Served) -> None:
    with Client(served.url) as client:
        assert client.infer("digits", image=np.ones(4), variant="fp32").model == "linear"
        with pytest.raises(NotFound, match="int4"):
            client.infer("digits", image=np.ones(4), variant="int4")
        assert client.infer("net", image=np.ones(4), version="v9").version == "v9"
        assert client.infer("net", image=np.ones(4)).version == "v10"


def test_a_model_that_fails_and_one_that_is_too_slow(served: Served) -> None:
    with Client(served.url) as client:
        with pytest.raises(ModelFailed, match="this model always fails"):
            client.infer("fail", x=1.0)
        with pytest.raises(Expired):
            client.infer("wait", seconds=0.6, deadline="150ms")
    with Client(served.url, timeout=0.1) as hasty:
        hasty.names()
        with pytest.raises(Expired, match=r"gave no answer within 0\.1 s"):
            hasty.infer("wait", seconds=0.4)


def test_cancelling_a_call_stops_the_work(served: Served) -> None:
    async def test() -> None:
        async with AsyncClient(served.url) as client:
            task = asyncio.create_task(client.infer("wait", seconds=2.0))
            await asyncio.to_thread(served.await_in_flight, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(test())
    until = time.monotonic() + 10
    while served.call(lambda: len(served.engine._waiters)):
        assert time.monotonic() < until
        time.sleep(0.005)


SLOW = """
def parrot(messages):
    import time
    for n in range(4000):
        yield f"{n} "
        time.sleep(0.005)
"""


def test_closing_a_chat_stops_the_work(tmp_path: Path) -> None:
    path = write_fleet(tmp_path)
    words = (tmp_path / "words.py").read_text()
    (tmp_path / "words.py").write_text(words[: words.index("def parrot")] + SLOW)

    def idle(served: Served) -> None:
        until = time.monotonic() + 10
        while served.call(lambda: len(served.engine._streams)):
            assert time.monotonic() < until
            time.sleep(0.005)

    async def close_in_the_middle(url: str) -> None:
        async with AsyncClient(url) as client:
            chat = await client.chat("chat", "x")
            async with chat:
                assert await anext(chat) == "0 "
            assert chat.answer is None
            with pytest.raises(StopAsyncIteration):
                await anext(chat)

    with serving(blueprint(path).catalog) as served:
        with Client(served.url) as client:
            with client.chat("chat", "x") as stream:
                assert [next(stream), next(stream)] == ["0 ", "1 "]
            assert stream.answer is None
            assert list(stream) == []
            idle(served)
        asyncio.run(close_in_the_middle(served.url))
        idle(served)


def test_a_request_is_answered_later(tmp_path: Path) -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            later = await client.submit("echo-int64", x=[[1], [2]])
            assert (await later.result(20))["y"].tolist() == [[1], [2]]
            assert await later.cancel() == await later.status()

    deferred = DeferredSettings(path=tmp_path / "deferred.db")
    settings = ServerSettings(port=0, grace_s=1.0, deferred=deferred)
    with serving(small_fleet(tmp_path), settings) as served, Client(served.url) as client:
        later = client.submit("digits", image=np.ones(4), min_quality=0.95)
        answer = later.result(20)
        assert answer.model == "net"
        assert answer["scores"].shape == (3,)
        assert later.status() == "done"
        failing = client.submit("fail", x=1.0)
        with pytest.raises(ModelFailed, match="this model always fails"):
            failing.result(20)
        client.submit("wait", seconds=0.3)
        waiting = client.submit("wait", seconds=0.3)
        with pytest.raises(Expired, match="it may still come"):
            waiting.result(0.01)
        assert waiting.cancel() == "cancelled"
        with pytest.raises(Conflict, match="has no result"):
            waiting.result(5)
        with pytest.raises(InvalidRequest, match="has shape"):
            client.submit("digits", image=np.ones(5))
        asyncio.run(ask(served.url))


def test_a_server_without_a_queue_says_so(served: Served) -> None:
    with Client(served.url) as client, pytest.raises(SemaforoError, match="deferred"):
        client.submit("digits", image=np.ones(4))


def test_many_threads_share_a_client(served: Served) -> None:
    wrong: list[Any] = []
    with Client(served.url) as client:

        def ask(n: int) -> None:
            for _ in range(15):
                found = client.infer("echo-int64", x=[n, n])["y"].tolist()
                if found != [n, n]:
                    wrong.append(found)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_one_async_client_serves_one_loop_after_another(served: Served) -> None:
    client = AsyncClient(served.url)
    for _ in range(2):
        assert asyncio.run(client.infer("echo-int64", x=[3]))["y"].tolist() == [3]
    asyncio.run(client.close())


def test_keys_decide_what_a_client_may(tmp_path: Path) -> None:
    keys = {"only-infer": KeySettings("a"), "reads": KeySettings("b", ("infer", "read"))}
    with serving(small_fleet(tmp_path), ServerSettings(port=0, grace_s=1.0, keys=keys)) as served:
        with Client(served.url, key="reads") as client:
            assert client.infer("digits", image=np.ones(4)).why.startswith("digits · tenant b")
        with Client(served.url, key="only-infer") as client:
            answer = client.infer("digits", image=np.ones(4))
            with pytest.raises(Forbidden, match="needs the role"):
                _ = answer.why
            with pytest.raises(Forbidden, match="may not speak for tenant"):
                client.infer("digits", image=np.ones(4), tenant="b")
        with pytest.raises(Unauthenticated, match="is not known"), Client(served.url, key="wrong") as client:
            client.infer("digits", image=np.ones(4))
        with pytest.raises(Unauthenticated, match="give an API key"), Client(served.url) as client:
            client.chat("digits", "x")


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("localhost:8080", {}, "is no url of a server"),
        ("http://", {}, "is no url of a server"),
        ("http://a:b@127.0.0.1", {}, "leave user and password out"),
        ("http://127.0.0.1", {"key": "a\nb"}, "the API key"),
        ("http://127.0.0.1", {"timeout": 0}, "timeout 0 is out of range"),
    ],
)
def test_a_client_that_cannot_be_made_says_why(url: str, settings: dict[str, Any], said: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ConfigError, match=said):
            kind(url, **settings)


def test_nobody_there_and_somebody_else_there() -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.infer("digits", x=1)

    with pytest.raises(
        NotReady, match=r"no server at http://127\.0\.0\.1:9: start one with `semaforo serve`"
    ):
        asyncio.run(ask("http://127.0.0.1:9"))
    page = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\nno\n"
    with (
        _other(page) as url,
        pytest.raises(ProtocolError, match=r"answered 404 \(text/html\).*is this a Semaforo or V2 server"),
    ):
        asyncio.run(ask(url))
    with _other(b"220 mail\r\n\r\n") as url, pytest.raises(ProtocolError, match=r"does not speak HTTP/1\.1"):
        asyncio.run(ask(url))
    with _other(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"hi"') as url, Client(url) as client:
        with pytest.raises(ProtocolError, match="answers what a Semaforo server would not"):
            client.names()
        with pytest.raises(ProtocolError, match="no V2 metadata"):
            client.infer("digits", x=1)


class _Proxy:
    """Hands bytes on to a server; the next `drop` requests of inference are lost on the way."""

    def __init__(self, port: int) -> None:
        self.drop = self.connections = self.inferences = 0
        self._port = port

    def __enter__(self) -> _Proxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._hand, args=(client, server), daemon=True).start()
            threading.Thread(target=self._hand, args=(server, client), daemon=True).start()

    def _hand(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if data.startswith(b"POST") and b"/infer" in data[:100]:
                    self.inferences += 1
                    if self.drop:
                        self.drop -= 1
                        break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_only_what_may_be_repeated_is_sent_again(served: Served) -> None:
    with _Proxy(served.port) as proxy, Client(proxy.url) as client:
        assert client.infer("echo-int64", x=[1])["y"].tolist() == [1]
        client.names()
        assert proxy.connections == 1, "a connection is used again"
        proxy.drop, proxy.inferences = 1, 0
        with pytest.raises(NotReady, match="broke the connection off"):
            client.infer("echo-int64", x=[1])
        assert proxy.inferences == 1
        proxy.drop, proxy.inferences = 1, 0
        assert client.infer("echo-int64", x=[2], idempotency_key="two")["y"].tolist() == [2]
        assert proxy.inferences == 2


def _other(answer: bytes) -> Any:
    """Serve the same bytes to everybody; give the address."""
    return _Fixed(answer)


class _Fixed:
    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> str:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
