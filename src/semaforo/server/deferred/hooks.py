"""Webhooks: tells a url that a request has ended, at least once, as Standard Webhooks has it.

Rules this module keeps:

1. A url is told only if it begins with one that the operator allows; where it leads on is never followed.
2. What is told is signed, with its time: HMAC-SHA256 of id, time and body, under the fleet file's secret.
3. When to try again is kept in the database, so that a restart changes nothing; after `MOST_TRIES` it is given up.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from semaforo.errors import ConfigError, Forbidden, InvalidRequest, SemaforoError
from semaforo.repository.deferred import Item, Store
from semaforo.repository.deferred.sweep import hook_told, hooks_due

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger("semaforo.deferred")

MOST_TRIES = 16
"""The last comes about a day after the first."""

_AT_ONCE = 8
_AGAIN_S = (2.0, 14_400.0)
_TIMEOUT_S = 10.0
_LOOK_S = 60.0
_PORTS = {"http": 80, "https": 443}
_BAD_PATH = re.compile(r"\.\.|%2e|\\|\s", re.IGNORECASE)


class Hooks:
    """Tells urls.

    Args:
        store: What is to be told.
        allowed: Urls, or beginnings of urls.
        secret: Signs; ``whsec_`` and base64, or any text.
        message: Makes the body for a request that has ended.

    Raises:
        ConfigError: The secret begins with ``whsec_`` and goes on with what is no base64.
    """

    def __init__(
        self, store: Store, allowed: Sequence[str], secret: str, message: Callable[[Item], Awaitable[bytes]]
    ) -> None:
        self._store = store
        self._allowed = tuple(allowed)
        self._secret = signing_key(secret)
        self._message = message
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        if self._allowed:
            self._loop = asyncio.get_running_loop().create_task(self._tell())

    def wake(self) -> None:
        """Look: something has ended."""
        self._wake.set()

    async def close(self) -> None:
        """Stop; what is being told now is told again."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def check(self, url: str) -> None:
        """Make sure that a url may be told.

        Raises:
            InvalidRequest: It is not a url of http or https.
            Forbidden: The operator does not allow it.
        """
        parts = _parts(url)
        if parts is None:
            raise InvalidRequest(
                f"semaforo-webhook: '{url[:100]}' is not a url of http or https without user, fragment and '..'"
            )
        for allowed in self._allowed:
            begin = _parts(allowed)
            if begin is not None and parts[0] == begin[0] and _under(parts[1], begin[1]):
                return
        known = f"; it allows {', '.join(self._allowed)}" if self._allowed else ", and it allows none"
        raise Forbidden(
            f"semaforo-webhook: '{url[:100]}' is not among deferred.webhooks of the fleet file{known}"
        )

    async def _tell(self) -> None:
        import httpx

        # Neither proxies nor credentials of the environment: what is told goes where it is allowed to go.
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            while True:
                self._wake.clear()
                delay = _LOOK_S
                try:
                    due, next_due = await self._store.run(hooks_due, time.time(), _AT_ONCE)
                    if due:
                        await asyncio.gather(*(self._post(client, item) for item in due))
                        continue
                    if next_due is not None:
                        delay = min(_LOOK_S, max(0.01, next_due - time.time()))
                except SemaforoError as error:
                    logger.error("%s", error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), delay)

    async def _post(self, client: httpx.AsyncClient, item: Item) -> None:
        import httpx

        again: float | None = None
        try:
            self.check(item.webhook)
            body = await self._message(item)
            headers = {
                "content-type": "application/json",
                **signed(self._secret, item.id, int(time.time()), body),
            }
            async with client.stream("POST", item.webhook, content=body, headers=headers) as response:
                status = response.status_code
            if not 200 <= status < 300:
                raise SemaforoError(f"it answered with status {status}")
        except Forbidden as error:
            logger.warning("the webhook of %s is given up: %s", item.id, error)
        except (httpx.HTTPError, httpx.InvalidURL, SemaforoError, OSError) as error:
            tries = item.hook_tries + 1
            if tries < MOST_TRIES:
                again = time.time() + min(_AGAIN_S[1], _AGAIN_S[0] * 2.0 ** (tries - 1))
            told = "given up" if again is None else "told again later"
            logger.warning("the webhook of %s is %s: %s", item.id, told, str(error) or type(error).__name__)
        await self._store.run(hook_told, item.id, again)


def signing_key(secret: str) -> bytes:
    """Return the bytes that a secret signs with.

    Raises:
        ConfigError: It begins with ``whsec_`` and goes on with what is no base64.
    """
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret[6:], validate=True)
    except binascii.Error:
        raise ConfigError("deferred.secret: a secret that begins with 'whsec_' goes on in base64") from None


def signed(key: bytes, name: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed webhook; `at` is in seconds since 1970."""
    digest = hmac.new(key, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def _parts(url: str) -> tuple[tuple[str, str, int], str] | None:
    """Return scheme, host and port; and the path. None where a url is not plain enough to be compared."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or parts.fragment:
        return None
    if _BAD_PATH.search(url) or not url.isascii():
        return None
    return (parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme]), parts.path or "/"


def _under(path: str, begin: str) -> bool:
    return path == begin or path.startswith(begin if begin.endswith("/") else begin + "/")
