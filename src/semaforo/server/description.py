"""What V2 tells of a fleet, whatever the transport: metadata, readiness, configuration, statistics, repository.

Rules this module keeps:

1. A target is a task type, a model or an alias; a version is a string.
2. Metadata speaks the task's names, dtypes and shapes, with -1 for the rows.
3. Values are plain, under the names that V2's JSON and its protocol buffers share.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from semaforo.entities import ReplicaState, TaskType, TensorSpec, Variant
from semaforo.errors import InvalidRequest
from semaforo.server.statistics import model_statistics

if TYPE_CHECKING:
    from semaforo.live.engine import Engine

_TEXT_IN = TensorSpec("text_input", "BYTES")
_TEXT_OUT = TensorSpec("text_output", "BYTES")


class Description:
    """Describes what an engine serves now."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def server(self, extensions: tuple[str, ...]) -> dict[str, Any]:
        """Return the server's name, version and extensions."""
        return {"name": "semaforo", "version": _version(), "extensions": extensions}

    def not_ready(self) -> list[str]:
        """Return the tasks of which no variant has a replica in service."""
        return [name for name in self._engine.catalog.tasks if not self._engine.ready(name)]

    def ready(self) -> bool:
        """Tell whether some task can be served, or there is none at all."""
        tasks = self._engine.catalog.tasks
        return not tasks or len(self.not_ready()) < len(tasks)

    def names(self) -> list[str]:
        """Return every name that can be asked for, in order."""
        catalog = self._engine.catalog
        return sorted({*catalog.tasks, *catalog.models(), *catalog.aliases})

    def metadata(self, target: str, version: str = "") -> dict[str, Any]:
        """Return the names, dtypes and shapes that a target takes and gives.

        Raises:
            NotFound: No such target or version.
        """
        task, variants = self._find(target, version)
        inputs, outputs = signature(task)
        versions = [version]
        if not version:
            models = {variant.model for variant in variants}
            known = self._engine.catalog.variants.values()
            versions = sorted({v.version for v in known if v.model in models})
        return {
            "name": target,
            "versions": versions,
            "platform": self._platform(variants),
            "inputs": [_metadata(spec) for spec in inputs],
            "outputs": [_metadata(spec) for spec in outputs],
        }

    def config(self, target: str, version: str = "") -> dict[str, Any]:
        """Return a target's configuration in the form of Triton's.

        Raises:
            NotFound: No such target or version.
        """
        task, variants = self._find(target, version)
        inputs, outputs = signature(task)
        counts = {v.id: 0 for v in variants}
        for replica in self._engine.replicas():
            if replica.variant in counts and replica.state == ReplicaState.READY:
                counts[replica.variant] += 1
        templates = self._engine.catalog.templates
        return {
            "name": target,
            "platform": self._platform(variants),
            "backend": self._platform(variants),
            "max_batch_size": max((v.max_rows for v in variants), default=0),
            "input": [_config(spec) for spec in inputs],
            "output": [_config(spec) for spec in outputs],
            "instance_group": [
                {
                    "name": v.id,
                    "count": counts[v.id],
                    "kind": _device_kind(templates[v.id].device if v.id in templates else "cpu"),
                }
                for v in variants
            ],
            "dynamic_batching": {},
            "model_transaction_policy": {"decoupled": task.kind == "chat"},
        }

    def statistics(self, target: str = "", version: str = "") -> list[dict[str, Any]]:
        """Return counts and nanoseconds of a target's models; "" = of all.

        Raises:
            NotFound: No such target or version.
        """
        known = tuple(self._engine.catalog.variants.values())
        variants = self._find(target, version)[1] if target else known
        return model_statistics(variants, self._engine.metrics)

    def repository(self, only_ready: bool = False) -> list[dict[str, str]]:
        """Return name, version, state and reason of every version of every model."""
        found: dict[tuple[str, str], list[Variant]] = {}
        for variant in self._engine.catalog.variants.values():
            found.setdefault((variant.model, variant.version), []).append(variant)
        models = [self._state(model, version, variants) for (model, version), variants in found.items()]
        return [m for m in models if m["state"] == "READY" or not only_ready]

    def model(self, name: str) -> str:
        """Return the model that a name to load or unload stands for.

        Raises:
            NotFound: No such target.
            InvalidRequest: It is a task type.
        """
        catalog = self._engine.catalog
        name = catalog.aliases.get(name, name)
        catalog.task_of(name)
        if name in catalog.tasks:
            models = sorted({v.model for v in catalog.variants.values() if v.task == name})
            raise InvalidRequest(
                f"'{name}' is a task type; load or unload one of its models: {', '.join(models)}"
            )
        return name

    def _find(self, target: str, version: str) -> tuple[TaskType, tuple[Variant, ...]]:
        catalog = self._engine.catalog
        return catalog.task_of(target), catalog.resolve(target, version)

    def _platform(self, variants: tuple[Variant, ...]) -> str:
        templates = self._engine.catalog.templates
        runtimes = sorted({templates[v.id].runtime for v in variants if v.id in templates})
        return runtimes[0] if len(runtimes) == 1 else "semaforo"

    def _state(self, model: str, version: str, variants: list[Variant]) -> dict[str, str]:
        ids = {variant.id for variant in variants}
        replicas = [replica for replica in self._engine.replicas() if replica.variant in ids]
        states = {str(replica.state) for replica in replicas}
        reason = ""
        if ReplicaState.READY in states or ReplicaState.EJECTED in states:
            state = "READY"
        elif ReplicaState.STARTING in states:
            state = "LOADING"
        elif ReplicaState.DRAINING in states:
            state = "UNLOADING"
        else:
            state = "UNAVAILABLE"
            errors = [replica.last_error for replica in replicas if replica.last_error]
            reason = errors[0] if errors else "unloaded"
        return {"name": model, "version": version, "state": state, "reason": reason}


def _version() -> str:
    try:
        return version("semaforo")
    except PackageNotFoundError:
        return "0"


def signature(task: TaskType) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return what a task takes and gives; a chat, as texts."""
    if task.kind == "chat":
        return (_TEXT_IN,), (_TEXT_OUT,)
    return task.inputs, task.outputs


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    value: dict[str, Any] = {"name": spec.name, "datatype": spec.dtype, "shape": [-1, *spec.shape]}
    if spec.labels:
        value["parameters"] = {"labels": spec.labels}
    if spec.optional:
        value["parameters"] = {"optional": True}
    return value


def _config(spec: TensorSpec) -> dict[str, Any]:
    dtype = "STRING" if spec.dtype == "BYTES" else spec.dtype
    value: dict[str, Any] = {"name": spec.name, "data_type": f"TYPE_{dtype}", "dims": list(spec.shape) or [1]}
    if spec.optional:
        value["optional"] = True
    return value


def _device_kind(device: str) -> str:
    return (
        "KIND_CPU"
        if device in ("cpu", "loop", "")
        else "KIND_GPU"
        if device.startswith("cuda")
        else "KIND_AUTO"
    )
