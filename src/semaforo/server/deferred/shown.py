"""How a deferred request is shown."""

from __future__ import annotations

from typing import Any

from semaforo.repository.deferred import Item

PATH = "/semaforo/v1/deferred"


def shown_item(item: Item) -> dict[str, Any]:
    """Return a request's status as JSON types; times are seconds since 1970."""
    value: dict[str, Any] = {
        "id": item.id,
        "status": item.status,
        "path": item.path,
        "target": item.target,
        "tenant": item.tenant,
        "attempts": item.attempts,
        "created_at": round(item.created, 3),
        "started_at": None if item.started is None else round(item.started, 3),
        "ended_at": None if item.ended is None else round(item.ended, 3),
        "expires_at": round(item.expires, 3),
    }
    if item.position is not None:
        value["position"] = item.position
    if item.error is not None:
        value["error"] = {"code": item.error[0], "message": item.error[1]}
    if item.response_status is not None:
        value["result"] = {"status_code": item.response_status, "url": f"{PATH}/{item.id}/result"}
    if item.webhook:
        state = "waiting" if item.ended is None or item.hook_due is not None else "over"
        value["webhook"] = {"url": item.webhook, "state": state, "tries": item.hook_tries}
    return value
