"""An answer in OpenAI's form: chunks put together into one completion, or written as server-sent events.

Rules this module keeps:

1. Deltas are merged as OpenAI's own client does: texts are joined, list entries merge by ``index``, names and
   ids are set; fields nobody here knows are merged the same way, so that they survive.
2. The first event of a stream names the role, its last choice has a `finish_reason`, whatever the model sent.
3. Usage is the model's own where it stated one, and an estimate otherwise.
4. A restart is marked by a field of its own; what it says is for clients that do not know the field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from semaforo.wire.payload import ChatChunk
from semaforo.wire.sse import DONE, encode

_WHOLE = frozenset({"role", "id", "type", "name", "index", "format", "expires_at"})
_JSON = msgspec.json.Encoder()
RESTARTED: dict[str, Any] = {"semaforo": {"restart": True}}
"""Field of a chunk that marks a restart: all text up to it, its own included, is taken back."""

CHAT, TEXT = "chatcmpl-", "cmpl-"
"""What the ids of answers begin with, as OpenAI's do; the rest is the id of the request."""


def request_of_answer(answer_id: str) -> str:
    """Return the id of the request that an answer of this id, or the id of a request itself, belongs to."""
    return answer_id.removeprefix(CHAT).removeprefix(TEXT)


class Completion:
    """Collects the chunks of one answer."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        self._texts: list[str] = []
        self._logprobs: dict[str, Any] | None = None
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self.tokens = 0

    def add(self, chunk: ChatChunk) -> None:
        """Take the next chunk; one that restarts takes back all before it."""
        if chunk.restart:
            self._begin()
            return
        delta = chunk.delta
        if isinstance(delta.get("content"), str):
            # Joined once at the end: joining at each chunk would cost the square of a long answer's length.
            self._texts.append(delta["content"])
            delta = {name: value for name, value in delta.items() if name != "content"}
        merge_delta(self._message, delta)
        if chunk.logprobs:
            self._logprobs = self._logprobs or {}
            merge_delta(self._logprobs, chunk.logprobs)
        # What counts tokens as it goes states the sum so far, so that the last word is the whole.
        self._usage = chunk.usage or self._usage
        self._finish = chunk.finish_reason or self._finish
        self.tokens += chunk.tokens

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, as stated or as its content tells."""
        if self._finish:
            return self._finish
        return "tool_calls" if self._message.get("tool_calls") else "stop"

    def usage(self, prompt_tokens: int) -> dict[str, Any]:
        """Return the usage; `prompt_tokens` is the estimate where the model stated none."""
        return self._usage or _estimate(prompt_tokens, self.tokens)

    def object(self, request_id: str, model: str, created_s: int, prompt_tokens: int) -> dict[str, Any]:
        """Return the ``chat.completion``; `created_s` is in seconds since 1970."""
        message = dict(self._message)
        if self._texts:
            message["content"] = "".join(self._texts)
        message.setdefault("refusal", None)
        for call in message.get("tool_calls") or ():
            call.pop("index", None)
        return {
            "id": f"{CHAT}{request_id}",
            "object": "chat.completion",
            "created": created_s,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": self._logprobs,
                    "finish_reason": self.finish_reason,
                }
            ],
            "usage": self.usage(prompt_tokens),
        }


class ChunkWriter:
    """Writes the chunks of one answer as server-sent events."""

    def __init__(
        self, request_id: str, model: str, created_s: int, prompt_tokens: int, *, include_usage: bool
    ) -> None:
        """Begin a stream.

        Args:
            request_id: Part of the completion's id.
            model: Name of the model that answers.
            created_s: Seconds since 1970.
            prompt_tokens: Estimate for the usage, where the model states none.
            include_usage: Whether the stream ends with a chunk of usage.
        """
        self._frame: dict[str, Any] = {
            "id": f"{CHAT}{request_id}",
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
        }
        self._prompt_tokens = prompt_tokens
        self._include_usage = include_usage
        self._begun = False
        self._finished = False
        self._called = False
        self._usage: dict[str, Any] | None = None
        self._tokens = 0

    def chunk(self, chunk: ChatChunk) -> bytes:
        """Write one chunk; nothing (``b""``) where it says nothing to the client."""
        self._usage = chunk.usage or self._usage
        self._tokens += chunk.tokens
        delta = chunk.delta
        if chunk.restart:
            self._usage, self._tokens, self._called = None, 0, False
        if not delta and chunk.finish_reason is None and chunk.logprobs is None:
            return b""
        self._called = self._called or bool(delta.get("tool_calls"))
        self._finished = self._finished or chunk.finish_reason is not None
        return self._choice(delta, chunk.finish_reason, chunk.logprobs, restart=chunk.restart)

    def end(self) -> bytes:
        """Write the end of a stream that ended well."""
        last = b""
        if not self._finished:
            last = self._choice({}, "tool_calls" if self._called else "stop", None)
        if self._include_usage:
            usage = self._usage or _estimate(self._prompt_tokens, self._tokens)
            last += encode(_JSON.encode({**self._frame, "choices": [], "usage": usage}))
        return last + DONE

    def _choice(
        self,
        delta: dict[str, Any],
        finish_reason: str | None,
        logprobs: dict[str, Any] | None,
        *,
        restart: bool = False,
    ) -> bytes:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        frame = {**self._frame, "choices": [choice], **(RESTARTED if restart else {})}
        if self._include_usage:
            frame["usage"] = None
        return encode(_JSON.encode(frame))


def restarts(chunk: dict[str, Any]) -> bool:
    """Tell whether a chunk, as it came over the wire, marks a restart."""
    own = chunk.get("semaforo")
    return isinstance(own, dict) and own.get("restart") is True


def merge_delta(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    """Merge a delta into what came before it, in place; the delta itself is left as it is."""
    for name, value in delta.items():
        before = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, list):
            whole[name] = _merge_list(list(before) if isinstance(before, list) else [], value)
        elif isinstance(value, dict):
            inner = dict(before) if isinstance(before, dict) else {}
            merge_delta(inner, value)
            whole[name] = inner
        elif isinstance(value, str) and isinstance(before, str) and name not in _WHOLE:
            whole[name] = before + value
        elif value != "" or before is None:
            # Some servers repeat an id or a name as an empty text in every later chunk.
            whole[name] = value


def _estimate(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _merge_list(whole: list[Any], entries: list[Any]) -> list[Any]:
    for entry in entries:
        if not isinstance(entry, dict):
            whole.append(entry)
            continue
        before = _place(whole, entry)
        if before is None:
            before = {}
            whole.append(before)
        merge_delta(before, entry)
    return whole


def _place(whole: list[Any], entry: dict[str, Any]) -> dict[str, Any] | None:
    """Find the entry that this one goes on with; None where it is a new one."""
    index, identity = entry.get("index"), entry.get("id")
    known = [item for item in whole if isinstance(item, dict)]
    if index is not None:
        return next((item for item in known if item.get("index") == index), None)
    if identity:
        return next((item for item in known if item.get("id") == identity), None)
    # Without index and id, a piece of a call belongs to the last one; anything else is an entry of its own.
    return known[-1] if known and "function" in entry and "type" not in entry else None
