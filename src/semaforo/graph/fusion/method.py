"""What every method of fusion is: types first, then numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray

from semaforo.entities import TensorSpec

Array = NDArray[Any]
Options = Mapping[str, object]


class Member(msgspec.Struct, frozen=True):
    """What one member says of some rows.

    Attributes:
        name: Of its step.
        arrays: Output → ``(rows, …)``; all members have the same rows.
        weight: How much it counts beside the others, 0 or more.
    """

    name: str
    arrays: dict[str, Array]
    weight: float = 1.0


class Method(Protocol):
    """A way to make one answer of several. Stateless: what was learned comes in the options."""

    def outputs(
        self, members: Mapping[str, tuple[TensorSpec, ...]], options: Options
    ) -> tuple[TensorSpec, ...]:
        """Return what the fused answer holds.

        Args:
            members: Member → what it gives.
            options: Of the step.

        Raises:
            InvalidRequest: These cannot be fused in this way, or an option is wrong; the message says why.
        """
        ...

    def fuse(self, members: Sequence[Member], options: Options) -> dict[str, Array]:
        """Make one answer of the members that are there, one at least, for rows that all of them have.

        Returns:
            Output → ``(rows, …)``, as `outputs` says.
        """
        ...

    def agreeing(self, members: Sequence[Member], options: Options) -> Array:
        """Return, for each row, how many members are in the largest group that says the same: ``(rows,)``."""
        ...
