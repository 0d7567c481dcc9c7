"""Ids of what is kept: unguessable, and told apart by what they begin with."""

from __future__ import annotations

import secrets
from typing import Literal


def new_name(kind: Literal["deferred", "file", "batch"]) -> str:
    """Return a fresh id."""
    mark = {"deferred": "def_", "file": "file-", "batch": "batch_"}[kind]
    return mark + secrets.token_hex(12)
