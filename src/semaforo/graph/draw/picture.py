"""What there is to draw of a graph: boxes with some lines of text, and links between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from semaforo.entities import TaskType, TensorSpec
from semaforo.entities.units import show_duration
from semaforo.graph.check import Types, sides
from semaforo.graph.graph import INPUT, SESSION, Graph, Step, output_of, step_of
from semaforo.graph.path import tails
from semaforo.graph.plan import Plan

ANSWER = "answer"
_VERBS = {"ask": "asks", "call": "calls", "fuse": "fuses by", "loop": "loops", "verify": "verifies by"}
_LONGEST = 44


class Box(msgspec.Struct, frozen=True):
    """One box.

    Attributes:
        name: Unique in the picture.
        kind: Of the step, or ``input``, ``session`` or ``answer``.
        lines: What stands in it, below its name.
        critical: Whether it lies on the longest way to the answer.
        nested: Whether what is asked is a graph itself.
    """

    name: str
    kind: str
    lines: tuple[str, ...]
    critical: bool = False
    nested: bool = False


class Link(msgspec.Struct, frozen=True):
    """What goes from one box to another.

    Attributes:
        source, target: Names of boxes.
        label: The values that go along.
        dashed: Whether it is only looked at, or waited for.
        critical: Whether it lies on the longest way to the answer.
    """

    source: str
    target: str
    label: str
    dashed: bool = False
    critical: bool = False


class Picture(msgspec.Struct, frozen=True):
    """Boxes in an order in which every link goes forward, and the links."""

    title: str
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]


def picture(
    graph: Graph,
    task: TaskType,
    types: Types,
    *,
    takes: Mapping[str, float] | None = None,
    graphs: frozenset[str] = frozenset(),
) -> Picture:
    """Return the picture of a graph that has no problems.

    Args:
        graph: What is drawn.
        task: The task that it serves.
        types: What goes along its edges (`check`).
        takes: Step → predicted seconds; the longest way to the answer is told only where all are known.
        graphs: Names of models that are graphs.
    """
    takes = takes or {}
    critical = _critical(graph, takes)
    boxes = [Box(INPUT, "input", tuple(map(str, types.inputs.values())), bool(critical))]
    if graph.session:
        boxes.append(Box(SESSION, "session", tuple(map(str, graph.session))))
    plan = Plan(graph)
    for step in plan.steps.values():
        lines = tuple(_short(line) for line in _lines(step, types.gives[step.name], takes.get(step.name)))
        boxes.append(Box(step.name, step.kind, lines, step.name in critical, step.target in graphs))
    boxes.append(Box(ANSWER, "answer", tuple(map(str, sides(task)[1])), bool(critical)))
    links: dict[tuple[str, str], Link] = {}
    for source, target, label, dashed in _edges(graph, plan, types):
        before = links.get((source, target))
        labels = dict.fromkeys(filter(None, (*(before.label.split(", ") if before else ()), label)))
        links[source, target] = Link(
            source,
            target,
            ", ".join(labels),
            dashed and (before is None or before.dashed),
            (source, target) in critical.values() or (source, target) in _ends(critical),
        )
    return Picture(f"{graph.name} · {graph.task}", tuple(boxes), tuple(links.values()))


def _lines(step: Step, gives: Mapping[str, TensorSpec], seconds: float | None) -> Iterator[str]:
    verb = _VERBS[step.kind]
    pinned = "/".join(filter(None, (step.version, step.variant)))
    target = step.target.rpartition("/")[2] if step.kind in ("call", "verify") else step.target
    yield f"{verb} {target}{f' ({pinned})' if pinned else ''}"
    if step.samples > 1:
        yield f"{step.samples} samples"
    if step.each:
        yield f"for each of {', '.join(step.each)}, {step.at_once} at once"
    if step.kind == "loop":
        yield f"until {step.until}, {step.most} times at most" if step.until else f"{step.most} times"
    if step.when:
        yield f"when {step.when}"
    if step.delay_s:
        yield f"after {show_duration(step.delay_s)}, if still needed"
    if step.quorum:
        yield f"until {step.quorum} of {len(step.of)} agree"
    elif step.least > 1:
        yield f"needs {step.least} of {len(step.of)}"
    yield f"→ {', '.join(gives)}"
    if seconds is not None:
        yield f"≈ {show_duration(seconds)}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _edges(graph: Graph, plan: Plan, types: Types) -> Iterator[tuple[str, str, str, bool]]:
    for step in plan.steps.values():
        for name in types.takes.get(step.name, {}):
            # A verifier takes references as they are.
            reference = name if step.kind == "verify" else step.inputs.get(name, f"{INPUT}.{name}")
            yield step_of(reference), step.name, output_of(reference) or name, False
        for member in step.of:
            yield member, step.name, "", False
        drawn = {step_of(ref) for ref in (*step.inputs.values(), step.verifies)} | set(step.of)
        for other in step.before():
            if other not in drawn and other != INPUT:
                yield other, step.name, "when" if other in _looked_at(step) else "then", True
    for output, reference in graph.answer.items():
        yield step_of(reference), ANSWER, output, False


def _looked_at(step: Step) -> set[str]:
    from semaforo.graph.condition import names_in

    return {step_of(name) for name in names_in(step.when)}


def _critical(graph: Graph, takes: Mapping[str, float]) -> dict[str, tuple[str, str]]:
    """Return the steps of the longest way, each with its link to the next."""
    plan = Plan(graph)
    asked = [step.name for step in plan.steps.values() if step.kind in ("ask", "loop")]
    if not asked or any(name not in takes for name in asked):
        return {}
    after = tails(plan, takes)

    def length(name: str) -> float:
        return takes.get(name, 0.0) + plan.steps[name].delay_s + after[name]

    found: dict[str, tuple[str, str]] = {}
    at = max(plan.first, key=length, default="")
    while at:
        nexts = plan.after[at]
        following = max(nexts, key=length, default="")
        found[at] = (at, following or ANSWER)
        at = following
    return found


def _ends(critical: Mapping[str, tuple[str, str]]) -> set[tuple[str, str]]:
    return {(INPUT, next(iter(critical)))} if critical else set()
