"""Pictures of graphs: every box and link is there, nothing overlaps, and the longest way is told."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from semaforo.entities import TaskType, TensorSpec
from semaforo.graph.check import check
from semaforo.graph.draw.layout import layout
from semaforo.graph.draw.picture import Picture, picture
from semaforo.graph.draw.svg import svg
from semaforo.graph.draw.text import drawn, listed
from semaforo.graph.graph import Graph, Step

TASK = TaskType(
    "sign",
    inputs=(TensorSpec("x", "FP32", (3,)),),
    outputs=(TensorSpec("label", "INT64"), TensorSpec("p", "FP32", (2,))),
)
STEPS = (
    Step(name="quick", kind="ask", target="small"),
    Step(name="sure", kind="ask", target="large", when="max(quick.p) < 0.9", delay_s=0.01),
    Step(name="third", kind="ask", target="other", after=("quick",)),
    Step(name="best", kind="fuse", target="first", of=("sure", "quick", "third"), quorum=2),
)


def pictured(takes: dict[str, float] | None = None) -> Picture:
    graph = Graph(name="g", task="sign", steps=STEPS, answer={"": "best"})
    types = check(graph, TASK, lambda target: TASK, lambda key, message: pytest.fail(message))
    assert types is not None
    return picture(graph, TASK, types, takes=takes, graphs=frozenset({"large"}))


def text_of(what: Picture, width: int = 200) -> str:
    lines = drawn(what, width)
    assert lines is not None
    return "\n".join("".join(piece for piece, _ in line) for line in lines)


def test_what_flows_is_drawn() -> None:
    links = {(link.source, link.target): link for link in pictured().links}
    assert set(links) == {
        ("input", "quick"), ("input", "sure"), ("input", "third"), ("quick", "sure"), ("quick", "third"),
        ("sure", "best"), ("quick", "best"), ("third", "best"), ("best", "answer"),
    }  # fmt: skip
    assert (links["quick", "sure"].label, links["quick", "sure"].dashed) == ("when", True)
    assert (links["quick", "third"].label, links["quick", "third"].dashed) == ("then", True)
    assert links["input", "quick"].label == "x"


def test_the_text_shows_every_box_whole() -> None:
    text = text_of(pictured())
    for piece in ("quick", "asks small", "sure ⊞", "when max(quick.p) < 0.9", "after 10 ms, if still needed",
                  "until 2 of 3 agree", "x: fp32[3]"):  # fmt: skip
        assert piece in text
    assert text.count("▼") == 6
    assert text.count("╭─ ") == 6


def test_the_longest_way_is_told_where_all_times_are_known() -> None:
    assert not any(box.critical for box in pictured({"quick": 0.001, "sure": 0.002}).boxes)
    what = pictured({"quick": 0.001, "sure": 0.002, "third": 0.1})
    assert [box.name for box in what.boxes if box.critical] == ["input", "quick", "third", "best", "answer"]
    critical = {(link.source, link.target) for link in what.links if link.critical}
    assert critical == {("input", "quick"), ("quick", "third"), ("third", "best"), ("best", "answer")}
    assert "≈ 100 ms" in text_of(what)


def test_a_narrow_terminal_gets_a_list() -> None:
    assert drawn(pictured(), 40) is None
    lines = ["".join(piece for piece, _ in line) for line in listed(pictured())]
    assert "best  fuses by first; until 2 of 3 agree; → label, p" in lines
    assert "  ← input (x), quick (when)" in lines


def test_boxes_of_a_layer_keep_apart() -> None:
    what = pictured()
    widths = {box.name: 10.0 + 3 * len(box.name) for box in what.boxes}
    placed = layout(what, widths, 5.0)
    assert {name for layer in placed.layers for name in layer} == set(widths)
    for layer in placed.layers:
        for left, right in pairwise(layer):
            assert (
                placed.middles[right] - placed.middles[left] >= (widths[left] + widths[right]) / 2 + 5 - 1e-6
            )
    assert min(placed.middles[n] - widths[n] / 2 for n in widths) >= -1e-6
    level = {name: number for number, layer in enumerate(placed.layers) for name in layer}
    assert all(level[link.source] < level[link.target] for link in what.links)


def test_the_svg_is_well_formed() -> None:
    root = ElementTree.fromstring(svg(pictured({"quick": 0.001, "sure": 0.002, "third": 0.1})))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}g")) == 6
    texts = ["".join(node.itertext()) for node in root.iter(f"{space}text")]
    assert "when max(quick.p) < 0.9" in texts
    assert len([path for path in root.iter(f"{space}path") if "link" in path.get("class", "").split()]) == 9
