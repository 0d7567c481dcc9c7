"""What a model file says of itself, asked through its runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec

from semaforo.entities import DTYPES, Signature, TensorSpec
from semaforo.errors import RuntimeLoadError, SemaforoError
from semaforo.runtime.base import Model
from semaforo.runtime.profile import sample
from semaforo.runtime.registry import runtime

_ROWS = 2
_V2 = {name: dtype for dtype, name in DTYPES.items() if dtype not in ("BF16", "BYTES")}


class Loaded(msgspec.Struct, frozen=True):
    """What was learned by loading a model.

    Attributes:
        signature: In the model's own names; a dtype of "" is open, and no outputs = they are not known.
        rowless: Inputs without rows although the model is batched: only a constant fits them.
    """

    signature: Signature
    rowless: frozenset[str] = frozenset()


def signature_of(path: Path, name: str) -> Loaded:
    """Load a model file, ask it for its signature, and free it.

    Args:
        path: The file.
        name: Name of the runtime.

    Raises:
        SemaforoError: It cannot be loaded here; the message says what to do.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = runtime(name).load(str(path), {}, "cpu")
        except SemaforoError:
            raise
        except Exception as error:
            raise RuntimeLoadError(f"{path}: {type(error).__name__}: {error}") from None
        try:
            if not isinstance(model, Model):
                raise RuntimeLoadError(
                    f"{path}: it is awaited or chats, which no file of this kind should be"
                )
            return Loaded(_filled(model), getattr(model, "rowless", frozenset()))
        finally:
            model.close()


def _filled(model: Model) -> Signature:
    """Return the signature, with what it leaves open of the outputs as two rows of zeros show it."""
    signature = model.signature
    known = bool(signature.outputs) and all(spec.dtype for spec in signature.outputs)
    zeros = None if known or not signature.batched else sample(signature.inputs, _ROWS)
    if not zeros:
        return signature
    try:
        shown = model.run(zeros, {})
    except Exception:
        # Zeros may be input that it refuses, which says nothing about it.
        return signature
    fixed = all(d >= 0 for spec in signature.inputs for d in spec.shape)
    specs = {spec.name: spec for spec in signature.outputs}
    outputs = []
    for name, array in shown.items():
        spec = specs.get(name, TensorSpec(name, "", (-1,) * (array.ndim - 1)))
        dtype = spec.dtype or _V2.get(array.dtype.name, "BYTES" if array.dtype.kind in "OUS" else "")
        known_shape = fixed and array.ndim == len(spec.shape) + 1 and len(array) == _ROWS
        shape = tuple(array.shape[1:]) if known_shape else spec.shape
        outputs.append(msgspec.structs.replace(spec, dtype=dtype, shape=shape))
    return msgspec.structs.replace(signature, outputs=tuple(outputs))
