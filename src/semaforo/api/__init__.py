"""Semaforo inside a program: a fleet without a server, a client of one, and fleets written in Python."""

from semaforo.api.answer import FleetAnswer
from semaforo.api.async_client import AsyncClient
from semaforo.api.asynchronous import AsyncFleet
from semaforo.api.chat import AsyncChat, ChatStream
from semaforo.api.client import Client
from semaforo.api.deferred import AsyncDeferred, Deferred
from semaforo.api.fleet import Fleet
from semaforo.api.function import model
from semaforo.api.graph import Graph
from semaforo.api.surface import AnyAsyncFleet, AnyFleet
from semaforo.wire.payload import Restart

__all__ = [
    "AnyAsyncFleet", "AnyFleet", "AsyncChat", "AsyncClient", "AsyncDeferred", "AsyncFleet", "ChatStream", "Client",
    "Deferred", "Fleet", "FleetAnswer", "Graph", "Restart", "model",
]  # fmt: skip
