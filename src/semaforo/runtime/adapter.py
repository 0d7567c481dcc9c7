"""The bridge between a task's tensors and a model's own, planned once and checked whole.

`plan` compares what a task declares, what a model says of itself and what an adapter declares, and either gives
a `Bridge` or one error that names every mismatch. Branches for each tensor that has to be made:

1. A rule of the adapter says how.
2. Without a rule, the tensor of the same name is taken.
3. Without one, and where either side has exactly one tensor, that is taken.
4. Otherwise it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from semaforo.entities import DTYPES, Signature, TensorSpec
from semaforo.errors import InvalidRequest, RuntimeLoadError, nearest
from semaforo.runtime.adapter_casts import Step
from semaforo.runtime.adapter_flow import OPEN, Flow, Mismatch, OutputMismatch
from semaforo.runtime.adapter_rules import Adapter, Rule, parse_adapter
from semaforo.wire.payload import Array


class AdapterMismatch(RuntimeLoadError):
    """A task and a model do not fit.

    Attributes:
        problems: One line for each mismatch, beginning with its place, for example ``inputs.pixels``.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 mismatch" if len(problems) == 1 else f"{len(problems)} mismatches"
        super().__init__(f"{count} between the task and the model: " + "; ".join(problems))
        self.problems = tuple(problems)


class _Port(msgspec.Struct, frozen=True):
    """How one tensor is made."""

    name: str
    source: str = ""
    steps: tuple[Step, ...] = ()
    packed: tuple[tuple[str, str], ...] = ()
    constant: Array | None = None
    default: Array | None = None
    rowless: bool = False
    optional: bool = False

    def make(self, columns: Mapping[str, Array], rows: int, fault: type[Exception]) -> Array | None:
        if self.constant is not None:
            return self.constant if self.rowless else _repeat(self.constant, rows)
        if self.packed:
            return _pack(self.packed, columns, rows, fault)
        array = columns.get(self.source)
        if array is None:
            if self.default is not None:
                return _repeat(self.default, rows)
            if self.optional:
                return None
            raise fault(f"'{self.source}' is missing; there are {', '.join(columns) or 'no tensors'}")
        for step in self.steps:
            array = step(array)
        return array


class Bridge:
    """Turns the task's tensors into the model's, and back.

    Attributes:
        signature: What the task gives and gets.
        model_outputs: The model's outputs that are needed, in order; empty = all.
        fields: BYTES input of the task → the JSON fields read from it, for making samples.
    """

    def __init__(
        self,
        signature: Signature,
        inputs: Sequence[_Port] | None,
        outputs: Sequence[_Port] | None,
        fields: Mapping[str, dict[str, TensorSpec]],
    ) -> None:
        self.signature = signature
        self.fields = fields
        self._inputs = inputs
        self._outputs = outputs
        self.model_outputs = tuple(
            dict.fromkeys(
                name for p in outputs or () for name in ([t for _, t in p.packed] if p.packed else [p.source])
            )
        )

    def inputs(self, columns: dict[str, Array], rows: int) -> dict[str, Array]:
        """Make the model's inputs.

        Raises:
            InvalidRequest: A tensor is missing, or holds what cannot be bridged.
        """
        if self._inputs is None:
            return columns
        made: dict[str, Array] = {}
        for port in self._inputs:
            array = port.make(columns, rows, InvalidRequest)
            if array is not None:
                made[port.name] = array
        return made

    def outputs(self, columns: dict[str, Array], rows: int) -> dict[str, Array]:
        """Make the task's outputs.

        Raises:
            OutputMismatch: The model returned something else than it declares.
        """
        if self._outputs is None:
            return columns
        made: dict[str, Array] = {}
        for port in self._outputs:
            array = port.make(columns, rows, OutputMismatch)
            assert array is not None, "an output of a task is never optional"
            made[port.name] = array
        return made


def plan(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    model: Signature,
    adapter: Adapter | Mapping[str, Any] | None = None,
    *,
    rowless: frozenset[str] = frozenset(),
) -> Bridge:
    """Plan the bridge from a task to a model and back.

    Args:
        inputs: What the task gives; empty = whatever the model takes.
        outputs: What the task wants; empty = whatever the model gives.
        model: What the model says of itself. A dtype of "" is open; no outputs = they are not known.
        adapter: The declared bridge, parsed or as plain data, or None.
        rowless: Inputs of the model without a row dimension.

    Raises:
        AdapterMismatch: They do not fit; every mismatch is named.
        ConfigError: The adapter itself is wrong.
    """
    declared = adapter if isinstance(adapter, Adapter) else parse_adapter(adapter or {})
    problems: list[str] = []
    task_in = tuple(inputs) or tuple(spec for spec in model.inputs if spec.name not in rowless)
    task_out = tuple(outputs) or model.outputs
    there = _Side("inputs", task_in, model.inputs, declared.inputs, rowless, problems)
    there.plan()
    there.check_used(declared.ignore)
    back = _Side("outputs", model.outputs, task_out, declared.outputs, frozenset(), problems)
    back.plan()
    if problems:
        raise AdapterMismatch(problems)
    known = Signature(task_in, task_out, model.batched)
    return Bridge(known, there.compiled(), back.compiled() if task_out else None, there.fields)


class _Side:
    """All tensors of one direction: the task's to the model's inputs, or the model's to the task's outputs."""

    def __init__(
        self,
        name: str,
        sources: Sequence[TensorSpec],
        targets: Sequence[TensorSpec],
        rules: Mapping[str, Rule],
        rowless: frozenset[str],
        problems: list[str],
    ) -> None:
        self._name = name
        self._incoming = name == "inputs"
        self._sources = {spec.name: spec for spec in sources}
        self._targets = targets
        self._rules = rules
        self._rowless = rowless
        self._problems = problems
        self._ports: list[_Port] = []
        self._used: set[str] = set()
        self._missing = False
        self.fields: dict[str, dict[str, TensorSpec]] = {}
        self._giver, self._taker = ("task", "model") if self._incoming else ("model", "task")

    def plan(self) -> None:
        names = [target.name for target in self._targets]
        for name in self._rules:
            if name not in names:
                self._problem(name, f"the {self._taker} has no {self._name[:-1]} '{name}'.{nearest(name, names)}"
                                    f" It has {', '.join(names) or 'none'}")  # fmt: skip
        for target in self._targets:
            try:
                port = self._port(target)
            except Mismatch as error:
                self._problem(target.name, str(error))
            else:
                if port is not None:
                    self._ports.append(port)

    def check_used(self, ignore: Sequence[str]) -> None:
        for name in ignore:
            if name not in self._sources:
                self._problems.append(
                    f"ignore: the task has no input '{name}'.{nearest(name, self._sources)}"
                )
        for name, spec in self._sources.items():
            # A tensor that is missed under another name is not extra: one mismatch, one line.
            if not self._missing and name not in self._used and name not in ignore and not spec.optional:
                takers = ", ".join(str(target) for target in self._targets) or "nothing"
                self._problem(
                    name,
                    f"extra input: the task gives {spec}, the model takes {takers}; bridge it, or add it to "
                    "adapter.ignore",
                )

    def compiled(self) -> list[_Port] | None:
        """Return the ports, or None where each tensor is handed on as it is."""
        plain = all(
            p.source == p.name and not (p.steps or p.packed) and p.constant is None and p.default is None
            for p in self._ports
        )
        same = {p.source for p in self._ports} == (set(self._sources) or {p.source for p in self._ports})
        return None if plain and same and (self._incoming or self._sources) else self._ports

    def _problem(self, tensor: str, text: str) -> None:
        self._problems.append(f"{self._name}.{tensor}: {text}")

    def _port(self, target: TensorSpec) -> _Port | None:
        rule = self._rules.get(target.name)
        if rule is not None and rule.value is not None:
            rowless = target.name in self._rowless
            return _Port(target.name, constant=_constant(rule.value, target), rowless=rowless)
        if target.name in self._rowless:
            raise Mismatch(
                f"the model takes {target} once for a whole batch: give it a constant with 'value'"
            )
        if rule is not None and rule.json is not None:
            return self._packed(target, rule.json)
        source = self._source(target, rule)
        if source is None:
            return None
        self._used.add(source.name)
        flow = Flow(source, target, incoming=self._incoming)
        if not self._incoming:
            rule = _with_labels(rule, source, target)
        if rule is not None:
            flow.apply(rule)
            if rule.field:
                self.fields.setdefault(source.name, {})[rule.field] = target
        flow.finish(rule.dtype if rule else "")
        default = None if rule is None or rule.default is None else _constant(rule.default, target)
        if self._incoming and source.optional and not target.optional and default is None:
            raise Mismatch(f"the task may leave '{source.name}' out, the model needs it: declare a 'default'")
        optional = self._incoming and source.optional and default is None
        return _Port(target.name, source.name, tuple(flow.steps), default=default, optional=optional)

    def _source(self, target: TensorSpec, rule: Rule | None) -> TensorSpec | None:
        if rule is not None and rule.source:
            if not self._sources and not self._incoming:
                return TensorSpec(rule.source, OPEN)
            if rule.source not in self._sources:
                raise Mismatch(
                    f"unknown source: the {self._giver} has no {self._name[:-1]} '{rule.source}'."
                    f"{nearest(rule.source, self._sources)} It has {', '.join(self._sources) or 'none'}"
                )
            return self._sources[rule.source]
        if target.name in self._sources:
            return self._sources[target.name]
        if not self._sources and not self._incoming:
            return TensorSpec(target.name, OPEN)
        if len(self._sources) == 1 and (len(self._targets) == 1 or rule is not None):
            return next(iter(self._sources.values()))
        if target.optional and self._incoming:
            return None
        self._missing = True
        have = ", ".join(str(spec) for spec in self._sources.values()) or "nothing"
        raise Mismatch(
            f"missing {self._name[:-1]}: the {self._taker} {'takes' if self._incoming else 'declares'} {target}, "
            f"the {self._giver} gives {have}; declare {self._name}.{target.name} with 'from'"
            + (" or 'value'" if self._incoming else "")
        )

    def _packed(self, target: TensorSpec, fields: Mapping[str, str] | Sequence[str]) -> _Port:
        if target.dtype not in ("BYTES", OPEN) or target.shape not in ((), (1,)):
            raise Mismatch(f"impossible cast: 'json' makes one text a row, and {target} is wanted")
        pairs = dict(fields) if isinstance(fields, Mapping) else {name: name for name in fields}
        for name in pairs.values():
            if self._sources and name not in self._sources:
                raise Mismatch(
                    f"bad JSON field: the {self._giver} has no {self._name[:-1]} '{name}'."
                    f"{nearest(name, self._sources)}"
                )
            self._used.add(name)
        return _Port(target.name, packed=tuple(pairs.items()))


def _with_labels(rule: Rule | None, source: TensorSpec, target: TensorSpec) -> Rule | None:
    """Add the labels that a model knows of itself, where the task has them in another order or form."""
    own = source.labels
    if not own or not target.labels or (rule is not None and rule.labels is not None):
        return rule
    if set(own) != set(target.labels):
        raise Mismatch(
            f"label mismatch: the model's classes are {', '.join(own)}, the task's {', '.join(target.labels)}; "
            "declare 'labels': the model's own names → the task's"
        )
    texts = (source.dtype == "BYTES", target.dtype == "BYTES")
    if texts == (True, True) or (own == target.labels and texts == (False, False)):
        return rule
    return msgspec.structs.replace(rule or Rule(), labels=list(own))


def _constant(value: Any, target: TensorSpec) -> Array:
    try:
        array = np.asarray(value, dtype=DTYPES.get(target.dtype))
    except (ValueError, TypeError, OverflowError) as error:
        raise Mismatch(f"the constant {value!r} does not become {target}: {error}") from None
    if target.dtype == OPEN:
        return array
    shape = tuple(1 if d < 0 else d for d in target.shape)
    if array.shape and not target.accepts(array.shape):
        raise Mismatch(f"shape mismatch: the constant has shape {list(array.shape)}, {target} is wanted")
    return array if array.shape else np.full(shape, array[()], dtype=array.dtype)


def _repeat(row: Array, rows: int) -> Array:
    return np.ascontiguousarray(np.broadcast_to(row, (rows, *row.shape)))


def _pack(
    fields: tuple[tuple[str, str], ...], columns: Mapping[str, Array], rows: int, fault: type[Exception]
) -> Array:
    texts: Array = np.empty(rows, dtype=object)
    lists: dict[str, list[Any]] = {}
    for field, name in fields:
        if name not in columns:
            raise fault(f"'{name}' is missing; there are {', '.join(columns) or 'no tensors'}")
        lists[field] = _jsonable(columns[name].tolist())
    for row in range(rows):
        texts[row] = msgspec.json.encode({field: values[row] for field, values in lists.items()}).decode()
    return texts


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
