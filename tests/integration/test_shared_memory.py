"""Large arrays between processes: right under load, whatever models keep or write, and nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from semaforo import Fleet
from semaforo.errors import SemaforoError
from semaforo.live.handles import handle_for

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memfd is Linux's")

MODELS = """\
import os

import numpy as np

KEPT = []


def plus(x):
    return {"y": x + 1}


def writes(x):
    x += 1
    return {"y": x}


def keeps(x):
    '''Answers with what came three calls before, which it has not copied.'''
    KEPT.append(x)
    del KEPT[:-3]
    return {"y": KEPT[0][:1].repeat(len(x), axis=0)}


def same(x):
    return {"y": x}


def pid(x):
    return {"y": np.full_like(x, os.getpid() % 10_000)}
"""
WIDTH = 40_000
FLEET = """\
tasks:
  t: {inputs: {x: "fp32[?]"}, outputs: {y: "fp32[?]"}}
models:
  plus: {task: t, python: "models.py:plus", isolation: process, max_batch: 4}
  writes: {task: t, python: "models.py:writes", isolation: process}
  keeps: {task: t, python: "models.py:keeps", isolation: process, max_batch: 1}
  same: {task: t, python: "models.py:same", isolation: process}
  chain:
    task: t
    graph:
      steps:
        a: plus
        b: {ask: writes, inputs: {x: a.y}}
        c: {ask: same, inputs: {x: a.y}}
        d: {ask: writes, inputs: {x: b.y}}
        sum: {fuse: mean, of: [c, d]}
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "models.py").write_text(MODELS)
    (folder / "fleet.yaml").write_text(FLEET)
    with Fleet.open(folder / "fleet.yaml") as found:
        yield found


def rows(value: float, count: int = 1) -> np.ndarray:
    return np.full((count, WIDTH), value, np.float32)


def used() -> int:
    memory = handle_for.memory()
    assert memory is not None
    return memory.used


def soon(true: Callable[[], bool], seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not true():
        gc.collect()
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def test_answers_stay_right_while_memory_is_used_again(fleet: Fleet) -> None:
    held = []
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda n: (n, fleet.infer("plus", x=rows(n, 1 + n % 3))["y"]), range(300))
        for n, answer in answers:
            assert answer.shape == (1 + n % 3, WIDTH)
            assert (answer == n + 1).all()
            if n % 10 == 0:
                held.append((n, answer))
    assert used() > 0
    assert all((answer == n + 1).all() for n, answer in held)
    held.clear()
    del answers, answer
    assert soon(lambda: used() == 0)


def test_a_model_that_writes_to_its_input_harms_nobody(fleet: Fleet) -> None:
    for n in range(20):
        given = rows(n)
        # c sees what a gave, whatever b has done to it: (n + 1 + n + 3) / 2.
        assert (fleet.infer("chain", x=given)["y"] == n + 2).all()
        assert (given == n).all()


def test_a_model_that_keeps_its_input_keeps_it_as_it_was(fleet: Fleet) -> None:
    seen = [float(fleet.infer("keeps", x=rows(n))["y"][0, 0]) for n in range(40)]
    assert seen == [max(0.0, n - 2.0) for n in range(40)]


def test_empty_strided_and_wide_arrays_go_the_same_way(fleet: Fleet) -> None:
    wide = np.arange(4 * WIDTH, dtype=np.float32).reshape(2, -1)
    assert np.array_equal(fleet.infer("plus", x=wide[:, ::2])["y"], wide[:, ::2] + 1)
    assert np.array_equal(fleet.infer("plus", x=wide[::-1])["y"], wide[::-1] + 1)
    assert fleet.infer("same", x=np.zeros((1, 0), np.float32))["y"].shape == (1, 0)


def test_a_killed_worker_gives_everything_back(fleet: Fleet) -> None:
    before = {status.id: status.pid for status in fleet.replicas() if status.variant.startswith("same")}
    (pid,) = before.values()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(fleet.infer, "same", x=rows(n), deadline="2s") for n in range(4)]
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        for one in asked:
            with contextlib.suppress(SemaforoError):
                one.result(20)
    del asked, one
    assert soon(lambda: fleet.ready("same"), 20)
    assert (fleet.infer("same", x=rows(5))["y"] == 5).all()


def test_where_memory_is_full_arrays_travel_through_the_socket(fleet: Fleet) -> None:
    memory = handle_for.memory()
    assert memory is not None
    taken = []
    size = 1 << 28
    while size >= 1 << 16:
        root = memory.take(size)
        if root is None:
            size //= 2
        else:
            taken.append(root)
    for n in range(5):
        assert (fleet.infer("chain", x=rows(n))["y"] == n + 2).all()
    del taken, root
    for n in range(5):
        assert (fleet.infer("chain", x=rows(n))["y"] == n + 2).all()
