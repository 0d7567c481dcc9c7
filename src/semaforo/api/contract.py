"""A contract from the keyword arguments of a call."""

from __future__ import annotations

from semaforo.entities import Contract, Priority, Privacy
from semaforo.entities.units import parse_duration
from semaforo.errors import InvalidRequest, nearest


def contract_of(
    deadline: str | float | None,
    min_quality: float,
    max_cost: float | None,
    priority: str,
    privacy: str,
    tenant: str,
    cache: bool = True,
) -> Contract:
    """Return the contract; `deadline` is ``"20ms"`` or seconds, `cache` whether a kept answer will do.

    Raises:
        InvalidRequest: A value is not allowed.
    """
    deadline_s = parse_duration(deadline) if isinstance(deadline, str) else deadline
    if deadline_s is not None and not deadline_s > 0:
        raise InvalidRequest(f"deadline {deadline} is over before it begins: give more than 0, as '20ms'")
    if not 0 <= min_quality <= 1:
        raise InvalidRequest(f"min_quality {min_quality} is out of range: quality goes from 0 to 1")
    if max_cost is not None and not max_cost >= 0:
        raise InvalidRequest(f"max_cost {max_cost} is out of range: give US dollars, 0 or more")
    return Contract(
        priority=Priority[_word("priority", priority, Priority)],
        deadline_s=deadline_s,
        min_quality=float(min_quality),
        max_cost=max_cost,
        privacy=Privacy[_word("privacy", privacy, Privacy)],
        tenant=tenant,
        fresh=not cache,
    )


def _word(name: str, given: str, known: type[Priority] | type[Privacy]) -> str:
    words = [member.name.lower() for member in known]
    if given not in words:
        raise InvalidRequest(f"{name} '{given}' is not one of {', '.join(words)}.{nearest(given, words)}")
    return given.upper()
