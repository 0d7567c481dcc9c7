"""Whose work a caller may see and change."""

from __future__ import annotations

from semaforo.server.http import HttpRequest
from semaforo.server.identity import tenant_of


def tenant_for(request: HttpRequest) -> str:
    """Return the tenant that what a caller adds belongs to.

    Raises:
        Forbidden: It may not speak for the tenant that it names.
    """
    return tenant_of(request.principal, request.header("semaforo-tenant") or "")


def visible_to(request: HttpRequest) -> str | None:
    """Return the tenant whose work a caller sees; None = everybody's, for who may speak for everybody.

    Raises:
        Forbidden: It may not speak for the tenant that it names.
    """
    asked = request.header("semaforo-tenant") or ""
    if request.principal.may_set_tenant and not asked:
        return None
    return tenant_of(request.principal, asked)
