"""Python models that the tests load by import string or by file."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import models
from semaforo.errors import InvalidRequest, Refused


def classify(image: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The classifier of `models`, as a function."""
    scores = image.reshape(len(image), -1) @ models.weights()
    return {"kind": [models.LABELS[i] for i in scores.argmax(axis=1)], "scores": scores}


def shout(text: list[str]) -> list[str]:
    for one in text:
        if one == "poison":
            raise ValueError("cannot shout poison")
        if one == "bad":
            raise InvalidRequest("'bad' is not to be shouted")
    return [one.upper() for one in text]


def length(text: str) -> int:
    return len(text)


async def length_later(text: list[str], parameters: dict[str, Any]) -> list[int]:
    await asyncio.sleep(float(parameters.get("sleep", 0)))
    return [len(one) for one in text]


def wrong_rows(text: list[str]) -> list[str]:
    return text[:1]


def wrong_shape(text: list[str]) -> Any:
    return np.zeros((len(text), 3))


def everything(text: list[str]) -> list[str]:
    """Does what the text says; what it returns tells who did it."""
    for one in text:
        word, _, value = one.partition(" ")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "exit":
            os._exit(int(value))
        elif word == "sleep":
            time.sleep(float(value))
        elif word == "touch":
            Path(value).touch()
        elif word == "print":
            print(value)
            print(value, file=sys.stderr)
    return [f"{os.getpid()} {one}" for one in text]


def tokens(messages: list[dict[str, Any]], max_tokens: int = 100) -> Iterator[str]:
    for word in messages[-1]["content"].split()[:max_tokens]:
        if word == "raise":
            raise ValueError("asked to")
        yield word + " "


async def slow_tokens(messages: list[dict[str, Any]], delay: float = 0.01) -> AsyncIterator[str]:
    if messages[-1]["content"] == "full":
        raise Refused("too many", retry_after_s=3.0)
    for word in messages[-1]["content"].split():
        await asyncio.sleep(delay)
        yield word


class Counter:
    """Counts its batches; loaded once, with an argument and a device."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.device = ""

    def load(self, device: str) -> None:
        self.device = device

    def __call__(self, x: list[float]) -> tuple[list[float], list[str]]:
        return [value + self.start for value in x], [self.device] * len(x)


def broken_import() -> None: ...


not_callable = 3
