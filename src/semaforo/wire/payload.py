"""Payloads: what a driver keeps for a request and hands to a replica, and what a replica hands back.

The core never sees these. Tensors are in the *task's* names, dtypes and layouts; an adapter beside the model
bridges to the model's own.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Tensors(msgspec.Struct):
    """Named arrays, the first dimension of each being rows.

    Attributes:
        arrays: Name → array ``(rows, …)``. BYTES tensors are object arrays of `bytes` or `str`.
        parameters: Whatever else the caller sent that a model may read.
        outputs: Names of the outputs that are wanted; empty = all.
        without: Of an answer: what it had to do without, each with the reason, for example ``net: late``.
    """

    arrays: dict[str, Array]
    parameters: dict[str, Any] = {}
    outputs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the first array; 1 where there is none."""
        for array in self.arrays.values():
            return int(array.shape[0]) if array.ndim else 1
        return 1


class Chat(msgspec.Struct):
    """A chat request: the OpenAI body as the client sent it (``model`` included, unknown fields kept).

    What asks to go on with a prompt is a chat as well: of one message, which the user says, and the same text
    as ``prompt`` beside it.
    """

    body: dict[str, Any]

    @property
    def prompt(self) -> str | None:
        """The prompt, where this asks to go on with one."""
        prompt = self.body.get("prompt")
        return prompt if isinstance(prompt, str) and self.body.get("messages") == [_said(prompt)] else None


def prompted(fields: dict[str, Any], prompt: str) -> Chat:
    """Return the chat that asks to go on with a prompt; `fields` are all others of its body."""
    return Chat({**fields, "messages": [_said(prompt)], "prompt": prompt})


def _said(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": prompt}


class ChatChunk(msgspec.Struct, omit_defaults=True):
    """One chunk of a streamed answer.

    Attributes:
        delta: OpenAI's delta: ``role``, ``content``, ``tool_calls`` …
        finish_reason: Set on the last chunk of content.
        usage: ``prompt_tokens``, ``completion_tokens``, ``total_tokens`` where known, and whatever details
            an upstream adds to them.
        tokens: Output tokens in this chunk, as well as is known.
        logprobs: OpenAI's log probabilities of this chunk's tokens, where they were asked for.
        restart: Whether all that was said before, and this, is taken back: the answer begins anew after it.
    """

    delta: dict[str, Any] = {}
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    tokens: int = 1
    logprobs: dict[str, Any] | None = None
    restart: bool = False


RESTART_TEXT = "\n\n---\n\n"
"""What a client that knows nothing of restarts shows between the answer that was taken back and the other."""


class Restart(str):
    """A piece of a chat that takes back all before it, itself included: the answer begins anew after it."""


def restart_chunk() -> ChatChunk:
    """Return the chunk that marks a restart."""
    return ChatChunk({"content": RESTART_TEXT}, tokens=0, restart=True)


Payload = Tensors | Chat


def split_rows(array: Array, counts: list[int]) -> list[Array]:
    """Split a batch back into members with these row counts (views, no copy)."""
    return np.split(array, np.cumsum(counts)[:-1])
