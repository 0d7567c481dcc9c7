"""A small real fleet of cascades: chats that add up, classifiers of numbers, and verifiers of their answers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from semaforo.jobs.learn.train import train
from semaforo.routing.cascade import cascade_table
from semaforo.routing.router import Router
from semaforo.routing.table import Table

MODELS = '''\
import re
import threading
import time

import numpy as np

CALLS = []
GATE = threading.Event()
GATE.set()


def numbers(messages):
    return [int(n) for n in re.findall(r"\\d+", messages[-1]["content"])]


def small(messages):
    """Adds up, and is wrong wherever a number is 50 or more."""
    CALLS.append("small")
    a, b = numbers(messages)
    found = a + b if max(a, b) < 50 else a + b + 10
    for word in f"{a} + {b} = {found}, so it is {found}".split(" "):
        yield word + " "


def large(messages):
    CALLS.append("large")
    GATE.wait(20)
    a, b = numbers(messages)
    yield f"It is {a + b}"
    yield "."


def broken(messages):
    yield "It "
    raise RuntimeError("this model always breaks off")


def slow(messages):
    CALLS.append("slow")
    time.sleep(0.35)
    a, b = numbers(messages)
    yield f"It is {a + b}."


DRAWS = iter(range(1_000_000))


def guess(messages):
    """Knows small numbers, and guesses large ones anew each time."""
    a, b = numbers(messages)
    return f"{a + b}" if max(a, b) < 50 else f"{a + b + next(DRAWS)}"


def quick(x):
    """Takes 1 for 0 in the middle of its range, and is not less sure of it."""
    CALLS.append(("quick", len(x)))
    x = np.asarray(x)[:, 0]
    p = np.where(x > 0, 0.9, 0.1) + 0.0 * x
    p = np.where((x > 0) & (x < 1), 0.3, p)
    return {"label": (p > 0.5).astype(np.int64), "p": np.stack([1 - p, p], 1).astype(np.float32)}


def sure(x):
    CALLS.append(("sure", len(x)))
    p = (np.asarray(x)[:, 0] > 0).astype(np.float32)
    return {"label": p.astype(np.int64), "p": np.stack([1 - p, p], 1)}
'''
FLEET = """\
tasks:
  chat: {kind: chat}
  side:
    inputs: {x: "fp32[1]"}
    outputs: {label: int64, p: "fp32[2]"}
models:
  small: {task: chat, python: "models.py:small", isolation: thread, stream: {first: 5ms, token: 20us}}
  large: {task: chat, python: "models.py:large", isolation: thread}
  broken: {task: chat, python: "models.py:broken", isolation: thread}
  slow: {task: chat, python: "models.py:slow", isolation: thread, stream: {first: 350ms, token: 20us}}
  guess: {task: chat, python: "models.py:guess", isolation: thread}
  quick: {task: side, python: "models.py:quick", isolation: thread}
  sure: {task: side, python: "models.py:sure", isolation: thread}
  careful:
    task: chat
    graph:
      steps:
        cheap: small
        check: {verify: cheap, by: routers/chat.router}
        dear: {ask: large, when: check.gain > 0.5}
        best: {fuse: first, of: [dear, cheap]}
  restarting:
    task: chat
    graph:
      stream: restart
      steps:
        cheap: small
        check: {verify: cheap, by: routers/chat.router}
        dear: {ask: large, when: check.gain > 0.5}
        best: {fuse: first, of: [dear, cheap]}
  breaking:
    task: chat
    graph:
      stream: restart
      steps:
        cheap: small
        check: {verify: cheap, by: routers/chat.router}
        dear: {ask: broken, when: check.gain > 0.5}
        best: {fuse: first, of: [dear, cheap]}
  hurried:
    task: chat
    graph:
      steps:
        cheap: small
        check: {verify: cheap, by: routers/chat.router}
        dear: {ask: slow, when: check.gain > 0.5}
        best: {fuse: first, of: [dear, cheap]}
  consistent:
    task: chat
    graph:
      steps:
        cheap: {ask: guess, samples: 4}
        dear: {ask: large, when: cheap.agreement < 0.6}
        best: {fuse: first, of: [dear, cheap]}
  agreeing:
    task: chat
    graph:
      steps:
        one: small
        other: guess
        dear: {ask: large, when: "agree(one.text, other.text) < 1"}
        best: {fuse: first, of: [dear, one]}
  sides:
    task: side
    graph:
      steps:
        quick: quick
        check: {verify: quick, by: routers/side.router}
        sure: {ask: sure, when: check.gain > 0.5}
        best: {fuse: first, of: [sure, quick]}
"""


ROWS = 200


@functools.cache
def chat_verifier() -> bytes:
    """Return a verifier of `small`, trained on sums."""
    rng = np.random.default_rng(0)
    prompts, answers, scores = [], [], []
    for _ in range(ROWS):
        a, b = (int(n) for n in rng.integers(1, 99, 2))
        right = max(a, b) < 50
        found = a + b if right else a + b + 10
        prompts.append(f"How much is {a} + {b}?")
        answers.append((f"{a} + {b} = {found}, so it is {found}", f"It is {a + b}."))
        scores.append((float(right), 1.0))
    table = Table(
        ("small", "large"), ("chat",) * ROWS, tuple(prompts), np.array(scores), np.full((ROWS, 2), np.nan),
        answers=tuple(answers),
    )  # fmt: skip
    return Router(train(cascade_table(table, "small")), ROWS, verifies="small").encode()


@functools.cache
def side_verifier() -> bytes:
    """Return a verifier of `quick`, trained on its scores."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, ROWS)
    middle = (x > 0) & (x < 1)
    p = np.where(middle, 0.3, np.where(x > 0, 0.9, 0.1))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    table = Table(
        ("quick", "sure"), ("side",) * ROWS, ("",) * ROWS, np.stack([~middle, np.ones(ROWS)], 1).astype(float),
        np.full((ROWS, 2), np.nan), ("answer.confidence", "answer.margin", "answer.entropy", "x.mean"),
        np.stack([np.maximum(p, 1 - p), np.abs(2 * p - 1), entropy, x], 1),
    )  # fmt: skip
    return Router(train(cascade_table(table, "quick")), ROWS, verifies="quick").encode()


def write_cascades(folder: Path) -> Path:
    """Write models, verifiers and fleet file; return the fleet file."""
    (folder / "models.py").write_text(MODELS)
    (folder / "routers").mkdir()
    (folder / "routers/chat.router").write_bytes(chat_verifier())
    (folder / "routers/side.router").write_bytes(side_verifier())
    fleet = folder / "fleet.yaml"
    fleet.write_text(FLEET)
    return fleet
