"""Combiners that were fitted on labelled rows: stacking and Bayesian combination.

What was learned comes in the option ``fitted``, as `fitting` has written it: ``{"kind": …, "version": 1, …}``. None
stands for what is about to be fitted: types can be checked, and nothing can be fused yet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semaforo.entities import TensorSpec
from semaforo.errors import InvalidRequest
from semaforo.graph.fusion.classes import check_options, layout, layout_of, same, with_labels
from semaforo.graph.fusion.method import Member, Options

Array = NDArray[Any]
VERSION = 1
_TINY = 1e-6


def fitted(options: Options, kind: str) -> dict[str, Any]:
    """Return what was learned.

    Raises:
        InvalidRequest: There is nothing, or it is of another kind or version.
    """
    found = options.get("fitted")
    if not isinstance(found, dict):
        raise InvalidRequest(
            f"'{kind}' has to be fitted first: name a file by `fitted: FILE`, and run `semaforo graph fit`"
        )
    if found.get("kind") != kind or found.get("version") != VERSION:
        raise InvalidRequest(
            f"what was fitted is {found.get('kind')} version {found.get('version')}, not {kind} version {VERSION}: "
            "fit it again"
        )
    return found


class _Learned(ABC):
    kind = ""

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return the fused probabilities and their labels."""
        check_options(options, ("field",))
        found = layout(members, options)
        if options.get("fitted", {}) is None:
            return found.outputs
        learned = fitted(options, self.kind)
        missing = [name for name in members if name not in learned["members"]]
        if missing:
            raise InvalidRequest(f"it was fitted without {', '.join(missing)}: fit it again")
        classes = found.field.shape[0]
        if classes not in (-1, learned["classes"]):
            raise InvalidRequest(
                f"it was fitted for {learned['classes']} classes, and {found.field} has {classes}"
            )
        return found.outputs

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Apply what was learned."""
        field, labels = layout_of(members, options)
        learned = fitted(options, self.kind)
        logs = self._logs(members, field, learned)
        logs -= logs.max(axis=-1, keepdims=True)
        found = np.exp(logs)
        found /= found.sum(axis=-1, keepdims=True)
        return with_labels(field, labels, found, members[0].arrays[field])

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Count the members of the largest group with the same class."""
        field, _ = layout_of(members, options)
        return same(np.stack([member.arrays[field].argmax(axis=-1) for member in members]))

    @abstractmethod
    def _logs(self, members: Sequence[Member], field: str, learned: dict[str, Any]) -> Array: ...


class Stack(_Learned):
    """A multinomial logistic regression over the members' log probabilities (Wolpert, 1992).

    A member that is missing says what it says on average.
    """

    kind = "stack"

    def _logs(self, members: Sequence[Member], field: str, learned: dict[str, Any]) -> Array:
        rows = len(members[0].arrays[field])
        logs = np.tile(np.asarray(learned["bias"], np.float64), (rows, 1))
        there = {member.name: member for member in members}
        for name, about in learned["members"].items():
            weights = np.asarray(about["weights"], np.float64)
            member = there.get(name)
            if member is None:
                logs += np.asarray(about["mean"], np.float64) @ weights
            else:
                logs += log_probabilities(member.arrays[field]) @ weights
        return logs


class Bayes(_Learned):
    """Bayes' rule over what each member's confusion matrix says of its answer (Dawid and Skene, 1979).

    Members are taken to err independently, given the true class; one that is missing says nothing.
    """

    kind = "bayes"

    def _logs(self, members: Sequence[Member], field: str, learned: dict[str, Any]) -> Array:
        rows = len(members[0].arrays[field])
        logs = np.tile(np.log(np.asarray(learned["prior"], np.float64)), (rows, 1))
        for member in members:
            confusion = np.asarray(learned["members"][member.name]["confusion"], np.float64)
            # Column = what the member said; its log says how likely that is under each true class.
            logs += np.log(confusion)[:, member.arrays[field].argmax(axis=-1)].T
        return logs


def log_probabilities(values: Array) -> Array:
    """Return the logarithms of probabilities, centred on each row so that constants do not matter."""
    logs = np.log(np.maximum(values.astype(np.float64), _TINY))
    return np.asarray(logs - logs.mean(axis=-1, keepdims=True))
