"""One loaded copy of a variant on a device group."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec


class ReplicaState(StrEnum):
    """Life of a replica, as the controller and the dispatcher see it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    EJECTED = "ejected"
    BACKOFF = "backoff"
    STOPPED = "stopped"


class ReplicaView(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the dispatcher needs to know of a replica that is ready.

    Attributes:
        id: Unique in the fleet, for example ``digits-net-int8-2``.
        variant: Id of its variant.
        device: Device it runs on; where the device has `exclusive` replicas they take turns.
        slots: Batches (or streams) it takes at once.
        exclusive: Replicas of one device that are exclusive share one turn (an inline replica
            blocks the event loop, so all inline replicas are on the device ``loop``).
        max_rows: Most rows in one batch on this replica; 0 = as the variant says.
        shared: Other gateways use it too, so its dated reports count beside this gateway's own work.
        ahead: Its worker takes one more batch while one runs, and begins it without a hand-over between.
    """

    id: str
    variant: str
    device: str = "cpu"
    slots: int = 1
    exclusive: bool = False
    shared: bool = False
    max_rows: int = 0
    ahead: bool = False


class ReplicaSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to start one replica: all a driver or worker needs, and nothing that is not plain data.

    Attributes:
        id: Id of the replica.
        variant: Id of its variant.
        runtime: Name of the runtime, for example ``onnx``.
        source: File, folder, import string or url.
        isolation: ``auto`` lets the driver choose by the measured profile.
        device: Device to load it on, for example ``cpu`` or ``cuda:0``; a group as ``cuda:0+cuda:1``.
        options: Options for the runtime (threads, providers, url, key …), checked by the runtime.
        adapter: Declared bridge between task and model, as plain data, or None.
        max_rows: Most rows in one batch, for the load-time profile.
        python: Interpreter that hosts the worker; "" = this one.
        digest: sha256 of the artefact, verified before loading; "" = not checked.
        task: Name of the task type.
        inputs, outputs: The task's tensors as plain data (`TensorSpec` fields), which the adapter bridges to.
    """

    id: str
    variant: str
    runtime: str
    source: str
    isolation: Literal["auto", "inline", "thread", "process"] = "auto"
    device: str = "cpu"
    options: dict[str, Any] = {}
    adapter: dict[str, Any] | None = None
    max_rows: int = 64
    python: str = ""
    digest: str = ""
    task: str = ""
    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()


def devices_of(device: str) -> tuple[str, ...]:
    """Return the devices of a group written as ``cuda:0+cuda:1``; one device is a group of its own."""
    return tuple(device.split("+"))
