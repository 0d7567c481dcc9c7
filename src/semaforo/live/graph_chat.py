"""A step that is a chat: its prompt filled in for each row, its samples, what it says.

Rules this module keeps:

1. What is said goes to the run's voice only where a step is asked once: of several rows or samples none is the
   answer by itself.
2. Samples of one question may differ: where a seed was given each has one of its own, and none is a kept answer.
3. What is cancelled cancels everything it has asked.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from semaforo.entities import Ref
from semaforo.errors import InvalidRequest
from semaforo.features import chat_tokens
from semaforo.graph.agreement import most_said
from semaforo.graph.graph import Step
from semaforo.graph.values import Array, Given
from semaforo.live.graph_run import GraphRun, Worked
from semaforo.wire.payload import Chat

CHATS_AT_ONCE = 16
"""Chats of one step of one request in flight: its rows, and samples of each."""


async def chat(run: GraphRun, step: Step, given: Given, deadline: float) -> Worked:
    """Ask a chat with each row's text, as often as is to be sampled, and gather what it says.

    Raises:
        SemaforoError: It could not be answered.
    """
    room = asyncio.Semaphore(min(step.at_once, CHATS_AT_ONCE))
    alone = given.count == 1 and step.samples == 1
    speaks = alone and run.voice is not None and step.name in run.voice.speakers

    async def one(row: int, sample: int) -> str:
        said = {name: first_text(array, row) for name, array in given.arrays.items()}
        if step.prompt:
            text: str | None = _filled(step.prompt, said)
        else:
            text = said.get("text")
        messages = _messages(run, said.get("messages")) if text is None or "messages" in said else None
        if messages is not None:
            text = None
        async with room:
            return await _say(run, step, text, messages, deadline, speaks, sample)

    if alone:
        texts = [await one(0, 0)]
    else:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one(row, sample))
                for row in range(given.count)
                for sample in range(step.samples)
            ]
        texts = [task.result() for task in tasks]
    if step.samples == 1:
        return {"text": _texts(texts)}, given.rows
    of_rows = [texts[at : at + step.samples] for at in range(0, len(texts), step.samples)]
    found = [most_said(row) for row in of_rows]
    return {
        "text": _texts([row[place] for row, (place, _, _) in zip(of_rows, found, strict=True)]),
        "agreement": np.array([share for _, share, _ in found]),
        "unlike": np.array([unlike for _, _, unlike in found], float),
    }, given.rows


def first_text(array: Array, row: int = 0) -> str:
    """Return one text of a tensor of texts."""
    found = np.asarray(array).reshape(len(array), -1)[row, 0]
    return found.decode() if isinstance(found, bytes) else str(found)


def _messages(run: GraphRun, given: str | None) -> Any:
    """Return the messages of a chat: those given as JSON, else those of the request."""
    if given is not None:
        try:
            return msgspec.json.decode(given)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"'messages' is no JSON: {error}") from None
    if run.body is None:
        raise InvalidRequest("a chat takes a text, messages or a prompt: give it one")
    return run.body["messages"]


async def _say(
    run: GraphRun, step: Step, text: str | None, messages: Any, deadline: float, speaks: bool, sample: int
) -> str:
    """Ask a chat and return what it said; its chunks go to the client where it may be the answer."""
    body = {k: v for k, v in (run.body or {}).items() if k not in ("messages", "prompt", "stream")}
    body |= run.parameters
    body["model"] = step.target
    if speaks and run.body is not None and run.body.get("stream"):
        body["stream"] = True
    if sample and isinstance(body.get("seed"), int):
        # The same seed would give the same answer again.
        body["seed"] += sample
    body["messages"] = [{"role": "user", "content": text}] if text is not None else messages
    request = run.request(step, Ref(1, len(text or "")), deadline, stream=True)
    request = msgspec.structs.replace(request, prompt_tokens=chat_tokens(body))
    if step.samples > 1:
        # An answer that was kept agrees with itself.
        contract = msgspec.structs.replace(request.contract, fresh=True)
        request = msgspec.structs.replace(request, contract=contract)
    stream = run.conductor.stream(request, Chat(body))
    said: list[str] = []
    try:
        async for chunk in stream:
            content = chunk.delta.get("content")
            if chunk.restart:
                said.clear()
            elif isinstance(content, str):
                said.append(content)
            if speaks and run.voice is not None:
                run.voice.says(step.name, chunk)
    finally:
        stream.close()
    if stream.answer is not None:
        run.cost += stream.answer.finish.cost
    return "".join(said)


def _texts(texts: Sequence[str]) -> Array:
    found = np.empty(len(texts), object)
    found[:] = [text.encode() for text in texts]
    return found


def _filled(prompt: str, said: dict[str, str]) -> str:
    parts = []
    for literal, name, _, _ in string.Formatter().parse(prompt):
        parts.append(literal)
        if name:
            parts.append(said[name])
    return "".join(parts)
