"""Fitting graphs: what their members say of labelled rows becomes weights, combiners and thresholds.

Rules this module keeps:

1. Members answer through the engine as in service, every one of them for every row: conditions that would spare a
   member are taken off, and a row that a member does not answer is an error.
2. What is reported of a fusion is cross-validated: each fifth of the rows is fused by what the others have taught.
3. Of a cascade it gathers what its two members said and what its condition looks at; `cascades` does the rest.
   Verifiers are not asked in the engine, but applied to what was said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from semaforo.catalog import Catalog, Scaling
from semaforo.entities import BatchProfile, Contract, Priority, Privacy, Ref, Request, TaskType, TensorSpec
from semaforo.entities.tensor import shape_key
from semaforo.errors import InvalidRequest, ModelFailed, nearest
from semaforo.graph.check import CHAT_INPUTS, Types, check
from semaforo.graph.condition import condition
from semaforo.graph.fusion import METHODS
from semaforo.graph.fusion.classes import layout
from semaforo.graph.fusion.fitting import FITTED_BY, fit
from semaforo.graph.fusion.method import Member
from semaforo.graph.graph import INPUT, SESSION, Graph, Step, in_order, output_of, step_of
from semaforo.graph.verify import SAMPLED, question_of
from semaforo.jobs.evaluate import with_steps
from semaforo.jobs.exam import Exam
from semaforo.observe import quality
from semaforo.observe.quality import Quality
from semaforo.wire.payload import Array, Tensors

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

_FOLDS = 5
ROWS = 64
"""Rows of one request, where members take tensors."""
_AT_ONCE = 4
_PATIENCE_S = 600.0


class Fitted(msgspec.Struct, frozen=True):
    """What was fitted for one fusion.

    Attributes:
        step: The fusion.
        learned: What goes into its file.
        members: Member → its quality on these rows.
        fused: Quality of the fusion, cross-validated.
    """

    step: str
    learned: dict[str, Any]
    members: dict[str, Quality]
    fused: Quality


class Looks(msgspec.Struct, frozen=True):
    """What a verifier looks at, by reference.

    Attributes:
        answer: The answer.
        sampled: ``agreement`` and ``unlike`` of its samples, where there are any.
        question: What is known of the question.
    """

    answer: str
    sampled: dict[str, str]
    question: dict[str, str]


class Lesson(msgspec.Struct, frozen=True):
    """What there is to fit in a graph.

    Attributes:
        graph: The graph, without conditions on the steps that are looked at; answers with all that fitting needs.
        task: A task of the same inputs, and an output for each value that is looked at.
        fusions: Fusions to fit → the tensor of their members that they fuse.
        cascades: Dear member → cheap member that goes before it.
        verifiers: Verifier that a condition asks → what it looks at.
    """

    graph: Graph
    task: TaskType
    fusions: dict[str, str]
    cascades: dict[str, str]
    verifiers: dict[str, Looks] = {}


def lesson(
    graph: Graph, task: TaskType, task_of: Callable[[str], TaskType], judged: str, step: str = ""
) -> Lesson:
    """Find what can be fitted in a graph that has no problems.

    Args:
        graph: The graph.
        task: The task that it serves.
        task_of: Task of a target.
        judged: The output of the task that has the right answers.
        step: Fit this one alone; "" = all.

    Raises:
        InvalidRequest: There is nothing to fit, or no such step.
    """
    names = [s.name for s in graph.steps]
    if step and step not in names:
        raise InvalidRequest(f"'{graph.name}' has no step '{step}'.{nearest(step, names)}")
    types = check(graph, task, task_of, lambda key, message: None)
    if types is None:
        raise InvalidRequest(f"'{graph.name}' has problems: `semaforo check` names them")
    fusions: dict[str, str] = {}
    cascades: dict[str, str] = {}
    verifiers: dict[str, Looks] = {}
    wanted: dict[str, TensorSpec] = {}
    for found in graph.steps:
        if found.kind != "fuse":
            continue
        if found.target in FITTED_BY and task.kind != "chat" and step in ("", found.name):
            field = _field(found, types)
            fusions[found.name] = field
            wanted |= {f"{member}.{field}": types.gives[member][field] for member in found.of}
        for dear, cheap in _cascade(graph, found):
            if step in ("", dear) and judged in types.gives[dear] and judged in types.gives[cheap]:
                cascades[dear] = cheap
                looked_at = condition(graph.step(dear).when).names
                wanted |= {f"{name}.{judged}": types.gives[name][judged] for name in (dear, cheap)}
                for ref in looked_at:
                    asked = graph.step(step_of(ref)) if step_of(ref) not in (INPUT, SESSION) else None
                    if asked is not None and asked.kind == "verify":
                        looks = verifiers[asked.name] = _looks(asked, types)
                        refs = (looks.answer, *looks.sampled.values(), *looks.question.values())
                        wanted |= {one: _spec(one, types) for one in refs if step_of(one) != INPUT}
                    elif asked is None or output_of(ref):
                        wanted |= {ref: _spec(ref, types)} if step_of(ref) != INPUT else {}
    if not fusions and not cascades:
        what = f"step '{step}'" if step else f"'{graph.name}'"
        raise InvalidRequest(
            f"{what} has nothing to fit: a fusion by {', '.join(FITTED_BY)}, or `first` of a step with a condition "
            "such as max(quick.probabilities) < 0.9 and of one without"
        )
    return Lesson(_bare(graph, wanted), _asks(graph, task, wanted), fusions, cascades, verifiers)


def _looks(step: Step, types: Types) -> Looks:
    takes = list(types.takes[step.name])
    cheap = step_of(takes[0])
    sampled = {s.name: f"{cheap}.{s.name}" for s in SAMPLED if f"{cheap}.{s.name}" in takes}
    return Looks(takes[0], sampled, question_of(step, types.inputs))


def _field(step: Step, types: Types) -> str:
    members = {name: tuple(types.gives[name].values()) for name in step.of}
    if step.target == "vote":
        return METHODS["vote"].outputs(members, step.options)[0].name
    found = layout(members, step.options).field
    return found.name


def _cascade(graph: Graph, step: Step) -> Iterable[tuple[str, str]]:
    if step.target != "first" or len(step.of) != 2:
        return
    dear, cheap = (graph.step(name) for name in step.of)
    if dear.when and not cheap.when and condition(dear.when).compared() is not None:
        yield dear.name, cheap.name


def _spec(reference: str, types: Types) -> TensorSpec:
    name, _, output = reference.partition(".")
    if name == SESSION or not output:
        raise InvalidRequest(f"a condition on {reference} cannot be fitted: it needs a value of a step")
    return types.gives[name][output]


def _bare(graph: Graph, wanted: Iterable[str]) -> Graph:
    looked_at = {step_of(reference) for reference in wanted}
    kept: set[str] = set()
    steps = []
    for step in reversed(in_order(graph)):
        if step.name not in looked_at | kept:
            continue
        if step.name in looked_at:
            step = msgspec.structs.replace(step, when="", delay_s=0.0)
        kept.update(step.before())
        steps.append(step)
    return Graph(
        name=graph.name,
        task=graph.name,
        steps=tuple(reversed(steps)),
        answer={reference: reference for reference in wanted},
        session=graph.session,
    )


def _asks(graph: Graph, task: TaskType, wanted: Mapping[str, TensorSpec]) -> TaskType:
    outputs = tuple(msgspec.structs.replace(spec, name=name) for name, spec in wanted.items())
    if task.kind == "chat":
        # Within a graph a chat is texts, of which many go in one request.
        asked = tuple(msgspec.structs.replace(spec, optional=False) for spec in CHAT_INPUTS)
        return TaskType(f"fit {graph.name}", inputs=asked, outputs=outputs)
    return msgspec.structs.replace(task, name=f"fit {graph.name}", outputs=outputs, hedge=0.0)


def examined(catalog: Catalog, variant: str, given: Lesson) -> Catalog:
    """Return the catalog in which a graph's variant answers a lesson, with all that it asks."""
    found, template = catalog.variants[variant], catalog.templates[variant]
    options = {**template.options, "graph": msgspec.to_builtins(given.graph)}
    part = Catalog(
        tasks={given.task.name: given.task},
        variants={
            variant: msgspec.structs.replace(
                found, task=given.task.name, kind="tensor", profile=BatchProfile(0.001, 0.001)
            )
        },
        templates={
            variant: msgspec.structs.replace(
                template,
                options=options,
                task=given.task.name,
                inputs=tuple(msgspec.to_builtins(spec) for spec in given.task.inputs),
                outputs=tuple(msgspec.to_builtins(spec) for spec in given.task.outputs),
            )
        },
        scaling={variant: Scaling(1, 1)},
        in_service={found.model: found.version},
    )
    whole = msgspec.structs.replace(
        catalog,
        tasks={**catalog.tasks, **part.tasks},
        variants={**catalog.variants, **part.variants},
        templates={**catalog.templates, **part.templates},
    )
    return with_steps(whole, part)


async def answers(
    engine: Engine,
    model: str,
    task: TaskType,
    inputs: Mapping[str, Array],
    *,
    privacy: Privacy = Privacy.PUBLIC,
    at_a_time: int = ROWS,
    asked: Callable[[int], object] = lambda rows: None,
) -> dict[str, Array]:
    """Ask a started engine for all rows and return its outputs, some requests of `at_a_time` rows at a time.

    Raises:
        SemaforoError: A row was not answered, or by some of the steps only.
    """
    rows = len(next(iter(inputs.values())))
    contract = Contract(priority=Priority.LOW, deadline_s=_PATIENCE_S, privacy=privacy)
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(start: int) -> dict[str, Array]:
        arrays = {name: array[start : start + at_a_time] for name, array in inputs.items()}
        count = len(next(iter(arrays.values())))
        key = shape_key(
            [(s.name, s.dtype, arrays[s.name].shape[1:]) for s in task.inputs if s.name in arrays]
        )
        ref = Ref(count, sum(array.nbytes for array in arrays.values()), key)
        async with free:
            answer = await engine.infer(
                Request(engine.new_id(), model, "", "", contract, ref), Tensors(arrays)
            )
        if not answer.ok or not isinstance(answer.result, Tensors):
            raise answer.error()
        if answer.without:
            raise ModelFailed(f"a member did not answer: {', '.join(answer.without)}")
        asked(count)
        return dict(answer.result.arrays)

    parts = await asyncio.gather(*(ask(start) for start in range(0, rows, at_a_time)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def fitted(graph: Graph, given: Lesson, step: str, said: Mapping[str, Array], exam: Exam) -> Fitted:
    """Fit one fusion of a lesson on what was said.

    Raises:
        InvalidRequest: The right answers are no numbers of classes.
    """
    fusion, field = graph.step(step), given.fusions[step]
    truth = exam.truth.reshape(len(exam.truth))
    if fusion.target == "vote":
        truth = truth.astype(said[f"{fusion.of[0]}.{field}"].dtype)
    elif truth.dtype.kind not in "iu":
        raise InvalidRequest(f"'{step}' is fitted on numbers of classes, and the right answers are none")
    own = {name: said[f"{name}.{field}"] for name in fusion.of}
    if fusion.target != "vote" and truth.max() >= next(iter(own.values())).shape[1]:
        raise InvalidRequest(
            f"class {truth.max()} is among the right answers, and '{step}' has fewer classes"
        )
    kind = FITTED_BY[fusion.target]
    fold = np.random.default_rng(0).permutation(len(truth)) % _FOLDS
    fused: Array = np.empty_like(next(iter(own.values())))
    for held_out in range(min(_FOLDS, len(truth))):
        learn, test = fold != held_out, fold == held_out
        learned = fit(kind, {name: array[learn] for name, array in own.items()}, truth[learn])
        fused[test] = fuse(fusion, field, {name: array[test] for name, array in own.items()}, learned)
    judge = _voted if fusion.target == "vote" else _scored
    return Fitted(
        step,
        fit(kind, own, truth),
        {name: judge(truth, array) for name, array in own.items()},
        judge(truth, fused),
    )


def fuse(step: Step, field: str, said: Mapping[str, Array], learned: Mapping[str, Any]) -> Array:
    """Fuse what members said of rows as a step does in service, by what was learned."""
    weights = learned.get("weights")
    weights = weights if isinstance(weights, dict) else {}
    members = [Member(name, {field: array}, weights.get(name, 1.0)) for name, array in said.items()]
    options = {**step.options, "field": field, "fitted": learned}
    return METHODS[step.target].fuse(members, options)[field]


def _scored(truth: Array, scores: Array) -> Quality:
    return quality.of_classes("accuracy", truth, scores.argmax(axis=1), scores.astype(float))


def _voted(truth: Array, labels: Array) -> Quality:
    return quality.of_classes("accuracy", truth, labels)
