"""Thresholds of cascades that keep a promise, and verifiers of cheap answers, from labelled rows.

Rules this module keeps:

1. A threshold is set by learn then test (`routing.threshold`): it asks the dear member as seldom as the quality
   that may be lost allows, with confidence; where rows cannot promise that, as often as it may, and that is said.
2. A verifier is trained on one half of the rows, and its threshold is set on the other: rows that have trained a
   verifier promise nothing of it, so those that one has seen are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest, ModelFailed
from semaforo.features.signals import Signals
from semaforo.graph.condition import Rows, condition
from semaforo.graph.graph import Graph, Step, step_of
from semaforo.jobs.exam import Exam
from semaforo.jobs.fit import Lesson, Looks
from semaforo.observe import quality
from semaforo.observe.quality import NUMBER_METRICS, Quality
from semaforo.routing.router import Router
from semaforo.routing.table import Table
from semaforo.routing.threshold import for_both, rows_needed
from semaforo.routing.verifier import Verifier, seen_of
from semaforo.wire.payload import Array

Floats = NDArray[np.float64]

LEAST_ROWS = 30
"""Rows on which a threshold is set, at least."""


class Cut(msgspec.Struct, frozen=True):
    """Where one cascade should ask its dear member.

    Attributes:
        step: The dear member.
        when: The condition to write.
        calls: Share of rows that go up by it, 0…1.
        promised: Whether these rows promise that no more is lost than may be.
        lost: Quality that is lost against the dear member on these rows; less than 0 where there is a gain.
        rows: Rows it was set on.
        needed: Rows that such a promise takes at least.
        small, large, cascade: Quality of the cheap member alone, of the dear one alone, and of both together.
        verifier: What a verifier was trained for this, and on how many rows; None where none was.
    """

    step: str
    when: str
    calls: float
    promised: bool
    lost: float
    rows: int
    needed: int
    small: Quality
    large: Quality
    cascade: Quality
    verifier: tuple[str, int] | None = None


class Terms(msgspec.Struct, frozen=True):
    """What is asked of a cascade.

    Attributes:
        give_up: Quality that may be lost against the dear member, 0…1.
        most: Largest share of rows that may be asked of it, 0…1.
        confidence: With which no more is lost, 0.5…1; 0.5 takes what was seen for the truth.
    """

    give_up: float
    most: float
    confidence: float


def cut(
    graph: Graph,
    given: Lesson,
    step: str,
    said: Mapping[str, Array],
    exam: Exam,
    terms: Terms,
    routers: Mapping[str, Router | None],
) -> tuple[Cut, dict[str, Router]]:
    """Find the threshold of one cascade of a lesson, and train the verifiers that it lacks.

    Args:
        graph, given, step: The dear member, of a lesson on a graph.
        said: Reference → what was said.
        exam: The right answers.
        terms: What is asked.
        routers: Verifier that a condition asks → what was trained, or None where it is to be.

    Returns:
        What was found, and the verifiers that were trained.

    Raises:
        InvalidRequest: The rows are too few, or are no right and wrong answers.
    """
    if exam.metric in NUMBER_METRICS:
        raise InvalidRequest(
            f"'{step}' gives numbers: a cascade is fitted on answers that are right or wrong"
        )
    cheap = given.cascades[step]
    right = {name: _right(exam, said[f"{name}.{exam.judged.name}"]) for name in (cheap, step)}
    if not (right[cheap].any() or right[step].any()):
        hint = "; 'contains' and 'final' ask less than 'exact'" if exam.metric == "exact" else ""
        raise InvalidRequest(
            f"neither '{cheap}' nor '{step}' is right on any of {exam.rows} rows by the metric '{exam.metric}'"
            f"{hint}"
        )
    stated = condition(graph.step(step).when)
    compared = stated.compared()
    assert compared is not None
    expression, sign, _ = compared
    known: dict[str, Rows | None] = {
        name: Rows(_value(name, said, exam))
        for name in expression.names
        if step_of(name) not in given.verifiers
    }
    kept = np.arange(exam.rows)
    trained: dict[str, Router] = {}
    for name in dict.fromkeys(step_of(one) for one in expression.names if step_of(one) in given.verifiers):
        looks = given.verifiers[name]
        table = _table(graph, cheap, step, looks, said, exam, right)
        router = routers.get(name)
        if router is None:
            order = np.random.default_rng(0).permutation(exam.rows)
            learn, rest = np.sort(order[: exam.rows // 2]), np.sort(order[exam.rows // 2 :])
            router = trained[name] = _trained(table.rows(learn))
        else:
            rest = np.flatnonzero(~np.isin(table.marks(), router.seen))
        kept = np.intersect1d(kept, rest)
        verifier = Verifier(router, graph.task, graph.step(name).against, name)
        gain, trust = verifier.gains(_seen(looks, said, exam))
        known |= {f"{name}.gain": Rows(gain), f"{name}.trust": Rows(trust)}
    if len(kept) < min(LEAST_ROWS, exam.rows):
        raise InvalidRequest(
            f"{len(kept)} of {exam.rows} rows have not trained the verifier, too few to set a threshold on: "
            f"give {LEAST_ROWS} others at least"
        )
    numbers, there = expression.number(known, exam.rows)
    if not there.all():
        raise ModelFailed(f"'{expression.text}' is unknown for {int((~there).sum())} of {exam.rows} rows")
    sure = (numbers if sign in ("<", "<=") else -numbers)[kept]
    small, large = right[cheap][kept], right[step][kept]
    promise = for_both(
        -sure,
        large.astype(float) - small,
        give_up=terms.give_up,
        most=terms.most,
        delta=1.0 - terms.confidence,
    )
    up = -sure >= promise.threshold
    written = _between(sure, up)
    found = Cut(
        step,
        stated.limited(sign[0], written if sign[0] == "<" else -written),
        float(up.mean()),
        promise.kept,
        promise.loss,
        len(kept),
        rows_needed(terms.give_up, 1.0 - terms.confidence),
        quality.of_hits(exam.metric, small),
        quality.of_hits(exam.metric, large),
        quality.of_hits(exam.metric, np.where(up, large, small)),
    )
    if trained:
        found = msgspec.structs.replace(found, verifier=(next(iter(trained)), exam.rows // 2))
    return found, trained


def _value(reference: str, said: Mapping[str, Array], exam: Exam) -> Array:
    return said[reference] if reference in said else exam.inputs[reference.partition(".")[2]]


def _right(exam: Exam, said: Array) -> NDArray[np.bool_]:
    if exam.chats:
        return quality.hits(exam.metric, exam.truth, [_text(cell) for cell in said.reshape(-1)])
    labels = said.argmax(axis=1) if said.ndim == 2 and said.shape[1] > 1 else said.reshape(exam.rows)
    if labels.dtype == object:
        labels = np.array([_text(cell) for cell in labels])
    return np.asarray(labels == exam.truth.reshape(exam.rows))


def _seen(looks: Looks, said: Mapping[str, Array], exam: Exam) -> list[Signals]:
    question = {name: _value(ref, said, exam) for name, ref in looks.question.items()}
    sampled = {name: said[ref].reshape(-1) for name, ref in looks.sampled.items()}
    return seen_of(question, said[looks.answer], sampled)


def _table(
    graph: Graph,
    cheap: str,
    dear: str,
    looks: Looks,
    said: Mapping[str, Array],
    exam: Exam,
    right: Mapping[str, NDArray[np.bool_]],
) -> Table:
    """Return what a verifier is trained on: what it will see, and who was right."""
    seen = _seen(looks, said, exam)
    features = tuple(sorted({name for signals in seen for name in signals.numbers}))
    scores = np.stack([right[cheap], right[dear]], axis=1).astype(float)
    return Table(
        _names(graph.step(cheap), graph.step(dear)),
        (graph.task,) * exam.rows,
        tuple(signals.text for signals in seen),
        scores,
        np.full(scores.shape, np.nan),
        features,
        np.array([[signals.numbers.get(name, np.nan) for name in features] for signals in seen]),
    )


def _names(cheap: Step, dear: Step) -> tuple[str, str]:
    """Return how a verifier calls its models: by what is asked, and by step where that is the same."""
    if cheap.target != dear.target:
        return cheap.target, dear.target
    return f"{cheap.target}/{cheap.name}", f"{dear.target}/{dear.name}"


def _trained(table: Table) -> Router:
    from semaforo.jobs.learn.train import train

    return Router(train(table), len(table), verifies=table.models[0], seen=table.marks())


def _between(sure: Floats, up: NDArray[np.bool_]) -> float:
    """Return the shortest number below which exactly the rows are that go up."""
    if not up.any():
        limit = float(sure.min())
    elif up.all():
        # Well above: rows that are a little less unlike these go up as well.
        limit = float(sure.max() + 0.01 * (np.ptp(sure) or abs(sure.max()) or 1.0))
    else:
        limit = float((sure[up].max() + sure[~up].min()) / 2)
    for digits in range(2, 9):
        short = float(f"{limit:.{digits}g}")
        if np.array_equal(sure < short, up):
            return short
    return limit


def _text(cell: object) -> str:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
