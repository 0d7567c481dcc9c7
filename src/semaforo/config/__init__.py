"""The fleet file: read with positions, typed and checked whole, so that each error names its line and key."""

from semaforo.config.document import Problem
from semaforo.config.fleet import FleetFile, FleetFileError, load_fleet, parse_fleet
from semaforo.config.server import KeySettings, LimitSettings, ServerSettings
from semaforo.config.settings import FleetSettings, ModelSettings, TaskSettings, VariantSettings

__all__ = [
    "FleetFile",
    "FleetFileError",
    "FleetSettings",
    "KeySettings",
    "LimitSettings",
    "ModelSettings",
    "Problem",
    "ServerSettings",
    "TaskSettings",
    "VariantSettings",
    "load_fleet",
    "parse_fleet",
]
