"""Graphs built in Python: they run, are checked, and stand in a fleet file as they were built."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from graph_fleet import write_graphs
from semaforo import Fleet, Graph, model
from semaforo.build import blueprint
from semaforo.errors import ConfigError
from semaforo.graph import graph as parts

ROWS = np.array([[1, 1, 1], [0.1, 0.1, 0.2], [-1, -1, -1]], np.float32)


def cascade() -> Graph:
    graph = Graph("surely", task="sign")
    quick = graph.ask("quick")
    unsure = (quick["p"].max() < 0.9) | quick.missing()
    sure = graph.ask("sure", when=unsure)
    graph.answer(graph.fuse("first", sure, quick, name="best"))
    return graph


def test_a_graph_built_in_python_is_the_one_of_the_file(tmp_path: Path) -> None:
    fleet = write_graphs(tmp_path)
    catalog = blueprint(fleet).catalog
    written = msgspec.convert(catalog.templates["cascade/1/default"].options["graph"], parts.Graph)
    built = cascade().built()
    assert msgspec.structs.replace(built, name="cascade", answer=written.answer) == msgspec.structs.replace(
        written,
        steps=tuple(
            msgspec.structs.replace(s, when="(max(quick.p) < 0.9) or missing(quick)" if s.when else "")
            for s in written.steps
        ),
    )
    with Fleet.open(fleet, graphs=[cascade()]) as served:
        assert served.infer("surely", x=ROWS)["label"].tolist() == [1, 1, 0]


def test_it_calls_functions_of_the_program(tmp_path: Path) -> None:
    def doubled(x: list[float]) -> dict[str, object]:
        return {"x": np.asarray(x, np.float32) * 2}

    graph = Graph("twice", task="sign")
    twice = graph.call(doubled, outputs={"x": "fp32[3]"}, inputs={"x": graph.input["x"]})
    graph.ask("sure", inputs={"x": twice["x"]})
    with Fleet.open(write_graphs(tmp_path), graphs=[graph]) as served:
        assert served.infer("twice", x=ROWS)["label"].tolist() == [1, 1, 0]
        assert served.infer("sure", x=ROWS)["label"].tolist() == [1, 1, 0]
    with pytest.raises(ConfigError, match="module:function"):
        graph.yaml()


def test_a_fleet_of_functions_takes_graphs() -> None:
    @model("shout")
    def loud(text: list[str]) -> list[str]:
        return [one.upper() for one in text]

    graph = Graph("louder", task="shout")
    once = graph.ask("loud", name="once")
    graph.ask("loud", name="again", inputs={"text": once["output"]})
    with Fleet.of(loud, graphs=[graph]) as served:
        assert served.infer("louder", text="hello")["output"] == "HELLO"


def test_its_text_is_a_fleet_file(tmp_path: Path) -> None:
    fleet = write_graphs(tmp_path)
    whole = Graph("whole", task="sign", quality=0.9, in_flight=8)
    a = whole.ask("quick", name="a", delay="30ms", min_quality=0.0, max_cost=0.5)
    b = whole.ask("sure", name="b", after=[a], variant="default")
    whole.fuse(
        "mean", a, b, name="c", wait="50ms", least=1, quorum=2, weights={"a": 2.0}, options={"field": "p"}
    )
    text = whole.yaml()
    fleet.write_text(fleet.read_text() + text.partition("models:\n")[2])
    catalog = blueprint(fleet).catalog
    assert (
        msgspec.convert(catalog.templates["whole/1/default"].options["graph"], parts.Graph) == whole.built()
    )
    assert catalog.variants["whole/1/default"].quality == 0.9


def test_values_make_conditions() -> None:
    graph = Graph("g", task="sign")
    a = graph.input["x"]
    assert repr((a.max() - a.min() > 0.5) & ~(a.mean() == 1)) == (
        "((max(input.x) - min(input.x)) > 0.5) and (not (mean(input.x) == 1))"
    )
    assert repr(a.argmax().isin([1, 2])) == "argmax(input.x) in [1, 2]"
    with pytest.raises(TypeError, match="&"):
        _ = 0.1 < a.max() < 0.5


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    fleet = write_graphs(tmp_path)
    graph = Graph("g", task="sign")
    quick = graph.ask("quick")
    with pytest.raises(ConfigError, match="another name"):
        graph.ask("quick")
    with pytest.raises(ConfigError, match="Did you mean 'at_once'"):
        graph.ask("quick", name="b", atonce=3)
    graph.ask("sure", inputs={"x": quick["q"]})
    with pytest.raises(ConfigError, match=r"graph g: steps\.sure.*'q'"):
        Fleet.open(fleet, graphs=[graph])
    with pytest.raises(ConfigError, match="Did you mean 'sign'"):
        Fleet.open(fleet, graphs=[Graph("h", task="sgn")])
    with pytest.raises(ConfigError, match="in the fleet already"):
        Fleet.open(fleet, graphs=[Graph("cascade", task="sign")])
    circle = Graph("circle", task="sign")
    circle.ask("sign")
    with pytest.raises(ConfigError, match="asks itself"):
        Fleet.open(fleet, graphs=[circle])


def test_what_several_steps_read_none_can_write_into() -> None:
    @model("add", name="adder", isolation="inline", inputs={"x": "fp32[2]"}, outputs={"x": "fp32[2]"})
    def adder(x: np.ndarray) -> np.ndarray:
        x += 1
        return x

    alone, both = Graph("alone", task="add"), Graph("both", task="add")
    first = alone.ask("adder", name="a")
    alone.ask("adder", name="b", inputs={"x": first["x"]})
    first = both.ask("adder", name="a")
    left = both.ask("adder", name="b", inputs={"x": first["x"]})
    both.fuse("mean", first, left)
    with Fleet.of(adder, graphs=[alone, both]) as served:
        assert served.infer("alone", x=np.zeros((1, 2), np.float32))["x"].tolist() == [[2.0, 2.0]]
        answer = served.infer("both", x=np.zeros((1, 2), np.float32))
        # The member that would have changed what the fusion reads is left out, and the answer says so.
        assert answer["x"].tolist() == [[1.0, 1.0]]
        assert answer.without == ("b: model_failed",)
