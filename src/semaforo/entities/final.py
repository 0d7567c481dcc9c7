"""What an answer comes to, so that answers in other words can be told to be the same."""

from __future__ import annotations

import re

NUMBER = re.compile(r"(?<![\w.])\$?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(%?)")
"""A number in a text, with its thousands set apart or not; a group of it has no currency and no percent."""
_REACH = 4000


def final_answer(answer: str) -> str:
    """Return what an answer comes to: its last number, else its last line without space and case.

    Of a very long answer only the last 4,000 characters are looked at.
    """
    end = answer[-_REACH:]
    numbers = [m.group(1) for m in NUMBER.finditer(end)]
    if numbers:
        return f"{number_of(numbers[-1]):g}"
    lines = [line for line in end.strip().split("\n") if line.strip()]
    return " ".join(lines[-1].lower().split()) if lines else ""


def number_of(text: str) -> float:
    """Return what a number of `NUMBER` is."""
    return float(text.replace(",", ""))
