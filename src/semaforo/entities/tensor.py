"""Names, dtypes and shapes of tensors, with the batch dimension left out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

DTYPES: dict[str, str] = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BYTES": "object", "BF16": "uint16",
}  # fmt: skip
"""V2 dtype → NumPy dtype. BF16 has no NumPy dtype: its bits travel as uint16."""


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describes one named tensor.

    Attributes:
        name: Name on the wire.
        dtype: A key of `DTYPES`.
        shape: Dimensions of one row, the batch dimension left out; -1 = any.
        optional: Whether a request may leave it out.
        labels: Names of the classes, for outputs that index or score classes.
    """

    name: str
    dtype: str = "FP32"
    shape: tuple[int, ...] = ()
    optional: bool = False
    labels: tuple[str, ...] = ()

    def accepts(self, shape: Sequence[int]) -> bool:
        """Tell whether one row of this shape fits."""
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        dims = ", ".join("?" if d < 0 else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype.lower()}[{dims}]"


class Signature(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model takes and gives.

    Attributes:
        inputs: Specs of the inputs.
        outputs: Specs of the outputs.
        batched: Whether a leading batch dimension exists; if not, rows are run one by one.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    batched: bool = True


def shape_key(inputs: Sequence[tuple[str, str, Sequence[int]]]) -> str:
    """Return the shape key of inputs given as (name, dtype, shape of one row), sorted by name.

    For example ``"image:FP32:64"`` or ``"a:INT64:2x3;b:BYTES:"``.
    """
    parts = [f"{name}:{dtype}:{'x'.join(map(str, shape))}" for name, dtype, shape in sorted(inputs)]
    return ";".join(parts)


def parse_shape_key(key: str) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Invert `shape_key`."""
    if not key:
        return ()
    fields = (part.rsplit(":", 2) for part in key.split(";"))
    return tuple((n, t, tuple(int(d) for d in dims.split("x")) if dims else ()) for n, t, dims in fields)
