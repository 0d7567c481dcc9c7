"""Options of a model behind a url, and the check that the url answers and knows key and model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import httpx
import msgspec

from semaforo.errors import RuntimeLoadError, nearest
from semaforo.runtime.options import read_options

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?")
_VALUE_RULE = "only visible ASCII characters can be sent, without space or line break at the ends"
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a model behind a url.

    Attributes:
        url: Base address, for example ``http://127.0.0.1:11434/v1``.
        model: Its name there.
        key: Sent as ``Authorization: Bearer``; "" = none.
        headers: Further headers.
        timeout_s: Most seconds without a byte from the upstream.
        connect_timeout_s: Most seconds to connect.
        check: Whether loading asks ``/models`` first.
        stream: Whether the upstream is asked to stream; false for one that cannot.
        include_usage: Whether a stream is asked for its usage; false for one that does not know the option.
        slots: Requests at once.
        completions: Whether the upstream takes prompts at ``/completions``; elsewhere a prompt becomes a chat.
        interface: What it is asked for, by `semaforo.entities.interface`; "" = chats. The task says it.
        labels: Categories in the order of the task's scores, for moderations. The task says them.
    """

    url: str
    model: str
    key: str = ""
    headers: dict[str, str] = {}
    timeout_s: _Seconds = 120.0
    connect_timeout_s: _Seconds = 5.0
    check: bool = True
    stream: bool = True
    include_usage: bool = True
    slots: Annotated[int, msgspec.Meta(ge=1)] = 4
    completions: bool = False
    interface: Literal["", "embedding", "moderation", "transcription"] = ""
    labels: list[str] = []

    def __repr__(self) -> str:
        return f"Options(url={self.url!r}, model={self.model!r}, key={'set' if self.key else 'none'})"

    @property
    def where(self) -> str:
        """Name the upstream in messages that clients read; its address is the operator's affair."""
        return f"the upstream of '{self.model}'"

    def request_headers(self) -> dict[str, str]:
        """Return the headers of every request."""
        # Uncompressed, because a compressor between two tokens would hold the first one back.
        headers = {"accept-encoding": "identity", "user-agent": "semaforo"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        return headers | {name.lower(): value for name, value in self.headers.items()}

    def without_key(self, text: str) -> str:
        """Return a text of the upstream's in which the key, should it be quoted, is blotted out."""
        return text.replace(self.key, "***") if self.key else text


def parse_options(source: str, options: Mapping[str, Any]) -> Options:
    """Check the options of a model; `source` is the url where they name none.

    Raises:
        RuntimeLoadError: Which option is wrong, and how.
    """
    given = {"url": source, **options}
    if not given.get("model"):
        raise RuntimeLoadError("options.model: give the name of the model at the upstream")
    # Before the general check, which shows the value that has the wrong type.
    if not isinstance(given.get("key", ""), str):
        raise RuntimeLoadError("options.key: must be a text; write it in quotes")
    parsed = read_options("openai", given, Options)
    if parsed.completions and parsed.interface:
        raise RuntimeLoadError(
            f"options.completions: means nothing where the task's kind is {parsed.interface}: leave it out"
        )
    check_address(parsed.url, parsed.key, parsed.headers)
    return parsed


def check_address(url: str, key: str, headers: Mapping[str, str]) -> None:
    """Check what every request to a url will carry.

    Raises:
        RuntimeLoadError: Which option is wrong, and how.
    """
    _check_url(url)
    # Checked here, because the HTTP library quotes a bad value, and so the key, in its own error.
    if key and not _HEADER_VALUE.fullmatch(key):
        raise RuntimeLoadError(f"options.key: {_VALUE_RULE}")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise RuntimeLoadError(f"options.headers: '{name}' is no name of a header")
        if not _HEADER_VALUE.fullmatch(value):
            raise RuntimeLoadError(f"options.headers.{name}: {_VALUE_RULE}")


def check_upstream(options: Options) -> None:
    """Ask the upstream for its models.

    Raises:
        RuntimeLoadError: It cannot be reached, refuses the key, or does not list the model.
    """
    skip = "; 'check: false' among the options skips this check"
    timeout = httpx.Timeout(max(options.connect_timeout_s, 5.0), connect=options.connect_timeout_s)
    try:
        response = httpx.get(
            f"{options.url.rstrip('/')}/models", headers=options.request_headers(), timeout=timeout
        )
    except httpx.HTTPError as error:
        detail = str(error) or type(error).__name__
        raise RuntimeLoadError(
            f"the upstream {options.url} cannot be reached ({detail}): is it running?{skip}"
        ) from None
    if response.status_code in (401, 403):
        raise RuntimeLoadError(
            f"the upstream {options.url} refused the key ({response.status_code}): set 'key' to a valid one"
        )
    if response.status_code != 200:
        raise RuntimeLoadError(
            f"{options.url}/models answered {response.status_code}: does 'url' end where '/chat/completions' "
            f"begins?{skip}"
        )
    names = _names(response)
    if names and not {options.model, f"{options.model}:latest"} & names:
        shown = ", ".join(sorted(names)[:8]) + (" …" if len(names) > 8 else "")
        raise RuntimeLoadError(
            f"the upstream {options.url} has no model '{options.model}'.{nearest(options.model, names)} "
            f"It has {shown}{skip}"
        )


def _check_url(text: str) -> None:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise RuntimeLoadError(f"options.url: '{text}' is no url: {error}") from None
    if url.userinfo:
        raise RuntimeLoadError("options.url: leave the user and password out; give a token as 'key'")
    if url.scheme not in ("http", "https") or not url.host:
        raise RuntimeLoadError(f"options.url: '{text}' is no url; give one such as http://127.0.0.1:11434/v1")


def _names(response: httpx.Response) -> set[str]:
    """Return the names that a list of models holds; none where it is no such list."""
    try:
        body = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return set()
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        return set()
    return {str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry}
