"""The contract as headers and parameters."""

from __future__ import annotations

from typing import Any

import pytest

from semaforo.entities import Contract, Priority, Privacy
from semaforo.errors import InvalidRequest
from semaforo.wire.contract import read_contract


def test_nothing_asked_is_the_plain_contract() -> None:
    asked = read_contract({b"host": b"x"}, {})
    assert asked.contract == Contract()
    assert (asked.session, asked.idempotency_key, asked.traceparent, asked.parameters) == ("", "", "", {})


def test_every_header_is_read() -> None:
    asked = read_contract(
        {
            b"semaforo-deadline-ms": b"20.5",
            b"semaforo-priority": b"Critical",
            b"semaforo-min-quality": b"0.95",
            b"semaforo-max-cost": b"1e-3",
            b"semaforo-privacy": b"site",
            b"semaforo-tenant": b"acme",
            b"semaforo-session": b"s1",
            b"semaforo-idempotency-key": b"k1",
            b"traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        },
        {},
    )
    assert asked.contract == Contract(Priority.CRITICAL, 0.0205, 0.95, 1e-3, Privacy.SITE, "acme")
    assert (asked.session, asked.idempotency_key) == ("s1", "k1")
    assert asked.traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_every_parameter_is_read_and_the_rest_is_the_models() -> None:
    asked = read_contract(
        {},
        {
            "semaforo_deadline_ms": 20,
            "semaforo_priority": 4,
            "semaforo_min_quality": 1,
            "semaforo_max_cost": 0,
            "semaforo_privacy": "internal",
            "semaforo_tenant": "acme",
            "semaforo_session": "s",
            "binary_data_output": True,
            "temperature": 0.5,
        },
    )
    assert asked.contract == Contract(Priority.LOW, 0.02, 1.0, 0.0, Privacy.INTERNAL, "acme")
    assert asked.session == "s"
    assert asked.parameters == {"temperature": 0.5}


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (0, Priority.NORMAL),
        (1, Priority.CRITICAL),
        (2, Priority.HIGH),
        (3, Priority.NORMAL),
        (4, Priority.LOW),
    ],
)
def test_v2_priorities_and_timeouts(value: int, priority: Priority) -> None:
    asked = read_contract({}, {"priority": value, "timeout": 1500})
    assert asked.contract.priority == priority
    assert asked.contract.deadline_s == pytest.approx(0.0015)
    assert read_contract({}, {"timeout": 0}).contract.deadline_s is None


def test_a_header_wins_over_ours_and_ours_over_v2() -> None:
    parameters: dict[str, Any] = {"timeout": 1_000_000, "semaforo_deadline_ms": 200, "priority": 4}
    assert read_contract({}, parameters).contract.deadline_s == 0.2
    assert read_contract({}, dict(reversed(parameters.items()))).contract.deadline_s == 0.2
    headers = {b"semaforo-deadline-ms": b"20", b"semaforo-priority": b"2"}
    asked = read_contract(headers, parameters)
    assert asked.contract == Contract(Priority.HIGH, 0.02)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("deadline-ms", "0", "more than 0"),
        ("deadline-ms", "-1", "more than 0"),
        ("deadline-ms", "soon", "milliseconds"),
        ("deadline-ms", "nan", "milliseconds"),
        ("deadline-ms", "inf", "milliseconds"),
        ("deadline-ms", "1e999", "milliseconds"),
        ("priority", "urgent", "critical, high, normal, low, or 1"),
        ("priority", "5", "critical, high, normal, low"),
        ("priority", "1.0", "critical"),
        ("min-quality", "1.1", "0 to 1"),
        ("min-quality", "", "0 to 1"),
        ("max-cost", "-0.1", "US dollars"),
        ("privacy", "secret", "public, internal, site"),
        ("tenant", "", "1 to 128 printable"),
        ("tenant", "x" * 129, "1 to 128 printable"),
        ("session", "a\x01b", "printable"),
        ("idempotency-key", "x" * 257, "1 to 256"),
    ],
)
def test_an_error_names_the_header_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(InvalidRequest, match=f"header semaforo-{name} .*{allowed}"):
        read_contract({b"semaforo-" + name.encode(): value.encode()}, {})


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"priority": 5}, "parameter priority is '5'"),
        ({"priority": True}, "parameter priority"),
        ({"priority": None}, "parameter priority"),
        ({"timeout": "soon"}, "parameter timeout is 'soon'; it takes microseconds"),
        ({"timeout": -1}, "parameter timeout"),
        ({"timeout": 10**400}, "parameter timeout"),
        ({"semaforo_deadline": 5}, "not known. Did you mean 'semaforo_deadline_ms'"),
        ({"semaforo_idempotency_key": "k"}, "not known"),
        ({"semaforo_tenant": 7}, "1 to 128"),
        ({"semaforo_privacy": 1}, "public, internal, site"),
    ],
)
def test_an_error_names_the_parameter(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        read_contract({}, parameters)


def test_an_unknown_header_with_our_prefix_is_an_error() -> None:
    with pytest.raises(
        InvalidRequest, match=r"semaforo-deadline is not known\. Did you mean 'semaforo-deadline-ms'"
    ):
        read_contract({b"semaforo-deadline": b"20"}, {})
    # Alike in nothing but the prefix.
    with pytest.raises(InvalidRequest, match=r"semaforo-foo is not known\. There are semaforo-deadline-ms, "):
        read_contract({b"semaforo-foo": b"20"}, {})


@pytest.mark.parametrize(
    "value",
    ["", "garbage", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "00-" + "a" * 32 + "-" + "0" * 16 + "-01"],
)
def test_an_invalid_trace_context_is_dropped(value: str) -> None:
    assert read_contract({b"traceparent": value.encode()}, {}).traceparent == ""
