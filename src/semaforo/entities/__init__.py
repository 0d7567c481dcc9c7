"""Frozen values that every room shares: requests, contracts, variants, profiles, replicas, tensors, units."""

from semaforo.entities.budget import Budget
from semaforo.entities.contract import Contract, Exploration, Preference, Priority, Privacy
from semaforo.entities.replica import ReplicaSpec, ReplicaState, ReplicaView, devices_of
from semaforo.entities.request import Ref, Request
from semaforo.entities.step import RemainingPath, Step
from semaforo.entities.task import Caching, Judging, Look, Semantics, TaskType
from semaforo.entities.tensor import DTYPES, Signature, TensorSpec
from semaforo.entities.variant import BatchProfile, Cost, Profile, StreamProfile, Variant

__all__ = [
    "BatchProfile",
    "Budget",
    "Caching",
    "Contract",
    "Cost",
    "DTYPES",
    "Exploration",
    "Look",
    "Preference",
    "Priority",
    "Privacy",
    "Profile",
    "Ref",
    "RemainingPath",
    "ReplicaSpec",
    "ReplicaState",
    "ReplicaView",
    "Request",
    "Judging",
    "Semantics",
    "Signature",
    "Step",
    "StreamProfile",
    "TaskType",
    "TensorSpec",
    "Variant",
    "devices_of",
]
