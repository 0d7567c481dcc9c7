"""The runtime for ONNX models: onnxruntime with every execution provider that fits the device.

Rules this module keeps:

1. A model is batched where the first dimension of every input is symbolic; its signature leaves that dimension
   out. Otherwise rows are run one by one, and only a first dimension of 1 throughout is left out.
2. A device that was asked for and cannot be had is an error, never a silent fall back to the CPU.
3. Sequences and maps have no V2 dtype: such outputs are left out of the signature and never computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from semaforo.entities import Signature, TensorSpec, devices_of
from semaforo.errors import InvalidRequest, RuntimeLoadError, nearest
from semaforo.runtime.options import read_options
from semaforo.wire.payload import Array

_DTYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "float": "FP32", "double": "FP64", "string": "BYTES",
}  # fmt: skip
_LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
_BY_DEVICE = {
    "cpu": frozenset({"DnnlExecutionProvider", "ACLExecutionProvider", "ArmNNExecutionProvider"}),
    "cuda": frozenset({
        "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider", "CUDAExecutionProvider",
    }),
    "rocm": frozenset({"MIGraphXExecutionProvider", "ROCMExecutionProvider"}),
    "openvino": frozenset({"OpenVINOExecutionProvider"}),
    "coreml": frozenset({"CoreMLExecutionProvider"}),
    "dml": frozenset({"DmlExecutionProvider"}),
}  # fmt: skip
"""Kind of device → providers that run on it; the CPU provider follows them everywhere."""
_NUMBERED = frozenset({"cuda", "rocm"})
_CPU = "CPUExecutionProvider"
_INVALID = (ort_state.InvalidArgument,)


class OnnxOptions(msgspec.Struct, frozen=True):
    """Options of an ONNX model.

    Attributes:
        threads: Threads inside one operator; 0 = as many as onnxruntime wants.
        providers: Execution providers to use, in this order; empty = all that fit the device.
        provider_options: Options by provider.
        optimisation: How far the graph is optimised when it is loaded.
        batched: Whether the first dimension is rows; None = as the file shows.
    """

    threads: Annotated[int, msgspec.Meta(ge=0)] = 1
    providers: tuple[str, ...] = ()
    provider_options: dict[str, dict[str, Any]] = {}
    optimisation: Literal["off", "basic", "extended", "all"] = "all"
    batched: bool | None = None


class OnnxModel:
    """A loaded ONNX model.

    Attributes:
        rowless: Inputs that have no rows although the model is batched; only a constant fits them.
    """

    def __init__(self, session: ort.InferenceSession, batched: bool | None, memory: int) -> None:
        self._run = session.run
        self._memory = memory
        inputs = session.get_inputs()
        outputs = [o for o in session.get_outputs() if _dtype(o.type)]
        for node in inputs:
            if not _dtype(node.type):
                raise RuntimeLoadError(
                    f"the model's input '{node.name}' is a {node.type}, which no V2 datatype holds"
                )
        ranked = [n for n in inputs if n.shape]
        rows = all(_symbolic(n) for n in ranked) and bool(ranked) if batched is None else batched
        ones = all(_symbolic(n) or n.shape[0] == 1 for n in (*ranked, *(o for o in outputs if o.shape)))
        self._unit = bool(ranked) and ones and not rows
        cut = rows or self._unit
        self.rowless = frozenset(n.name for n in inputs if not n.shape) if rows else frozenset[str]()
        self.signature = Signature(
            tuple(_spec(n, cut) for n in inputs), tuple(_spec(n, cut) for n in outputs), batched=rows
        )
        self._texts = frozenset(s.name for s in self.signature.inputs if s.dtype == "BYTES")
        self._names: list[str] = [o.name for o in outputs]

    def want(self, outputs: Sequence[str]) -> None:
        """Compute these outputs only."""
        self._names = list(outputs)

    def run(self, inputs: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, Array]:
        """Run one batch, or one row where the model is not batched.

        Raises:
            InvalidRequest: onnxruntime found the input at fault.
        """
        if self._texts or self._unit:
            inputs = {name: self._fed(name, array) for name, array in inputs.items()}
        try:
            values = self._run(self._names, inputs)
        except _INVALID as error:
            raise InvalidRequest(f"the model refused its input: {_reason(error)}") from None
        if self._unit:
            values = [value[0] for value in values]
        return dict(zip(self._names, values, strict=True))

    def memory_bytes(self) -> int:
        """Return the bytes of the weights on disk, which the session holds a copy of."""
        return self._memory

    def close(self) -> None:
        """Drop the session."""
        del self._run

    def _fed(self, name: str, array: Array) -> Array:
        if name in self._texts:
            # onnxruntime writes a bytes object as its Python literal; only str gives the text itself.
            flat = [_text(cell, name) for cell in array.ravel().tolist()]
            texts = np.empty(len(flat), dtype=object)
            texts[:] = flat
            array = texts.reshape(array.shape)
        return array[None] if self._unit else array


class OnnxRuntime:
    """Loads ``.onnx`` files."""

    name = "onnx"

    def load(self, source: str, options: Mapping[str, Any], device: str) -> OnnxModel:
        """Load a model.

        Args:
            source: A ``.onnx`` file, or a folder that holds ``model.onnx`` or exactly one such file.
            options: Fields of `OnnxOptions`.
            device: ``cpu``, ``cuda:0`` …

        Raises:
            RuntimeLoadError: The file, an option or the device is at fault.
        """
        chosen = read_options(self.name, options, OnnxOptions)
        path = find_model(source)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = chosen.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        settings.graph_optimization_level = _LEVELS[chosen.optimisation]
        # Threads that spin between batches would burn the cores that other replicas need.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = pick_providers(device, chosen, ort.get_available_providers())
        try:
            session = ort.InferenceSession(str(path), settings, providers=providers)
        except Exception as error:
            raise RuntimeLoadError(f"{path}: onnxruntime cannot load it: {_reason(error)}") from None
        wanted = {name for name, _ in providers} - {_CPU}
        if wanted and not wanted & set(session.get_providers()):
            raise RuntimeLoadError(
                f"{path}: none of {', '.join(sorted(wanted))} could start on '{device}'; "
                "check the driver and the libraries it needs, or set device: cpu"
            )
        return OnnxModel(session, chosen.batched, weights_bytes(path))


def find_model(source: str) -> Path:
    """Return the file that a source means.

    Raises:
        RuntimeLoadError: There is no such file, or more than one.
    """
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        raise RuntimeLoadError(f"{path}: no such file or folder")
    files = sorted(path.glob("*.onnx"))
    if path / "model.onnx" in files:
        return path / "model.onnx"
    if len(files) == 1:
        return files[0]
    found = ", ".join(file.name for file in files) or "none"
    raise RuntimeLoadError(f"{path}: holds no model.onnx, and of other .onnx files: {found}; name the file")


def weights_bytes(path: Path) -> int:
    """Return the size of a model file and of the files of external data beside it."""
    beside = (p for p in path.parent.glob(f"{path.stem}*") if p.suffix in (".data", ".onnx_data", ".bin"))
    return path.stat().st_size + sum(p.stat().st_size for p in {*beside} - {path})


def pick_providers(
    device: str, options: OnnxOptions, available: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Choose execution providers for a device, in onnxruntime's order.

    Raises:
        RuntimeLoadError: This onnxruntime has no provider for the device, or not the one named.
    """
    group = devices_of(device)
    if len(group) > 1:
        raise RuntimeLoadError(
            f"device: onnxruntime runs a model on one device, not on {', '.join(group)}: name one, and ask for as "
            "many replicas as there are devices"
        )
    kind, _, number = device.partition(":")
    if kind not in _BY_DEVICE:
        raise RuntimeLoadError(f"device '{device}': unknown kind.{nearest(kind, _BY_DEVICE)} "
                               f"Known: {', '.join(sorted(_BY_DEVICE))}")  # fmt: skip
    if number and not number.isdecimal():
        raise RuntimeLoadError(f"device '{device}': write the number of the device, for example {kind}:0")
    for name in (*options.providers, *options.provider_options):
        if name not in available:
            raise RuntimeLoadError(
                f"options.providers: this onnxruntime has no '{name}'.{nearest(name, available)} "
                f"It has {', '.join(available)}"
            )
    names = list(options.providers) or [p for p in available if p in _BY_DEVICE[kind] or p == _CPU]
    if kind != "cpu" and not _BY_DEVICE[kind] & set(names):
        raise RuntimeLoadError(
            f"device '{device}' was asked for, and this onnxruntime has only {', '.join(available)}: "
            "install the build of onnxruntime for that device, or set device: cpu"
        )
    chosen: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        extra = dict(options.provider_options.get(name, {}))
        if kind in _NUMBERED and name in _BY_DEVICE[kind]:
            extra.setdefault("device_id", int(number or 0))
        chosen.append((name, extra))
    return chosen


def _dtype(kind: str) -> str:
    """Return the V2 dtype of ``tensor(float)`` and the like; "" where there is none."""
    if not (kind.startswith("tensor(") and kind.endswith(")")):
        return ""
    return _DTYPES.get(kind[7:-1], "")


def _symbolic(node: Any) -> bool:
    return not isinstance(node.shape[0], int) or node.shape[0] < 0


def _spec(node: Any, cut: bool) -> TensorSpec:
    dims = tuple(d if isinstance(d, int) and d >= 0 else -1 for d in node.shape)
    return TensorSpec(node.name, _dtype(node.type), dims[1:] if cut else dims)


def _text(cell: object, name: str) -> str:
    if isinstance(cell, bytes):
        try:
            return cell.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"input '{name}' is not UTF-8 text") from None
    return str(cell)


def _reason(error: Exception) -> str:
    text = str(error)
    return text.split(" : ", 2)[-1] if text.startswith("[ONNXRuntimeError]") else text
