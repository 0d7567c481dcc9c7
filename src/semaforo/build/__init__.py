"""The one place that wires objects together: a fleet file becomes a catalog, and a catalog a running fleet."""

from semaforo.build.catalog import Blueprint, Secrets, blueprint, catalog_of
from semaforo.build.engine import engine_for, handles
from semaforo.build.front import server_settings
from semaforo.build.graphs import Built, with_graphs
from semaforo.build.tasks import task_type

__all__ = [
    "Blueprint",
    "Built",
    "Secrets",
    "blueprint",
    "catalog_of",
    "engine_for",
    "handles",
    "server_settings",
    "task_type",
    "with_graphs",
]
