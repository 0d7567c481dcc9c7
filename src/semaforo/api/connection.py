"""What the two clients know of their connection: its address, its times, and what went wrong with it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from semaforo.api.exchange import Ask, Reply
from semaforo.errors import ConfigError, Expired, NotReady, ProtocolError, SemaforoError

LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)
"""The connection broke after something was sent."""

_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0)
_CONNECT_S = 5.0
_MARGIN_S = 1.0


class Connection:
    """Address, headers and times of a client.

    Args:
        url: Address of the server.
        key: API key; "" = none.
        timeout: Seconds without an answer after which a request without a deadline is given up.

    Raises:
        ConfigError: The address, the key or the time will not do.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"'{url}' is no url: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ConfigError(f"'{url}' is no url of a server: it is like http://127.0.0.1:8080")
        if parsed.userinfo:
            raise ConfigError("leave user and password out of the url: give an API key by key=")
        if not key.isascii() or not key.isprintable():
            raise ConfigError("the API key holds what a header cannot carry: was it copied whole?")
        if not timeout > 0:
            raise ConfigError(f"timeout {timeout} is out of range: give seconds, more than 0")
        self.url = url.rstrip("/")
        self._timeout_s = timeout
        # Uncompressed: tensors hardly shrink, and packing them takes longer than a local network does.
        self._headers = {"accept-encoding": "identity", "user-agent": "semaforo"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._tls: ssl.SSLContext | bool = httpx.create_ssl_context() if parsed.scheme == "https" else False

    def settings(self) -> dict[str, Any]:
        """Return the settings of an httpx client."""
        return {"base_url": self.url, "headers": self._headers, "verify": self._tls, "limits": _LIMITS}

    def arguments(self, ask: Ask) -> dict[str, Any]:
        """Return the arguments of httpx's ``build_request``."""
        seconds = self._timeout_s if ask.deadline_s is None else ask.deadline_s + _MARGIN_S
        return {
            "method": ask.method,
            "url": ask.path,
            "headers": dict(ask.headers),
            "content": ask.content,
            "timeout": httpx.Timeout(seconds, connect=min(seconds, _CONNECT_S)),
        }

    @contextmanager
    def errors(self, ask: Ask) -> Iterator[None]:
        """Turn a failure of the connection into an error of the tree."""
        try:
            yield
        except httpx.HTTPError as error:
            raise self._error(ask, error) from None

    def _error(self, ask: Ask, error: httpx.HTTPError) -> SemaforoError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return NotReady(
                f"no server at {self.url}: start one with `semaforo serve`, "
                "or give another url (`--url`, in Python `url`)",
                retry_after_s=1.0,
            )
        if isinstance(error, httpx.TimeoutException):
            asked = self._timeout_s if ask.deadline_s is None else ask.deadline_s
            return Expired(f"{self.url} gave no answer within {asked:g} s")
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            return ProtocolError(f"{self.url} cannot be asked that: {error}")
        if isinstance(error, httpx.RemoteProtocolError) and "disconnected" not in str(error):
            return ProtocolError(f"{self.url} does not speak HTTP/1.1 ({error}): is this a Semaforo server?")
        return NotReady(f"{self.url} broke the connection off: {error or type(error).__name__}")


def reply_of(response: httpx.Response) -> Reply:
    """Return a response that was read whole."""
    headers: Mapping[str, str] = response.headers
    return Reply(response.status_code, headers, response.content)
