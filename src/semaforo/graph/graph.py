"""A graph: named steps, and which of their outputs are the answer.

Values flow by name. ``input.image`` is what the request gives, ``quick.probabilities`` an output of a step,
``session.history`` what the session of the request remembers. The first dimension of every value is rows; a step
may hold for some rows of a request and not for others.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Literal

import msgspec

from semaforo.entities import TensorSpec
from semaforo.graph.condition import names_in

INPUT = "input"
SESSION = "session"
RUNTIME = "graph"
"""Runtime of the replica that a graph is."""
Kind = Literal["ask", "call", "fuse", "loop", "verify"]


class Step(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One vertex.

    A step whose input is missing, because the step it comes from failed or is late, is missing too; a fusion
    goes on without the members that are.

    Attributes:
        name: Unique in the graph.
        kind: ``ask`` a model or task; ``call`` a function; ``fuse`` the answers of other steps; ``loop``: ask a
            model again and again; ``verify``: predict what a dearer model gains on the answer of another step.
        target: Model, task, alias or graph that is asked; function that is called; method of the fusion; file of
            the verifier.
        inputs: Own input → reference. An input that an asked step leaves out is the graph's own of that name.
        of: Members of a fusion, names of steps.
        when: Condition on the rows for which the step runs, "" = all.
        after: Steps that must have ended before, whatever they gave.
        each: Inputs that are mapped over: the step runs on each item of their rows.
        at_once: Most items of a map in flight.
        delay_s: Seconds to hold the step back; where it is not needed by then it never runs (a hedge).
        wait_s: A fusion waits so many seconds for the rest once the first member is there; None = as long as the
            deadline allows.
        least: Members a fusion cannot do without.
        quorum: A fusion ends, and the rest is cancelled, once so many members agree; 0 = never early.
        feedback: What it counts for a member to be with the fused answer, as part of an answer; 0 = nothing.
        carry: Of a loop: input → output that it becomes in the next round.
        until: Of a loop: condition on the round's outputs, after which a row is done.
        most: Of a loop: most rounds.
        prompt: Template of a chat's message, with references in braces.
        outputs: What a called function gives.
        variant, version: Pinned.
        min_quality: Least quality of the variant that is asked.
        max_cost: Most US dollars of the step; what the whole request may cost bounds it anyway.
        options: Of the method of a fusion.
        samples: How often a chat is asked the same; what most of the answers say is its text.
        verifies: Of a verifier: reference to the answer that it looks at.
        against: Of a verifier: the model whose gain it predicts, "" = the only other one that it knows.
        digest: Of a verifier: SHA-256 of its file, in hexadecimal.
    """

    name: str
    kind: Kind
    target: str = ""
    inputs: dict[str, str] = {}
    of: tuple[str, ...] = ()
    when: str = ""
    after: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    at_once: int = 64
    delay_s: float = 0.0
    wait_s: float | None = None
    least: int = 1
    quorum: int = 0
    feedback: float = 0.0
    carry: dict[str, str] = {}
    until: str = ""
    most: int = 8
    prompt: str = ""
    outputs: tuple[TensorSpec, ...] = ()
    variant: str = ""
    version: str = ""
    min_quality: float = 0.0
    max_cost: float | None = None
    options: dict[str, object] = {}
    samples: int = 1
    verifies: str = ""
    against: str = ""
    digest: str = ""

    def needs(self) -> tuple[str, ...]:
        """Return the steps without any of which this one cannot run, in order."""
        return tuple(dict.fromkeys(name for name in self._sources() if name not in (INPUT, SESSION)))

    def before(self) -> tuple[str, ...]:
        """Return the steps that end before this one begins: what it needs, its members, what it comes after."""
        looked_at = (part for ref in names_in(self.when) for part in [step_of(ref)] if part != INPUT)
        found = [*self.needs(), *self.of, *looked_at, *self.after]
        return tuple(dict.fromkeys(name for name in found if name != SESSION))

    def _sources(self) -> Iterator[str]:
        yield from (step_of(reference) for reference in self.inputs.values())
        yield from (step_of(reference) for reference in names_in_prompt(self.prompt))
        if self.verifies:
            yield step_of(self.verifies)


class Graph(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Steps, and what of them is the answer.

    Attributes:
        name: Name of the model that the graph is.
        task: Task it serves, whose tensors it takes and gives.
        steps: In the order of the file, which is no order of work.
        answer: Output of the task → reference, or ``{"": step}`` where one step gives all of them.
        session: What a session remembers between requests: name → what it is.
        remember: Name in the session → reference to what it becomes.
        stream: What a chat's client hears where several steps may answer: ``hold``: nothing before it is known
            who does; ``restart``: the first answer at once, and a marker where another one takes its place.
    """

    name: str
    task: str
    steps: tuple[Step, ...]
    answer: dict[str, str]
    session: tuple[TensorSpec, ...] = ()
    remember: dict[str, str] = {}
    stream: Literal["hold", "restart"] = "hold"

    def step(self, name: str) -> Step:
        """Return a step by its name, which must exist."""
        return next(step for step in self.steps if step.name == name)

    def wanted(self) -> tuple[str, ...]:
        """Return the steps that the answer, and what is remembered, are taken from."""
        found = [step_of(reference) for reference in (*self.answer.values(), *self.remember.values())]
        return tuple(dict.fromkeys(name for name in found if name not in (INPUT, SESSION)))


def step_of(reference: str) -> str:
    """Return the step that a reference (``step.output``, or ``step``) points at."""
    return reference.partition(".")[0]


def output_of(reference: str) -> str:
    """Return the output that a reference points at, "" = all of the step's."""
    return reference.partition(".")[2]


def names_in_prompt(prompt: str) -> tuple[str, ...]:
    """Return the references that stand in braces in a template."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(prompt) if name)


def in_order(graph: Graph) -> tuple[Step, ...]:
    """Return the steps so that each comes after what it waits for.

    Raises:
        ValueError: They go round in a circle; the message names it.
    """
    known = {step.name: step for step in graph.steps}
    sorter = TopologicalSorter(
        {name: [b for b in step.before() if b in known] for name, step in known.items()}
    )
    try:
        return tuple(known[name] for name in sorter.static_order())
    except CycleError as error:
        raise ValueError(" → ".join(reversed(error.args[1]))) from None
