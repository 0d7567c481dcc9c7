"""A trained router as an artefact: bytes with a format, a digest, and what is known of how good it is."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from semaforo.errors import ArtefactError
from semaforo.routing.artefact import pack, unpack
from semaforo.routing.predictor import Predictor

FORMAT = 1
KIND = "router"


class Router(msgspec.Struct, frozen=True):
    """A trained router.

    Attributes:
        predictor: What it has learned.
        rows: Requests it was trained on.
        made: When, as ISO 8601; "" = not said.
        figures: Out-of-fold figures by name, for people.
        format: Version of the format.
    """

    predictor: Predictor
    rows: int
    made: str = ""
    figures: dict[str, float] = {}
    format: int = FORMAT

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that it was trained on."""
        return tuple(self.predictor.tasks)

    def encode(self) -> bytes:
        """Return the artefact."""
        return pack(KIND, self)

    @classmethod
    def decode(cls, data: bytes, name: str = "router") -> Router:
        """Read an artefact.

        Args:
            data: Its bytes.
            name: How messages call it.

        Raises:
            ArtefactError: It is no router, is damaged, or is of a later format.
        """
        found = unpack(KIND, data, cls, name, "semaforo router train")
        if found.format != FORMAT:
            raise ArtefactError(
                f"{name} has format {found.format}, this version reads {FORMAT}: train it anew"
            )
        return found

    def digest(self) -> str:
        """Return the SHA-256 of the artefact, in hexadecimal."""
        return sha256(self.encode()).hexdigest()
