"""Graphs built in Python: steps are made by calls, and give values for expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from semaforo.api.expression import Given, Value
from semaforo.api.function import annotated_output, declared
from semaforo.build import Built
from semaforo.build.verifiers import digest_of, file_of
from semaforo.config.graphs import STEP_KEYS
from semaforo.entities.units import parse_duration
from semaforo.errors import ConfigError, nearest
from semaforo.graph import graph as parts
from semaforo.graph.condition import names_in
from semaforo.graph.graph import INPUT, SESSION, Kind, Step
from semaforo.runtime.python_source import REGISTERED, register, unregister


class Graph:
    """A model made of other models: `semaforo.Fleet.open(path, graphs=[…])` serves it.

    Its names and types are checked when a fleet takes it, against the models of that fleet.

    Args:
        name: Of the model that it is.
        task: The task it serves.
        session: What a session remembers: name → for example ``bytes``.
        forget: How long a session that is not used is remembered, such as ``"10m"``, or seconds.
        in_flight: Requests of the graph that run at once.
        quality: 0…1 in the task's metric; None = not known.
        stream: Of a chat that several steps may answer: whether it is held back until it is known which one does,
            or begins at once, and restarts with a marker.

    Attributes:
        input: What a request gives.
        session: What its session remembers.
    """

    def __init__(
        self,
        name: str,
        *,
        task: str,
        session: Mapping[str, str] | None = None,
        forget: str | float = 600.0,
        in_flight: int = 256,
        quality: float | None = None,
        stream: Literal["hold", "restart"] = "hold",
    ) -> None:
        self.name, self.task, self._stream = name, task, stream
        self.input, self.session = Given(INPUT), Given(SESSION)
        self.in_flight, self.quality, self.forget_s = in_flight, quality, _seconds(forget)
        self._remembered = declared(session or {}, name)
        self._steps: dict[str, Step] = {}
        self._answer: dict[str, str] = {}
        self._remember: dict[str, str] = {}

    def ask(
        self,
        target: str,
        *,
        name: str = "",
        inputs: Mapping[str, Value] | None = None,
        when: Value | str = "",
        after: Sequence[Given] = (),
        delay: str | float = 0.0,
        **more: Any,
    ) -> Given:
        """Add a step that asks a model, a task, an alias or another graph.

        Args:
            target: What is asked.
            name: Of the step; the target's where left out.
            inputs: Own input → value; the graph's input of the same name where left out.
            when: Condition on the rows it runs for.
            after: Steps that must have ended before.
            delay: How long to hold it back; it never begins if it is not needed by then.
            more: As in a fleet file: ``each``, ``at_once``, ``samples``, ``prompt``, ``variant``, ``version``,
                ``min_quality``, ``max_cost``.

        Raises:
            ConfigError: A name is taken, or there is no such setting.
        """
        return self._add("ask", target, name, inputs, when, after, delay, more)

    def loop(
        self,
        target: str,
        *,
        carry: Mapping[str, str],
        until: str = "",
        most: int = 8,
        name: str = "",
        inputs: Mapping[str, Value] | None = None,
        when: Value | str = "",
        after: Sequence[Given] = (),
        delay: str | float = 0.0,
        **more: Any,
    ) -> Given:
        """Add a step that asks a model again and again.

        Args:
            target: What is asked.
            carry: Input → output that it becomes in the next round.
            until: Condition on a round's outputs, after which a row is done.
            most: Most rounds.
            name, inputs, when, after, delay, more: As of `ask`.

        Raises:
            ConfigError: A name is taken, or there is no such setting.
        """
        more |= {"carry": dict(carry), "until": until, "most": most}
        return self._add("loop", target, name, inputs, when, after, delay, more)

    def call(
        self,
        function: Callable[..., Any],
        *,
        outputs: Mapping[str, str] | None = None,
        name: str = "",
        inputs: Mapping[str, Value] | None = None,
        when: Value | str = "",
        after: Sequence[Given] = (),
        delay: str | float = 0.0,
    ) -> Given:
        """Add a step that calls a function with rows of its inputs.

        Args:
            function: What is called.
            outputs: What it gives, such as ``{"x": "fp32[3]"}``; where left out, ``output`` as it is annotated.
            name, inputs, when, after, delay: As of `ask`.

        Raises:
            ConfigError: A name is taken, or a type cannot be read.
        """
        title = name or function.__name__
        whole = f"{self.name}.{title}"
        gives = declared(outputs, whole) if outputs is not None else annotated_output(function, whole)
        unregister(REGISTERED + whole)
        source = register(whole, function)
        return self._add("call", source, title, inputs, when, after, delay, {}, outputs=gives)

    def verify(
        self,
        answer: Given | Value,
        *,
        by: str | Path,
        against: str = "",
        name: str = "",
        inputs: Mapping[str, Value] | None = None,
        when: Value | str = "",
        after: Sequence[Given] = (),
        delay: str | float = 0.0,
    ) -> Given:
        """Add a step that predicts what a dear model gains on an answer: it gives ``gain`` and ``trust``.

        Args:
            answer: The step whose answer is looked at, or an output of it.
            by: File of the verifier, or a folder of its versions, as `semaforo router train --cascade` writes one.
            against: The dear model; the only other one that it knows where left out.
            name: Of the step; ``verify`` where left out.
            inputs: What it knows of the question: name → value; the graph's inputs where left out.
            when, after, delay: As of `ask`.

        Raises:
            ConfigError: A name is taken.
        """
        path = file_of(Path(by).absolute())
        looked_at = answer.name if isinstance(answer, Given) else answer.text
        return self._add(
            "verify", str(path), name or "verify", inputs, when, after, delay, {"against": against},
            verifies=looked_at, digest=digest_of(path),
        )  # fmt: skip

    def fuse(
        self,
        method: str,
        *members: Given,
        name: str = "",
        when: Value | str = "",
        after: Sequence[Given] = (),
        delay: str | float = 0.0,
        **more: Any,
    ) -> Given:
        """Add a step that makes one answer of several.

        Args:
            method: ``first``, ``vote``, ``mean`` and so on.
            members: Steps whose answers are fused.
            name: Of the step; the method's where left out.
            when, after, delay: As of `ask`.
            more: As in a fleet file: ``wait``, ``least``, ``quorum``, ``feedback``, ``options``; ``weights`` by
                name of the members; ``fitted`` is what was fitted itself.

        Raises:
            ConfigError: A name is taken, or there is no such setting.
        """
        more["of"] = tuple(member.name for member in members)
        options = dict(more.pop("options", {}))
        options |= {key: more.pop(key) for key in ("weights", "fitted") if key in more}
        if "wait" in more:
            more["wait_s"] = _seconds(more.pop("wait"))
        return self._add("fuse", method, name or method, None, when, after, delay, more, options=options)

    def answer(self, given: Given | Mapping[str, Value]) -> None:
        """Take the answer from one step, or each output of the task from a value."""
        if isinstance(given, Given):
            self._answer = {"": given.name}
        else:
            self._answer = {name: value.text for name, value in given.items()}

    def remember(self, values: Mapping[str, Value]) -> None:
        """Remember values in the session, under these names."""
        self._remember = {name: value.text for name, value in values.items()}

    def built(self) -> parts.Graph:
        """Return the graph as a value; its last step is the answer where none was named."""
        last = next(reversed(self._steps), "")
        return parts.Graph(
            name=self.name,
            task=self.task,
            steps=tuple(self._steps.values()),
            answer=self._answer or {"": last},
            session=self._remembered,
            remember=self._remember,
            stream=self._stream,
        )

    def served(self) -> Built:
        """Return the graph and how it is served."""
        return Built(self.built(), self.in_flight, self.forget_s, self.quality)

    def yaml(self) -> str:
        """Return the model as it stands in a fleet file.

        Raises:
            ConfigError: It calls a function that only this program has.
        """
        graph: dict[str, Any] = {
            "steps": {step.name: _settings(self.name, step) for step in self._steps.values()}
        }
        graph |= {"answer": self._answer} if self._answer and "" not in self._answer else {}
        if "" in self._answer and self._answer[""] != next(reversed(self._steps)):
            raise ConfigError(
                f"the answer of '{self.name}' comes from a step in the middle: add that step last"
            )
        if self._remembered:
            graph["session"] = {spec.name: _type(spec) for spec in self._remembered}
            graph |= {"remember": self._remember, "forget": f"{self.forget_s:g}s"}
        graph |= {"stream": self._stream} if self._stream != "hold" else {}
        graph |= {"in_flight": self.in_flight} if self.in_flight != 256 else {}
        model: dict[str, Any] = {"task": self.task, "graph": graph}
        model |= {"quality": self.quality} if self.quality is not None else {}
        return yaml.safe_dump({"models": {self.name: model}}, sort_keys=False, allow_unicode=True, width=110)

    def _add(
        self,
        kind: Kind,
        target: str,
        name: str,
        inputs: Mapping[str, Value] | None,
        when: Value | str,
        after: Sequence[Given],
        delay: str | float,
        more: Mapping[str, Any],
        **built: Any,
    ) -> Given:
        title = name or target.replace("-", "_")
        if title in self._steps:
            raise ConfigError(
                f"graph '{self.name}' has a step '{title}' already: give this one another name="
            )
        known = (*STEP_KEYS[kind], "wait_s")
        for key in more:
            if key not in known:
                raise ConfigError(f"step '{title}' has no setting '{key}'.{nearest(key, known)}")
        settings: dict[str, Any] = {
            key: tuple(value) if key in ("each", "of") else value for key, value in more.items()
        }
        self._steps[title] = Step(
            name=title,
            kind=kind,
            target=target,
            inputs={key: value.text for key, value in (inputs or {}).items()},
            when=when.text if isinstance(when, Value) else when,
            after=tuple(step.name for step in after),
            delay_s=_seconds(delay),
            **settings,
            **built,
        )
        # Read here already, so that the line at fault is in the traceback.
        names_in(self._steps[title].when)
        return Given(title)


_APART = ("name", "kind", "target", "outputs", "options", "verifies", "digest")


def _seconds(value: str | float) -> float:
    return parse_duration(value) if isinstance(value, str) else float(value)


def _settings(graph: str, step: Step) -> dict[str, Any]:
    if step.target.startswith(REGISTERED):
        raise ConfigError(
            f"step '{step.name}' of '{graph}' calls a function of this program: in a file it has to be named, as "
            "`module:function`"
        )
    plain = msgspec.to_builtins(step)
    fresh = msgspec.to_builtins(Step(name="", kind=step.kind))
    found: dict[str, Any] = {step.kind: step.target}
    if step.kind == "verify":
        found = {"verify": step.verifies, "by": step.target, "sha256": step.digest}
    for key, value in plain.items():
        if key in _APART or value == fresh.get(key):
            continue
        found[key.removesuffix("_s")] = f"{value:g}s" if key.endswith("_s") else value
    found |= {"outputs": {spec.name: _type(spec) for spec in step.outputs}} if step.outputs else {}
    options = dict(step.options)
    if "fitted" in options:
        raise ConfigError(
            f"step '{step.name}' of '{graph}' was given what was fitted: a file names a file of it"
        )
    found |= {"weights": options.pop("weights")} if "weights" in options else {}
    found |= {"options": options} if options else {}
    return found


def _type(spec: Any) -> str:
    return str(spec).partition(": ")[2].removesuffix("[]")
