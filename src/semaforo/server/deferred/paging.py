"""Lists in pages, as OpenAI's clients ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semaforo.errors import InvalidRequest, nearest
from semaforo.server.http import HttpRequest, HttpResponse, json_response

_USUAL = 20


class Page:
    """What a caller asks for.

    Attributes:
        after: Id that the page begins behind, or "".
        limit: Most entries.
        fields: What else stands in the query.
    """

    def __init__(self, request: HttpRequest, known: Sequence[str], most: int) -> None:
        """Read the query.

        Raises:
            InvalidRequest: A field is not known, or its value not allowed.
        """
        self.fields = request.query()
        for name in self.fields:
            if name not in ("after", "limit", *known):
                names = ("after", "limit", *known)
                raise InvalidRequest(f"query: '{name}' is none of {', '.join(names)}.{nearest(name, names)}")
        self.after = self.fields.get("after", "")
        limit = self.fields.get("limit", str(min(most, _USUAL)))
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= most:
            raise InvalidRequest(f"query: limit is '{limit[:20]}'; it takes 1 to {most}")
        self.limit = int(limit)


def page_response(entries: Sequence[dict[str, Any]], limit: int) -> HttpResponse:
    """Return a page of entries, of which one more than `limit` was looked for."""
    shown = list(entries[:limit])
    return json_response(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(entries) > limit,
        }
    )
