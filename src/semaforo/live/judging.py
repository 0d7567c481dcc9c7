"""Puts a share of the answers to a judge: a chat of the fleet that says what an answer is worth.

Rules this module keeps:

1. Nobody waits for a judge: it is asked once the answer is out, at the lowest priority, as the request's own tenant
   and class of data would ask it, so that budgets and privacy hold.
2. What a step, a shadow or a judge has answered is not judged, and no judge judges itself.
3. A judge that fails or says no number costs nothing but a line in the log; at most `MOST` answers wait for one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from typing import Protocol
from zlib import crc32

import msgspec

from semaforo.catalog.state import Catalog
from semaforo.core.effects import Finish
from semaforo.core.state import State
from semaforo.entities import Judging as Stated
from semaforo.entities import Priority, Ref, Request, Step
from semaforo.errors import NotFound, SemaforoError
from semaforo.features import chat_tokens
from semaforo.live.question import said_text
from semaforo.live.stream import Stream
from semaforo.wire.payload import Array, Chat, ChatChunk, Payload, Tensors

STEP = "judge"
MOST = 16
_JUDGE_S = 60.0
_MOST_CHARACTERS = 16_000
_MOST_VALUES = 64
_MOST_TOKENS = 256
_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?|-?\.\d+)(?:\s*(%|(?:/|out of)\s*(\d+(?:\.\d+)?)))?")

log = logging.getLogger("semaforo.engine")


class Asks(Protocol):
    """How a judge is asked."""

    def new_id(self) -> str:
        """Return a fresh request id."""
        ...

    def stream(self, request: Request, payload: Payload) -> Stream:
        """Serve a request whose answer comes in chunks."""
        ...


class Judging:
    """Asks judges.

    Args:
        state: The dispatcher's.
        asks: The engine.
        heard: Told the request, the variant that answered it, and its score 0…1.
    """

    def __init__(self, state: State, asks: Asks, heard: Callable[[str, str, float], None]) -> None:
        self._state = state
        self._asks = asks
        self._heard = heard
        self._running: set[asyncio.Task[None]] = set()

    def wants(self, request: Request) -> bool:
        """Tell whether the answer to a request is to be judged: by its id, so that it is known beforehand."""
        stated = _stated(self._state.catalog, request)
        return stated is not None and crc32(request.id.encode()) < stated.share * 2**32

    def answered(
        self, request: Request, payload: Payload, finish: Finish, said: Tensors | tuple[ChatChunk, ...]
    ) -> None:
        """Have an answer judged, where `wants` says so."""
        catalog = self._state.catalog
        stated = _stated(catalog, request)
        if stated is None or not self.wants(request) or len(self._running) >= MOST:
            return
        try:
            judges = {variant.id for variant in catalog.resolve(stated.model)}
        except NotFound:
            return
        question = _arrays(payload.arrays) if isinstance(payload, Tensors) else _messages(payload)
        answer = _arrays(said.arrays) if isinstance(said, Tensors) else said_text(said)
        if finish.variant in judges or not question or not answer:
            return
        prompt = stated.prompt.format(question=question, answer=answer)
        work = self._judge(request, stated.model, prompt, finish.variant)
        running = asyncio.get_running_loop().create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def close(self) -> None:
        """Ask nobody any more."""
        for running in self._running:
            running.cancel()

    async def _judge(self, request: Request, judge: str, prompt: str, variant: str) -> None:
        try:
            said = await told(self._asks, request, judge, prompt, _MOST_TOKENS)
        except SemaforoError as error:
            log.info("'%s' could not judge the answer to %s: %s", judge, request.id, error)
            return
        except Exception:
            log.exception("'%s' could not judge the answer to %s", judge, request.id)
            return
        score = score_in(said)
        if score is None:
            log.info("'%s' says no score of the answer to %s: %.80r", judge, request.id, said)
        else:
            self._heard(request.id, variant, score)


async def told(asks: Asks, request: Request, judge: str, prompt: str, most_tokens: int) -> str:
    """Ask a judge about the answer to a request, and return what it says.

    Raises:
        SemaforoError: It could not be asked.
    """
    body = {
        "model": judge, "messages": [{"role": "user", "content": prompt}], "temperature": 0,
        "max_tokens": most_tokens,
    }  # fmt: skip
    contract = msgspec.structs.replace(
        request.contract,
        priority=Priority.LOW,
        deadline_s=_JUDGE_S,
        min_quality=0.0,
        max_cost=None,
        fresh=True,
    )
    step = Request(
        asks.new_id(), judge, contract=contract, ref=Ref(1, len(prompt)), stream=True,
        prompt_tokens=chat_tokens(body), max_tokens=most_tokens, step=Step(request.id, STEP),
    )  # fmt: skip
    stream = asks.stream(step, Chat(body))
    said: list[str] = []
    try:
        async for chunk in stream:
            if chunk.restart:
                said.clear()
            else:
                said.append(str(chunk.delta.get("content") or ""))
    finally:
        stream.close()
    return "".join(said)


def score_in(text: str) -> float | None:
    """Return the first number of a text as a score: 0…1, a percentage, or so many out of so many; else None."""
    found = _NUMBER.search(text)
    if found is None:
        return None
    value = float(found[1])
    if found[2] == "%":
        value /= 100.0
    elif found[3]:
        value = value / float(found[3]) if float(found[3]) else -1.0
    return value if 0.0 <= value <= 1.0 else None


def _stated(catalog: Catalog, request: Request) -> Stated | None:
    if request.step is not None:
        return None
    try:
        return catalog.task_of(request.target).judge
    except NotFound:
        return None


def _messages(payload: Chat) -> str:
    """Return a conversation as text; "" where it is too long to be judged by, or holds more than text."""
    lines = []
    for message in payload.body.get("messages") or ():
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list):
            parts = [p.get("text") for p in content if isinstance(p, Mapping) and p.get("type") == "text"]
            content = "\n".join(map(str, parts)) if len(parts) == len(content) else None
        if not isinstance(content, str):
            return ""
        lines.append((str(message.get("role")), content))
    text = lines[0][1] if len(lines) == 1 else "\n".join(f"{role}: {content}" for role, content in lines)
    return text if len(text) <= _MOST_CHARACTERS else ""


def _arrays(arrays: Mapping[str, Array]) -> str:
    """Return small tensors as text; "" where they are too large to be read."""
    if sum(array.size for array in arrays.values()) > _MOST_VALUES:
        return ""
    lines = []
    for name, array in arrays.items():
        values = [_shown(value) for value in array.reshape(-1).tolist()]
        lines.append(f"{name}: {values[0] if len(values) == 1 else ', '.join(values)}")
    text = "\n".join(lines)
    return text if len(text) <= _MOST_CHARACTERS else ""


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.6g}" if isinstance(value, float) else str(value)
