"""Conditions on rows: ``max(quick.probabilities) < 0.9 or missing(quick)``.

Written as Python expressions of a small kind: references to values, numbers, texts, arithmetic, comparisons,
``in``, ``and``, ``or``, ``not``, and the functions of `FUNCTIONS`, each of which makes one number of a row;
``agree`` takes several values and gives the share of their pairs that say the same.
A value is numbers or texts, one or many for each row; a comparison of many holds where it holds for all of them.

What a step did not give for a row is unknown there, and so is what is made of it: ``unknown or true`` is true,
``unknown and false`` is false, all else stays unknown. A condition holds where it is true.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.errors import InvalidRequest, nearest
from semaforo.graph.agreement import agreement

Array = NDArray[Any]
_LONGEST = 2000


class Rows(msgspec.Struct, frozen=True):
    """A value for some rows of a request.

    Attributes:
        array: ``(rows that have it, …)``.
        rows: Their numbers, ascending; None = all rows.
    """

    array: Array
    rows: Array | None = None


class _Partial(msgspec.Struct, frozen=True):
    """`value` for all rows, of use where `known`."""

    value: Any
    known: Array


def _margin(x: Array) -> Array:
    if x.shape[-1] < 2:
        return x[..., 0]
    top = np.partition(x, -2, axis=-1)
    return np.asarray(top[..., -1] - top[..., -2])


def _entropy(x: Array) -> Array:
    p = np.clip(x.astype(np.float64), 0.0, None)
    total = p.sum(axis=-1, keepdims=True)
    p = np.divide(p, total, out=np.zeros_like(p), where=total > 0)
    return np.asarray(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1))


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "max": lambda x: x.max(axis=-1),
    "min": lambda x: x.min(axis=-1),
    "mean": lambda x: x.mean(axis=-1),
    "sum": lambda x: x.sum(axis=-1),
    "argmax": lambda x: x.argmax(axis=-1),
    "any": lambda x: np.asarray(x.astype(bool).any(axis=-1)),
    "all": lambda x: np.asarray(x.astype(bool).all(axis=-1)),
    # How far the best is ahead of the second.
    "margin": _margin,
    # In nats, of what is made to sum to one.
    "entropy": _entropy,
    "size": lambda x: np.full(x.shape[0], x.shape[-1]),
}
_ON_VALUES: dict[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "length": np.vectorize(lambda text: len(text), otypes=[np.int64]),
}
_KNOWN_FUNCTIONS = (*FUNCTIONS, *_ON_VALUES, "agree", "missing")
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
_SIGNS: dict[type, str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


class Condition:
    """A condition, read once.

    Args:
        text: As it stands in the file.

    Attributes:
        names: The references in it, in order, ``step`` or ``step.output``.

    Raises:
        InvalidRequest: It cannot be read; the message says what is wrong and what may stand there.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise InvalidRequest(f"a condition of {len(text)} characters: {_LONGEST} are the most")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise InvalidRequest(
                f"'{text}' is no condition: write one such as max(quick.probabilities) < 0.9"
            ) from None
        found: list[str] = []
        try:
            _check(self._tree, found)
        except RecursionError:
            raise InvalidRequest(f"'{text[:40]}…' is nested too deeply") from None
        self.names = tuple(dict.fromkeys(found))

    def holds(self, values: Mapping[str, Rows | None], rows: int) -> Array:
        """Tell for which of a request's rows the condition is true.

        Args:
            values: What each name of `names` stands for; None where no row has it.
            rows: Rows of the request.

        Returns:
            Booleans ``(rows,)``.

        Raises:
            InvalidRequest: What it compares cannot be compared.
        """
        try:
            with np.errstate(all="ignore"):
                found = _evaluate(self._tree, values, rows)
            return np.asarray(_truth(found, rows) & found.known)
        except (TypeError, ValueError, IndexError) as error:
            raise InvalidRequest(f"the condition '{self.text}' cannot be worked out: {error}") from None

    def compared(self) -> tuple[Condition, str, float] | None:
        """Take ``… < 0.9`` apart: what is compared, how (``<``, ``<=``, ``>`` or ``>=``), and with what number.

        It may stand beside what is ``missing``: ``… < 0.9 or missing(quick)``.

        Returns:
            None where the condition is of another form.
        """
        tree = self._comparison()
        if tree is None or len(tree.ops) != 1:
            return None
        sign, limit = _SIGNS.get(type(tree.ops[0])), tree.comparators[0]
        if sign is None or not isinstance(limit, ast.Constant) or isinstance(limit.value, str):
            return None
        return Condition(ast.unparse(tree.left)), sign, float(limit.value)  # type: ignore[arg-type]  # a number

    def limited(self, sign: str, limit: float) -> str:
        """Return the condition with another sign (``<`` or ``>``) and number in what `compared` takes apart."""
        found = self._comparison()
        assert found is not None
        made = ast.Compare(found.left, [ast.Lt() if sign == "<" else ast.Gt()], [ast.Constant(limit)])
        tree = self._tree
        if tree is found:
            return ast.unparse(made)
        assert isinstance(tree, ast.BoolOp)
        return ast.unparse(ast.BoolOp(tree.op, [made if part is found else part for part in tree.values]))

    def _comparison(self) -> ast.Compare | None:
        tree = self._tree
        parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.Or) else [tree]
        rest = [part for part in parts if not _asks_missing(part)]
        return rest[0] if len(rest) == 1 and isinstance(rest[0], ast.Compare) else None

    def number(self, values: Mapping[str, Rows | None], rows: int) -> tuple[Array, Array]:
        """Return the numbers that an expression amounts to, and where they are known: both ``(rows,)``.

        Raises:
            InvalidRequest: It is not one number for each row.
        """
        found = _evaluate(self._tree, values, rows)
        numbers = np.broadcast_to(np.asarray(found.value), (rows, *np.shape(found.value)[1:]))
        if numbers.ndim != 1 or numbers.dtype.kind not in "iufb":
            raise InvalidRequest(f"'{self.text}' is not one number for each row")
        return numbers.astype(np.float64), found.known


@functools.lru_cache(maxsize=4096)
def condition(text: str) -> Condition:
    """Return a condition; see `Condition`."""
    return Condition(text)


def names_in(text: str) -> tuple[str, ...]:
    """Return the references in a condition, none in "".

    Raises:
        InvalidRequest: It cannot be read.
    """
    return condition(text).names if text else ()


def _asks_missing(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "missing"


def _reference(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _check(node: ast.expr, names: list[str]) -> None:
    if reference := _reference(node):
        names.append(reference)
    elif isinstance(node, ast.Constant):
        if not isinstance(node.value, int | float | str):
            raise InvalidRequest(f"{ast.unparse(node)} is neither a number nor a text")
    elif isinstance(node, ast.BoolOp):
        for part in node.values:
            _check(part, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        _check(node.operand, names)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _check(node.left, names)
        _check(node.right, names)
    elif isinstance(node, ast.Compare):
        _check(node.left, names)
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                if not isinstance(right, ast.Tuple | ast.List) or not all(
                    isinstance(item, ast.Constant) for item in right.elts
                ):
                    raise InvalidRequest(f"{ast.unparse(right)}: `in` takes a list, such as ('a', 'b')")
            elif type(op) in _OPERATORS:
                _check(right, names)
            else:
                raise InvalidRequest(f"'{ast.unparse(node)}' is no comparison of a condition")
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in _KNOWN_FUNCTIONS:
            hint = nearest(node.func.id, _KNOWN_FUNCTIONS)
            raise InvalidRequest(
                f"no function is named '{node.func.id}'.{hint} There are {', '.join(_KNOWN_FUNCTIONS)}"
            )
        several = node.func.id == "agree"
        if node.keywords or len(node.args) < 1 + several or (len(node.args) > 1 and not several):
            raise InvalidRequest(f"{node.func.id} takes {'two values or more' if several else 'one value'}")
        for part in node.args:
            _check(part, names)
    else:
        raise InvalidRequest(
            f"'{ast.unparse(node)}' cannot stand in a condition: it is made of references, numbers, texts, "
            "comparisons, and, or, not, and " + ", ".join(_KNOWN_FUNCTIONS)
        )


def _evaluate(node: ast.expr, values: Mapping[str, Rows | None], rows: int) -> _Partial:
    if reference := _reference(node):
        return _looked_up(values.get(reference), rows)
    if isinstance(node, ast.Constant):
        value = node.value.encode() if isinstance(node.value, str) else node.value
        return _Partial(value, np.ones(rows, bool))
    if isinstance(node, ast.BoolOp):
        return _joined(node, [_evaluate(part, values, rows) for part in node.values], rows)
    if isinstance(node, ast.UnaryOp):
        part = _evaluate(node.operand, values, rows)
        if isinstance(node.op, ast.Not):
            return _Partial(~_truth(part, rows), part.known)
        return _Partial(-part.value, part.known)
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, values, rows), _evaluate(node.right, values, rows)
        return _Partial(_OPERATORS[type(node.op)](left.value, right.value), left.known & right.known)
    if isinstance(node, ast.Compare):
        return _compared(node, values, rows)
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    if node.func.id == "agree":
        parts = [_evaluate(part, values, rows) for part in node.args]
        known = np.logical_and.reduce([part.known for part in parts])
        return _Partial(agreement([_rowed(part, rows) for part in parts], known), known)
    part = _evaluate(node.args[0], values, rows)
    if node.func.id == "missing":
        return _Partial(~part.known, np.ones(rows, bool))
    if node.func.id in _ON_VALUES:
        return _Partial(_ON_VALUES[node.func.id](np.asarray(part.value)), part.known)
    array = np.asarray(part.value)
    if array.ndim < 2:
        array = array.reshape(rows, 1)
    return _Partial(FUNCTIONS[node.func.id](array.reshape(rows, -1)), part.known)


def _compared(node: ast.Compare, values: Mapping[str, Rows | None], rows: int) -> _Partial:
    left = _evaluate(node.left, values, rows)
    truth, known = np.ones(rows, bool), np.ones(rows, bool)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(comparator, ast.Tuple | ast.List)
            among = np.zeros(rows, bool)
            for item in comparator.elts:
                same = _OPERATORS[ast.Eq](left.value, _evaluate(item, values, rows).value)
                among |= _each(same, rows)
            truth &= among if isinstance(op, ast.In) else ~among
            known &= left.known
            continue
        right = _evaluate(comparator, values, rows)
        truth &= _each(_OPERATORS[type(op)](left.value, right.value), rows)
        known &= left.known & right.known
        left = right
    return _Partial(truth, known)


def _joined(node: ast.BoolOp, parts: list[_Partial], rows: int) -> _Partial:
    decides = isinstance(node.op, ast.Or)
    truth, known = ~np.full(rows, decides), np.ones(rows, bool)
    for part in parts:
        this = _truth(part, rows)
        # True decides an `or` whatever the other says, false an `and`.
        settled = (known & (truth == decides)) | (part.known & (this == decides))
        truth = np.where(settled, decides, ~np.full(rows, decides))
        known = settled | (known & part.known)
    return _Partial(truth, known)


def _looked_up(value: Rows | None, rows: int) -> _Partial:
    if value is None:
        return _Partial(np.zeros(rows), np.zeros(rows, bool))
    array = value.array
    if array.dtype == object:
        array = np.array([v.encode() if isinstance(v, str) else v for v in array.ravel()], object).reshape(
            array.shape
        )
    if value.rows is None:
        return _Partial(array, np.ones(rows, bool))
    whole = np.zeros((rows, *array.shape[1:]), array.dtype)
    if array.dtype == object:
        whole[...] = b""
    known = np.zeros(rows, bool)
    whole[value.rows] = array
    known[value.rows] = True
    return _Partial(whole, known)


def _rowed(part: _Partial, rows: int) -> Array:
    array = np.asarray(part.value)
    return array if array.ndim else np.full(rows, array)


def _each(value: Any, rows: int) -> Array:
    array = np.asarray(value)
    if array.ndim == 0:
        return np.full(rows, bool(array))
    return np.asarray(array.astype(bool).reshape(rows, -1).all(axis=1))


def _truth(part: _Partial, rows: int) -> Array:
    return _each(part.value, rows)
