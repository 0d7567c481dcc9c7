"""The catalog: tasks, models, versions, variants and aliases as one value.

Rules this module keeps:

1. A catalog is a value. It changes only by being replaced, so two readers never see half a change.
2. A name is looked up in this order: alias, model, task type; a name may not mean two of them.
3. A target without a version means the version in service of each model.
"""

from __future__ import annotations

import msgspec

from semaforo.entities import Budget, ReplicaSpec, TaskType, Variant
from semaforo.errors import NotFound, nearest


class Scaling(msgspec.Struct, frozen=True):
    """How many replicas of a variant to keep: at least `least`, at most `most`."""

    least: int = 1
    most: int = 1


class Catalog(msgspec.Struct, frozen=True):
    """Everything a fleet may serve.

    Attributes:
        tasks: Task types by name.
        variants: Variants by id.
        templates: For each variant id, the replica to start; its `id` is filled in by the controller.
        scaling: Number of replicas by variant id.
        aliases: Other names for a model or a task type.
        in_service: Version in service by model name; a version not named here is served only when pinned.
        budgets: What may be spent, by ``fleet``, ``task:NAME``, ``tenant:NAME``, and ``tenant:*`` for the others.
    """

    tasks: dict[str, TaskType] = {}
    variants: dict[str, Variant] = {}
    templates: dict[str, ReplicaSpec] = {}
    scaling: dict[str, Scaling] = {}
    aliases: dict[str, str] = {}
    in_service: dict[str, str] = {}
    budgets: dict[str, Budget] = {}

    def models(self) -> dict[str, list[Variant]]:
        """Return the variants of each model, by model name, in the catalog's order."""
        found: dict[str, list[Variant]] = {}
        for variant in self.variants.values():
            found.setdefault(variant.model, []).append(variant)
        return found

    def task_of(self, target: str) -> TaskType:
        """Return the task type that a target (task, model or alias) belongs to.

        Raises:
            NotFound: Nothing has this name; the message names the nearest.
        """
        name = self.aliases.get(target, target)
        if name in self.tasks:
            return self.tasks[name]
        for variant in self.variants.values():
            if variant.model == name:
                return self.tasks[variant.task]
        raise self._unknown(target)

    def resolve(self, target: str, version: str = "", variant: str = "") -> tuple[Variant, ...]:
        """Return the variants that a target may be served by.

        Args:
            target: A task type, a model or an alias of either.
            version: A pinned version, or "" for the one in service.
            variant: A pinned variant name, or "".

        Raises:
            NotFound: No such target, version or variant.
        """
        name = self.aliases.get(target, target)
        by_task = name in self.tasks
        named = [v for v in self.variants.values() if (v.task if by_task else v.model) == name]
        if not named and not by_task:
            raise self._unknown(target)
        found = [v for v in named if v.version == (version or self.in_service.get(v.model, v.version))]
        if version and not found:
            known = sorted({v.version for v in named})
            raise NotFound(f"'{target}' has no version '{version}'; it has {', '.join(known) or 'none'}")
        if variant:
            known = [v.name for v in found]
            found = [v for v in found if v.name == variant]
            if not found:
                raise NotFound(f"'{target}' has no variant '{variant}'.{nearest(variant, known)}")
        return tuple(found)

    def _unknown(self, target: str) -> NotFound:
        names = {*self.tasks, *self.aliases, *(v.model for v in self.variants.values())}
        return NotFound(f"no model, task type or alias is named '{target}'.{nearest(target, names)}")
