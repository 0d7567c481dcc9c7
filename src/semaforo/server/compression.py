"""gzip and deflate, both ways, with a bound on what a small body may become."""

from __future__ import annotations

import zlib

from semaforo.errors import InvalidRequest, TooLarge

_GZIP, _ZLIB, _RAW = 31, 15, -15


def decompress(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Undo a ``Content-Encoding``.

    ``deflate`` is zlib (RFC 9110, 8.4.1.2); raw deflate, which some send under that name, is taken too.

    Args:
        body: The body as received.
        encoding: ``gzip``, ``deflate`` or ``identity``.
        limit: Most bytes the result may have.

    Raises:
        TooLarge: The result would be larger than `limit`.
        InvalidRequest: The encoding is unknown or the data is broken.
    """
    name = encoding.strip().lower()
    if name in (b"identity", b""):
        return body
    if name in (b"gzip", b"x-gzip"):
        window = _GZIP
    elif name == b"deflate":
        window = _ZLIB if _is_zlib(body) else _RAW
    else:
        raise InvalidRequest(
            f"content-encoding '{encoding.decode('latin-1')}' is not known; use gzip or deflate"
        )
    expander = zlib.decompressobj(window)
    try:
        result = expander.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not valid {name.decode()}: {error}") from None
    if len(result) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes when decompressed; that is the limit")
    if not expander.eof:
        raise InvalidRequest(f"the body is not valid {name.decode()}: it ends too early")
    return result


def compress(body: bytes, encoding: bytes) -> bytes:
    """Apply ``gzip`` or ``deflate`` (zlib) at the fastest level."""
    window = _GZIP if encoding == b"gzip" else _ZLIB
    squeezer = zlib.compressobj(1, zlib.DEFLATED, window)
    return squeezer.compress(body) + squeezer.flush()


def choose(accept: bytes) -> bytes:
    """Return ``gzip``, ``deflate`` or ``b""`` for an ``Accept-Encoding``; a weight of 0 refuses."""
    accepted = set()
    for item in accept.lower().split(b","):
        name, _, weight = item.strip().partition(b";")
        if weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000"):
            accepted.add(name.strip())
    for name in (b"gzip", b"deflate"):
        if name in accepted:
            return name
    return b""


def _is_zlib(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
