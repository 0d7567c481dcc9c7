"""Which trained router serves a task, and which is to follow it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from semaforo.errors import ArtefactError
from semaforo.policy.comparison import MOST_SHARE
from semaforo.routing.router import Router


class Loaded(msgspec.Struct, frozen=True):
    """A router that was read and found fit for its task.

    Attributes:
        name: Its version, or its file as it was named.
        digest: SHA-256 of the file, in hexadecimal.
        router: What was read.
        warning: Why little should be hoped from it, or "".
    """

    name: str
    digest: str
    router: Router
    warning: str = ""


class Rollout(msgspec.Struct, frozen=True):
    """The routers of one task.

    Attributes:
        service: The one in service.
        candidate: The one that is tried, or None.
        share: Share of the requests that the candidate decides, up to `MOST_SHARE`.
        shadow: Whether both look at every request, so that it is known where they differ.
        margin: Score that the candidate may be behind and still count as not worse.
        promote: Whether it takes over by itself once it is shown to be good enough.
        task: Of the fleet.
        models: That serve the task.
    """

    service: Loaded
    candidate: Loaded | None = None
    share: float = 0.0
    shadow: bool = True
    margin: float = 0.02
    promote: bool = False
    task: str = ""
    models: tuple[str, ...] = ()


def unfit(router: Router, models: Iterable[str], name: str) -> str:
    """Say why a router is of no use for a task with these models, or return ""."""
    has = list(models)
    if router.verifies:
        return (
            f"{name} is a verifier, which looks at answers of '{router.verifies}': name it in a graph, as "
            "{verify: STEP, by: FILE}; `semaforo router train` without --cascade trains a router"
        )
    if any(known.partition("/")[0] in has for known in router.predictor.models):
        return ""
    return f"{name} was trained on {', '.join(router.predictor.models)}; the task has {', '.join(has)}"


def foreign(router: Router, task: str) -> str:
    """Say why little should be hoped from a router for a task, or return ""."""
    if router.predictor.own(task) is not None:
        return ""
    known = ", ".join(map(repr, router.tasks))
    return (
        f"was trained on {known} and never on '{task}': every request is out of its domain, and it says little. "
        "Train it on a table that calls the task so, or names none"
    )


def check_share(share: float) -> None:
    """Check what a candidate may decide.

    Raises:
        ArtefactError: It leaves too little to compare it with.
    """
    if not 0.0 <= share <= MOST_SHARE:
        raise ArtefactError(
            f"share is {share:g}; a candidate decides 0 to {MOST_SHARE:g} of the requests, so that something is "
            "left to compare it with. To let it decide all, promote it"
        )


def check_margin(margin: float) -> None:
    """Check what a candidate may be behind.

    Raises:
        ArtefactError: It is out of range.
    """
    if not 0.0 <= margin <= 0.5:
        raise ArtefactError(f"margin is {margin:g}; it takes 0 to 0.5")
