"""Loading what PyTorch saves: TorchScript, and weights for a module that a factory makes."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from semaforo.entities import Signature, TensorSpec
from semaforo.errors import RuntimeLoadError, SemaforoError
from semaforo.runtime.adapter_flow import OPEN
from semaforo.runtime.python_source import find_object
from semaforo.runtime.torch_options import TorchOptions, check_fixed, first_line
from semaforo.runtime.torch_program import Program
from semaforo.runtime.torch_tensors import bytes_of

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SHOWN = 6


def is_script(path: Path) -> bool:
    """Tell whether a file is TorchScript: an archive with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def scripted(path: Path, devices: tuple[torch.device, ...], options: TorchOptions) -> Program:
    """Load TorchScript, whose inputs have names and no shapes.

    Raises:
        RuntimeLoadError: It cannot be loaded, or takes more than tensors.
    """
    check_fixed(path, "TorchScript", devices, options)
    try:
        module = torch.jit.load(str(path), map_location=devices[0])
    except (RuntimeError, ValueError) as error:
        raise RuntimeLoadError(f"{path}: torch cannot load it: {first_line(error)}") from None
    module.eval()
    specs = []
    for argument in module.forward.schema.arguments[1:]:
        kind = str(argument.type)
        if kind in ("Tensor", "Optional[Tensor]"):
            specs.append(TensorSpec(argument.name, OPEN, (), argument.has_default_value()))
        elif not argument.has_default_value():
            raise RuntimeLoadError(
                f"{path}: its forward takes '{argument.name}', a {kind}, and only tensors can be given: "
                "wrap it in a module that fixes it"
            )
    signature = Signature(tuple(specs), (), batched=options.batched is not False)
    held = [*module.parameters(), *module.buffers()]
    return Program(lambda given: module(**given), signature, bytes_of(held), options.outputs)


def built(path: Path, devices: tuple[torch.device, ...], options: TorchOptions) -> Program:
    """Make a module by its factory, and load weights into it.

    Raises:
        RuntimeLoadError: The factory cannot be found or fails, or the weights are another module's.
    """
    if path.suffix == ".pt2":
        raise RuntimeLoadError("options.module: an exported program holds its module: leave it out")
    module = _made(path, devices, options)
    weights = _weights(path, options)
    meta = any(tensor.is_meta for tensor in module.state_dict().values())
    try:
        # What was made without memory takes the loaded tensors themselves.
        wrong = module.load_state_dict(weights, strict=False, assign=meta)
    except RuntimeError as error:
        reasons = "; ".join(line.strip() for line in str(error).splitlines()[1:])
        raise RuntimeLoadError(f"{path}: the weights are not those of {options.module}: {reasons}") from None
    if wrong.missing_keys or wrong.unexpected_keys:
        raise RuntimeLoadError(
            f"{path}: the weights are not those of {options.module}: "
            f"missing {_few(wrong.missing_keys)}, unknown {_few(wrong.unexpected_keys)}"
        )
    dtype = _DTYPES.get(options.dtype)
    module.eval().requires_grad_(False)
    module = module.to(dtype=dtype) if len(devices) > 1 else module.to(devices[0], dtype)
    held = [*module.parameters(), *module.buffers()]
    elsewhere = {str(tensor.device) for tensor in held} - {str(device) for device in devices}
    if elsewhere:
        raise RuntimeLoadError(
            f"options.module: '{options.module}' put weights on {', '.join(sorted(elsewhere))}, and its devices "
            f"are {', '.join(map(str, devices))}: place every layer on one of those it is given"
        )
    specs = _inputs(module, options.module)
    run: Callable[..., Any] = torch.compile(module, dynamic=True) if options.compile else module
    signature = Signature(specs, (), batched=options.batched is not False)
    return Program(_in_dtype(run, dtype), signature, bytes_of(held), options.outputs)


def _made(path: Path, devices: tuple[torch.device, ...], options: TorchOptions) -> torch.nn.Module:
    place, _, name = options.module.rpartition(":")
    beside = path.parent / place
    try:
        factory = find_object(
            f"{beside}:{name}" if place.endswith(".py") and beside.is_file() else options.module
        )
        takes = inspect.signature(factory).parameters
    except (SemaforoError, TypeError, ValueError) as error:
        raise RuntimeLoadError(f"options.module: {error}") from None
    given = dict(options.args)
    if "devices" in takes:
        given["devices"] = list(devices)
    elif len(devices) > 1:
        raise RuntimeLoadError(
            f"device: '{options.module}' takes no 'devices', so its module cannot be spread over "
            f"{', '.join(map(str, devices))}: let it take them, or name one device"
        )
    elif "device" in takes:
        given["device"] = devices[0]
    try:
        module = factory(**given)
    except (Exception, SystemExit) as error:
        raise RuntimeLoadError(
            f"options.module: '{options.module}' raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise RuntimeLoadError(
            f"options.module: '{options.module}' made a {type(module).__name__}: return an nn.Module"
        )
    return module


def _weights(path: Path, options: TorchOptions) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Any = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=not options.allow_pickle)
    except UnpicklingError:
        raise RuntimeLoadError(
            f"{path}: holds pickled objects beside tensors, and unpickling runs what code they bring: save "
            "the state_dict as .safetensors, or set allow_pickle: true among its options if you trust the file"
        ) from None
    except ImportError as error:
        raise RuntimeLoadError(f"{path}: {error}: pip install 'semaforo[torch]'") from None
    except Exception as error:
        raise RuntimeLoadError(f"{path}: its weights cannot be read: {first_line(error)}") from None
    if isinstance(weights, torch.nn.Module):
        weights = weights.state_dict()
    if not isinstance(weights, Mapping) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise RuntimeLoadError(
            f"{path}: holds no state_dict, which is tensors by name: save model.state_dict()"
        )
    return dict(weights)


def _inputs(module: torch.nn.Module, factory: str) -> tuple[TensorSpec, ...]:
    specs = []
    for name, parameter in inspect.signature(module.forward).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise RuntimeLoadError(
                f"options.module: the forward of '{factory}' takes '{parameter}', which has no name to match an "
                "input with: name each input"
            )
        specs.append(TensorSpec(name, OPEN, (), parameter.default is not parameter.empty))
    return tuple(specs)


def _in_dtype(
    run: Callable[..., Any], dtype: torch.dtype | None
) -> Callable[[Mapping[str, torch.Tensor]], Any]:
    if dtype is None or dtype is torch.float32:
        return lambda given: run(**given)

    def cast(given: Mapping[str, torch.Tensor]) -> Any:
        found = run(**{n: t.to(dtype) if t.is_floating_point() else t for n, t in given.items()})
        return torch.utils._pytree.tree_map_only(
            torch.Tensor, lambda tensor: tensor.float() if tensor.dtype == dtype else tensor, found
        )

    return cast


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "none"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
