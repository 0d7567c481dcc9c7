"""Limits of the front, spoken to byte by byte: sizes, times, connections, broken HTTP."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from semaforo.server.settings import ServerSettings
from served_fleet import Served, only, serving, small_fleet

INPUT = {"name": "image", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
BODY = json.dumps({"inputs": [INPUT]}).encode()
LIMITS = ServerSettings(
    port=0,
    max_body_bytes=100_000,
    max_header_bytes=4096,
    max_headers=20,
    header_timeout_s=0.4,
    body_timeout_s=0.4,
    max_connections=8,
    max_in_flight=2,
    grace_s=1.0,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("models")
    with serving(only(small_fleet(folder), "digits", "wait"), LIMITS) as found:
        yield found


class Raw:
    """A bare connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one response."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.socket.recv(65536)
            assert more, f"closed after {data!r}"
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(headers["content-length"]):
            body += self.socket.recv(65536)
        return int(lines[0].split()[1]), headers, body

    def closed(self) -> bool:
        """Wait for the end of the connection."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


def post(length: int | None = None, extra: str = "", path: str = "/v2/models/digits/infer") -> bytes:
    sized = f"content-length: {length}\r\n" if length is not None else ""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{sized}{extra}\r\n".encode()


def error(answer: tuple[int, dict[str, str], bytes], status: int, text: str) -> dict[str, str]:
    assert answer[0] == status, answer
    told = json.loads(answer[2])
    assert list(told) == ["error"]
    assert text in told["error"]
    return answer[1]


def test_connections_are_kept_and_requests_may_be_pipelined(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send((post(len(BODY)) + BODY) * 2)
        first = raw.answer()
        assert first[0] == 200
        raw.send(post(len(BODY)) + BODY)
        assert raw.answer()[0] == 200


def test_a_body_in_pieces_and_in_chunks_is_one_body(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(post(len(BODY)))
        for at in range(0, len(BODY), 20):
            raw.send(BODY[at : at + 20])
            time.sleep(0.002)
        assert raw.answer()[0] == 200
        raw.send(post(extra="transfer-encoding: chunked\r\n"))
        raw.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
        assert raw.answer()[0] == 200


def test_a_declared_body_that_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(post(100_001, "expect: 100-continue\r\n"))
        headers = error(raw.answer(), 413, "the limit is 100000")
        assert headers["connection"] == "close"
        raw.send(b"x" * 1000)


def test_a_client_that_sends_too_much_still_reads_the_answer(served: Served) -> None:
    response = httpx.post(f"{served.url}/v2/models/digits/infer", content=b"x" * 3_000_000)
    assert response.status_code == 413


def test_chunks_that_add_up_to_too_much_are_refused(served: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    response = httpx.post(f"{served.url}/v2/models/digits/infer", content=chunks())
    assert response.status_code == 413


def test_a_small_body_that_becomes_large_is_refused(served: Served) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    started = time.monotonic()
    response = httpx.post(
        f"{served.url}/v2/models/digits/infer", content=bomb, headers={"content-encoding": "gzip"}
    )
    assert response.status_code == 413
    assert "when decompressed" in response.json()["error"]
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("encoding", ["content-length", "chunked"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/digits/infer", BODY.replace(b"image", b"im\xffage")),
        ("/v2/models/digits/generate", b'{"text_input": "caf\xe9"}'),
        ("/v1/chat/completions", b'{"model": "m", "messages": [{"role": "user", "content": "caf\xe9"}]}'),
        ("/v1/completions", b'{"model": "m", "prompt": "caf\xe9"}'),
        ("/v1/embeddings", b'{"model": "m", "input": "\xed\xa0\x80"}'),
        ("/semaforo/v1/variants/digits/scale", b'{"replicas": 1, "\xc3\x28": 0}'),
    ],
)
def test_a_body_that_is_not_utf8_is_refused(served: Served, path: str, body: bytes, encoding: str) -> None:
    with Raw(served.port) as raw:
        if encoding == "chunked":
            raw.send(post(extra="transfer-encoding: chunked\r\n", path=path))
            raw.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            raw.send(post(len(body), path=path) + body)
        status, _, told = raw.answer()
        message = json.loads(told)["error"]
        assert status == 400, told
        text = message["message"] if path.startswith("/v1/") else message
        assert "it is not UTF-8" in text
        # What was refused is at an end: the same connection goes on.
        raw.send(post(len(BODY)) + BODY)
        assert raw.answer()[0] == 200


def test_a_slow_body_is_given_up(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(post(1000) + b"x")
        started = time.monotonic()
        headers = error(raw.answer(), 408, "did not arrive within 0.4 s")
        assert headers["connection"] == "close"
        assert 0.3 < time.monotonic() - started < 2
        assert raw.closed()


def test_a_body_that_trickles_is_given_up_as_well(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(post(1000))
        started = time.monotonic()
        raw.socket.settimeout(0.05)
        data = b""
        while not data and time.monotonic() < started + 3:
            raw.send(b"x")
            try:
                data = raw.socket.recv(65536)
            except TimeoutError:
                continue
        assert data.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("start", [b"", b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_slow_headers_are_given_up(served: Served, start: bytes) -> None:
    with Raw(served.port) as raw:
        raw.send(start)
        started = time.monotonic()
        if start:
            error(raw.answer(), 408, "headers did not arrive within 0.4 s")
        assert raw.closed()
        assert time.monotonic() - started < 2


def test_slow_headers_of_a_later_request_are_given_up(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(post(len(BODY)) + BODY)
        assert raw.answer()[0] == 200
        raw.send(b"POST /v2/mod")
        error(raw.answer(), 408, "headers did not arrive")
        assert raw.closed()


@pytest.mark.parametrize(
    "extra",
    ["x-long: " + "y" * 5000 + "\r\n", "".join(f"x-{n}: y\r\n" for n in range(30))],
    ids=["too long", "too many"],
)
def test_headers_that_are_too_long_or_too_many_are_refused(served: Served, extra: str) -> None:
    with Raw(served.port) as raw:
        raw.send(post(len(BODY), extra) + BODY)
        error(raw.answer(), 431, "header")
        assert raw.closed()


def test_headers_without_end_are_refused(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-endless: ")
        raw.send(b"y" * 5000)
        error(raw.answer(), 431, "longer than 4096 bytes")
        assert raw.closed()


def test_a_path_that_is_too_long_is_refused(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        error(raw.answer(), 431, "request line")


@pytest.mark.parametrize(
    "garbage", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /v2 HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_refused_in_our_form(served: Served, garbage: bytes) -> None:
    with Raw(served.port) as raw:
        raw.send(garbage)
        error(raw.answer(), 400, "not a valid HTTP/1.1 request")
        assert raw.closed()


def test_a_refusal_never_answers_an_earlier_request(served: Served) -> None:
    slow = json.dumps({"inputs": [{"name": "seconds", "shape": [1], "datatype": "FP32", "data": [0.2]}]})
    with Raw(served.port) as raw:
        raw.send(post(len(slow), path="/v2/models/wait/infer") + slow.encode())
        time.sleep(0.05)
        raw.send(b"rubbish\r\n\r\n")
        assert raw.closed()


def test_more_connections_than_allowed_are_told_to_come_back(served: Served) -> None:
    kept = [Raw(served.port) for _ in range(8)]
    try:
        for raw in kept:
            raw.send(post(len(BODY)) + BODY)
            assert raw.answer()[0] == 200
        with Raw(served.port) as late:
            late.send(post(len(BODY)) + BODY)
            headers = error(late.answer(), 503, "8 connections, which is its limit")
            assert headers["retry-after"] == "1"
            assert late.closed()
    finally:
        for raw in kept:
            raw.socket.close()
    status = 503
    until = time.monotonic() + 10
    while status == 503 and time.monotonic() < until:
        with Raw(served.port) as raw:
            raw.send(post(len(BODY)) + BODY)
            status = raw.answer()[0]
    assert status == 200


def test_more_requests_in_flight_than_allowed_are_told_to_come_back(served: Served) -> None:
    slow = json.dumps({"inputs": [{"name": "seconds", "shape": [1], "datatype": "FP32", "data": [0.5]}]})
    with Raw(served.port) as one, Raw(served.port) as two, Raw(served.port) as three:
        for before, raw in enumerate((one, two, three)):
            served.await_in_flight(before)
            raw.send(post(len(slow), path="/v2/models/wait/infer") + slow.encode())
        headers = error(three.answer(), 503, "2 requests are in flight")
        assert headers["semaforo-retry-after-ms"] == "1000"
        assert httpx.get(f"{served.url}/v2/health/live").status_code == 200
        assert one.answer()[0] == 200
        assert two.answer()[0] == 200


def test_a_connection_lost_in_the_middle_of_a_body_leaves_nothing_behind(served: Served) -> None:
    with Raw(served.port) as raw:
        raw.send(post(1000) + b"x" * 10)
        time.sleep(0.02)
    for _ in range(100):
        waiting: Any = served.call(lambda: len(served.engine._waiters))
        if waiting == 0:
            break
        time.sleep(0.01)
    assert waiting == 0
    with Raw(served.port) as raw:
        raw.send(post(len(BODY)) + BODY)
        assert raw.answer()[0] == 200
