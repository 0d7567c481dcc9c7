"""Whether a graph can run: its names, its circles, and the types along its edges.

Problems are told all at once, each with the keys under the graph that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from semaforo.entities import TaskType, TensorSpec
from semaforo.errors import InvalidRequest, NotFound, nearest
from semaforo.graph.condition import names_in
from semaforo.graph.fusion import METHODS
from semaforo.graph.graph import INPUT, SESSION, Graph, Step, in_order, names_in_prompt, output_of, step_of
from semaforo.graph.verify import SAMPLED, VERDICT, answer_of, question_of

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_STEPS = 256
CHAT_INPUTS = (TensorSpec("text", "BYTES"), TensorSpec("messages", "BYTES", optional=True))
CHAT_OUTPUTS = (TensorSpec("text", "BYTES"),)

Say = Callable[[tuple[str, ...], str], None]
Specs = dict[str, TensorSpec]


class Types(msgspec.Struct, frozen=True):
    """What goes along the edges of a graph.

    Attributes:
        inputs: Tensors of the graph's own inputs by name.
        takes: Step → own input → the tensor that its reference gives.
        wants: Step → tensors of what is asked or called, by name.
        gives: Step → output → tensor.
    """

    inputs: Specs
    takes: dict[str, Specs]
    wants: dict[str, Specs]
    gives: dict[str, Specs]


def sides(task: TaskType) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return what a task takes and gives within a graph; a chat is texts there."""
    return (CHAT_INPUTS, CHAT_OUTPUTS) if task.kind == "chat" else (task.inputs, task.outputs)


def check(graph: Graph, task: TaskType, task_of: Callable[[str], TaskType], say: Say) -> Types | None:
    """Tell all that is wrong with a graph; return its types where nothing is.

    Args:
        graph: What is checked.
        task: The task it serves.
        task_of: Returns the task of a target; raises `NotFound`.
        say: Called with the keys under the graph, and what is wrong there.
    """
    wrong: list[bool] = []

    def note(key: tuple[str, ...], message: str) -> None:
        wrong.append(True)
        say(key, message)

    _names(graph, note)
    if wrong:
        return None
    try:
        ordered = in_order(graph)
    except ValueError as error:
        note(("steps",), f"go round in a circle: {error}")
        return None
    for idle in _unused(graph):
        note(("steps", idle), "nothing uses what it gives: leave it out, or take the answer from it")
    checker = _Checker(graph, task, task_of, note)
    for step in ordered:
        checker.step(step)
    checker.answer()
    return None if wrong else checker.types


def _names(graph: Graph, say: Say) -> None:
    known = {step.name for step in graph.steps}
    if not graph.steps:
        say(("steps",), "is empty: a graph has at least one step")
    if len(graph.steps) > MOST_STEPS:
        say(("steps",), f"are {len(graph.steps)}: {MOST_STEPS} are the most; nest graphs for more")
    for step in graph.steps:
        here = ("steps", step.name)
        if not NAME.fullmatch(step.name) or step.name in (INPUT, SESSION, "missing"):
            say(
                here, "is no name for a step: letters, digits and '_', and neither input, session nor missing"
            )
        looked_at: tuple[str, ...] = ()
        for key in ("until", "when"):
            try:
                looked_at = names_in(getattr(step, key))
            except InvalidRequest as error:
                say((*here, key), error.message)
                looked_at = ()
        references: list[tuple[tuple[str, ...], str]] = [
            (("inputs", name), ref) for name, ref in step.inputs.items()
        ]
        references += [(("prompt",), ref) for ref in names_in_prompt(step.prompt)]
        references += [
            ((key, str(i)), ref) for key in ("of", "after") for i, ref in enumerate(getattr(step, key))
        ]
        references += [(("when",), ref) for ref in looked_at]
        references += [(("verify",), step.verifies)] if step.verifies else []
        for place, reference in references:
            name = step_of(reference)
            if name == step.name:
                say((*here, *place), f"'{reference}' is the step itself")
            elif name not in known and name not in (INPUT, SESSION):
                hint = nearest(name, [*known, INPUT])
                say((*here, *place), f"no step is named '{name}'.{hint}")
    for key, ends in (("answer", graph.answer), ("remember", graph.remember)):
        for name, reference in ends.items():
            if step_of(reference) not in known and step_of(reference) != INPUT:
                hint = nearest(step_of(reference), known)
                say((key, name) if name else (key,), f"no step is named '{step_of(reference)}'.{hint}")


def _unused(graph: Graph) -> list[str]:
    known = {step.name: step for step in graph.steps}
    used: set[str] = set()
    stack = list(graph.wanted())
    while stack:
        name = stack.pop()
        if name not in used and name in known:
            used.add(name)
            stack += known[name].before()
    return [name for name in known if name not in used]


class _Checker:
    def __init__(self, graph: Graph, task: TaskType, task_of: Callable[[str], TaskType], say: Say) -> None:
        self._graph = graph
        self._task = task
        self._task_of = task_of
        self._say = say
        inputs, self._outputs = sides(task)
        self.types = Types({spec.name: spec for spec in inputs}, {}, {}, {})
        self._session = {spec.name: spec for spec in graph.session}

    def step(self, step: Step) -> None:
        here = ("steps", step.name)
        takes: Specs = {}
        for name, reference in step.inputs.items():
            spec = self._look_up(reference, (*here, "inputs", name))
            if spec is not None:
                takes[name] = spec
        self.types.takes[step.name] = takes
        for reference in (*names_in(step.when), *names_in_prompt(step.prompt)):
            if output_of(reference) or reference in (INPUT, SESSION):
                self._look_up(reference, (*here, "when" if reference in names_in(step.when) else "prompt"))
        if step.kind == "fuse":
            self._fuse(step, here)
        elif step.kind == "call":
            self.types.wants[step.name] = {}
            self.types.gives[step.name] = {spec.name: spec for spec in step.outputs}
            if not step.outputs:
                self._say((*here, "outputs"), "is missing: say what the function gives, e.g. {text: bytes}")
        elif step.kind == "verify":
            self._verify(step, here)
        else:
            self._ask(step, here)
        if step.each:
            gives = self.types.gives.get(step.name, {})
            self.types.gives[step.name] = {name: _listed(spec) for name, spec in gives.items()}

    def answer(self) -> None:
        graph = self._graph
        for name, reference in graph.answer.items():
            place = ("answer", name) if name else ("answer",)
            if not name:
                given = self.types.gives.get(step_of(reference), {})
                for output in self._outputs:
                    spec = given.get(output.name)
                    if spec is None and not output.optional:
                        text = f"step '{reference}' gives no '{output.name}', which '{self._task.name}' wants"
                        self._say(place, f"{text}; it gives {', '.join(given) or 'nothing'}")
                    elif spec is not None:
                        self._fit(spec, output, place)
                continue
            wanted = next((spec for spec in self._outputs if spec.name == name), None)
            if wanted is None:
                hint = nearest(name, [spec.name for spec in self._outputs])
                self._say(place, f"'{self._task.name}' has no output '{name}'.{hint}")
                continue
            given_spec = self._look_up(reference, place)
            if given_spec is not None:
                self._fit(given_spec, wanted, place)
        if "" not in graph.answer:
            for spec in self._outputs:
                if spec.name not in graph.answer and not spec.optional:
                    self._say(("answer",), f"leaves out '{spec.name}', an output of '{self._task.name}'")
        for name, reference in graph.remember.items():
            kept = self._session.get(name)
            if kept is None:
                hint = nearest(name, self._session)
                self._say(("remember", name), f"the session has no '{name}'.{hint} List it under `session`")
                continue
            remembered = self._look_up(reference, ("remember", name))
            if remembered is not None:
                self._fit(remembered, kept, ("remember", name))

    # --- kinds -----------------------------------------------------------------------------------------

    def _ask(self, step: Step, here: tuple[str, ...]) -> None:
        key = (*here, step.kind)
        try:
            task = self._task_of(step.target)
        except NotFound as error:
            self._say(key, error.message)
            return
        inputs, outputs = sides(task)
        wants = {spec.name: spec for spec in inputs}
        self.types.wants[step.name] = wants
        self.types.gives[step.name] = {spec.name: spec for spec in outputs}
        takes = self.types.takes[step.name]
        for name in step.inputs:
            if name not in wants:
                hint = nearest(name, wants)
                self._say((*here, "inputs", name), f"'{step.target}' takes no '{name}'.{hint}")
        for name in step.each:
            if name not in wants:
                self._say((*here, "each"), f"'{step.target}' takes no '{name}'.{nearest(name, wants)}")
        prompted = bool(step.prompt)
        if prompted and task.kind != "chat":
            self._say((*here, "prompt"), f"'{step.target}' is no chat: give it inputs")
        # Of what a chat is asked with, one thing counts: what the step says, else all that the request said.
        own_messages = "messages" if "messages" in self.types.inputs else "text"
        for name, spec in wants.items():
            if task.kind == "chat" and (step.inputs or prompted or name != own_messages):
                own_too = False
            else:
                own_too = name not in step.inputs
            if own_too:
                own = self.types.inputs.get(name)
                if own is None:
                    if not spec.optional:
                        text = f"'{step.target}' takes '{name}', which the graph is not given: say where it is from"
                        self._say((*here, "inputs"), text)
                    continue
                takes[name] = own
            given = takes.get(name)
            if given is not None:
                item = _item(given) if name in step.each else given
                if item is None:
                    self._say((*here, "each"), f"'{name}' is {given}: no list in each row")
                else:
                    self._fit(item, spec, (*here, "inputs", name))
        if step.kind == "loop":
            self._loop(step, here, wants)
        if step.samples > 1:
            if task.kind != "chat" or step.each:
                self._say((*here, "samples"), "a chat is sampled, and not in a map: leave it out")
            self.types.gives[step.name] |= {spec.name: spec for spec in SAMPLED}

    def _verify(self, step: Step, here: tuple[str, ...]) -> None:
        self.types.wants[step.name] = {}
        self.types.gives[step.name] = {spec.name: spec for spec in VERDICT}
        asked = self.types.takes[step.name] if step.inputs else self.types.inputs
        takes: Specs = {}
        name = step_of(step.verifies)
        given = self.types.gives.get(name, {})
        try:
            reference = answer_of(step, given)
            takes[reference] = given[output_of(reference)]
        except ValueError as error:
            self._say((*here, "verify"), str(error))
        if any(one.name == name and one.samples > 1 for one in self._graph.steps):
            takes |= {f"{name}.{sampled.name}": sampled for sampled in SAMPLED}
        question = question_of(step, self.types.inputs)
        takes |= {reference: asked[own] for own, reference in question.items() if own in asked}
        self.types.takes[step.name] = takes

    def _loop(self, step: Step, here: tuple[str, ...], wants: Specs) -> None:
        gives = self.types.gives[step.name]
        if not step.carry:
            self._say((*here, "carry"), "is missing: say which output becomes which input of the next round")
        for name, output in step.carry.items():
            if name not in wants:
                self._say((*here, "carry", name), f"'{step.target}' takes no '{name}'.{nearest(name, wants)}")
            elif output not in gives:
                hint = nearest(output, gives)
                self._say((*here, "carry", name), f"'{step.target}' gives no '{output}'.{hint}")
            else:
                self._fit(gives[output], wants[name], (*here, "carry", name))
        for name in names_in(step.until):
            if name not in gives:
                self._say((*here, "until"), f"'{step.target}' gives no '{name}'.{nearest(name, gives)}")

    def _fuse(self, step: Step, here: tuple[str, ...]) -> None:
        method = METHODS.get(step.target)
        if method is None:
            hint = nearest(step.target, METHODS)
            self._say(
                (*here, "fuse"), f"no method is named '{step.target}'.{hint} There are {', '.join(METHODS)}"
            )
            return
        if not step.of:
            self._say((*here, "of"), "is missing: name the steps whose answers become one")
            return
        for key, number in (("least", step.least), ("quorum", step.quorum)):
            if number > len(step.of):
                self._say((*here, key), f"{number} of {len(step.of)} members")
        if len(set(step.of)) < len(step.of):
            self._say((*here, "of"), "a step stands twice")
        weights = step.options.get("weights")
        if isinstance(weights, Mapping):
            for name, weight in weights.items():
                if name not in step.of:
                    self._say((*here, "weights", name), f"is no member.{nearest(name, step.of)}")
                elif not isinstance(weight, int | float) or isinstance(weight, bool) or weight < 0:
                    self._say((*here, "weights", name), f"'{weight}' is no weight: a number, 0 or more")
        members = {name: tuple(self.types.gives.get(name, {}).values()) for name in step.of}
        if any(not specs for specs in members.values()):
            return
        try:
            outputs = method.outputs(members, step.options)
        except InvalidRequest as error:
            self._say((*here, "of"), error.message)
            return
        self.types.gives[step.name] = {spec.name: spec for spec in outputs}

    # --- types -----------------------------------------------------------------------------------------

    def _look_up(self, reference: str, key: tuple[str, ...]) -> TensorSpec | None:
        name, output = step_of(reference), output_of(reference)
        if name == INPUT:
            known = self.types.inputs
        elif name == SESSION:
            known = self._session
        else:
            known = self.types.gives.get(name, {})
            if not known:
                return None
        if not output and len(known) == 1:
            return next(iter(known.values()))
        found = known.get(output)
        if found is None:
            whose = {INPUT: "the graph's inputs have", SESSION: "the session has"}.get(
                name, f"'{name}' gives"
            )
            text = f"'{reference}': {whose} no '{output}'" if output else f"'{reference}': name one output"
            self._say(key, f"{text}.{nearest(output, known)} There are {', '.join(known) or 'none'}")
        return found

    def _fit(self, given: TensorSpec, wanted: TensorSpec, key: tuple[str, ...]) -> None:
        if why := misfit(given, wanted):
            self._say(key, why)


def misfit(given: TensorSpec, wanted: TensorSpec) -> str:
    """Return why a tensor cannot be turned into another, "" where it can.

    Numbers become other numbers, and rows of as many items another shape; texts stay texts.
    """
    if (given.dtype == "BYTES") != (wanted.dtype == "BYTES"):
        return f"{given} cannot be {wanted}: one is text, the other numbers"
    if "BF16" in (given.dtype, wanted.dtype) and given.dtype != wanted.dtype:
        return f"{given} cannot be {wanted}: only a model casts BF16"
    if not _shapes_fit(given.shape, wanted.shape):
        return f"{given} cannot be {wanted}: rows of another shape"
    return ""


def _shapes_fit(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if len(given) == len(wanted) and all(-1 in (g, w) or g == w for g, w in zip(given, wanted, strict=True)):
        return True
    if -1 in given or -1 in wanted:
        return False
    return _size(given) == _size(wanted)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for dimension in shape:
        size *= dimension
    return size


def _item(spec: TensorSpec) -> TensorSpec | None:
    return msgspec.structs.replace(spec, shape=spec.shape[1:]) if spec.shape else None


def _listed(spec: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(spec, shape=(-1, *spec.shape))
