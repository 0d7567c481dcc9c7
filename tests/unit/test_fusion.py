"""Every method of fusion: answers worked out by hand, missing members, options, what was learned."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.condition import Rows
from semaforo.graph.fusion import METHODS, Member
from semaforo.graph.fusion.fitting import fit
from semaforo.graph.fusion.history import History
from semaforo.graph.fusion.rows import agreeing_rows, fuse_rows
from semaforo.graph.fusion.texts import similarity
from semaforo.graph.graph import Step

CLASSES = (TensorSpec("label", "INT64"), TensorSpec("p", "FP32", (3,)))
THREE = dict.fromkeys("abc", CLASSES)


def said(name: str, *rows: list[float], weight: float = 1.0) -> Member:
    p = np.array(rows, np.float32)
    return Member(name, {"label": p.argmax(1), "p": p}, weight)


A, B, C = said("a", [0.6, 0.3, 0.1]), said("b", [0.1, 0.5, 0.4]), said("c", [0.2, 0.4, 0.4])


def fused(method: str, *members: Member, **options: Any) -> Any:
    return METHODS[method].fuse(members, options)


@pytest.mark.parametrize("method", ["mean", "median", "confident"])
def test_members_that_say_the_same_are_not_changed(method: str) -> None:
    found = fused(method, A, A, A)
    assert found["p"] == pytest.approx(A.arrays["p"], abs=1e-6)
    assert found["label"].tolist() == [0]
    assert found["p"].dtype == np.float32
    assert found["label"].dtype == np.int64


def test_a_mean_by_hand() -> None:
    assert fused("mean", A, B)["p"][0] == pytest.approx([0.35, 0.4, 0.25])
    heavy = said("a", [0.6, 0.3, 0.1], weight=3.0)
    assert fused("mean", heavy, B)["p"][0] == pytest.approx([0.475, 0.35, 0.175])
    assert fused("mean", heavy, B)["label"].tolist() == [0]
    numbers = [Member(n, {"y": np.array([v])}) for n, v in (("a", 1.0), ("b", 4.0))]
    assert fused("mean", *numbers)["y"].tolist() == [2.5]
    nobody = [said("a", [1, 0, 0], weight=0.0), said("b", [0, 1, 0], weight=0.0)]
    assert fused("mean", *nobody)["p"][0] == pytest.approx([0.5, 0.5, 0])


def test_a_product_by_hand() -> None:
    found = fused("product", A, B)["p"][0]
    raw = np.array([0.06, 0.15, 0.04])
    assert found == pytest.approx(raw / raw.sum(), abs=1e-6)
    sure = fused("product", said("a", [1, 0, 0]), said("b", [0, 1, 0]))["p"]
    assert np.isfinite(sure).all()
    assert sure.sum() == pytest.approx(1)


def test_a_median_by_hand_with_and_without_weights() -> None:
    numbers = [
        Member(n, {"y": np.array([[v]])}, w)
        for n, v, w in (("a", 1.0, 5.0), ("b", 4.0, 1.0), ("c", 9.0, 1.0))
    ]
    assert fused("median", *numbers)["y"].tolist() == [[1.0]]
    assert fused("median", *(Member(m.name, m.arrays) for m in numbers))["y"].tolist() == [[4.0]]
    assert fused("median", A, B, C)["p"].sum() == pytest.approx(1, abs=1e-6)


def test_the_most_confident_is_chosen_row_by_row() -> None:
    one, two = said("a", [0.9, 0.1, 0], [0.4, 0.3, 0.3]), said("b", [0.5, 0.5, 0], [0, 0.2, 0.8])
    assert fused("confident", one, two)["label"].tolist() == [0, 2]


def test_votes_are_counted_by_weight_and_ties_go_to_the_first() -> None:
    assert fused("vote", A, B, C)["label"].tolist() == [1]
    assert fused("vote", said("a", [1, 0, 0], weight=2.5), B, C)["label"].tolist() == [0]
    assert fused("vote", A, B)["label"].tolist() == [0]
    texts = [Member(n, {"t": np.array([v], object)}) for n, v in (("a", b"x"), ("b", b"y"), ("c", b"y"))]
    assert fused("vote", *texts)["t"].tolist() == [b"y"]


@pytest.mark.parametrize("method", ["mean", "product", "median", "confident", "vote"])
def test_the_order_of_members_and_of_rows_does_not_matter(method: str) -> None:
    rng = np.random.default_rng(5)
    members = [Member(n, {"label": (p := rng.dirichlet(np.ones(3), 40)).argmax(1), "p": p}, w)
               for n, w in (("a", 1.0), ("b", 2.1), ("c", 0.7))]  # fmt: skip
    found, turned = fused(method, *members), fused(method, *members[::-1])
    order = rng.permutation(40)
    shuffled = fused(
        method, *(Member(m.name, {k: v[order] for k, v in m.arrays.items()}, m.weight) for m in members)
    )
    for name, array in found.items():
        assert turned[name] == pytest.approx(array)
        assert shuffled[name] == pytest.approx(array[order])


def test_what_agrees_is_counted() -> None:
    assert METHODS["mean"].agreeing([A, B, C], {}).tolist() == [2]
    assert METHODS["vote"].agreeing([A, B, C], {}).tolist() == [2]
    assert METHODS["first"].agreeing([A, B], {}).tolist() == [2]
    numbers = [Member(n, {"y": np.array([v])}) for n, v in (("a", 1.0), ("b", 1.1), ("c", 9.0))]
    assert METHODS["median"].agreeing(numbers, {"tolerance": 0.2}).tolist() == [2]


@pytest.mark.parametrize(
    ("method", "members", "options", "message"),
    [
        ("mean", THREE, {"feld": "p"}, "no option 'feld'. Did you mean 'field'"),
        ("mean", THREE, {"field": "q"}, "not all of a, b, c give 'q'"),
        ("product", {"a": CLASSES, "b": (TensorSpec("p", "FP32", (4,)),)}, {}, r"'b' gives p: fp32\[4\]"),
        ("mean", {"a": CLASSES, "b": (TensorSpec("q", "FP32", (3,)),)}, {}, "they share no output"),
        ("vote", {"a": (TensorSpec("p", "FP32", (3,)),)}, {}, "one label to vote on"),
        ("stack", THREE, {}, "has to be fitted"),
        ("bayes", THREE, {"fitted": {"kind": "stack", "version": 1}}, "not bayes version 1"),
        ("ranks", THREE, {"by": "sum"}, "rrf or borda"),
        ("ranks", THREE, {}, "do not share one list of ids"),
        ("estimate", THREE, {}, "'a' gives no mean with its covariance"),
        ("boxes", THREE, {}, "'a' does not give boxes"),
        ("boxes", THREE, {"iou": 2}, "iou is '2'"),
        ("consensus", THREE, {}, "do not all give one text"),
        (
            "gate",
            {"a": (TensorSpec("e", "FP32", (3,)),), "b": (TensorSpec("e", "FP32", (4,)),)},
            {},
            "a 3, b 4",
        ),
        ("concat", {"a": (TensorSpec("e", "FP32", (-1,)),)}, {}, "width of an embedding is not known"),
        ("first", {"a": CLASSES, "b": (TensorSpec("z", "FP32"),)}, {}, "no output in common"),
    ],
)
def test_what_cannot_be_fused_is_told(method: str, members: Any, options: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        METHODS[method].outputs(members, options)


def test_every_method_says_what_its_answer_holds() -> None:
    assert [str(s) for s in METHODS["mean"].outputs(THREE, {})] == ["label: int64[]", "p: fp32[3]"]
    assert [s.name for s in METHODS["first"].outputs(THREE, {})] == ["label", "p"]
    wide = {"a": (TensorSpec("e", "FP32", (3,)),), "b": (TensorSpec("e", "FP32", (2,)),)}
    assert [str(s) for s in METHODS["concat"].outputs(wide, {})] == ["e: fp32[5]", "present: bool[2]"]


def test_rows_are_fused_by_who_has_them() -> None:
    members = {
        "a": {"label": Rows(np.array([0, 1])), "p": Rows(np.array([[0.8, 0.2, 0], [0.3, 0.7, 0]]))},
        "b": {"label": Rows(np.array([2]), np.array([1])), "p": Rows(np.array([[0, 0, 1.0]]), np.array([1]))},
    }
    found, rows = fuse_rows(METHODS["mean"], members, 2, {}, {})
    assert rows is None
    assert found["p"].tolist() == [[0.8, 0.2, 0], [0.15, 0.35, 0.5]]
    assert found["label"].tolist() == [0, 2]
    some, rows = fuse_rows(METHODS["mean"], {"b": members["b"]}, 2, {}, {})
    assert rows is not None
    assert (rows.tolist(), some["label"].tolist()) == ([1], [2])
    assert agreeing_rows(METHODS["mean"], members, 2, {}, {}) == 1
    assert agreeing_rows(METHODS["mean"], {"b": members["b"]}, 2, {}, {}) == 0


def members_of(rng: np.random.Generator, labels: Any, strengths: dict[str, float]) -> dict[str, Any]:
    found = {}
    for bias, (name, strength) in enumerate(strengths.items()):
        logits = rng.normal(size=(len(labels), 4))
        logits[np.arange(len(labels)), labels] += strength
        logits[:, bias] += 1.2
        raw = np.exp(logits)
        found[name] = raw / raw.sum(1, keepdims=True)
    return found


def test_what_is_learned_beats_every_member_and_survives_json() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000)
    all_said = members_of(rng, labels, {"a": 1.5, "b": 1.2, "c": 1.8})
    train, test = slice(0, 2000), slice(2000, None)
    best = max(float((p[test].argmax(1) == labels[test]).mean()) for p in all_said.values())
    for kind in ("stack", "bayes"):
        learned = json.loads(json.dumps(fit(kind, {n: p[train] for n, p in all_said.items()}, labels[train])))
        members = [Member(n, {"label": p[test].argmax(1), "p": p[test]}) for n, p in all_said.items()]
        specs = {n: (CLASSES[0], TensorSpec("p", "FP64", (4,))) for n in all_said}
        METHODS[kind].outputs(specs, {"fitted": learned})
        found = METHODS[kind].fuse(members, {"fitted": learned})
        assert float((found["label"] == labels[test]).mean()) > best + 0.04
        assert found["p"].sum(1) == pytest.approx(np.ones(2000))
        fewer = METHODS[kind].fuse(members[:2], {"fitted": learned})
        assert float((fewer["label"] == labels[test]).mean()) > 0.6
        with pytest.raises(InvalidRequest, match="was fitted without d"):
            METHODS[kind].outputs({**specs, "d": specs["a"]}, {"fitted": learned})
        with pytest.raises(InvalidRequest, match="fitted for 4 classes"):
            METHODS[kind].outputs({"a": CLASSES}, {"fitted": learned})


def test_weights_follow_what_members_are_worth() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 2000)
    all_said = members_of(rng, labels, {"good": 3.0, "poor": 0.2})
    found = fit("weights", all_said, labels)["weights"]
    assert found["good"] > 0.9
    assert sum(found.values()) == pytest.approx(1)
    powers = fit("exponents", all_said, labels)["weights"]
    assert powers["good"] > 3 * powers["poor"] >= 0
    sharp = {"good": all_said["good"] ** 5 / (all_said["good"] ** 5).sum(1, keepdims=True)}
    alone = fit("exponents", {"good": all_said["good"]}, labels)["weights"]["good"]
    assert fit("exponents", sharp, labels)["weights"]["good"] == pytest.approx(alone / 5, rel=0.1)
    with pytest.raises(InvalidRequest, match="no labelled rows"):
        fit("stack", {}, labels)
    with pytest.raises(InvalidRequest, match="there are stack, bayes, weights, exponents"):
        fit("mean", {"a": np.ones((1, 4))}, np.array([0]))


def texts(*found: bytes) -> Any:
    return np.array(found, object)


def test_ranks_are_fused_by_reciprocals_or_points() -> None:
    one = Member("a", {"ids": np.array([[b"x", b"y", b"z"]], object)})
    two = Member("b", {"ids": np.array([[b"y", b"w"]], object)})
    found = fused("ranks", one, two)
    assert found["ids"][0].tolist() == [b"y", b"x", b"w", b"z"]
    assert found["scores"][0, 0] == pytest.approx(1 / 62 + 1 / 61)
    points = fused("ranks", one, two, by="borda")
    assert dict(zip(points["ids"][0], points["scores"][0], strict=True)) == {
        b"y": 7,
        b"x": 4,
        b"w": 3,
        b"z": 2,
    }
    assert fused("ranks", one, two, most=1)["ids"].tolist() == [[b"y"]]
    assert METHODS["ranks"].agreeing([one, two], {}).tolist() == [1]


def test_ragged_lists_are_fused_row_by_row() -> None:
    cells = np.empty(2, object)
    cells[0], cells[1] = np.array([1, 2, 3]), np.array([4])
    found = fused("ranks", Member("a", {"ids": cells}))
    assert [row.tolist() for row in found["ids"]] == [[1, 2, 3], [4]]


def estimate(name: str, mean: list[float], variance: list[float]) -> Member:
    return Member(name, {"mean": np.array([mean], float), "covariance": np.array([np.diag(variance)], float)})


def test_estimates_are_weighed_by_how_sure_they_are() -> None:
    one, two = estimate("a", [0, 0], [1, 4]), estimate("b", [2, 2], [1, 1])
    found = fused("estimate", one, two)
    assert found["mean"][0] == pytest.approx([1.0, 1.6])
    assert np.diag(found["covariance"][0]) == pytest.approx([0.5, 0.8])
    safe = fused("estimate", estimate("a", [0, 0], [1, 9]), estimate("b", [0, 0], [9, 1]), by="intersection")
    assert np.diag(safe["covariance"][0]) == pytest.approx([1.8, 1.8], rel=1e-3)
    flat = fused("estimate", estimate("a", [1, 1], [0, 1]), estimate("b", [3, 3], [1, 1]))
    assert flat["mean"][0] == pytest.approx([1, 2], abs=1e-3)
    far = estimate("c", [90, 90], [1, 1])
    assert METHODS["estimate"].agreeing([one, two, far], {}).tolist() == [2]


def detections(name: str, *found: tuple[list[float], float, int]) -> Member:
    boxes, scores, labels = (list(column) for column in zip(*found, strict=True))
    arrays = {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores]),
        "labels": np.array([labels]),
    }
    return Member(name, arrays)


def test_boxes_that_overlap_become_one() -> None:
    one = detections("a", ([0, 0, 10, 10], 0.9, 1), ([20, 20, 30, 30], 0.5, 2))
    two = detections("b", ([1, 1, 10, 10], 0.6, 1))
    found = fused("boxes", one, two)
    assert found["boxes"][0, 0] == pytest.approx([0.4, 0.4, 10, 10])
    assert found["scores"][0] == pytest.approx([0.75, 0.25])
    assert found["labels"].tolist() == [[1, 2]]
    other_label = detections("b", ([1, 1, 10, 10], 0.6, 2))
    assert len(fused("boxes", one, other_label)["labels"][0]) == 3
    assert len(fused("boxes", one, two, skip=0.55)["labels"][0]) == 1


def test_the_text_that_the_others_come_closest_to_is_chosen() -> None:
    said_texts = {"a": b"the cat sat", "b": b"a dog ran far away", "c": b"the cat sat down"}
    members = [Member(name, {"t": texts(text)}) for name, text in said_texts.items()]
    assert fused("consensus", *members)["t"].tolist() == [b"the cat sat"]
    assert METHODS["consensus"].agreeing(members, {"similar": 0.8}).tolist() == [2]
    assert similarity(["a", "b", "c"], ["a", "c"]) == pytest.approx(0.8)
    assert (similarity([], []), similarity([], ["a"])) == (1.0, 0.0)


def test_features_stand_side_by_side_and_a_missing_one_is_zeros() -> None:
    one = Member("b", {"e": np.ones((2, 2), np.float32)})
    found = fused("concat", one, widths={"a": 3, "b": 2})
    assert found["e"].tolist() == [[0, 0, 0, 1, 1]] * 2
    assert found["present"].tolist() == [[False, True]] * 2


def test_a_gate_weighs_by_what_it_looks_at() -> None:
    one, two = Member("a", {"e": np.array([[1.0, 0.0]])}), Member("b", {"e": np.array([[0.0, 1.0]])}, 3.0)
    assert fused("gate", one, two)["e"][0] == pytest.approx([0.25, 0.75])
    learned = {"members": {"a": {"vector": [10.0, 0.0]}, "b": {"projection": [[0.0, 0.0], [2.0, 2.0]]}}}
    found = fused("gate", one, Member("b", {"e": np.array([[0.0, 1.0]])}), fitted=learned)
    assert found["gates"][0, 0] > 0.99


def answers(*labels: int) -> dict[str, dict[str, Rows]]:
    return {name: {"label": Rows(np.array([label]))} for name, label in zip("abc", labels, strict=True)}


def test_a_member_that_turns_bad_loses_its_say_and_regains_it() -> None:
    history = History(Step(name="f", kind="fuse", target="vote", of=("a", "b", "c")))
    assert len(set(history.weights(answers(1, 1, 1)).values())) == 1
    for _ in range(200):
        history.learn(answers(0, 1, 1), {"label": np.array([1])}, None)
    bad = history.weights(answers(0, 1, 1))
    assert bad["a"] < 0.25 * bad["b"]
    assert history.agreement()["a"] < 0.3
    for _ in range(1500):
        history.learn(answers(1, 1, 1), {"label": np.array([1])}, None)
    good = history.weights(answers(1, 1, 1))
    assert good["a"] > 0.5 * good["b"]


def test_weights_of_the_file_are_kept() -> None:
    step = Step(name="f", kind="fuse", target="vote", of=("a", "b"), options={"weights": {"a": 3}})
    assert History(step).weights({"a": {}, "b": {}}) == {"a": 3.0, "b": 1.0}
    fitted = Step(
        name="f", kind="fuse", target="mean", of=("a",), options={"fitted": {"weights": {"a": 0.4}}}
    )
    assert History(fitted).weights({"a": {}}) == {"a": 0.4}
