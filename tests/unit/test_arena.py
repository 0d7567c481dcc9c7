"""Memory shared with workers: given out once, given back when the last array goes, and never past its end."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading

import numpy as np
import pytest

from semaforo.worker.arena import BLOCK, Arena, Lender, Window

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memfd is Linux's")


def filled(memory: Arena, value: int, size: int) -> np.ndarray:
    root = memory.take(size)
    assert root is not None
    root[:] = value
    return root


def test_blocks_never_overlap_and_all_come_back() -> None:
    memory = Arena(64 * BLOCK)
    rng = random.Random(0)
    held: list[tuple[int, np.ndarray]] = []
    for step in range(3000):
        if held and rng.random() < 0.5:
            value, array = held.pop(rng.randrange(len(held)))
            assert (array == value).all()
            del array
        else:
            root = memory.take(rng.choice((1, BLOCK, BLOCK + 1, 5 * BLOCK)))
            if root is not None:
                root[:] = step % 251
                held.append((step % 251, root))
    held.clear()
    del root
    assert memory.used == 0
    whole = memory.take(64 * BLOCK)
    assert whole is not None
    assert memory.take(1) is None


def test_a_view_keeps_its_block_in_whatever_thread_it_ends() -> None:
    memory = Arena(4 * BLOCK)
    root = filled(memory, 7, BLOCK)
    kept = [root[100:200].view(np.float32).reshape(5, 5)[1:]]
    del root
    assert memory.used == BLOCK
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert memory.used == 0


def test_only_what_is_in_use_can_be_viewed() -> None:
    memory = Arena(4 * BLOCK)
    root = filled(memory, 1, BLOCK)
    at = memory.at(root)
    assert (memory.view(at + 10, 20) == 1).all()
    for place, size in ((at, 2 * BLOCK), (at + BLOCK, 1), (-1, 1), (at, -1), (1 << 40, 1)):
        with pytest.raises(ValueError, match="no memory is in use"):
            memory.view(place, size)
    del root
    gc.collect()
    with pytest.raises(ValueError, match="no memory is in use"):
        memory.view(at, 1)


def test_a_worker_writes_to_its_inputs_for_itself_alone() -> None:
    memory = Arena(4 * BLOCK)
    root = filled(memory, 3, BLOCK)
    window = Window(os.dup(memory.descriptor))
    at = memory.at(root)
    seen = window.view(at, BLOCK)
    seen[:] = 9
    assert (root == 3).all()
    del seen
    assert window.freed == [at]
    root[:] = 4
    assert (window.view(at, BLOCK) == 4).all()
    grant = window.grant((at, BLOCK))
    assert grant is not None
    assert grant.put([np.full(10, 5, np.uint8)], 10) == at
    assert grant.put([np.full((2, 3), 6, np.int64)[:, ::2]], 32) == at + 4096
    assert grant.put([np.zeros(BLOCK, np.uint8)], BLOCK) == -1
    assert root[:10].tolist() == [5] * 10
    assert root[4096 : 4096 + 32].view(np.int64).tolist() == [6] * 4
    for place, size in ((-4096, 1), (5, 1), (4 * BLOCK, 1), (0, 5 * BLOCK)):
        with pytest.raises(ValueError, match="no shared memory"):
            window.view(place, size)


def test_what_is_there_already_is_not_copied() -> None:
    memory = Arena(16 * BLOCK)
    lender = Lender(memory)
    root = filled(memory, 1, 2 * BLOCK)
    array = root.view(np.float32).reshape(2, -1)
    assert lender.put([array], array.nbytes) == memory.at(root)
    assert memory.used == 2 * BLOCK
    # The second row begins a page, too; half a page further does not.
    assert lender.put([array[1:]], BLOCK) == memory.at(root) + BLOCK
    moved = lender.put([root[100 : 100 + BLOCK]], BLOCK)
    assert memory.used == 3 * BLOCK
    joined = lender.put([array[:1], array[1:]], 2 * BLOCK)
    assert (memory.view(joined, 2 * BLOCK) == 1).all()
    places = [memory.at(root), memory.at(root) + BLOCK, moved, joined]
    del root, array
    lender.freed(places[:2])
    gc.collect()
    assert memory.used == 3 * BLOCK
    lender.freed([*places[2:], 12345, places[0]])
    gc.collect()
    assert memory.used == 0


def test_room_for_answers_is_as_large_as_answers_have_been() -> None:
    memory = Arena(64 * BLOCK)
    lender = Lender(memory)
    assert lender.grant(1, 4) is None
    lender.answered(1, 4, [np.zeros((4, BLOCK), np.uint8)], BLOCK)
    given = lender.grant(2, 8)
    assert given is not None
    assert given[1] >= 8 * BLOCK
    lender.failed(2)
    assert memory.used == 0
    lender.grant(3, 8)
    lender.over()
    assert memory.used == 0
    lender.answered(3, 8, [np.zeros(8)], BLOCK)
    assert lender.grant(4, 8) is None
