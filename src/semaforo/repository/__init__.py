"""Where artefacts lie, what their digests are, and what was measured of them."""

from semaforo.repository.digest import sha256_of, verify
from semaforo.repository.folder import ModelFolder, natural
from semaforo.repository.formats import FORMATS, runtime_of
from semaforo.repository.measured import Measured, measured, note

__all__ = [
    "FORMATS",
    "Measured",
    "ModelFolder",
    "measured",
    "natural",
    "note",
    "runtime_of",
    "sha256_of",
    "verify",
]
