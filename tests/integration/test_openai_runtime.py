"""The runtime against a real server on a real socket."""

from __future__ import annotations

import asyncio
import copy
import socket
import time
from collections.abc import Iterator
from contextlib import aclosing
from email.utils import formatdate
from typing import Any

import pytest

from semaforo.errors import InvalidRequest, ModelFailed, Refused, RuntimeLoadError, SemaforoError
from semaforo.runtime.base import ChatModel
from semaforo.runtime.openai import OpenAIModel, OpenAIRuntime
from semaforo.wire.completion import Completion
from semaforo.wire.payload import Chat
from upstream import Fault, Upstream

KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with Upstream(key=KEY) as server:
        yield server


@pytest.fixture
def upstream(server: Upstream) -> Iterator[Upstream]:
    yield server
    server.forget()


def load(upstream: Upstream, **options: Any) -> OpenAIModel:
    return OpenAIRuntime().load(upstream.url, {"model": "bigram", "key": KEY, **options}, "cpu")


def chat(content: str = "Where does the slow train wait", **fields: Any) -> Chat:
    return Chat({"model": "asked-for", "messages": [{"role": "user", "content": content}], **fields})


async def collect(model: OpenAIModel, request: Chat) -> dict[str, Any]:
    completion = Completion()
    async for chunk in model.chat(request):
        completion.add(chunk)
    return completion.object("r", "m", 0, 0)


def answer(model: OpenAIModel, request: Chat | None = None) -> dict[str, Any]:
    async def once() -> dict[str, Any]:
        try:
            return await collect(model, request or chat())
        finally:
            model.close()

    return asyncio.run(once())


def error(model: OpenAIModel) -> SemaforoError:
    with pytest.raises(SemaforoError) as caught:
        answer(model)
    assert KEY not in str(caught.value)
    return caught.value


def content(reply: dict[str, Any]) -> str:
    text: str = reply["choices"][0]["message"]["content"]
    return text


def test_an_answer_is_streamed_with_its_usage_and_the_body_goes_on_unchanged(upstream: Upstream) -> None:
    model = load(upstream)
    assert isinstance(model, ChatModel)
    asked = chat(max_tokens=9, top_k=4, odd={"deep": [1, None]}, service_tier="flex", stream=False)
    before = copy.deepcopy(asked.body)
    reply = answer(model, asked)
    words = list(upstream.words.write("Where does the slow train wait", 9))
    assert content(reply) == "".join(words)
    assert reply["usage"]["completion_tokens"] == len(words)
    assert reply["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert asked.body == before
    del before["service_tier"]
    set_here = {"model": "bigram", "stream": True, "stream_options": {"include_usage": True}}
    assert upstream.seen[0] == {**before, **set_here}


def test_an_upstream_that_does_not_stream_is_accepted(upstream: Upstream) -> None:
    upstream.plain = True
    assert content(answer(load(upstream))) == content(answer(load(upstream, stream=False)))
    assert [body["stream"] for body in upstream.seen] == [True, False]
    assert "stream_options" not in upstream.seen[1]


def test_tool_calls_come_whole(upstream: Upstream) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "announce", "parameters": schema}}
    choice = answer(load(upstream), chat("all clear", tools=[tool]))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert call == {"name": "announce", "arguments": '{"text": "all clear"}'}


def test_one_connection_serves_many_answers(upstream: Upstream) -> None:
    model = load(upstream, check=False)

    async def several() -> None:
        for _ in range(5):
            await collect(model, chat())
        model.close()

    asyncio.run(several())
    assert len(upstream.seen) == 5
    assert len(upstream.connections) == 1


def test_a_model_serves_one_loop_after_another(upstream: Upstream) -> None:
    model = load(upstream)
    assert answer(model) == answer(model)


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("cut", "lost before the end"),
        ("end", "ended its stream before the end"),
        ("error", "the model fell over"),
        ("garbage", "no completion"),
    ],
)
def test_a_stream_that_breaks_is_a_failure_after_the_words_it_gave(
    upstream: Upstream, kind: str, after: int, text: str
) -> None:
    upstream.faults.append(Fault(kind, after))
    model = load(upstream)
    words: list[str] = []

    async def read() -> None:
        async for chunk in model.chat(chat()):
            words.append(chunk.delta["content"])

    with pytest.raises(ModelFailed, match=text):
        asyncio.run(read())
    # Nothing is given before the first word, not even the role: the failure can still be retried elsewhere.
    assert len(words) == after


def test_a_stream_that_lacks_only_its_done_is_whole(upstream: Upstream) -> None:
    upstream.faults.append(Fault("early", 0))
    model = load(upstream)
    assert content(answer(model)) == content(answer(model))


def test_a_key_that_is_quoted_in_an_error_of_the_stream_is_blotted_out(upstream: Upstream) -> None:
    upstream.faults.append(Fault("error", 0, body=f"bad key {KEY}"))
    failure = error(load(upstream))
    assert "bad key ***" in failure.message


@pytest.mark.parametrize(
    ("fault", "kind", "text", "retry_after_s"),
    [
        (Fault(status=429, headers={"retry-after": "7"}), Refused, "over its limit", 7.0),
        (Fault(status=503, headers={"retry-after-ms": "250"}), Refused, "over its limit", 0.25),
        (Fault(status=429), Refused, "it broke", 1.0),
        (
            Fault(
                status=429,
                headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m1s"},
            ),
            Refused, "over its limit", 61.0,
        ),
        (
            Fault(status=429, body={"error": {"message": "pay", "code": "insufficient_quota"}}),
            ModelFailed, "quota there is used up", None,
        ),
        (Fault(status=400), InvalidRequest, "it broke", None),
        (Fault(status=404, body={"error": {"message": "no file"}, "x": 1}), ModelFailed, "no file", None),
        (Fault(status=422, body={"detail": "bad field"}), InvalidRequest, "bad field", None),
        (Fault(status=401, body={"error": {"message": f"bad {KEY}"}}), ModelFailed, "operator's key", None),
        (Fault(status=403), ModelFailed, "operator's key", None),
        (Fault(status=500, body=b"<html>oops</html>"), ModelFailed, "oops", None),
        (Fault(status=500, body={"error": {"message": f"bad {KEY}"}}), ModelFailed, r"bad \*\*\*", None),
        (Fault(status=307, headers={"location": "http://127.0.0.1:1/"}), ModelFailed, "307", None),
    ],
)  # fmt: skip
def test_a_status_says_whose_fault_it_is(
    upstream: Upstream, fault: Fault, kind: type[SemaforoError], text: str, retry_after_s: float | None
) -> None:
    upstream.faults.append(fault)
    failure = error(load(upstream))
    assert type(failure) is kind
    assert failure.retry_after_s == retry_after_s
    with pytest.raises(kind, match=text):
        raise failure


def test_retry_after_may_be_a_date(upstream: Upstream) -> None:
    upstream.faults.append(
        Fault(status=429, headers={"retry-after": formatdate(time.time() + 90, usegmt=True)})
    )
    wait = error(load(upstream)).retry_after_s
    assert wait is not None
    assert 80 < wait <= 90


def test_limits_are_told_as_they_are_stated() -> None:
    with Upstream(limit=2, window_s=60.0) as upstream:
        model = load(upstream)
        told: list[dict[str, Any]] = []
        model.on_limits = told.append
        answer(model)
        answer(model)
        failure = error(model)
    assert [limits["requests_left"] for limits in told] == [1, 0, 0]
    assert all(limits["tokens_left"] == -1 for limits in told)
    assert all(50 < limits["reset_s"] <= 60.1 for limits in told)
    assert [limits["retry_after_s"] > 50 for limits in told] == [False, False, True]
    assert isinstance(failure, Refused)
    assert failure.retry_after_s == told[-1]["retry_after_s"]


def test_closing_the_iterator_stops_the_upstream_at_once(upstream: Upstream) -> None:
    upstream.word_s = 0.02
    model = load(upstream)

    async def leave() -> None:
        async with aclosing(model.chat(chat(max_tokens=10_000))) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                assert upstream.running == 1
                break
        begun = time.monotonic()
        while upstream.running:
            assert time.monotonic() - begun < 5.0
            await asyncio.sleep(0.005)
        model.close()

    asyncio.run(leave())
    assert upstream.cancelled == 1


def test_cancelling_the_task_stops_the_upstream_even_before_the_first_word(upstream: Upstream) -> None:
    upstream.faults.append(Fault("hang", 0))
    model = load(upstream)

    async def leave() -> None:
        task = asyncio.create_task(collect(model, chat()))
        while not upstream.running:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(upstream.wait, lambda: upstream.cancelled == 1)
        model.close()

    asyncio.run(leave())


def test_silence_has_an_end(upstream: Upstream) -> None:
    upstream.faults.append(Fault("hang", 2))
    failure = error(load(upstream, timeout_s=0.2))
    assert isinstance(failure, ModelFailed)
    assert "sent nothing for 0.2 s" in failure.message


@pytest.mark.parametrize(("answers", "connections", "good"), [(1, 2, 2), (0, 1, 0)])
def test_only_a_used_connection_that_closes_on_a_request_is_tried_again(
    answers: int, connections: int, good: int
) -> None:
    """A server closes a kept connection on its second request, as one whose idle time runs out does."""
    body = b'{"choices": [{"message": {"role": "assistant", "content": "clear"}}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    seen = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        for left in range(answers, -1, -1):
            request = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(request.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if left:
                writer.write(head + body)
                await writer.drain()
        writer.close()

    async def twice() -> list[str | type[BaseException]]:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        model = OpenAIRuntime().load(url, {"model": "m", "check": False}, "cpu")
        found: list[str | type[BaseException]] = []
        for _ in range(2 if good else 1):
            try:
                found.append(content(await collect(model, chat())))
            except SemaforoError as failure:
                found.append(type(failure))
        model.close()
        listener.close()
        await listener.wait_closed()
        return found

    assert asyncio.run(twice()) == (["clear"] * good or [ModelFailed])
    assert seen == connections


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        model = OpenAIRuntime().load(url, {"model": "m", "check": False}, "cpu")
        assert "cannot be reached" in error(model).message
        with pytest.raises(RuntimeLoadError, match=r"is it running\?.*check: false"):
            OpenAIRuntime().load(url, {"model": "m"}, "cpu")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "wrong"}, "refused the key"),
        ({"model": "bigrm"}, "Did you mean 'bigram'"),
        ({"url": "http://127.0.0.1:{port}"}, "does 'url' end where"),
        ({"modle": "bigram"}, "Did you mean 'model'"),
        ({"model": ""}, "options.model"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": "soon"}, "timeout_s"),
        ({"url": "ftp://127.0.0.1/v1"}, "no url"),
        ({"url": "http://me:pass@127.0.0.1/v1"}, "give a token as 'key'"),
        ({"key": "two\nlines"}, "options.key"),
        ({"key": 17171717}, "options.key"),
        ({"headers": {"x y": "1"}}, "no name of a header"),
        ({"headers": {"x": "é"}}, "options.headers.x"),
    ],
)
def test_loading_says_what_is_wrong(upstream: Upstream, options: dict[str, Any], text: str) -> None:
    port = upstream.url.split(":")[2].split("/")[0]
    given = {k: v.replace("{port}", port) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(RuntimeLoadError, match=text.replace("?", r"\?")) as caught:
        load(upstream, **given)
    for secret in (KEY, "wrong", "two", "17171717", "pass@"):
        assert secret not in str(caught.value)


def test_headers_are_sent_and_the_key_is_shown_nowhere(upstream: Upstream) -> None:
    model = load(upstream, headers={"X-Team": "signals"})
    answer(model)
    assert upstream.headers["x-team"] == "signals"
    assert KEY not in repr(model.__dict__)
