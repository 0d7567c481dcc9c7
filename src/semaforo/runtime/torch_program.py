"""What the ways of loading a PyTorch model have in common once it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import torch

from semaforo.entities import Signature


class Rows(msgspec.Struct, frozen=True):
    """How many rows a program takes at once.

    Attributes:
        least: Fewer are padded.
        most: More are run in parts; None = any number.
    """

    least: int = 0
    most: int | None = None


class Program(msgspec.Struct, frozen=True):
    """A module that is ready to be called.

    Attributes:
        call: Takes tensors by name and returns what the module returns.
        signature: What it takes and gives; no outputs = not known before it runs.
        memory: Bytes it holds.
        outputs: Names of all outputs, in order; empty = not known.
        rows: Bounds of the first dimension.
        rowless: Inputs without rows.
        writes: Whether it may write to its inputs.
    """

    call: Callable[[Mapping[str, torch.Tensor]], Any]
    signature: Signature
    memory: int
    outputs: tuple[str, ...] = ()
    rows: Rows = Rows()
    rowless: frozenset[str] = frozenset()
    writes: bool = True
