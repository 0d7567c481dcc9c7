"""``multipart/form-data`` (RFC 7578): a whole body as its fields and files."""

from __future__ import annotations

from typing import Any

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from semaforo.errors import InvalidRequest

MOST_PARTS = 1000


class Part(msgspec.Struct, frozen=True):
    """One field or file of a form.

    Attributes:
        name: Name of the field.
        data: Its bytes.
        filename: As the client calls the file; None where this is no file.
        content_type: As the client states it, "" = not.
    """

    name: str
    data: bytes
    filename: str | None = None
    content_type: str = ""

    @property
    def text(self) -> str:
        """The field as text.

        Raises:
            InvalidRequest: It is not UTF-8.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"the form's field '{self.name}' is not UTF-8 text") from None


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a form, in order.

    Args:
        content_type: The request's ``Content-Type``, which names the boundary.
        body: The whole body.

    Raises:
        InvalidRequest: It is no form, is broken, ends too early, or has too many parts.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        stated = f"'{content_type[:80]}'" if content_type else "not stated"
        raise InvalidRequest(f"send multipart/form-data; the Content-Type is {stated}")
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidRequest("the Content-Type names no boundary of the form's parts")
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]  # a dict of its hooks
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"the form is broken: {error}") from None
    if not reader.ended:
        raise InvalidRequest("the form ends before its last boundary")
    return reader.parts


class _Reader:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._begin()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._field.append(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.append(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._over,
        }

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self._field: list[bytes] = []
        self._value: list[bytes] = []

    def _header(self) -> None:
        self._headers[b"".join(self._field).lower()] = b"".join(self._value)
        self._field, self._value = [], []

    def _end(self) -> None:
        if len(self.parts) >= MOST_PARTS:
            raise InvalidRequest(f"the form has more than {MOST_PARTS} parts")
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise InvalidRequest(f"part {len(self.parts) + 1} of the form has no name")
        filename = options.get(b"filename")
        self.parts.append(
            Part(
                name.decode("utf-8", "replace"),
                b"".join(self._data),
                None if filename is None else filename.decode("utf-8", "replace"),
                self._headers.get(b"content-type", b"").decode("latin-1"),
            )
        )

    def _over(self) -> None:
        self.ended = True
