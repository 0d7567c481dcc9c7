"""Who asks, and what they may do.

Rules this module keeps:

1. Every route asks `authorise` once, before its body is read.
2. Keys are compared as SHA-256 digests in constant time; a key is never logged or sent back.
3. A tenant that is not the principal's own counts only where the principal may set it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from semaforo.errors import ConfigError, Forbidden, Unauthenticated

Role = Literal["infer", "read", "operate", "admin"]
Action = Literal["probe", "describe", "infer", "read", "operate", "admin"]
"""``probe`` health; ``describe`` metadata; ``infer`` run models; ``read`` decisions, statistics, metrics;
``operate`` scale, load, unload, drain; ``admin`` everything else."""

NEEDS: dict[Action, frozenset[Role]] = {
    "probe": frozenset(),
    "describe": frozenset({"infer", "read", "operate", "admin"}),
    "infer": frozenset({"infer", "admin"}),
    "read": frozenset({"read", "operate", "admin"}),
    "operate": frozenset({"operate", "admin"}),
    "admin": frozenset({"admin"}),
}
"""Roles of which a principal needs one; none for an action that is open to everybody."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks.

    Attributes:
        name: For messages; never a key.
        tenant: Tenant whose share its requests use.
        roles: What it may do.
        may_set_tenant: Whether it may speak for other tenants.
    """

    name: str
    tenant: str = ""
    roles: frozenset[Role] = frozenset()
    may_set_tenant: bool = False


ANONYMOUS = Principal("anonymous", "", frozenset({"infer", "read", "operate", "admin"}), True)
"""Everybody, where no keys are configured."""

NOBODY = Principal("nobody")
"""A caller without a valid key where keys are configured."""


class Grant(Protocol):
    """What `Keys` needs of a key's settings."""

    @property
    def tenant(self) -> str: ...  # noqa: D102 — as Principal
    @property
    def roles(self) -> tuple[Role, ...]: ...  # noqa: D102 — as Principal
    @property
    def may_set_tenant(self) -> bool: ...  # noqa: D102 — as Principal


class Keys:
    """The configured API keys."""

    def __init__(self, grants: Mapping[str, Grant]) -> None:
        """Take keys, or ``sha256:`` digests of keys, with what they stand for.

        Raises:
            ConfigError: A digest is not 64 hexadecimal digits, or a key is empty.
        """
        self._principals: list[tuple[bytes, Principal]] = []
        for number, (key, grant) in enumerate(grants.items(), 1):
            principal = Principal(
                f"key {number} of tenant '{grant.tenant}'",
                grant.tenant,
                frozenset(grant.roles),
                grant.may_set_tenant,
            )
            self._principals.append((_digest(key), principal))

    def __bool__(self) -> bool:
        return bool(self._principals)

    def principal(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Return who sent these headers: ``Authorization: Bearer`` or ``X-API-Key``.

        Raises:
            Unauthenticated: A key was given and is not known.
        """
        if not self._principals:
            return ANONYMOUS
        given = _given(headers)
        if given is None:
            return NOBODY
        digest = hashlib.sha256(given).digest()
        found: Principal | None = None
        for known, principal in self._principals:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise Unauthenticated("the API key is not known")
        return found


def authorise(principal: Principal, action: Action, resource: str) -> None:
    """Let a principal do something, or say why not.

    Args:
        principal: Who asks.
        action: What it wants to do.
        resource: What with: a model, a replica, a path.

    Raises:
        Unauthenticated: No key was given and one is needed.
        Forbidden: The principal has none of the roles that are needed.
    """
    needed = NEEDS[action]
    if not needed or principal.roles & needed:
        return
    if principal is NOBODY:
        raise Unauthenticated("give an API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'")
    raise Forbidden(
        f"{principal.name} may not {action} '{resource}': that needs the role {' or '.join(sorted(needed))}"
    )


def tenant_of(principal: Principal, asked: str) -> str:
    """Return the tenant a request counts for.

    Args:
        principal: Who asks.
        asked: Tenant the request names, or "".

    Raises:
        Forbidden: The principal may not speak for that tenant.
    """
    if not asked or asked == principal.tenant:
        return principal.tenant
    if principal.may_set_tenant:
        return asked
    raise Forbidden(f"{principal.name} may not speak for tenant '{asked}'; leave semaforo-tenant out")


def _given(headers: Mapping[bytes, bytes]) -> bytes | None:
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Unauthenticated("Authorization takes the scheme Bearer: 'Authorization: Bearer KEY'")
        return key.strip()
    return headers.get(b"x-api-key")


def _digest(key: str) -> bytes:
    if key.startswith("sha256:"):
        try:
            digest = bytes.fromhex(key[7:])
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise ConfigError("keys: a key that begins with 'sha256:' continues with 64 hexadecimal digits")
        return digest
    if not key:
        raise ConfigError("keys: a key may not be empty")
    return hashlib.sha256(key.encode()).digest()
