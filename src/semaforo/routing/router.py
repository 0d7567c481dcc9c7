"""A trained router as an artefact: bytes with a format, a digest, and what is known of how good it is."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import ArtefactError, InvalidRequest
from semaforo.features.profile import DataProfile
from semaforo.routing.artefact import pack, unpack
from semaforo.routing.predictor import Predictor
from semaforo.routing.table import Table

FORMAT = 2
LEAST_ROWS = 30
"""Requests that a router is judged by, at least."""
KIND = "router"


class Router(msgspec.Struct, frozen=True):
    """A trained router.

    Attributes:
        predictor: What it has learned.
        rows: Requests it was trained on.
        made: When, as ISO 8601; "" = not said.
        figures: Out-of-fold figures by name, for people.
        verifies: The model whose answers it looks at; "" = it looks at requests alone.
        format: Version of the format.
        data: By task, what those requests were like.
        seen: Marks (`Table.marks`) of the requests that it was trained on.
    """

    predictor: Predictor
    rows: int
    made: str = ""
    figures: dict[str, float] = {}
    verifies: str = ""
    data: dict[str, DataProfile] = {}
    format: int = FORMAT
    seen: NDArray[np.int32] = msgspec.field(default_factory=lambda: np.zeros(0, np.int32))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that it was trained on."""
        return tuple(self.predictor.tasks)

    def unseen(self, table: Table) -> Table:
        """Return the requests of a table that it was not trained on.

        Raises:
            InvalidRequest: Too few are left to judge it by.
        """
        new = np.flatnonzero(~np.isin(table.marks(), self.seen))
        if len(new) == len(table):
            return table
        if len(new) < LEAST_ROWS:
            which = f"all but {len(new)} of" if len(new) else "all of"
            raise InvalidRequest(
                f"{which} the {len(table):,} requests were in its training, on which it looks better "
                "than it is: judge it by others. `semaforo router explain` shows how it did out of fold"
            )
        return table.rows(new)

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
