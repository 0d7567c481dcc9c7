"""What the database holds, as values. Times are seconds since 1970."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["queued", "running", "done", "failed", "expired", "cancelled"]
STATUSES: tuple[Status, ...] = ("queued", "running", "done", "failed", "expired", "cancelled")
Header = tuple[str, str]


class NewItem(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it is admitted.

    Attributes:
        id: Unguessable.
        tenant: Whom it belongs to.
        path: Path as sent, not decoded.
        headers: Those that matter to the work.
        body: Bytes of the body, not compressed.
        target: What it asks for; work that cannot run now holds back its like.
        expires: When it is of no more use.
        batch, line, custom_id: Place in a batch; "" and 0 for a request of its own.
        key, digest: Idempotency key, and what the same key must come with again.
        webhook: Url to tell of the end; "" = none.
    """

    id: str
    tenant: str
    path: str
    headers: tuple[Header, ...]
    body: bytes
    target: str
    expires: float
    batch: str = ""
    line: int = 0
    custom_id: str = ""
    key: str = ""
    digest: bytes = b""
    webhook: str = ""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """How an admitted request stands.

    Attributes:
        position: Requests before it, over all tenants; None once it has begun.
        attempts: Times it was begun.
        error: Code and message where it did not end well.
        response_status: HTTP status of its result; None where there is none.
        hook_due: When the webhook is told next; None = told, given up, or none.
        hook_tries: Times the webhook was tried.
    """

    id: str
    tenant: str
    status: Status
    path: str
    target: str
    created: float
    started: float | None
    ended: float | None
    expires: float
    attempts: int
    batch: str = ""
    error: tuple[str, str] | None = None
    response_status: int | None = None
    webhook: str = ""
    hook_due: float | None = None
    hook_tries: int = 0
    position: int | None = None


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was taken from the queue to be run.

    Attributes:
        crashes: Times the server ended while it ran.
    """

    id: str
    tenant: str
    path: str
    headers: tuple[Header, ...]
    body: bytes
    target: str
    expires: float
    attempts: int
    crashes: int
    batch: str
    webhook: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended.

    Attributes:
        error: Code and message; None where it ended well.
        response: Status, headers and body for whoever asks for the result; None where it never ran.
    """

    status: Literal["done", "failed", "expired"]
    error: tuple[str, str] | None = None
    response: tuple[int, tuple[Header, ...], bytes] | None = None


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file, without its content."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created: float
    expires: float


BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A batch.

    Attributes:
        window: How long it may take, as asked for.
        metadata: The caller's own words, or None.
        headers: Contract of every line.
        errors: What is wrong with the input.
        at: Name of a status → when it was reached.
        total, completed, failed: Lines.
    """

    id: str
    tenant: str
    endpoint: str
    input_file: str
    window: str
    metadata: dict[str, str] | None
    headers: tuple[Header, ...]
    status: BatchStatus
    created: float
    expires: float
    errors: tuple[dict[str, Any], ...] = ()
    at: dict[str, float] = {}
    output_file: str = ""
    error_file: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0
    key: str = ""
    digest: bytes = b""
