"""Cascades in a fleet: a verifier looks at the cheap answer, and the dear model is asked where it will not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cascade_fleet import write_cascades
from semaforo import Fleet, Graph
from semaforo.config.fleet import FleetFileError
from semaforo.errors import ConfigError


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    return write_cascades(tmp_path)


@pytest.fixture
def fleet(fleet_file: Path):
    with Fleet.open(fleet_file) as served:
        yield served


def test_a_verifier_decides_by_the_answer_of_a_chat(fleet: Fleet) -> None:
    right = fleet.chat("careful", "How much is 20 + 30?")
    assert right.text().strip() == "20 + 30 = 50, so it is 50"
    wrong = fleet.chat("careful", "How much is 61 + 30?")
    assert wrong.text() == "It is 91."
    assert right.answer is not None
    assert wrong.answer is not None
    assert "step check: predicts a gain of" in wrong.answer.why
    assert "step dear: its condition holds for 1 of 1 row" in wrong.answer.why
    assert "step dear: its condition holds for 0 of 1 row" in right.answer.why


def test_rows_go_up_one_by_one_and_together(fleet: Fleet, fleet_file: Path) -> None:
    x = np.array([[-2], [0.5], [2], [0.2], [0.7], [-1]], np.float32)
    found = fleet.infer("sides", x=x)
    assert found["label"].tolist() == [0, 1, 1, 1, 1, 0]
    steps = [line for line in found.why.splitlines() if "step sure" in line]
    assert len([line for line in steps if "sure/default in" in line]) == 1
    assert any("holds for 3 of 6 rows" in line for line in steps)
    many = np.tile(x, (20, 1))
    assert fleet.infer("sides", x=many)["label"].tolist() == [0, 1, 1, 1, 1, 0] * 20


def test_samples_and_models_that_agree(fleet: Fleet) -> None:
    for graph in ("consistent", "agreeing"):
        assert fleet.chat(graph, "1 + 2?").text().strip().endswith("3")
        assert fleet.chat(graph, "1 + 2?").text() != "It is 3."
        assert fleet.chat(graph, "51 + 2?").text() == "It is 53."


@pytest.mark.parametrize(
    ("change", "into", "says"),
    [
        ("by: routers/chat.router", "by: routers/none.router", "No such file"),
        ("by: routers/chat.router", "by: models.py", "is no trained router"),
        ("{verify: cheap, by: routers/chat.router}", "{verify: cheap}", "name the file of a verifier"),
        ("by: routers/chat.router", f'by: routers/chat.router, sha256: "{"0" * 64}"', "has the digest"),
        ("by: routers/chat.router", "by: routers/chat.router, against: lage", "Did you mean 'large'"),
        ("cheap: small", "cheap: guess", "was trained on answers of 'small', and 'cheap' asks guess"),
        ("verify: cheap", "verify: cheep", "Did you mean 'cheap'"),
        ("verify: quick", "verify: quick.label", "neither a text nor scores"),
        ("check.gain", "check.gian", "Did you mean 'gain'"),
        (
            "ask: large, when: check",
            "ask: large, samples: 2, by: x, when: check",
            "means nothing for a step with `ask`",
        ),
        ("quick: quick", "quick: {ask: quick, samples: 2}", "a chat is sampled"),
    ],
)
def test_what_is_wrong_with_a_verifier_has_its_line(
    fleet_file: Path, change: str, into: str, says: str
) -> None:
    text = fleet_file.read_text()
    assert change in text
    fleet_file.write_text(text.replace(change, into, 1))
    with pytest.raises(FleetFileError, match=says) as error:
        Fleet.open(fleet_file)
    assert "line" in str(error.value) or "fleet.yaml:" in str(error.value)


def test_a_verifier_stands_in_a_graph_built_in_python(fleet_file: Path) -> None:
    graph = Graph("built", task="chat")
    cheap = graph.ask("small", name="cheap")
    check = graph.verify(cheap, by=fleet_file.parent / "routers/chat.router", name="check")
    dear = graph.ask("large", name="dear", when=(check["gain"] > 0.3) | check.missing())
    graph.answer(graph.fuse("first", dear, cheap, name="best"))
    with Fleet.open(fleet_file, graphs=[graph]) as fleet:
        assert fleet.chat("built", "61 + 30?").text() == "It is 91."
    fleet_file.write_text(fleet_file.read_text() + graph.yaml().removeprefix("models:\n"))
    with Fleet.open(fleet_file) as fleet:
        assert fleet.chat("built", "61 + 30?").text() == "It is 91."
    other = Graph("other", task="chat")
    other.answer(other.ask("guess", name="cheap"))
    other.verify(Graph("x", task="chat").ask("small", name="cheap"), by="none.router")
    with pytest.raises(ConfigError, match=r"none\.router"):
        Fleet.open(fleet_file, graphs=[other])
