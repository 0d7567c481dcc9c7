"""Settings of one tensor, of a task or of what a function gives."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from semaforo.config import forms
from semaforo.config.forms import Key
from semaforo.entities import TensorSpec


class TensorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor: ``fp32[64]``, or a mapping where there is more to say."""

    SHORT: ClassVar[str] = "type"

    type: Annotated[TensorSpec, Key("Type and shape of one row; `?` = any size.", forms.TENSOR)]
    labels: Annotated[tuple[str, ...], Key("Names of the classes that the tensor scores or counts.")] = ()
    optional: Annotated[bool, Key("Whether a request may leave it out.")] = False

    looks: Annotated[str, Key(
        "As what an input is looked at, so that a router knows what it holds: `image`, `audio`, `table` (each "
        "column of a row of up to 64), `text`, `tensor` (general figures only), `none`, or an extractor that is "
        "installed under another name. Left out, `uint8[?x?x3]` and its like are images, the input of a "
        "transcription is a sound, `bytes` are texts, and all else is a tensor.",
    )] = ""  # fmt: skip
    rate: Annotated[
        float, Key("Samples of a sound in a second, so that its length is known.", forms.WEIGHT)
    ] = 0.0

    def spec(self, name: str) -> TensorSpec:
        """Return what it says of a tensor of this name."""
        return TensorSpec(name, self.type.dtype, self.type.shape, self.optional, self.labels)
