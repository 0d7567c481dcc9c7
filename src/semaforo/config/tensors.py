"""The tensors of a task: as the fleet file states them, else as its kind has agreed."""

from __future__ import annotations

from semaforo.config.settings import FleetSettings, TaskSettings
from semaforo.config.tensor import TensorSettings
from semaforo.entities import TensorSpec
from semaforo.entities.interface import INTERFACES

Tensors = tuple[TensorSpec, ...]


def tensors_of(task: TaskSettings, *, extras: bool = False) -> tuple[Tensors, Tensors]:
    """Return inputs and outputs.

    Args:
        task: Settings of the task.
        extras: Whether outputs that are agreed hold the extras as well.
    """
    inputs, outputs = _stated(task.inputs), _stated(task.outputs)
    agreed = INTERFACES.get(task.kind)
    if agreed is None:
        return inputs, outputs
    return inputs or (agreed.input,), outputs or (agreed.output, *(agreed.extras if extras else ()))


def from_upstreams(name: str, fleet: FleetSettings) -> bool:
    """Tell whether all models of a task speak OpenAI's protocol, so that its agreed outputs hold the extras."""
    return all(m.url and m.runtime in ("", "openai") for m in fleet.models.values() if m.task == name)


def _stated(tensors: dict[str, TensorSettings]) -> Tensors:
    return tuple(tensor.spec(name) for name, tensor in tensors.items())
