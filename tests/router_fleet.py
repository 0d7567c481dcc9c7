"""A fleet of two models, each right on one half of the requests, and three routers of it in versions."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from semaforo.jobs.learn.train import train
from semaforo.routing.router import Router
from semaforo.routing.table import Table

FLEET = """\
tasks:
  answer:
    inputs:  {text: bytes}
    outputs: {label: int64}
    prefer:  {maximise: quality}
    router:  ROUTER
devices: {cpu: {price: 1/h}}
models:
  small: {task: answer, python: "both.py:small", quality: 0.85, isolation: inline}
  large: {task: answer, python: "both.py:large", quality: 0.9, isolation: inline}
history: history.db
journal: journal.bin
"""
BOTH = """\
import numpy as np


def small(text: list[str]) -> np.ndarray:
    return np.zeros(len(text), np.int64)


def large(text: list[str]) -> np.ndarray:
    return np.ones(len(text), np.int64)
"""


def routers() -> dict[str, bytes]:
    """Return a router that is right, the same the wrong way round, and another that is right."""
    rng = np.random.default_rng(0)
    prompts, scores = [], []
    for _ in range(150):
        hard = bool(rng.random() < 0.5)
        words = " ".join(rng.choice(["red", "blue", "green", "house", "tree", "car"], rng.integers(1, 9)))
        prompts.append(f"{words} {'hard' if hard else 'easy'}")
        scores.append((float(not hard), float(hard)))
    values = np.array(scores)
    models, costs = ("small", "large"), np.full(values.shape, np.nan)
    predictor = train(Table(models, ("answer",) * len(prompts), tuple(prompts), values, costs))
    wrong = msgspec.structs.replace(predictor, models=models[::-1])
    return {
        "good": Router(predictor, 150, figures={"score": 0.9}).encode(),
        "bad": Router(wrong, 150, figures={"score": 0.9}).encode(),
        "alike": Router(predictor, 150, made="2026-01-01", figures={"score": 0.9}).encode(),
    }


def shelved(place: Path, trained: dict[str, bytes]) -> Path:
    """Put the routers on a shelf: version 1 is good, 2 bad, 3 good again."""
    (place / "both.py").write_text(BOTH)
    for version, name in (("1", "good"), ("2", "bad"), ("3", "alike")):
        folder = place / "routers/chat" / version
        folder.mkdir(parents=True)
        (folder / "chat.router").write_bytes(trained[name])
    return place


def stated(place: Path, router: str) -> Path:
    """Write a fleet file with a router stated so."""
    (place / "fleet.yaml").write_text(FLEET.replace("ROUTER", router))
    return place / "fleet.yaml"
