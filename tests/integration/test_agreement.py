"""What a fusion says of its members: who is not with the others is worth less, as long as nobody knows better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semaforo import Fleet

FLEET = """\
tasks:
  side: {inputs: {x: "fp32[1]"}, outputs: {label: int64}}
  one: {inputs: {x: "fp32[1]"}, outputs: {label: int64}}
models:
  a: {task: one, python: "sides.py:good", quality: 0.8, isolation: inline}
  b: {task: one, python: "sides.py:good", quality: 0.8, isolation: inline}
  c: {task: one, python: "sides.py:bad", quality: 0.8, isolation: inline}
  together:
    task: side
    graph:
      steps:
        first: a
        second: b
        third: c
        all: {fuse: vote, of: [MEMBERS], feedback: SHARE}
"""
SIDES = """\
import numpy as np


def good(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] > 0).astype(np.int64)


def bad(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] <= 0).astype(np.int64)
"""


def opened(folder: Path, members: str = "first, second, third", share: str = "0.2") -> Fleet:
    """Open the fleet."""
    (folder / "sides.py").write_text(SIDES)
    text = FLEET.replace("MEMBERS", members).replace("SHARE", share)
    if "second" not in members:
        text = text.replace("        second: b\n", "")
    (folder / "fleet.yaml").write_text(text)
    return Fleet.open(folder / "fleet.yaml")


def believed(fleet: Fleet) -> dict[str, tuple[int, float]]:
    """Return by model how often feedback was given, and what is believed."""
    found = {}
    for name, history in fleet._inner.engine.history.items():
        if history.quality is not None:
            found[name.split("/")[0]] = (history.quality.given, history.quality.mean)
    return found


def test_who_is_not_with_the_others_is_worth_less(tmp_path: Path) -> None:
    with opened(tmp_path) as fleet:
        for n in range(60):
            answer = fleet.infer("side", x=np.float32([[n - 30.5], [30.5 - n]]))
        found = believed(fleet)
        assert {name: given for name, (given, _) in found.items()} == {"a": 60, "b": 60, "c": 60}
        assert found["a"][1] > 0.8
        assert found["c"][1] < 0.7
        # Whoever knows the truth is heard beside it, of the answer and of its steps.
        fleet.feedback(answer, label=[0, 0])
        assert {name: given for name, (given, _) in believed(fleet).items()} == {
            "together": 1,
            "a": 61,
            "b": 61,
            "c": 61,
        }


@pytest.mark.parametrize(("members", "share"), [("first, second, third", "0"), ("first, third", "0.2")])
def test_nothing_is_learned_of_too_few_or_where_nobody_asked(
    tmp_path: Path, members: str, share: str
) -> None:
    with opened(tmp_path, members, share) as fleet:
        for n in range(5):
            fleet.infer("side", x=np.float32([[n - 2.5]]))
        assert not believed(fleet)
