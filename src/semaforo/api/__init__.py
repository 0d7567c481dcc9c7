"""Semaforo inside a program: a fleet without a server, and fleets written in Python."""

from semaforo.api.answer import ChatStream, FleetAnswer
from semaforo.api.asynchronous import AsyncChat, AsyncFleet
from semaforo.api.fleet import Fleet
from semaforo.api.function import model

__all__ = ["AsyncChat", "AsyncFleet", "ChatStream", "Fleet", "FleetAnswer", "model"]
