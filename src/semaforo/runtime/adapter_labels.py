"""Label maps: the same classes under other names, or in another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from semaforo.errors import InvalidRequest, ModelFailed, nearest
from semaforo.wire.payload import Array


class LabelMap(msgspec.Struct, frozen=True):
    """From the names of one side to those of the other.

    Attributes:
        source: Names as the source speaks them, in its order of classes.
        target: Names as the target speaks them, in its order of classes.
        pairs: Source name → target name.
        incoming: The source is the caller, so that an unknown label is the request's fault.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    pairs: dict[str, str]
    incoming: bool

    def scores(self) -> Callable[[Array], Array]:
        """Return what reorders the last dimension."""
        place = {self.pairs[name]: index for index, name in enumerate(self.source)}
        order = np.array([place[name] for name in self.target])
        if (order == np.arange(len(order))).all():
            return lambda array: array
        return lambda array: array[..., order]

    def indices(self, *, names: bool) -> Callable[[Array], Array]:
        """Return what translates indices to indices, or to names."""
        translated = [self.pairs[name] for name in self.source]
        table: Array
        if names:
            table = np.array(translated, dtype=object)
        else:
            place = {name: index for index, name in enumerate(self.target)}
            table = np.array([place[name] for name in translated], dtype=np.int64)

        def translate(array: Array) -> Array:
            if array.size and (int(array.min()) < 0 or int(array.max()) >= len(table)):
                worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
                raise self._unknown(f"class {worst} is out of range: there are {len(table)} labels")
            return table[array]

        return translate

    def names(self, *, names: bool) -> Callable[[Array], Array]:
        """Return what translates names to indices, or to names."""
        place = {name: index for index, name in enumerate(self.target)}
        table = {name: other if names else place[other] for name, other in self.pairs.items()}

        def translate(array: Array) -> Array:
            cells = [
                cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in array.ravel()
            ]
            for cell in cells:
                if cell not in table:
                    raise self._unknown(
                        f"'{cell}' is none of the {len(table)} labels.{nearest(str(cell), table)}"
                    )
            out: Array = np.empty(len(cells), dtype=object if names else np.int64)
            out[:] = [table[cell] for cell in cells]
            return out.reshape(array.shape)

        return translate

    def _unknown(self, message: str) -> InvalidRequest | ModelFailed:
        return InvalidRequest(message) if self.incoming else ModelFailed(f"the model returned: {message}")


def label_map(declared: Sequence[str] | dict[str, str], task: Sequence[str], *, incoming: bool) -> LabelMap:
    """Join the model's labels, as an adapter declares them, with the task's.

    Args:
        declared: The model's labels in its order, in the task's words, or its own word → the task's.
        task: The task's labels in order; empty = the model's order is the task's.
        incoming: From task to model, instead of from model to task.

    Raises:
        ValueError: They do not match; the message says which, without saying where.
    """
    own = list(declared)
    words = list(declared.values()) if isinstance(declared, dict) else own
    order = tuple(task) or tuple(words)
    if len(set(words)) != len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise ValueError(f"label '{twice}' stands there twice")
    unknown = [word for word in words if word not in order]
    if unknown:
        raise ValueError(f"label '{unknown[0]}' is none of the task's.{nearest(unknown[0], order)}")
    if len(words) != len(order):
        missing = [word for word in order if word not in words]
        raise ValueError(
            f"label count mismatch: the adapter names {len(words)} labels, the task has {len(order)} "
            f"('{missing[0]}' is missing)"
        )
    if incoming:
        return LabelMap(order, tuple(own), dict(zip(words, own, strict=True)), True)
    return LabelMap(tuple(own), order, dict(zip(own, words, strict=True)), False)
