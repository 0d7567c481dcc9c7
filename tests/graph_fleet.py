"""A small real fleet of graphs: models in Python and the graphs made of them."""

from __future__ import annotations

from pathlib import Path

MODELS = '''\
import threading
import time

import numpy as np

CALLS = []
GATE = threading.Event()
GATE.set()


def quick(x):
    """Two classes by the sign of the mean; sure of itself only far from zero."""
    CALLS.append(("quick", len(x)))
    mean = np.asarray(x).mean(axis=1)
    p = 1 / (1 + np.exp(-4 * mean))
    return {"label": (p > 0.5).astype(np.int64), "p": np.stack([1 - p, p], 1).astype(np.float32)}


def sure(x):
    CALLS.append(("sure", len(x)))
    p = (np.asarray(x).sum(axis=1) > 0.3).astype(np.float32)
    return {"label": p.astype(np.int64), "p": np.stack([1 - p, p], 1).astype(np.float32)}


def broken(x):
    raise RuntimeError("this model always fails")


def slow(x):
    GATE.wait(20)
    return {"label": np.ones(len(x), np.int64), "p": np.tile(np.float32([0, 1]), (len(x), 1))}


def halve(v):
    return {"w": np.asarray(v) / 2, "small": (np.abs(np.asarray(v)) < 1).astype(np.int64)}


def scaled(x, factor=2):
    """A step's function."""
    return {"x": np.asarray(x) * factor}


def words(text: list[str]) -> list[list[str]]:
    return [one.split() for one in text]


def count(text: list[str], before):
    return {"n": np.asarray(before) + np.array([len(one.split()) for one in text])}


def shout(word: list[str]) -> list[str]:
    return [one.upper() for one in word]


def parrot(messages):
    for word in messages[-1]["content"].split():
        yield word + " "
'''

FLEET = """\
tasks:
  sign:
    inputs: {x: "fp32[3]"}
    outputs: {label: int64, p: "fp32[2]"}
  halve:
    inputs: {v: fp64}
    outputs: {w: fp64, small: int64}
  chat: {kind: chat}
  shout:
    inputs: {word: bytes}
    outputs: {loud: bytes}
  title:
    inputs: {text: bytes}
    outputs: {words: "bytes[?]"}
  talk:
    inputs: {text: bytes}
    outputs: {n: int64}
models:
  quick: {task: sign, python: "models.py:quick", isolation: thread}
  sure: {task: sign, python: "models.py:sure", isolation: thread}
  broken: {task: sign, python: "models.py:broken", isolation: thread}
  slow: {task: sign, python: "models.py:slow", isolation: thread}
  halver: {task: halve, python: "models.py:halve", isolation: thread}
  shouter: {task: shout, python: "models.py:shout", isolation: thread}
  parrot: {task: chat, python: "models.py:parrot", isolation: thread}
  cascade:
    task: sign
    graph:
      steps:
        quick: quick
        sure: {ask: sure, when: "max(quick.p) < 0.9 or missing(quick)"}
        best: {fuse: first, of: [sure, quick]}
  robust:
    task: sign
    graph:
      steps:
        a: broken
        b: sure
        best: {fuse: first, of: [a, b]}
  hopeless:
    task: sign
    graph: {steps: {a: broken}}
  patient:
    task: sign
    graph:
      steps:
        a: slow
        b: quick
        best: {fuse: first, of: [a, b], wait: 50ms}
  hedged:
    task: sign
    graph:
      steps:
        a: slow
        b: {ask: quick, delay: 30ms}
        best: {fuse: first, of: [a, b], quorum: 1}
  stuck: {task: sign, graph: {steps: {a: slow}}}
  outer: {task: sign, graph: {steps: {a: stuck}}}
  outermost: {task: sign, graph: {steps: {a: outer}}}
  scaled:
    task: sign
    graph:
      steps:
        more: {call: "models.py:scaled", inputs: {x: input.x}, outputs: {x: "fp32[3]"}}
        best: {ask: sure, inputs: {x: more.x}}
  shrink:
    task: halve
    graph:
      steps:
        smaller: {loop: halver, carry: {v: w}, until: small == 1, most: 20}
  loud:
    task: title
    graph:
      steps:
        split: {call: "models.py:words", inputs: {text: input.text}, outputs: {word: "bytes[?]"}}
        each: {ask: shouter, each: [word], inputs: {word: split.word}}
      answer: {words: each.loud}
  counter:
    task: talk
    graph:
      session: {n: int64}
      steps:
        add: {call: "models.py:count", inputs: {text: input.text, before: session.n}, outputs: {n: int64}}
      answer: {n: add.n}
      remember: {n: add.n}
  polite:
    task: chat
    graph:
      steps:
        draft: {ask: parrot, prompt: "dear {input.text}"}
        final: {ask: parrot, inputs: {text: draft.text}}
      answer: {text: final.text}
"""


def write_graphs(folder: Path) -> Path:
    """Write models and fleet file; return the fleet file."""
    (folder / "models.py").write_text(MODELS)
    fleet = folder / "fleet.yaml"
    fleet.write_text(FLEET)
    return fleet
