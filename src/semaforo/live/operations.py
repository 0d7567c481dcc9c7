"""What an operator may ask of a running fleet: load, unload, scale and drain, and wait until it is so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from semaforo.core.controller import Controller
from semaforo.core.events import ControllerEvent, DrainReplica, LoadVariant, Scale, UnloadVariant
from semaforo.core.state import State
from semaforo.errors import NotFound, NotReady, nearest
from semaforo.live.crew import Crew

_SETTLE_S = 60.0


class Operations:
    """Turns what is asked of models, variants and replicas into events for the controller.

    Args:
        state: The dispatcher's, for the catalog being served.
        controller: Knows every replica.
        crew: Starts and stops them.
        control: Gives an event to the controller.
        ready: Tells whether a target has a replica in service.
    """

    def __init__(
        self,
        state: State,
        controller: Controller,
        crew: Crew,
        control: Callable[[ControllerEvent], None],
        ready: Callable[[str], bool],
    ) -> None:
        self._state = state
        self._controller = controller
        self._crew = crew
        self._control = control
        self._ready = ready

    async def load(self, model: str) -> None:
        """Put a model in service and wait until a replica is ready.

        Raises:
            NotFound: No such model.
            NotReady: No replica could be started; the message says why.
        """
        variants = self._variants_of(model)
        for variant in variants:
            self._control(LoadVariant(variant))
        await self._crew.settled(self._controller, _SETTLE_S)
        if not self._ready(model):
            replicas = self._controller.state.replicas.values()
            errors = [r.error for r in replicas if r.spec.variant in variants and r.error]
            raise NotReady(
                f"'{model}' could not be loaded: {errors[-1] if errors else 'no replica is ready'}"
            )

    async def unload(self, model: str) -> None:
        """Drain and stop every replica of a model, and wait for that.

        Raises:
            NotFound: No such model.
        """
        variants = self._variants_of(model)
        for variant in variants:
            self._control(UnloadVariant(variant))
        while any(r.spec.variant in variants for r in self._controller.state.replicas.values()):
            await asyncio.sleep(0.01)

    async def scale(self, variant_id: str, replicas: int) -> None:
        """Set how many replicas a variant has.

        Raises:
            NotFound: No such variant.
        """
        known = self._state.catalog.variants
        if variant_id not in known:
            raise NotFound(f"no variant is named '{variant_id}'.{nearest(variant_id, known)}")
        self._control(Scale(variant_id, replicas))
        await self._crew.settled(self._controller, _SETTLE_S)

    async def drain(self, replica_id: str) -> None:
        """Let a replica finish its work, then stop it; it is not replaced.

        Raises:
            NotFound: No such replica.
        """
        known = self._controller.state.replicas
        if replica_id not in known:
            raise NotFound(f"no replica is named '{replica_id}'.{nearest(replica_id, known)}")
        self._control(DrainReplica(replica_id))

    def _variants_of(self, model: str) -> list[str]:
        variants = self._state.catalog.variants.values()
        found = [v.id for v in variants if v.model == model]
        if not found:
            raise NotFound(f"no model is named '{model}'.{nearest(model, {v.model for v in variants})}")
        return found
