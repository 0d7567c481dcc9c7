"""Keys, principals and what they may do."""

from __future__ import annotations

import hashlib
from typing import get_args

import pytest

from semaforo.errors import ConfigError, Forbidden, Unauthenticated
from semaforo.server.identity import ANONYMOUS, NEEDS, NOBODY, Action, Keys, Principal, authorise, tenant_of
from semaforo.server.settings import KeySettings


def test_without_keys_everybody_may_do_everything() -> None:
    principal = Keys({}).principal({b"authorization": b"Bearer whatever"})
    assert principal is ANONYMOUS
    for action in get_args(Action):
        authorise(principal, action, "x")


def test_a_key_or_its_digest_is_known() -> None:
    digest = hashlib.sha256(b"second").hexdigest()
    keys = Keys({"first": KeySettings("a"), f"sha256:{digest}": KeySettings("b", ("read",))})
    assert keys.principal({b"x-api-key": b"first"}).tenant == "a"
    assert keys.principal({b"authorization": b"Bearer second"}).tenant == "b"
    assert keys.principal({}) is NOBODY
    for wrong in (b"third", digest.encode(), b"sha256:" + digest.encode(), b""):
        with pytest.raises(Unauthenticated):
            keys.principal({b"x-api-key": wrong})


@pytest.mark.parametrize("key", ["", "sha256:", "sha256:12", "sha256:" + "g" * 64])
def test_a_key_that_cannot_be_one_is_an_error(key: str) -> None:
    with pytest.raises(ConfigError, match="keys"):
        Keys({key: KeySettings()})


@pytest.mark.parametrize("action", get_args(Action))
@pytest.mark.parametrize("role", ["infer", "read", "operate", "admin"])
def test_a_role_gives_what_is_written_and_no_more(action: Action, role: str) -> None:
    principal = Principal("p", "t", frozenset({role}))  # type: ignore[arg-type]
    if not NEEDS[action] or role in NEEDS[action]:
        authorise(principal, action, "x")
    else:
        with pytest.raises(Forbidden, match=f"may not {action} 'x': that needs the role"):
            authorise(principal, action, "x")


def test_nobody_may_only_probe() -> None:
    authorise(NOBODY, "probe", "x")
    for action in set(get_args(Action)) - {"probe"}:
        with pytest.raises(Unauthenticated):
            authorise(NOBODY, action, "x")


def test_tenants() -> None:
    own = Principal("p", "acme", frozenset({"infer"}))
    agent = Principal("q", "ops", frozenset({"infer"}), may_set_tenant=True)
    assert tenant_of(own, "") == tenant_of(own, "acme") == "acme"
    assert (tenant_of(agent, ""), tenant_of(agent, "acme")) == ("ops", "acme")
    with pytest.raises(Forbidden, match="may not speak for tenant 'other'"):
        tenant_of(own, "other")
