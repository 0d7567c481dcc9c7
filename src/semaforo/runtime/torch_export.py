"""Loading programs that ``torch.export`` saved.

Such a file is an archive of JSON, tensors and, for some of what it may hold, pickles, which torch unpickles
without being asked. Here the file is looked through first, and tensors are loaded as tensors only.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from semaforo.entities import Signature, TensorSpec
from semaforo.errors import RuntimeLoadError
from semaforo.runtime.torch_options import TorchOptions, check_fixed, first_line
from semaforo.runtime.torch_program import Program, Rows
from semaforo.runtime.torch_tensors import DTYPES, bytes_of, output_names

_COMPILED = "/data/aotinductor/"
_PICKLED = "/opaque_obj_"
_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_loading = threading.Lock()


def exported(path: Path, devices: tuple[torch.device, ...], options: TorchOptions) -> Program:
    """Load an exported program and read its signature.

    Raises:
        RuntimeLoadError: It cannot be loaded, holds what may not be, or takes more than tensors.
    """
    check_fixed(path, "an exported program", devices, options)
    program = _moved(_load(path, allow_pickle=options.allow_pickle), devices[0])
    leaves, inputs = _inputs(path, program)
    outputs = _outputs(path, program, options.outputs)
    rows, batched = _rows(path, program, inputs.values(), outputs.values(), options.batched)
    signature = Signature(
        tuple(_spec(path, name, value, batched) for name, value in inputs.items()),
        tuple(_spec(path, name, value, batched) for name, value in outputs.items()),
        batched=batched,
    )
    module = program.module()
    run: Any = torch.compile(module, dynamic=True) if options.compile else module
    tree = program.call_spec.in_spec

    def call(given: Mapping[str, torch.Tensor]) -> Any:
        flat = [given.get(name, value) for name, value in leaves.items()]
        positional, keywords = pytree.tree_unflatten(flat, tree)
        return run(*positional, **keywords)

    return Program(
        call,
        signature,
        bytes_of(_held(program)),
        tuple(outputs),
        rows,
        frozenset(name for name, value in inputs.items() if not value.ndim) if batched else frozenset(),
        _writes(program),
    )


def _writes(program: ExportedProgram) -> bool:
    """Tell whether the program may write to its inputs; where views make that hard to say, it may."""
    if any(spec.kind is OutputKind.USER_INPUT_MUTATION for spec in program.graph_signature.output_specs):
        return True
    calls = (node.target for node in program.graph.nodes if node.op == "call_function")
    return any(
        target._schema.is_mutable if isinstance(target, torch._ops.OpOverload) else target is not getitem
        for target in calls
    )


def _load(path: Path, *, allow_pickle: bool) -> ExportedProgram:
    if not zipfile.is_zipfile(path):
        raise RuntimeLoadError(f"{path}: is no exported program: save one with torch.export.save")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(_COMPILED in name for name in names):
        raise RuntimeLoadError(
            f"{path}: holds a library compiled ahead of time, which runs outside of torch's checks: save the "
            "program itself with torch.export.save, and set compile: true among its options"
        )
    pickled = RuntimeLoadError(
        f"{path}: holds pickled objects beside tensors, and unpickling runs what code they bring: set "
        "allow_pickle: true among its options if you trust the file"
    )
    if not allow_pickle and any(_PICKLED in name for name in names):
        raise pickled
    try:
        with _loading, _tensors_only(not allow_pickle), warnings.catch_warnings():
            # Of older archives; what they hold is loaded all the same.
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:
        if "Weights only load failed" in str(error):
            raise pickled from None
        raise RuntimeLoadError(f"{path}: torch cannot load it: {first_line(error)}") from None


@contextmanager
def _tensors_only(only: bool) -> Iterator[None]:
    """Make every ``torch.load`` inside refuse all but tensors; the caller holds `_loading`."""
    log = logging.getLogger("torch.export")
    level = log.level
    # Why it could not be loaded is said once, by the error.
    log.setLevel(logging.CRITICAL)
    before = os.environ.get(_TENSORS_ONLY)
    if only:
        os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        log.setLevel(level)
        if before is None:
            os.environ.pop(_TENSORS_ONLY, None)
        else:
            os.environ[_TENSORS_ONLY] = before


def _moved(program: ExportedProgram, device: torch.device) -> ExportedProgram:
    homes = {value.device for value in _held(program)}
    homes |= {
        torch.device(node.kwargs["device"]) for node in program.graph.nodes if node.kwargs.get("device")
    }
    if homes <= {device}:
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def _held(program: ExportedProgram) -> list[torch.Tensor]:
    held = (*program.state_dict.values(), *program.constants.values())
    return [value for value in held if isinstance(value, torch.Tensor)]


def _values(program: ExportedProgram) -> dict[str, Any]:
    return {node.name: node.meta.get("val") for node in program.graph.nodes}


def _inputs(path: Path, program: ExportedProgram) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return every leaf of the arguments by name (None for tensors), and the tensors among them."""
    values = _values(program)
    leaves: dict[str, Any] = {}
    tensors: dict[str, torch.Tensor] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, TensorArgument):
            leaves[spec.arg.name] = None
            tensors[spec.arg.name] = values[spec.arg.name]
        elif isinstance(spec.arg, ConstantArgument):
            leaves[spec.arg.name] = spec.arg.value
        else:
            raise RuntimeLoadError(
                f"{path}: takes '{spec.arg.name}', a number that may change, and only tensors can be given: "
                "export it with that fixed, or as a tensor"
            )
    return leaves, tensors


def _outputs(path: Path, program: ExportedProgram, stated: tuple[str, ...]) -> dict[str, torch.Tensor]:
    values = _values(program)
    found = []
    for spec in program.graph_signature.output_specs:
        if spec.kind is OutputKind.USER_OUTPUT:
            if not isinstance(spec.arg, TensorArgument):
                raise RuntimeLoadError(f"{path}: returns '{spec.arg.name}', which is no tensor: leave it out")
            found.append(values[spec.arg.name])
    tree = program.call_spec.out_spec
    context = tree.context
    if tree.type is dict or (isinstance(context, list) and len(context) == len(found)):
        names = tuple(map(str, context))
        if stated:
            raise RuntimeLoadError(f"options.outputs: {path.name} names them itself: {', '.join(names)}")
    else:
        fields = getattr(context, "_fields", ())
        names = stated or tuple(fields) or output_names(len(found))
    if len(names) != len(found):
        raise RuntimeLoadError(
            f"options.outputs: {len(names)} names for the {len(found)} tensors that {path.name} returns"
            if stated
            else f"{path}: returns tensors inside of others: return a flat tuple or dict"
        )
    return dict(zip(names, found, strict=True))


def _rows(
    path: Path,
    program: ExportedProgram,
    inputs: Collection[torch.Tensor],
    outputs: Collection[torch.Tensor],
    stated: bool | None,
) -> tuple[Rows, bool]:
    """Return the bounds of a batch, and whether the first dimension is rows."""
    first = [value.shape[0] for value in inputs if value.ndim]
    fixed = {size for size in first if isinstance(size, int)}
    given = {value.shape[0] for value in outputs if value.ndim and isinstance(value.shape[0], int)}
    one_by_one = fixed | given == {1}
    batched = bool(first) and (not fixed or one_by_one) if stated is None else stated
    if not batched:
        return Rows(), False
    if len(fixed) > 1 or not first:
        raise RuntimeLoadError(
            f"options.batched: the inputs of {path.name} have no first dimension in common: leave it out"
        )
    if fixed:
        (size,) = fixed
        return Rows(size, size), True
    least, most = 0, None
    for size in first:
        bounds = program.range_constraints.get(size.node.expr)
        if bounds is None:
            continue
        # A bound of 2 is how torch writes "not specialised to 1"; no guard stands for it.
        low = int(bounds.lower)
        least = max(least, low if low > 2 else 0)
        try:
            most = min(int(bounds.upper), most or int(bounds.upper))
        except (OverflowError, TypeError, ValueError, AttributeError):
            continue
    return Rows(least, most), True


def _spec(path: Path, name: str, value: torch.Tensor, cut: bool) -> TensorSpec:
    if value.dtype not in DTYPES:
        raise RuntimeLoadError(f"{path}: '{name}' is {value.dtype}, which no V2 datatype holds")
    dims = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(name, DTYPES[value.dtype], dims[1:] if cut else dims)
