"""Compression and its bounds."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.errors import InvalidRequest, TooLarge
from semaforo.server.compression import choose, compress, decompress


@given(st.binary(max_size=2000), st.sampled_from([b"gzip", b"deflate"]))
def test_what_is_compressed_comes_back(body: bytes, encoding: bytes) -> None:
    assert decompress(compress(body, encoding), encoding, 2000) == body


def test_raw_deflate_and_other_spellings_are_taken() -> None:
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    assert decompress(raw.compress(b"hello") + raw.flush(), b"deflate", 10) == b"hello"
    assert decompress(gzip.compress(b"hello"), b" X-GZIP ", 10) == b"hello"
    assert decompress(b"hello", b"identity", 10) == b"hello"


def test_the_bound_is_exact() -> None:
    body = gzip.compress(b"x" * 1000)
    assert len(decompress(body, b"gzip", 1000)) == 1000
    with pytest.raises(TooLarge):
        decompress(body, b"gzip", 999)


@pytest.mark.parametrize(
    "body", [b"", b"hello", gzip.compress(b"hello", mtime=0)[:-1]], ids=["none", "plain", "cut"]
)
def test_broken_data_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not valid gzip"):
        decompress(body, b"gzip", 100)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (b"", b""),
        (b"identity", b""),
        (b"br, zstd", b""),
        (b"gzip, deflate, br", b"gzip"),
        (b"deflate", b"deflate"),
        (b"GZIP;q=0.5", b"gzip"),
        (b"gzip;q=0, deflate", b"deflate"),
        (b"gzip; q=0.0", b""),
    ],
)
def test_the_choice(accept: bytes, chosen: bytes) -> None:
    assert choose(accept) == chosen
