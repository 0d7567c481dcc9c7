"""A stream that nobody reads any more is closed: the generator's own clean-up runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from semaforo import Fleet

MODEL = """\
import time
from pathlib import Path


def endless(messages):
    try:
        while True:
            time.sleep(0.01)
            yield "on "
    finally:
        Path(__file__).with_name("closed").touch()
"""


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_generator_is_closed_in_the_middle_of_a_step(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "talk.py").write_text(MODEL)
    (tmp_path / "fleet.yaml").write_text(
        "tasks: {chat: {kind: chat}}\n"
        f"models: {{endless: {{task: chat, python: 'talk.py:endless', isolation: {isolation}}}}}\n"
    )
    with Fleet.open(tmp_path / "fleet.yaml") as fleet:
        stream = fleet.chat("endless", "go", stream=True)
        assert next(iter(stream)) == "on "
        assert not (tmp_path / "closed").exists()
        stream.close()
        until = time.monotonic() + 5
        while not (tmp_path / "closed").exists():
            assert time.monotonic() < until
            time.sleep(0.005)
