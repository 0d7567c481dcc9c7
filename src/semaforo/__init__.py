"""Semaforo: one endpoint that decides which model, variant and replica answers each request, and says why.

What is exported here is imported when it is first used, so that `import semaforo` stays quick and a worker
that needs only a runtime loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semaforo.api import (
        AnyAsyncFleet,
        AnyFleet,
        AsyncChat,
        AsyncClient,
        AsyncDeferred,
        AsyncFleet,
        ChatStream,
        Client,
        Deferred,
        Fleet,
        FleetAnswer,
        Graph,
        Restart,
        model,
    )
    from semaforo.errors import SemaforoError

__version__ = "0.1.0"
__all__ = [
    "AnyAsyncFleet", "AnyFleet", "AsyncChat", "AsyncClient", "AsyncDeferred", "AsyncFleet", "ChatStream", "Client",
    "Deferred", "Fleet", "FleetAnswer", "Graph", "Restart", "SemaforoError", "__version__", "model",
]  # fmt: skip

_HOME = dict.fromkeys(__all__, "semaforo.api") | {"SemaforoError": "semaforo.errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'semaforo' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
