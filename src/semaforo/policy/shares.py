"""Priority with bounded starvation.

Classes are served strictly in order, but a class that has work and is passed over builds up a debt: its
guaranteed share of every row served to others. A class whose debt has reached one row goes first, the deepest
debt before the others. So while class c has work it gets at least `GUARANTEE[c]` of the rows served in any
window, less a constant (`SLACK_ROWS` plus one batch), whatever the other classes send.

Being served in its order costs a class nothing later; being served ahead of it by more rows than it was owed is an
advance (a negative debt), and the class is owed nothing until that is paid back, so that large requests get no more
than small ones. A debt is forgotten when the class runs empty, so idleness earns nothing; an advance is not.
"""

from __future__ import annotations

GUARANTEE = (0.40, 0.20, 0.10, 0.05)
"""Least share of rows for critical, high, normal and low work. Their sum stays below 1."""

SLACK_ROWS = 20.0
"""Rows by which a window may fall short of the guarantee: the time a debt of the least class takes to come due."""


def order(debts: list[float], rows: list[int]) -> list[int]:
    """Return the classes that have work, in the order in which they should be served now."""
    waiting = [c for c in range(len(rows)) if rows[c]]
    if len(waiting) > 1:
        due = [c for c in waiting if debts[c] >= 1.0]
        if due:
            due.sort(key=lambda c: (-debts[c], c))
            return due + [c for c in waiting if debts[c] < 1.0]
    return waiting


def charge(debts: list[float], rows: list[int], served: int, count: int) -> None:
    """Account `count` rows served to class `served` while `rows` wait in each class (in place)."""
    for c in range(len(debts)):
        debt = debts[c]
        if c == served:
            left = debt - count * (1.0 - GUARANTEE[c])
            debts[c] = left if left > 0.0 or debt >= 1.0 else min(debt, 0.0)
        else:
            debt += GUARANTEE[c] * count
            debts[c] = debt if rows[c] or debt < 0.0 else 0.0
