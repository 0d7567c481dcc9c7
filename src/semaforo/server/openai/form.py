"""The form of OpenAI's errors, and where it is used."""

from __future__ import annotations

import msgspec

from semaforo.errors import SemaforoError
from semaforo.server.app import error_headers, wire_status
from semaforo.server.http import HttpResponse
from semaforo.wire.openai import error_object, retry_headers

PREFIX = "/v1/"
"""Where this protocol's paths begin."""


def error_response(error: SemaforoError, request_id: str) -> HttpResponse:
    """Return an error in OpenAI's form, with the headers that its clients read."""
    served = (b"semaforo-request-id", request_id.encode("ascii"))
    headers = (*error_headers(error), *retry_headers(error), served)
    return HttpResponse(wire_status(error), headers, msgspec.json.encode(error_object(error)))
