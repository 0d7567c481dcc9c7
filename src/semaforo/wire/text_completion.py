"""Text completions in OpenAI's form: choices put together whole, or written as server-sent events.

Each choice is a chat whose deltas are its text; the rules of `semaforo.wire.completion` hold here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from semaforo.wire.completion import RESTARTED, TEXT, Completion
from semaforo.wire.payload import ChatChunk
from semaforo.wire.sse import DONE, encode

_JSON = msgspec.json.Encoder()
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


def completion_object(
    request_id: str, model: str, created_s: int, choices: Sequence[Completion], echoes: Sequence[str],
    prompt_tokens: Sequence[int],
) -> dict[str, Any]:  # fmt: skip
    """Return the ``text_completion``.

    Args:
        request_id: Part of the completion's id.
        model: Name of the model that answered.
        created_s: Seconds since 1970.
        choices: What each chat came to.
        echoes: What each choice begins with.
        prompt_tokens: Estimates for the usage, where the model states none.
    """
    found = []
    for index, choice in enumerate(choices):
        whole = choice.object("", model, created_s, 0)["choices"][0]
        found.append(
            {
                "text": echoes[index] + (whole["message"]["content"] or ""),
                "index": index,
                "logprobs": whole["logprobs"],
                "finish_reason": whole["finish_reason"],
            }
        )
    usages = [choice.usage(prompt_tokens[index]) for index, choice in enumerate(choices)]
    frame = _frame(request_id, model, created_s)
    return {**frame, "choices": found, "usage": total_usage(usages)}


def total_usage(usages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the usage of all choices together; that of a single one is left as the model stated it."""
    if len(usages) == 1:
        return usages[0]
    return {name: sum(_count(usage.get(name)) for usage in usages) for name in _COUNTS}


class TextWriter:
    """Writes the chunks of all choices as server-sent events."""

    def __init__(
        self, request_id: str, model: str, created_s: int, echoes: Sequence[str], prompt_tokens: Sequence[int],
        *, include_usage: bool,
    ) -> None:  # fmt: skip
        """Begin a stream; arguments as in `completion_object`, and whether it ends with a chunk of usage."""
        self._frame = _frame(request_id, model, created_s)
        self._include_usage = include_usage
        self._echoes = list(echoes)
        self._counts = [Completion() for _ in echoes]
        self._prompt_tokens = prompt_tokens

    def chunk(self, index: int, chunk: ChatChunk) -> bytes:
        """Write one chunk of a choice; nothing (``b""``) where it says nothing to the client."""
        count = self._counts[index]
        content = chunk.delta.get("content")
        text = content if isinstance(content, str) else ""
        # Only counts and the end are kept: the text is the client's to put together.
        count.add(ChatChunk({}, chunk.finish_reason, chunk.usage, chunk.tokens, restart=chunk.restart))
        if not text and chunk.logprobs is None:
            return b""
        echo, self._echoes[index] = self._echoes[index], ""
        return self._choice(index, echo + text, None, chunk.logprobs, restart=chunk.restart)

    def over(self, index: int) -> bytes:
        """Write the end of a choice."""
        echo, self._echoes[index] = self._echoes[index], ""
        return self._choice(index, echo, self._counts[index].finish_reason, None)

    def end(self) -> bytes:
        """Write the end of a stream that ended well."""
        if not self._include_usage:
            return DONE
        usages = [count.usage(self._prompt_tokens[index]) for index, count in enumerate(self._counts)]
        return encode(_JSON.encode({**self._frame, "choices": [], "usage": total_usage(usages)})) + DONE

    def _choice(
        self,
        index: int,
        text: str,
        finish: str | None,
        logprobs: dict[str, Any] | None,
        *,
        restart: bool = False,
    ) -> bytes:
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish}
        frame = {**self._frame, "choices": [choice], **(RESTARTED if restart else {})}
        if self._include_usage:
            frame["usage"] = None
        return encode(_JSON.encode(frame))


def _frame(request_id: str, model: str, created_s: int) -> dict[str, Any]:
    return {"id": f"{TEXT}{request_id}", "object": "text_completion", "created": created_s, "model": model}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
