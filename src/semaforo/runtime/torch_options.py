"""Options of PyTorch models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch

from semaforo.errors import RuntimeLoadError


class TorchOptions(msgspec.Struct, frozen=True):
    """Options of a PyTorch model.

    Attributes:
        threads: Threads inside one operator; 0 = as many as torch wants.
        module: Factory of the module that weights are loaded into, as ``file.py:make``, looked for beside the
            weights first. It may take ``device``, or ``devices`` where it spreads its layers over several.
        args: Keyword arguments for the factory.
        dtype: Precision that the factory's module is loaded and run in; its answers are fp32 again.
        outputs: Names of what the model returns, in order, where it returns no dict.
        batched: Whether the first dimension is rows; None = as the file shows. Where an exported program fixes that
            dimension, ``true`` says that batches are padded up to it.
        compile: Compile with ``torch.compile``; the first batches then take seconds.
        allow_pickle: Unpickle files that hold more than tensors, which lets them run any code.
    """

    threads: Annotated[int, msgspec.Meta(ge=0)] = 1
    module: str = ""
    args: dict[str, Any] = {}
    dtype: Literal["", "fp32", "fp16", "bf16"] = ""
    outputs: tuple[str, ...] = ()
    batched: bool | None = None
    compile: bool = False
    allow_pickle: bool = False


def check_fixed(path: Path, what: str, devices: tuple[torch.device, ...], options: TorchOptions) -> None:
    """Check that nothing is asked of a saved program which only a factory's module can do.

    Raises:
        RuntimeLoadError: It is.
    """
    if len(devices) > 1:
        raise RuntimeLoadError(
            f"device: {path.name} is {what}, which runs on one device, not on {', '.join(map(str, devices))}: "
            "several need weights and options.module, whose factory takes 'devices'"
        )
    for option in ("dtype", "args"):
        if getattr(options, option):
            raise RuntimeLoadError(f"options.{option}: goes with options.module; {what} is as it was saved")
    if options.compile and what == "TorchScript":
        raise RuntimeLoadError("options.compile: TorchScript is compiled already: leave it out")


def first_line(error: Exception) -> str:
    """Return the first line of what an error says: torch goes on with its stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
