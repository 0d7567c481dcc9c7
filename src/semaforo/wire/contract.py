"""The contract of a request as it travels: ``semaforo-*`` headers and V2 parameters.

Rules this module keeps:

1. A header wins over a ``semaforo_*`` parameter, which wins over V2's own `priority` and `timeout`.
2. A value that is not allowed is an error that names the header or parameter and what is allowed; so is a
   ``semaforo-`` header or ``semaforo_`` parameter that nobody knows.
3. What the caller leaves out stays at the contract's default.

| header | parameter | value |
| --- | --- | --- |
| ``semaforo-deadline-ms`` | ``semaforo_deadline_ms`` | milliseconds, more than 0 |
| ``semaforo-priority`` | ``semaforo_priority`` | critical, high, normal, low; or V2's 1 to 4, 0 = normal |
| ``semaforo-min-quality`` | ``semaforo_min_quality`` | 0 to 1 |
| ``semaforo-max-cost`` | ``semaforo_max_cost`` | US dollars, 0 or more |
| ``semaforo-privacy`` | ``semaforo_privacy`` | public, internal, site |
| ``semaforo-tenant`` | ``semaforo_tenant`` | 1 to 128 printable characters |
| ``semaforo-variant`` | ``semaforo_variant`` | name of a variant, which alone may answer |
| ``semaforo-cache`` | ``semaforo_cache`` | off: no answer that was kept, and this one is not kept either |
| ``semaforo-session`` | ``semaforo_session`` | the same, up to 256: what may profit from the same replica |
| ``semaforo-idempotency-key`` | – | the same, up to 256 |
| ``semaforo-mode`` | ``semaforo_mode`` | queue: answer later, from the queue on disk |
| ``semaforo-webhook`` | ``semaforo_webhook`` | url to tell of the end of what is queued |
| – | ``priority`` | V2's integer |
| – | ``timeout`` | V2's microseconds, 0 = none |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from semaforo.entities import Contract, Priority, Privacy
from semaforo.errors import InvalidRequest, nearest


class Asked(msgspec.Struct, gc=False):
    """What a request asks for beside its data.

    Attributes:
        contract: Hard limits; its tenant is what the caller named, not yet what it may name.
        variant: Variant that is pinned, "" = none.
        session: Key of a session, "" = none.
        idempotency_key: "" = none.
        traceparent: W3C trace context, "" = none or invalid.
        parameters: What is left of the caller's parameters for the model.
        mode: "" = answer now, ``queue`` = later.
        webhook: Url to tell of the end of what is queued, "" = none.
    """

    contract: Contract
    session: str = ""
    idempotency_key: str = ""
    traceparent: str = ""
    parameters: dict[str, Any] = {}
    mode: str = ""
    webhook: str = ""
    variant: str = ""


_PRIORITIES: dict[Any, Priority] = {p.name.lower(): p for p in Priority}
_PRIVACY: dict[Any, Privacy] = {p.name.lower(): p for p in Privacy}
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PLAIN = Contract()
_NOTHING: dict[str, Any] = {}


def read_contract(headers: Mapping[bytes, bytes], parameters: Mapping[str, Any]) -> Asked:
    """Read what a request asks for.

    Args:
        headers: Names in lower case.
        parameters: The request's V2 parameters; `binary_data_output` is left out of what remains.

    Raises:
        InvalidRequest: A value is not allowed, or a name with our prefix is not known.
    """
    values: dict[str, Any] = {}
    rest = _NOTHING
    if parameters:
        rest = _from_parameters(parameters, values)
    for name in headers:
        if name[:9] == b"semaforo-":
            _from_header(name, headers[name], values)
    traceparent = _traceparent(headers.get(b"traceparent"))
    if not values:
        return Asked(_PLAIN, traceparent=traceparent, parameters=rest)
    session = values.pop("session", "")
    variant = values.pop("variant", "")
    key = values.pop("idempotency_key", "")
    mode = values.pop("mode", "")
    webhook = values.pop("webhook", "")
    if webhook and not mode:
        raise InvalidRequest("semaforo-webhook goes with semaforo-mode: queue")
    return Asked(Contract(**values), session, key, traceparent, rest, mode, webhook, variant)


def _from_parameters(parameters: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    rest = {}
    named: dict[str, Any] = {}
    for name, value in parameters.items():
        if name.startswith("semaforo_"):
            field = _FIELDS.get(name[9:])
            if field is None or name == "semaforo_idempotency_key":
                known = [word for word in _FIELDS if word != "idempotency_key"]
                raise InvalidRequest(f"parameter {name} is not known.{_nearest(name, known)}")
            named[field[0]] = field[1](value, f"parameter {name}")
        elif name == "priority":
            values["priority"] = _priority(value, "parameter priority")
        elif name == "timeout":
            microseconds = _number(value, "parameter timeout", "microseconds, 0 or more", 0.0)
            if microseconds:
                values["deadline_s"] = microseconds * 1e-6
        elif name != "binary_data_output":
            rest[name] = value
    values.update(named)
    return rest


def _from_header(name: bytes, value: bytes, values: dict[str, Any]) -> None:
    word = name[9:].decode("latin-1").replace("-", "_")
    field = _FIELDS.get(word)
    header = name.decode("latin-1")
    if field is None:
        known = [known.replace("_", "-") for known in _FIELDS]
        raise InvalidRequest(f"header {header} is not known.{_nearest(header, known)}")
    values[field[0]] = field[1](value.decode("latin-1").strip(), f"header {header}")


def _nearest(name: str, known: list[str]) -> str:
    """Compare what follows our prefix, which would make all names alike; name them all where none is near."""
    near = nearest(name[9:], known).replace("'", f"'{name[:9]}", 1)
    return near or f" There are {', '.join(name[:9] + word for word in known)}"


def _number(value: Any, where: str, allowed: str, low: float, high: float = math.inf) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not low <= number <= high or math.isinf(number):
        raise InvalidRequest(f"{where} is {_shown(value)}; it takes {allowed}")
    return number


def _deadline(value: Any, where: str) -> float:
    milliseconds = _number(value, where, "milliseconds, more than 0, for example 20", 0.0)
    if milliseconds == 0:
        raise InvalidRequest(f"{where} is 0; it takes milliseconds, more than 0, for example 20")
    return milliseconds / 1e3


def _priority(value: Any, where: str) -> Priority:
    found = _PRIORITIES.get(value.lower()) if isinstance(value, str) else None
    if found is None and not isinstance(value, bool) and str(value) in ("0", "1", "2", "3", "4"):
        number = int(value)
        found = Priority(number - 1) if number else Priority.NORMAL
    if found is None:
        allowed = ", ".join(_PRIORITIES)
        raise InvalidRequest(
            f"{where} is {_shown(value)}; it takes {allowed}, or 1 (highest) to 4, 0 = normal"
        )
    return found


def _privacy(value: Any, where: str) -> Privacy:
    found = _PRIVACY.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise InvalidRequest(f"{where} is {_shown(value)}; it takes {', '.join(_PRIVACY)}")
    return found


def _quality(value: Any, where: str) -> float:
    return _number(value, where, "a quality from 0 to 1", 0.0, 1.0)


def _cost(value: Any, where: str) -> float:
    return _number(value, where, "US dollars, 0 or more, for example 0.002", 0.0)


def _text(most: int) -> Callable[[Any, str], str]:
    def read(value: Any, where: str) -> str:
        if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= most:
            raise InvalidRequest(f"{where} takes 1 to {most} printable characters")
        return value

    return read


def _mode(value: Any, where: str) -> str:
    if value != "queue":
        raise InvalidRequest(f"{where} is {_shown(value)}; it takes queue, or is left out")
    return "queue"


def _fresh(value: Any, where: str) -> bool:
    if value != "off":
        raise InvalidRequest(f"{where} is {_shown(value)}; it takes off, or is left out")
    return True


def _shown(value: Any) -> str:
    text = str(value)
    return f"'{text}'" if len(text) <= 40 else f"'{text[:40]}…'"


def _traceparent(value: bytes | None) -> str:
    # An invalid context is dropped, not refused (W3C Trace Context, 3.2.2.5).
    if value is None:
        return ""
    text = value.decode("latin-1").strip()
    return text if _TRACEPARENT.match(text) and not text.startswith("ff") else ""


_FIELDS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "deadline_ms": ("deadline_s", _deadline),
    "priority": ("priority", _priority),
    "min_quality": ("min_quality", _quality),
    "max_cost": ("max_cost", _cost),
    "privacy": ("privacy", _privacy),
    "tenant": ("tenant", _text(128)),
    "variant": ("variant", _text(128)),
    "cache": ("fresh", _fresh),
    "session": ("session", _text(256)),
    "idempotency_key": ("idempotency_key", _text(256)),
    "mode": ("mode", _mode),
    "webhook": ("webhook", _text(2048)),
}
