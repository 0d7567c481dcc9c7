"""Declared adapters as typed values: the ``adapter:`` of a model in a fleet file.

```yaml
adapter:
  inputs:                       # the model's input: what it is made of
    pixels: {from: image, reshape: [8, 8, 1], scale: 255, dtype: uint8}
    rate: {value: 16000}
  outputs:                      # the task's output: what it is made of
    label: {from: scores, labels: [nought, one], argmax: true}
  ignore: [mask]                # inputs of the task that the model does without
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from semaforo.entities import DTYPES
from semaforo.errors import ConfigError, nearest


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one tensor is made from another; what is stated is done in the order of the attributes.

    Attributes:
        source: Name of the tensor it is made from (``from`` in YAML).
        value: A constant instead (inputs only).
        default: Used where a request leaves an optional tensor out (inputs only).
        json: Field → tensor, or names of tensors: a JSON object in a BYTES tensor is made of them.
        field: Path (``result.label``) of a field in the source, which is a BYTES tensor of JSON.
        reshape: Shape of one row, one -1 allowed; on outputs it is done after `layout`.
        layout: For example ``NHWC->NCHW``; a letter on one side only is a dimension of 1 added or dropped.
        scale, offset: ``x · scale + offset``.
        softmax: Over the last dimension.
        labels: The model's class names in its own order, or its own name → the task's name. Scores are
            reordered, indices and names translated.
        argmax: Index (or name, where BYTES is wanted) of the largest of the last dimension.
        column: Index, or label, of the one score to take from the last dimension.
        dtype: The dtype wanted, which states that the cast is meant.
    """

    source: str = msgspec.field(default="", name="from")
    value: Any = None
    default: Any = None
    json: dict[str, str] | list[str] | None = None
    field: str = ""
    reshape: list[int] | None = None
    layout: str = ""
    scale: float | None = None
    offset: float | None = None
    softmax: bool = False
    labels: list[str] | dict[str, str] | None = None
    argmax: bool = False
    column: int | str | None = None
    dtype: str = ""


class Adapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A declared bridge between a task and a model.

    Attributes:
        inputs: Model's input → how it is made of the task's inputs.
        outputs: Task's output → how it is made of the model's outputs.
        ignore: Inputs of the task that the model does without.
    """

    inputs: dict[str, Rule] = {}
    outputs: dict[str, Rule] = {}
    ignore: list[str] = []


_INPUT_ONLY = ("value", "default")


def parse_adapter(data: Mapping[str, Any]) -> Adapter:
    """Check an adapter as it comes from YAML.

    Raises:
        ConfigError: Which key is wrong, and how; unknown keys name the nearest known one.
    """
    _known(data, Adapter, "adapter")
    sides: dict[str, dict[str, Rule]] = {}
    for side in ("inputs", "outputs"):
        rules = data.get(side) or {}
        if not isinstance(rules, Mapping):
            raise ConfigError(f"adapter.{side}: write a mapping of tensor to rule, not {rules!r}")
        sides[side] = {str(name): _rule(rule, side, f"adapter.{side}.{name}") for name, rule in rules.items()}
    ignore = data.get("ignore") or []
    if not isinstance(ignore, (list, tuple)) or not all(isinstance(name, str) for name in ignore):
        raise ConfigError(f"adapter.ignore: write a list of the task's inputs, not {ignore!r}")
    return Adapter(sides["inputs"], sides["outputs"], list(ignore))


def _rule(data: Any, side: str, where: str) -> Rule:
    if isinstance(data, str):
        data = {"from": data}
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: write a mapping such as {{from: name}}, or a name, not {data!r}")
    _known(data, Rule, where)
    try:
        rule = msgspec.convert(dict(data), Rule)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$")
        raise ConfigError(f"{where}{at.rstrip('`')}: {reason}") from None
    sources = [name for name in ("from", "value", "json") if data.get(name) is not None]
    if len(sources) > 1:
        raise ConfigError(f"{where}: '{sources[0]}' and '{sources[1]}' exclude each other")
    for name in _INPUT_ONLY:
        if side == "outputs" and name in data:
            raise ConfigError(f"{where}.{name}: means something for inputs only")
    if rule.dtype:
        _dtype(rule.dtype, where)
        rule = msgspec.structs.replace(rule, dtype=rule.dtype.upper())
    if rule.argmax and rule.column is not None:
        raise ConfigError(f"{where}: 'argmax' and 'column' exclude each other")
    if rule.layout:
        _check_layout(rule.layout, where)
    if rule.reshape is not None and (
        rule.reshape.count(-1) > 1 or any(d < -1 or d == 0 for d in rule.reshape)
    ):
        raise ConfigError(f"{where}.reshape: {rule.reshape} is no shape: dimensions are ≥ 1, one may be -1")
    return rule


def _known(data: Any, kind: type[msgspec.Struct], where: str) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: write a mapping, not {data!r}")
    known = kind.__struct_encode_fields__
    for name in data:
        if name not in known:
            raise ConfigError(
                f"{where}.{name}: unknown key.{nearest(str(name), known)} Known: {', '.join(known)}"
            )


def _dtype(name: str, where: str) -> None:
    if name.upper() not in DTYPES:
        raise ConfigError(f"{where}.dtype: '{name}' is no dtype.{nearest(name.upper(), DTYPES)}")


def _check_layout(layout: str, where: str) -> None:
    before, arrow, after = layout.partition("->")
    good = arrow and before.isalpha() and after.isalpha()
    if not good or before[0] != "N" or after[0] != "N":
        raise ConfigError(
            f"{where}.layout: '{layout}' is no layout: write NHWC->NCHW; both sides begin with N, the rows"
        )
    for side in (before, after):
        if len(set(side)) != len(side):
            raise ConfigError(f"{where}.layout: '{layout}' has a letter twice on one side")
