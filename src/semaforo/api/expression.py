"""Expressions on the values of a graph that is built in Python: operators write what stands in a fleet file.

Nothing is worked out here. What an expression means is told by `graph.condition`, when a fleet takes the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn


class Value:
    """What a step, the request or its session gives; operators on values make conditions.

    Attributes:
        text: As it stands in a fleet file.
    """

    __hash__ = None  # type: ignore[assignment]  # `==` makes a condition, so values are no keys

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"'{self.text}' is a condition on rows, neither true nor false yet: join conditions by & and |, "
            "negate by ~, and compare one pair at a time"
        )

    def _joined(self, sign: str, other: object) -> Value:
        return Value(f"{_inner(self)} {sign} {_inner(other)}")

    def _called(self, function: str) -> Value:
        return Value(f"{function}({self.text})")

    def __lt__(self, other: object) -> Value:
        return self._joined("<", other)

    def __le__(self, other: object) -> Value:
        return self._joined("<=", other)

    def __gt__(self, other: object) -> Value:
        return self._joined(">", other)

    def __ge__(self, other: object) -> Value:
        return self._joined(">=", other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]  # a condition, as in NumPy
        return self._joined("==", other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]  # as __eq__
        return self._joined("!=", other)

    def __add__(self, other: object) -> Value:
        return self._joined("+", other)

    def __sub__(self, other: object) -> Value:
        return self._joined("-", other)

    def __mul__(self, other: object) -> Value:
        return self._joined("*", other)

    def __truediv__(self, other: object) -> Value:
        return self._joined("/", other)

    def __and__(self, other: object) -> Value:
        return self._joined("and", other)

    def __or__(self, other: object) -> Value:
        return self._joined("or", other)

    def __invert__(self) -> Value:
        return Value(f"not {_inner(self)}")

    def isin(self, choices: Sequence[object]) -> Value:
        """Tell whether it is one of these numbers or texts."""
        return Value(f"{_inner(self)} in [{', '.join(repr(choice) for choice in choices)}]")

    def max(self) -> Value:
        """Return the largest number of each row."""
        return self._called("max")

    def min(self) -> Value:
        """Return the smallest number of each row."""
        return self._called("min")

    def mean(self) -> Value:
        """Return the mean of each row."""
        return self._called("mean")

    def sum(self) -> Value:
        """Return the sum of each row."""
        return self._called("sum")

    def argmax(self) -> Value:
        """Return the place of the largest number of each row."""
        return self._called("argmax")

    def margin(self) -> Value:
        """Return how far the largest number of each row is ahead of the second."""
        return self._called("margin")

    def entropy(self) -> Value:
        """Return the entropy of each row, in nats."""
        return self._called("entropy")

    def any(self) -> Value:
        """Tell whether a number of each row is not 0."""
        return self._called("any")

    def all(self) -> Value:
        """Tell whether no number of each row is 0."""
        return self._called("all")

    def size(self) -> Value:
        """Return how many numbers each row has."""
        return self._called("size")

    def agrees(self, *others: Value) -> Value:
        """Return whether it says the same as another value; with several, the share of pairs that do."""
        return Value(f"agree({', '.join(value.text for value in (self, *others))})")

    def abs(self) -> Value:
        """Return the absolute value."""
        return self._called("abs")

    def length(self) -> Value:
        """Return the length of a text, in bytes."""
        return self._called("length")


def _inner(value: object) -> str:
    if not isinstance(value, Value):
        return repr(value)
    return (
        value.text if value.text.replace(".", "").isidentifier() or _called(value.text) else f"({value.text})"
    )


def _called(text: str) -> bool:
    return text.count("(") == 1 and text.endswith(")") and text.partition("(")[0].isidentifier()


class Given:
    """A step of a graph that is being built, or its input or session; ``given["output"]`` is a value."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, output: str) -> Value:
        return Value(f"{self.name}.{output}")

    def missing(self) -> Value:
        """Tell where it has given nothing."""
        return Value(f"missing({self.name})")
