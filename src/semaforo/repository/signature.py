"""What a model file says of itself, asked through its runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec

from semaforo.entities import Signature
from semaforo.errors import RuntimeLoadError, SemaforoError
from semaforo.runtime.registry import runtime


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
            signature: Signature = model.signature  # type: ignore[union-attr]  # no file holds a chat
            return Loaded(signature, getattr(model, "rowless", frozenset()))
        finally:
            model.close()
