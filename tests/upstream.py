"""A small server of OpenAI's protocol whose words come from a bigram model, with faults on request.

It embeds, moderates and transcribes as well, by `text_models` and `tones`.

It runs under uvicorn on a port of its own, in a thread. Each of `Upstream.faults` is spent on one request.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from itertools import pairwise
from typing import Any
from zlib import crc32

import uvicorn

import text_models
import tones

TEXT = """
the signal box stands where the lines meet and the signalman sets the road for every train that comes .
a fast train waits for no one but a slow train waits in the loop until the fast train has gone .
when the road is set the signal shows clear and the driver takes the train past the box .
when a line is full the signalman holds the next train at the signal and tells the next box why .
no train may pass a signal at danger and no signal may show clear while the line ahead is full .
"""

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Bigrams:
    """Says what may follow a word, as often as it does in the text."""

    def __init__(self, text: str) -> None:
        words = text.split()
        self.follows: dict[str, list[str]] = {}
        for one, two in pairwise(words):
            self.follows.setdefault(one, []).append(two)

    def write(self, prompt: str, most: int) -> Iterator[str]:
        """Go on from the last known word of a prompt; the same prompt gives the same words."""
        chance = random.Random(crc32(prompt.encode()))
        word = next((w for w in reversed(prompt.lower().split()) if w in self.follows), "the")
        for _ in range(most):
            word = chance.choice(self.follows.get(word, ["the"]))
            yield word + " "
            if word == ".":
                return


@dataclass
class Fault:
    """What goes wrong with one request.

    With a `status` it is answered by that; otherwise the stream breaks `after` so many words: ``cut`` drops the
    connection, ``end`` ends it properly but without the rest, ``error`` reports an error in the stream, ``hang``
    says nothing more, ``garbage`` sends what is no JSON, ``early`` leaves out ``[DONE]`` only.
    """

    kind: str = "status"
    after: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None


class Cut(Exception):
    """Makes the server drop the connection."""


class Upstream:
    """The server.

    Attributes:
        faults: One for each of the next chats.
        seen: Bodies of the requests so far, of a file its form; `headers` those of the last one.
        running, cancelled: Chats being answered; chats whose client went away.
        connections: Connections seen so far, as (host, port) of the clients.
    """

    def __init__(
        self,
        text: str = TEXT,
        *,
        key: str = "",
        models: tuple[str, ...] = ("bigram",),
        word_s: float = 0.0,
        plain: bool = False,
        limit: int = 0,
        window_s: float = 1.0,
    ) -> None:
        self.words = Bigrams(text)
        self.key, self.models, self.word_s, self.plain = key, models, word_s, plain
        self.limit, self.window_s = limit, window_s
        self.faults: deque[Fault] = deque()
        self.seen: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.running = self.cancelled = self.refused = 0
        self.connections: set[tuple[str, int]] = set()
        self._window = (0.0, 0)

    def __enter__(self) -> Upstream:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        config = uvicorn.Config(self, lifespan="off", log_config=None, log_level="critical", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), daemon=True)
        self._thread.start()
        until = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < until, "the upstream did not start"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def forget(self) -> None:
        """Be as if just started, for the next test."""
        self.wait(lambda: not self.running)
        self.word_s, self.plain, self.limit, self._window = 0.0, False, 0, (0.0, 0)
        self.cancelled = self.refused = 0
        self.faults.clear()
        self.seen.clear()
        self.connections.clear()

    def wait(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until something is so."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"running {self.running}, cancelled {self.cancelled}"
            time.sleep(0.005)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.connections.add(tuple(scope["client"]))
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            given = headers.get("authorization", "")
            await _json(send, 401, _error(f"Incorrect API key provided: {given}", "invalid_api_key"))
        elif scope["path"] == "/v1/models":
            entries = [
                {"id": name, "object": "model", "created": 0, "owned_by": "test"} for name in self.models
            ]
            await _json(send, 200, {"object": "list", "data": entries})
        elif scope["path"] in ("/v1/chat/completions", "/v1/completions"):
            self.headers = headers
            await self._chat(json.loads(await _body(receive)), receive, send)
        elif scope["path"] in ("/v1/embeddings", "/v1/moderations"):
            self.headers = headers
            work = self._embed if scope["path"] == "/v1/embeddings" else self._moderate
            await self._rows(json.loads(await _body(receive)), work, receive, send)
        elif scope["path"] == "/v1/audio/transcriptions":
            self.headers = headers
            await self._rows(_form(headers, await _body(receive)), self._transcribe, receive, send)
        else:
            await _json(send, 404, {"detail": "Not Found"})

    async def _chat(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        fault, limits = await self._let_in(body, send)
        if limits is None:
            return
        answer = self._go_on if "prompt" in body else self._answer
        await self._run(answer(body, fault, limits, send), receive)

    async def _rows(
        self, body: dict[str, Any], work: Callable[[dict[str, Any]], Any], receive: Receive, send: Send
    ) -> None:
        fault, limits = await self._let_in(body, send)
        if limits is None:
            return

        async def answer() -> None:
            if fault is not None and not await _break(send, fault):
                return
            try:
                await _json(send, 200, work(body), limits)
            except ValueError as error:
                await _json(send, 400, _error(str(error), "invalid_value"))

        await self._run(answer(), receive)

    async def _let_in(self, body: dict[str, Any], send: Send) -> tuple[Fault | None, dict[str, str] | None]:
        """Refuse what a limit, a fault or a wrong name refuses; None for limits where that was answered."""
        self.seen.append(body)
        fault = self.faults.popleft() if self.faults else None
        limits = self._limits()
        if limits is not None and limits["x-ratelimit-remaining-requests"] == "-1":
            self.refused += 1
            limits |= {
                "x-ratelimit-remaining-requests": "0",
                "retry-after-ms": limits["x-ratelimit-reset-requests"][:-2],
            }
            await _json(send, 429, _error("too many requests", "rate_limit_exceeded"), limits)
        elif fault is not None and fault.kind == "status":
            await _json(send, fault.status, fault.body or _error("it broke", "broken"), fault.headers)
        elif body["model"] not in self.models:
            await _json(send, 404, _error(f"no model {body['model']}", "model_not_found"))
        else:
            return fault, limits or {}
        return None, None

    async def _run(self, work: Coroutine[Any, Any, None], receive: Receive) -> None:
        self.running += 1
        try:
            answer = asyncio.ensure_future(work)
            gone = asyncio.ensure_future(_gone(receive))
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            if not answer.done():
                self.cancelled += 1
                answer.cancel()
                return
            answer.result()
        finally:
            self.running -= 1

    async def _go_on(
        self, body: dict[str, Any], fault: Fault | None, limits: dict[str, str], send: Send
    ) -> None:
        """Go on with a prompt, in the form of text completions."""
        prompt = body["prompt"]
        words = list(self.words.write(prompt, body.get("max_tokens") or 16))
        usage = _usage(len(prompt.split()), len(words))
        places = {"tokens": words, "token_logprobs": [-0.5] * len(words)} if body.get("logprobs") else None
        if body.get("echo"):
            words = [prompt, *words]
        if body.get("suffix"):
            words.append(body["suffix"])
        frame = {"id": "c1", "object": "text_completion", "created": 1, "model": "bigram"}

        def choice(text: str, finish: str | None, logprobs: Any = None) -> dict[str, Any]:
            return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}

        if not body.get("stream"):
            whole = {**frame, "choices": [choice("".join(words), "length", places)], "usage": usage}
            await _json(send, 200, whole, limits)
            return
        headers = _raw({"content-type": "text/event-stream"} | limits)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for word in words:
            if fault is not None and not await _break(send, fault):
                return
            await asyncio.sleep(self.word_s)
            await _event(send, {**frame, "choices": [choice(word, None)]})
        await _event(send, {**frame, "choices": [choice("", "length", places)]})
        if (body.get("stream_options") or {}).get("include_usage"):
            await _event(send, {**frame, "choices": [], "usage": usage})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _embed(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if "poison" in texts:
            raise ValueError("poison is no text for this model")
        width = body.get("dimensions") or text_models.WIDTH
        data = [
            {"object": "embedding", "index": index, "embedding": text_models.embed(text, width)}
            for index, text in enumerate(texts)
        ]
        count = sum(map(text_models.tokens, texts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        # In no order: which is which is told by the index.
        return {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}

    def _moderate(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        results = []
        for text in texts:
            scores = text_models.scores(text)
            # Stricter than one half, so that it shows whose verdict is passed on.
            categories = {label: score > 0.3 or "careful" in text for label, score in scores.items()}
            results.append(
                {"flagged": any(categories.values()), "categories": categories, "category_scores": scores}
            )
        return {"id": "modr-1", "model": body["model"], "results": results}

    def _transcribe(self, form: dict[str, Any]) -> dict[str, Any]:
        heard = tones.listen(form["file"])
        if form["response_format"] == "verbose_json":
            return {"task": "transcribe", **heard}
        return {"text": heard["text"], "usage": {"type": "duration", "seconds": heard["duration"]}}

    async def _answer(
        self, body: dict[str, Any], fault: Fault | None, limits: dict[str, str], send: Send
    ) -> None:
        prompt = " ".join(_text(message) for message in body["messages"])
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 40
        tools = body.get("tools") if body["messages"][-1]["role"] == "user" else None
        deltas = (
            _call(tools[0], prompt) if tools else ({"content": w} for w in self.words.write(prompt, most))
        )
        usage_in = len(prompt.split())
        if self.plain or not body.get("stream"):
            words = [delta["content"] for delta in deltas]
            await _json(send, 200, _completion("".join(words), usage_in, len(words)), limits)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": _raw({"content-type": "text/event-stream"} | limits),
            }
        )
        await _event(send, _chunk({"role": "assistant", "content": ""}))
        count = 0
        for delta in deltas:
            if fault is not None and count >= fault.after and not await _break(send, fault):
                return
            if self.word_s:
                await asyncio.sleep(self.word_s)
            await _event(send, _chunk(delta))
            count += 1
        await _event(send, _chunk({}, "tool_calls" if tools else "stop"))
        if (body.get("stream_options") or {}).get("include_usage"):
            await _event(send, {**_chunk({}), "choices": [], "usage": _usage(usage_in, count)})
        if fault is None or fault.kind != "early":
            await send({"type": "http.response.body", "body": b"data: [DONE]\r\n\r\n", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _limits(self) -> dict[str, str] | None:
        if not self.limit:
            return None
        begun, used = self._window
        now = time.monotonic()
        if now - begun >= self.window_s:
            begun, used = now, 0
        self._window = (begun, used + 1)
        left_ms = int(1000 * (begun + self.window_s - now)) + 1
        return {
            "x-ratelimit-remaining-requests": str(max(-1, self.limit - used - 1)),
            "x-ratelimit-reset-requests": f"{left_ms}ms",
        }


async def _break(send: Send, fault: Fault) -> bool:
    """Do what the fault says; tell whether the answer goes on."""
    if fault.kind == "cut":
        raise Cut
    if fault.kind == "end":
        await send({"type": "http.response.body", "body": b""})
    elif fault.kind == "error":
        await _event(send, _error(fault.body or "the model fell over", "server_error"))
        await send({"type": "http.response.body", "body": b""})
    elif fault.kind == "garbage":
        await send({"type": "http.response.body", "body": b'data: {"choices\n\n'})
    elif fault.kind == "hang":
        await asyncio.sleep(3600)
    else:
        return True
    return False


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive) -> bytes:
    parts = b""
    while True:
        message = await receive()
        parts += message.get("body", b"")
        if not message.get("more_body"):
            return parts


def _form(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Read a form with the standard library's reader of mail, the file as bytes and its name beside it."""
    message = BytesParser(policy=HTTP).parsebytes(
        b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n" + body
    )
    fields: dict[str, Any] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename():
            fields |= {"filename": part.get_filename(), name: content}
        else:
            fields[name] = content.decode()
    return fields


async def _event(send: Send, value: Any) -> None:
    text = b": words follow\n\ndata: " + json.dumps(value).encode() + b"\n\n"
    await send({"type": "http.response.body", "body": text, "more_body": True})


async def _json(send: Send, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    raw = _raw({"content-type": "application/json", "content-length": str(len(body))} | (headers or {}))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _call(tool: dict[str, Any], prompt: str) -> Iterator[dict[str, Any]]:
    """Call a tool with the prompt's words, its arguments cut into pieces."""
    name = tool["function"]["name"]
    first = next(iter(tool["function"]["parameters"]["properties"]))
    arguments = json.dumps({first: prompt})
    yield {
        "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        ]
    }
    for start in range(0, len(arguments), 7):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": arguments[start : start + 7]}}]}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bigram",
        "choices": [choice],
    }


def _completion(text: str, prompt_tokens: int, tokens: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = _usage(prompt_tokens, tokens)
    return {"id": "c1", "object": "chat.completion", "model": "bigram", "choices": [choice], "usage": usage}


def _usage(prompt_tokens: int, tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": prompt_tokens + tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "param": None, "code": code}}
