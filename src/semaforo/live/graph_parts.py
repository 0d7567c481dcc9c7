"""What all runs of a graph share: its plan, its edges, its functions, the weights of its members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

import msgspec

from semaforo.core.effects import Finish
from semaforo.entities import Ref, Request, TaskType
from semaforo.entities.tensor import shape_key
from semaforo.errors import NotFound, RuntimeLoadError, SemaforoError
from semaforo.graph.check import Types, check, sides
from semaforo.graph.condition import Condition, Rows, condition
from semaforo.graph.fusion.history import History, agreeing
from semaforo.graph.graph import Graph, Step, names_in_prompt, output_of
from semaforo.graph.path import tails
from semaforo.graph.plan import Plan
from semaforo.graph.values import Array, Edge, Values, edge
from semaforo.live.conductor import Conductor
from semaforo.live.functions import Function
from semaforo.live.sessions import Sessions
from semaforo.live.verifying import Verifying
from semaforo.wire.payload import ChatChunk, Tensors

_SHARE_S = 0.25
_MOST_REFS = 1024

Shares = tuple[dict[str, float], dict[str, float], dict[str, float]]
_LEAST_MEMBERS = 3
"""Members that a fusion needs for its answer to say something of each."""


class Run(Protocol):
    """A run as its parts see it."""

    batch: int
    cost: float


class Parts:
    """The shared half of a graph's runs.

    Args:
        graph: What it is made of.
        conductor: The engine.
        sessions: What sessions remember.
        forget_s: Seconds for which a session that is not used is remembered.

    Raises:
        RuntimeLoadError: The graph cannot run; the message has all that is wrong.
    """

    def __init__(
        self, graph: Graph, conductor: Conductor, sessions: Sessions, forget_s: float = 600.0
    ) -> None:
        self.graph = graph
        self._forget_s = forget_s
        self.conductor = conductor
        self.plan = Plan(graph)
        self._sessions = sessions
        catalog = conductor.catalog
        self.task: TaskType = catalog.task_of(graph.task)
        types = _types(graph, self.task, catalog.task_of)
        self.types = types
        self.chats = {
            step.name for step in graph.steps if step.kind == "ask" and _is_chat(catalog.task_of, step.target)
        }
        self.edges = {step.name: _edges(step, types) for step in graph.steps}
        self.conditions: dict[str, Condition] = {s.name: condition(s.when) for s in graph.steps if s.when}
        self.functions: dict[str, Function | Verifying] = {
            step.name: self._function(step) for step in graph.steps if step.kind in ("call", "verify")
        }
        self.answer = self._answers()
        self.ends = self._ends()
        self.speakers, self.firm = _speakers(graph, self.answer.get("text", ""))
        self._note_shared()
        self.options = {step.name: _options(step, types) for step in graph.steps if step.kind == "fuse"}
        self.history = {step.name: History(step) for step in graph.steps if step.kind == "fuse"}
        self._refs: dict[tuple[str, tuple[Any, ...]], Ref] = {}
        self._shared: dict[int, tuple[float, Shares]] = {}
        self.report: Callable[[Any, Tensors | SemaforoError, float], None]
        self.chunk: Callable[[Any, ChatChunk], None]
        self.wake_at: Callable[[Any, float], None]
        self.work: Callable[[Any, Step, Any, float], Coroutine[Any, Any, Any]]

    def _function(self, step: Step) -> Function | Verifying:
        takes = self.types.takes[step.name]
        if step.kind == "verify":
            return Verifying(step, tuple(takes), tuple(self.types.inputs), self.graph.task)
        return Function(step, tuple(takes.values()))

    def shares(self, rows: int) -> Shares:
        """Return the seconds from the end of each step to the answer, and the seconds each takes.

        The third are those to the answer where no escalation runs.
        What replicas have been seen to take, worked out anew a few times a second.
        """
        now = self.conductor.now()
        known = self._shared.get(rows)
        if known is not None and now - known[0] < _SHARE_S:
            return known[1]
        takes = {name: self._takes(step, rows) for name, step in self.plan.steps.items()}
        after = tails(self.plan, takes)
        found = after, takes, tails(self.plan, takes, least=True) if self.plan.escalations else after
        if len(self._shared) > 64:
            self._shared.clear()
        self._shared[rows] = (now, found)
        return found

    def _takes(self, step: Step, rows: int) -> float:
        if step.kind in ("call", "verify"):
            return self.functions[step.name].usual_s
        if step.kind == "fuse":
            return self.history[step.name].usual_s
        once = self.conductor.predicted_s(step.target, rows)
        return once * step.most if step.kind == "loop" else once

    def ref(self, step: Step, arrays: Mapping[str, Array], rows: int) -> Ref:
        """Return what the scheduler is told of a step's inputs: the same as of a request from outside."""
        shapes = tuple(array.shape for array in arrays.values())
        known = self._refs.get((step.name, shapes))
        if known is None:
            if len(self._refs) >= _MOST_REFS:
                self._refs.clear()
            wants = self.types.wants[step.name]
            key = shape_key([(name, wants[name].dtype, array.shape[1:]) for name, array in arrays.items()])
            size = sum(array.nbytes for array in arrays.values())
            known = self._refs[step.name, shapes] = Ref(rows, size, key)
        return known

    def weights(self, step: Step, members: Mapping[str, Mapping[str, Rows]]) -> dict[str, float]:
        """Return the weight of each member of a fusion, from the file or from its history."""
        return self.history[step.name].weights(members)

    def fused(
        self, step: Step, members: Mapping[str, Mapping[str, Rows]], arrays: Mapping[str, Array],
        rows: Array | None, said: Mapping[str, Finish],
    ) -> None:  # fmt: skip
        """Learn from what was fused of what members have `said`."""
        self.history[step.name].learn(members, arrays, rows)
        if not step.feedback or len(members) < _LEAST_MEMBERS:
            return
        agreed, count = agreeing(members, arrays, rows)
        for member, number in agreed.items():
            if member in said and count:
                self.conductor.agreed(said[member], number / count, step.feedback)

    def remembered(self, request: Request) -> dict[str, Array]:
        """Return what the session of a request remembers."""
        return self._sessions.get(self.graph, request) if self.graph.session else {}

    def remember(self, request: Request, values: Values) -> None:
        """Keep in the session of a request what the graph says is to be kept."""
        if self.graph.remember:
            self._sessions.put(self.graph, request, values, self._forget_s)

    def _note_shared(self) -> None:
        """Mark the edges of values that more than one step, fusion or answer reads."""
        readers: Counter[str] = Counter(one.source for edges in self.edges.values() for one in edges)
        readers.update([*self.answer.values(), *self.graph.remember.values()])
        for step in self.graph.steps:
            readers.update(f"{member}.{name}" for member in step.of for name in self.types.gives[member])
        self.edges = {
            name: tuple(
                msgspec.structs.replace(
                    one, shared=readers[one.source] > 1 or one.source.startswith("session.")
                )
                for one in edges
            )
            for name, edges in self.edges.items()
        }

    def _answers(self) -> dict[str, str]:
        whole = self.graph.answer.get("")
        if whole is None:
            return dict(self.graph.answer)
        given = self.types.gives[whole]
        _, outputs = sides(self.task)
        return {spec.name: f"{whole}.{spec.name}" for spec in outputs if spec.name in given}

    def _ends(self) -> dict[str, Edge]:
        _, outputs = sides(self.task)
        found: dict[str, Edge] = {}
        for spec in outputs:
            reference = self.answer.get(spec.name)
            if reference is None:
                continue
            step, _, output = reference.partition(".")
            given = self.types.inputs if step == "input" else self.types.gives[step]
            end = edge(spec.name, reference, given[output or next(iter(given))], spec)
            if end.dtype or end.shape is not None:
                found[spec.name] = end
        return found


def _speakers(graph: Graph, reference: str) -> tuple[tuple[str, ...], bool]:
    """Return the steps whose text a chat may answer, the first that counts first, and whether order decides."""
    name, _, output = reference.partition(".")
    step = next((one for one in graph.steps if one.name == name), None)
    if step is None or output not in ("", "text"):
        return (), True
    if step.kind != "fuse":
        return (name,), True
    if step.target != "first":
        return (), True
    inner = [_speakers(graph, member) for member in step.of]
    # Where not all are waited for, a later member may win over an earlier one.
    firm = not step.quorum and step.wait_s is None and all(ordered for _, ordered in inner)
    return tuple(speaker for speakers, _ in inner for speaker in speakers), firm


def _options(step: Step, types: Types) -> dict[str, object]:
    if step.target != "concat":
        return step.options
    # What stands in for a member that is missing has to be as wide as it.
    name = step.options.get("field")
    widths = {
        member: next(
            s.shape[0] for s in types.gives[member].values() if len(s.shape) == 1 and name in (None, s.name)
        )
        for member in step.of
    }
    return {**step.options, "widths": widths}


def _types(graph: Graph, task: TaskType, task_of: Callable[[str], TaskType]) -> Types:
    problems: list[str] = []
    types = check(graph, task, task_of, lambda key, text: problems.append(f"{'.'.join(key)}: {text}"))
    if types is None:
        raise RuntimeLoadError(f"the graph '{graph.name}' cannot run: " + "; ".join(problems))
    return types


def _is_chat(task_of: Callable[[str], TaskType], target: str) -> bool:
    try:
        return task_of(target).kind == "chat"
    except NotFound:
        return False


def _edges(step: Step, types: Types) -> tuple[Edge, ...]:
    wants, takes = types.wants.get(step.name, {}), types.takes[step.name]
    if step.kind == "verify":
        return tuple(Edge(reference, reference) for reference in takes)
    found = []
    for name, given in takes.items():
        source = step.inputs.get(name, f"input.{name}")
        wanted = wants.get(name)
        if wanted is not None and name in step.each:
            wanted = msgspec.structs.replace(wanted, shape=(-1, *wanted.shape))
        found.append(edge(name, source, given, wanted))
    for reference in names_in_prompt(step.prompt):
        if output_of(reference) or reference in types.gives:
            found.append(Edge(reference, reference))
    return tuple(found)
