"""What a request that asks to be answered later turns into, once it has been found sound."""

from __future__ import annotations

from semaforo.errors import InvalidRequest
from semaforo.wire.contract import Asked


class Deferring(InvalidRequest):
    """Leads from where a contract is read to where work is queued; elsewhere it is the error that it says.

    Attributes:
        asked: The contract, with the tenant that it counts for.
        body: The body, decompressed.
    """

    def __init__(self, asked: Asked, body: bytes) -> None:
        super().__init__(
            "semaforo-mode: queue cannot be had here: the fleet file has to say where the queue lies, for example "
            "`deferred: {path: deferred.db}`, and only HTTP has it"
        )
        self.asked = asked
        self.body = body
