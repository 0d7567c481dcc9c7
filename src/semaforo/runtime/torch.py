"""The runtime for PyTorch: exported programs, TorchScript, and weights for a module that a factory makes.

Rules this module keeps:

1. No file is unpickled unless ``allow_pickle`` says so.
2. An exported program is batched where the first dimension of every input is symbolic, or always 1; its own
   bounds of that dimension are kept by cutting a batch into parts and padding the last one. What has no
   signature of its own (TorchScript, a factory's module) takes and gives what the task declares, in rows.
3. Gradients are never kept. A model that may write to its input gets a copy of it.
4. Memory that runs out is the model's failure: what was cached is given back, and smaller batches go on.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from semaforo.errors import InvalidRequest, ModelFailed, RuntimeLoadError
from semaforo.runtime.options import read_options
from semaforo.runtime.torch_devices import download, empty_caches, torch_devices, upload
from semaforo.runtime.torch_export import exported
from semaforo.runtime.torch_load import built, is_script, scripted
from semaforo.runtime.torch_options import TorchOptions
from semaforo.runtime.torch_program import Program
from semaforo.runtime.torch_tensors import array_of, named, tensor_of
from semaforo.wire.payload import Array

_SUFFIXES = (".pt2", ".pt", ".pth", ".safetensors")
_COMPILERS = ("torch._dynamo", "torch._inductor")


class TorchModel:
    """A loaded PyTorch model.

    Attributes:
        rowless: Inputs that have no rows although the model is batched; only a constant fits them.
    """

    def __init__(self, program: Program, devices: tuple[torch.device, ...], compiled: bool) -> None:
        self._program = program
        self._devices = devices
        self._compiled = compiled
        self._names: Sequence[str] = program.outputs
        self._wanted: frozenset[str] = frozenset()
        self.rowless = program.rowless
        self.signature = program.signature
        self._inputs = {spec.name: spec.dtype == "BF16" for spec in self.signature.inputs}
        self._bits = frozenset(spec.name for spec in self.signature.outputs if spec.dtype == "BF16")

    def want(self, outputs: Sequence[str]) -> None:
        """Return these outputs only; where the model names none, they name what it returns, in order."""
        self._names = self._program.outputs or tuple(outputs)
        self._wanted = frozenset(outputs)

    def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Run one batch, or one row where the model is not batched.

        Raises:
            InvalidRequest: The program's own guards, or an index into a table, found the input at fault.
            ModelFailed: Memory ran out.
            OutputMismatch: It returned other outputs than are named.
        """
        writes = self._program.writes
        tensors = {
            name: tensor_of(array, name, bits=self._inputs[name], copy=writes)
            for name, array in inputs.items()
        }
        try:
            with torch.inference_mode():
                found = self._parts(tensors) if self.signature.batched else self._once(tensors)
            return {name: array_of(tensor, bits=name in self._bits) for name, tensor in found.items()}
        except IndexError as error:
            raise InvalidRequest(f"the model refused its input: {error}") from None
        except AssertionError as error:
            if not str(error).startswith("Guard failed"):
                raise
            raise InvalidRequest(f"the model refused its input: {error}") from None
        except Exception as error:
            if self._compiled and type(error).__module__.startswith(_COMPILERS):
                raise RuntimeLoadError(
                    f"options.compile: torch could not compile the model: {error}"
                ) from None
            if not _no_memory(error):
                raise
        # Below the handler: the error's frames would keep alive what is to be freed.
        gc.collect()
        empty_caches(self._devices)
        where = " + ".join(map(str, self._devices))
        rows = max((len(tensor) for tensor in tensors.values() if tensor.ndim), default=1)
        raise ModelFailed(f"out of memory on {where} with {rows} rows: lower max_batch, or free the device")

    def memory_bytes(self) -> int:
        """Return the bytes of parameters, buffers and constants."""
        return self._program.memory

    def close(self) -> None:
        """Drop the module and what torch keeps for it."""
        del self._program
        gc.collect()
        empty_caches(self._devices)

    def _parts(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        limits = self._program.rows
        count = next((len(t) for name, t in tensors.items() if name not in self.rowless), 1)
        if limits.least <= count and (limits.most is None or count <= limits.most):
            return self._once(tensors)
        step = limits.most or limits.least
        parts = [
            self._padded(tensors, start, min(start + step, count)) for start in range(0, max(count, 1), step)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _padded(self, tensors: dict[str, torch.Tensor], start: int, end: int) -> dict[str, torch.Tensor]:
        short = self._program.rows.least - (end - start)
        part = {}
        for name, tensor in tensors.items():
            if name in self.rowless:
                part[name] = tensor
                continue
            rows = tensor[start:end]
            if short > 0:
                # A row is repeated where there is one: zeros may be no input that the model knows.
                fill = (
                    rows[-1:].expand(short, *rows.shape[1:])
                    if len(rows)
                    else rows.new_zeros((short, *rows.shape[1:]))
                )
                rows = torch.cat([rows, fill])
            part[name] = rows
        found = self._once(part)
        return {name: tensor[: end - start] for name, tensor in found.items()} if short > 0 else found

    def _once(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        device = self._devices[0]
        result = self._program.call({name: upload(tensor, device) for name, tensor in tensors.items()})
        found = named(result, self._names)
        return download({n: t for n, t in found.items() if n in self._wanted} if self._wanted else found)


class TorchRuntime:
    """Loads ``.pt2``, TorchScript in ``.pt``, and ``.safetensors`` for a module that a factory makes."""

    name = "torch"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> TorchModel:
        """Load a model.

        Args:
            source: A file, or a folder that holds ``model.pt2``, ``model.pt`` or ``model.safetensors``.
            options: Fields of `TorchOptions`.
            device: ``cpu``, ``cuda:0``, ``mps`` …, or a group as ``cuda:0+cuda:1``.

        Raises:
            RuntimeLoadError: The file, an option or the device is at fault.
        """
        chosen = read_options(self.name, options, TorchOptions)
        path = _find(source)
        devices = torch_devices(device)
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        if chosen.module:
            program = built(path, devices, chosen)
        elif path.suffix == ".pt2":
            program = exported(path, devices, chosen)
        elif path.suffix != ".safetensors" and is_script(path):
            program = scripted(path, devices, chosen)
        else:
            raise RuntimeLoadError(
                f"{path}: holds weights and no program: name the factory of its module as "
                "options.module, for example net.py:make, or save it with torch.export"
            )
        return TorchModel(program, devices, chosen.compile)


def _find(source: str) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        raise RuntimeLoadError(f"{path}: no such file or folder")
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    named_model = [file for file in files if file.stem == "model"]
    for only in (named_model, files):
        if len(only) == 1:
            return only[0]
    found = ", ".join(file.name for file in files) or "none"
    raise RuntimeLoadError(f"{path}: which file? Of {', '.join(_SUFFIXES)} it holds {found}; name the file")


def _no_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
