"""Evaluation: every variant answers the same labelled rows, as in service.

Rules this module keeps:

1. Each variant is pinned and asked for all rows, with its adapter, in batches as large as it takes, at the lowest
   priority. Nothing is routed, so nobody's quality is measured on another's answers.
2. Variants take turns. The first rows go one at a time, while nothing else runs: their times are the latency.
3. A variant that fails is reported with its reason, and the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from semaforo.catalog import Catalog, Scaling
from semaforo.entities import Contract, Priority, Privacy, Ref, Request, StreamProfile, Variant
from semaforo.entities.tensor import shape_key
from semaforo.errors import ModelFailed, NotFound, NotReady, SemaforoError, nearest
from semaforo.features import chat_needs, chat_tokens
from semaforo.features.plan import Sources, plan_of
from semaforo.features.profile import MOST_ROWS, DataProfile, profile_of
from semaforo.graph.graph import RUNTIME, Graph
from semaforo.jobs.exam import Exam
from semaforo.live.drifting import numbers_of
from semaforo.live.looking import everything
from semaforo.observe.quality import Quality
from semaforo.wire.openai import parse_chat
from semaforo.wire.payload import Array, Chat, Tensors

if TYPE_CHECKING:
    from semaforo.live.answer import Answer
    from semaforo.live.engine import Engine

log = logging.getLogger("semaforo.jobs")

_SINGLES = 100
_SINGLES_S = 2.0
_PATIENCE_S = 600.0
_ATTEMPTS = 5


class Grade(msgspec.Struct):
    """What was found of one variant.

    Attributes:
        variant: The variant.
        quality: Its quality, or None where it failed.
        error: Why it failed, or "".
        p50_s, p99_s: Seconds from question to answer for one row.
        cost: US dollars for 1,000 rows.
    """

    variant: Variant
    quality: Quality | None = None
    error: str = ""
    p50_s: float = 0.0
    p99_s: float = 0.0
    cost: float = 0.0


class _Asked(msgspec.Struct):
    seconds: list[float] = []
    single: list[float] = []
    batched: list[float] = []
    rows_single: int = 0
    rows_batched: int = 0


def examined(catalog: Catalog, target: str, model: str = "", variant: str = "") -> Catalog:
    """Return what is to be examined: one replica of each variant of a task, of a model, or of an alias.

    Raises:
        NotFound: There is no such target, or no such model or variant in it.
    """
    task = catalog.task_of(target)
    found = list(catalog.resolve(target))
    for kind, wanted in (("model", model), ("name", variant)):
        known = sorted({getattr(v, kind) for v in found})
        found = [v for v in found if not wanted or getattr(v, kind) == wanted]
        if not found:
            what = "model" if kind == "model" else "variant"
            raise NotFound(
                f"'{target}' has no {what} '{wanted}'.{nearest(wanted, known)} It has {', '.join(known)}"
            )
    ids = [v.id for v in found]
    return Catalog(
        tasks={task.name: msgspec.structs.replace(task, hedge=0.0)},
        variants={i: catalog.variants[i] for i in ids},
        templates={i: catalog.templates[i] for i in ids},
        scaling={i: Scaling(1, 1) for i in ids},
        in_service={v.model: v.version for v in found},
    )


def with_steps(catalog: Catalog, part: Catalog) -> Catalog:
    """Return a part of a catalog with all that its graphs ask, and what those ask in turn."""
    ids, tasks = dict.fromkeys(part.variants), dict(part.tasks)
    waiting = list(ids)
    while waiting:
        template = catalog.templates[waiting.pop()]
        if template.runtime != RUNTIME:
            continue
        for step in msgspec.convert(template.options["graph"], Graph).steps:
            for variant in catalog.resolve(step.target) if step.kind in ("ask", "loop") else ():
                tasks.setdefault(variant.task, catalog.tasks[variant.task])
                if variant.id not in ids:
                    ids[variant.id] = None
                    waiting.append(variant.id)
    return Catalog(
        tasks=tasks,
        variants={i: catalog.variants[i] for i in ids},
        templates={i: catalog.templates[i] for i in ids},
        scaling={i: part.scaling.get(i, Scaling(1, 1)) for i in ids},
        aliases=catalog.aliases,
        in_service={catalog.variants[i].model: catalog.variants[i].version for i in ids} | part.in_service,
    )


async def grade(
    engine: Engine,
    exam: Exam,
    variant: Variant,
    *,
    privacy: Privacy = Privacy.PUBLIC,
    asked: Callable[[int], object] = lambda rows: None,
) -> Grade:
    """Examine one variant of a started engine; `asked` hears how many more rows were answered."""
    found = Grade(variant)
    notes = _Asked()
    try:
        if variant.sees < privacy:
            raise NotReady(f"sees {variant.sees.name.lower()} data only")
        _in_service(engine, variant)
        contract = Contract(priority=Priority.LOW, deadline_s=_PATIENCE_S, privacy=privacy)
        if exam.task.kind == "chat":
            texts = await _chats(engine, exam, variant, contract, notes, asked)
            found.quality = exam.judge({}, texts)
        else:
            outputs = await _tensors(engine, exam, variant, contract, notes, asked)
            found.quality = exam.judge(outputs, [])
    except SemaforoError as error:
        found.error = error.message
        return found
    if notes.seconds:
        found.p50_s, found.p99_s = (float(q) for q in np.quantile(notes.seconds, [0.5, 0.99]))
    # Batches are how rows are served; single ones would be dearer than the rows of real traffic.
    paid, rows = (
        (notes.batched, notes.rows_batched) if notes.rows_batched else (notes.single, notes.rows_single)
    )
    found.cost = 1000 * sum(paid) / max(1, rows)
    return found


def looked_at(exam: Exam, sources: Sources) -> DataProfile | None:
    """Return what the rows of an exam are like, each as a request by itself; None where there are too few.

    Rows that an extractor fails on are left out.
    """
    plan = plan_of(exam.task, sources)
    step = max(1, -(-exam.rows // MOST_ROWS))
    rows = []
    for row in range(0, exam.rows, step):
        payload: Chat | Tensors = (
            Chat({"messages": exam.chats[row]})
            if exam.task.kind == "chat"
            else Tensors({name: array[row : row + 1] for name, array in exam.inputs.items()})
        )
        try:
            rows.append(numbers_of(everything(plan, payload)))
        except Exception as error:
            log.warning("row %d could not be looked at: %s", row + 1, error)
    return profile_of(rows)


def _in_service(engine: Engine, variant: Variant) -> None:
    states = [status for status in engine.replicas() if status.variant == variant.id]
    if not any(status.state == "ready" for status in states):
        raise NotReady(next((s.last_error for s in states if s.last_error), "it could not be loaded"))


async def _tensors(
    engine: Engine,
    exam: Exam,
    variant: Variant,
    contract: Contract,
    notes: _Asked,
    asked: Callable[[int], object],
) -> dict[str, Array]:
    parts: dict[str, list[Array]] = {}
    for start, end in _slices(exam.rows, variant.max_rows, notes):
        arrays = {name: array[start:end] for name, array in exam.inputs.items()}
        key = shape_key(
            [(s.name, s.dtype, arrays[s.name].shape[1:]) for s in exam.task.inputs if s.name in arrays]
        )
        ref = Ref(end - start, sum(array.nbytes for array in arrays.values()), key)
        answer = await _patiently(engine, variant, contract, ref, Tensors(arrays))
        _note(notes, answer, end - start)
        for name, array in (answer.result.arrays if answer.result else {}).items():
            parts.setdefault(name, []).append(array)
        asked(end - start)
    missing = [
        spec.name for spec in (exam.judged, exam.scored) if spec is not None and spec.name not in parts
    ]
    if missing:
        raise ModelFailed(f"it gives no '{missing[0]}'")
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _slices(rows: int, most: int, notes: _Asked) -> Iterator[tuple[int, int]]:
    start = 0
    while start < rows:
        alone = start < _SINGLES and sum(notes.seconds) < _SINGLES_S
        end = min(rows, start + (1 if alone else most))
        yield start, end
        start = end


async def _patiently(
    engine: Engine, variant: Variant, contract: Contract, ref: Ref, tensors: Tensors
) -> Answer:
    for attempt in range(_ATTEMPTS):
        work = Request(engine.new_id(), variant.model, variant.version, variant.name, contract, ref)
        answer = await engine.infer(work, tensors)
        wait = answer.finish.retry_after_s
        if answer.ok or not wait or attempt + 1 == _ATTEMPTS:
            break
        await asyncio.sleep(wait)
    if not answer.ok:
        raise answer.error()
    return answer


def _note(notes: _Asked, answer: Answer, rows: int) -> None:
    finish = answer.finish
    if rows == 1:
        notes.seconds.append(finish.total_s)
        notes.single.append(finish.cost)
        notes.rows_single += 1
    else:
        notes.batched.append(finish.cost)
        notes.rows_batched += rows


async def _chats(
    engine: Engine,
    exam: Exam,
    variant: Variant,
    contract: Contract,
    notes: _Asked,
    asked: Callable[[int], object],
) -> list[str]:
    texts = [""] * exam.rows
    waiting = iter(range(exam.rows))
    slots = variant.profile.slots if isinstance(variant.profile, StreamProfile) else 1

    async def ask() -> None:
        for row in waiting:
            texts[row] = await _chat(engine, exam, variant, contract, row, notes)
            asked(1)

    asking = [asyncio.ensure_future(ask()) for _ in range(min(slots, exam.rows))]
    try:
        await asyncio.gather(*asking)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    return texts


async def _chat(
    engine: Engine, exam: Exam, variant: Variant, contract: Contract, row: int, notes: _Asked
) -> str:
    call = parse_chat({"model": variant.model, "messages": exam.chats[row]})
    for attempt in range(_ATTEMPTS):
        work = Request(
            engine.new_id(), variant.model, variant.version, variant.name, contract, stream=True,
            needs=chat_needs(call.body), prompt_tokens=chat_tokens(call.body), max_tokens=call.max_tokens,
        )  # fmt: skip
        stream = engine.stream(work, Chat(call.body))
        try:
            said = [str(chunk.delta.get("content") or "") async for chunk in stream]
        except SemaforoError as error:
            if not error.retry_after_s or attempt + 1 == _ATTEMPTS:
                raise
            await asyncio.sleep(error.retry_after_s)
            continue
        if stream.answer is not None:
            _note(notes, stream.answer, 1)
        return "".join(said)
    raise AssertionError("the last attempt raises or returns")
