"""Cascades in a fleet: a verifier looks at the cheap answer, and the dear model is asked where it will not do."""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.grpc as triton

from cascade_fleet import write_cascades
from semaforo import Client, Fleet, Graph, Restart
from semaforo.build import blueprint
from semaforo.config.fleet import FleetFileError
from semaforo.errors import ConfigError
from semaforo.server.settings import ServerSettings
from served_fleet import serving


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    return write_cascades(tmp_path)


@pytest.fixture
def fleet(fleet_file: Path) -> Iterator[Fleet]:
    with Fleet.open(fleet_file) as served:
        yield served


def loaded(folder: Path) -> Any:
    """Return the module in which the models of the fleet were imported."""
    named = str(folder / "models.py")
    return next(m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == named)


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
        ("{verify: cheap, by: routers/chat.router}", "{verify: cheap}", "holds no verifier"),
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
    dear = graph.ask("large", name="dear", when=(check["gain"] > 0.5) | check.missing())
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


def test_a_stream_is_held_back_until_it_is_known_who_answers(fleet: Fleet) -> None:
    assert list(fleet.chat("careful", "61 + 30?")) == ["It is 91", "."]
    held = list(fleet.chat("careful", "1 + 2?"))
    assert len(held) > 5, "what was held back comes as the stream that it was"
    assert "".join(held).strip() == "1 + 2 = 3, so it is 3"
    # With a deadline the dear answer may be dropped half said, so it comes when it is whole.
    assert "".join(fleet.chat("careful", "61 + 30?", deadline="30s")) == "It is 91."


def test_a_stream_that_starts_over_says_so(fleet: Fleet, fleet_file: Path) -> None:
    gate = loaded(fleet_file.parent).GATE
    gate.clear()
    try:
        stream = fleet.chat("restarting", "61 + 30?")
        first = [next(stream) for _ in range(3)]
        assert first == ["61 ", "+ ", "30 "], "the cheap answer is heard while the dear one is not even there"
    finally:
        gate.set()
    rest = list(stream)
    mark = next(at for at, piece in enumerate(rest) if isinstance(piece, Restart))
    assert "".join(rest[mark + 1 :]) == "It is 91."
    assert stream.text() == "It is 91."
    assert stream.answer is not None
    assert stream.answer["text"] == "It is 91."
    kept = list(fleet.chat("restarting", "1 + 2?"))
    assert not any(isinstance(piece, Restart) for piece in kept)


def test_a_dear_answer_that_breaks_off_gives_way_to_the_cheap_one(fleet: Fleet) -> None:
    pieces = list(fleet.chat("breaking", "61 + 30?"))
    assert [isinstance(piece, Restart) for piece in pieces].count(True) == 2
    last = max(at for at, piece in enumerate(pieces) if isinstance(piece, Restart))
    assert "".join(pieces[last + 1 :]).strip() == "61 + 30 = 101, so it is 101"
    answer = fleet.chat("breaking", "61 + 30?")
    assert answer.text().strip() == "61 + 30 = 101, so it is 101"
    assert answer.answer is not None
    assert answer.answer.without[0].startswith("dear: ")


def test_openai_clients_see_the_marker_and_whole_answers_have_none(fleet_file: Path) -> None:
    with serving(blueprint(fleet_file).catalog) as served:
        client = openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)
        said: Any = [{"role": "user", "content": "61 + 30?"}]
        whole = client.chat.completions.create(model="restarting", messages=said)
        assert whole.choices[0].message.content == "It is 91."
        raw = client.chat.completions.with_raw_response.create(model="restarting", messages=said, stream=True)
        assert raw.headers["semaforo-stream"] == "restart"
        texts, counts, ends = [], [], []
        for chunk in raw.parse():
            texts.append(chunk.choices[0].delta.content or "")
            if (getattr(chunk, "semaforo", None) or {}).get("restart"):
                counts.append(len(texts))
            ends += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
        assert ends == ["stop"], "the first answer does not end the stream"
        assert len(counts) == 1
        assert "".join(texts[counts[0] :]) == "It is 91."
        assert "".join(texts).endswith("so it is 101 \n\n---\n\nIt is 91."), "what other clients show"
        held = client.chat.completions.with_raw_response.create(model="careful", messages=said, stream=True)
        assert "semaforo-stream" not in held.headers
        assert "".join(c.choices[0].delta.content or "" for c in held.parse()) == "It is 91."
        told = client.completions.create(model="restarting", prompt="61 + 30?", stream=True)
        assert next(c for c in told if getattr(c, "semaforo", None)).choices[0].text == "\n\n---\n\n"
        with Client(served.url) as own:
            pieces = list(own.chat("restarting", "61 + 30?"))
            assert [isinstance(piece, Restart) for piece in pieces].count(True) == 1
            assert own.chat("restarting", "61 + 30?").text() == "It is 91."
        events = httpx.post(
            served.url + "/v2/models/restarting/generate_stream", json={"text_input": "61 + 30?"}
        ).text
        assert events.count('"restart":true') == 1


def test_a_stream_over_grpc_has_the_marker_as_a_parameter(fleet_file: Path) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    settings = ServerSettings(port=0, grpc_port=0, grace_s=2.0)
    with (
        serving(blueprint(fleet_file).catalog, settings) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        client.start_stream(lambda result, error: heard.put((result, error)))
        prompt = triton.InferInput("text_input", [1], "BYTES")
        prompt.set_data_from_numpy(np.array([b"61 + 30?"], object))
        client.async_stream_infer("restarting", [prompt], enable_empty_final_response=False)
        said, marks, final = [], [], False
        while not final:
            result, error = heard.get(timeout=10)
            assert error is None
            response = result.get_response()
            said.append(result.as_numpy("text_output")[0].decode())
            if response.parameters["semaforo_restart"].bool_param:
                marks.append(len(said))
            final = response.parameters["triton_final_response"].bool_param
        client.stop_stream()
    assert len(marks) == 1, said
    assert "".join(said[marks[0] :]) == "It is 91."


def test_no_escalation_that_cannot_end_in_time(fleet: Fleet, fleet_file: Path) -> None:
    calls = loaded(fleet_file.parent).CALLS
    for _ in range(3):
        assert fleet.chat("hurried", "61 + 30?").text() == "It is 91."
    before = calls.count("slow")
    hurried = fleet.chat("hurried", "61 + 30?", deadline="300ms")
    assert hurried.text().strip() == "61 + 30 = 101, so it is 101"
    assert hurried.answer is not None
    assert hurried.answer.without == ("dear: late",)
    assert "without dear: late" in hurried.answer.why
    assert calls.count("slow") == before, "nothing was begun that could not end"
    patient = fleet.chat("hurried", "61 + 30?", deadline="30s")
    assert patient.text() == "It is 91."
    assert patient.answer is not None
    assert not patient.answer.without


def test_a_verifier_may_lie_in_a_folder_of_versions(fleet_file: Path) -> None:
    routers = fleet_file.parent / "routers"
    (routers / "chat/2").mkdir(parents=True)
    (routers / "chat.router").rename(routers / "chat/2/chat.router")
    text = fleet_file.read_text()
    fleet_file.write_text(text.replace("by: routers/chat.router", "by: routers/chat"))
    with Fleet.open(fleet_file) as fleet:
        assert fleet.chat("careful", "61 + 30?").text() == "It is 91."


def test_samples_are_drawn_anew_beside_a_cache(fleet_file: Path) -> None:
    cached = "chat: {kind: chat, cache: {exact: true, sampled: true}}"
    fleet_file.write_text(fleet_file.read_text().replace("chat: {kind: chat}", cached))
    with Fleet.open(fleet_file) as fleet:
        # This one keeps a guess, and four copies of it would agree.
        assert fleet.chat("agreeing", "61 + 30?", temperature=0.5).text() == "It is 91."
        assert fleet.chat("consistent", "61 + 30?", temperature=0.5).text() == "It is 91."
