"""Labelled rows from a file: Parquet, CSV, JSON lines or NPZ.

Rules this module keeps:

1. A column is named as an input or an output of the task. A vector is a list in one column (in CSV as JSON), or a
   column for each number: ``image.0``, ``image.1`` …
2. Nothing is guessed from the order of columns; what is missing is an error that lists the columns there are.
3. No file is unpickled.
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from semaforo.entities import DTYPES, TensorSpec
from semaforo.errors import InvalidRequest, SemaforoError, nearest

Array = NDArray[Any]
Column = Sequence[Any] | Array

SUFFIXES = (".parquet", ".csv", ".jsonl", ".ndjson", ".npz")
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SHOWN = 12


class Labelled:
    """The columns of one file.

    Attributes:
        path: The file.
        names: Names of the columns, in the order of the file.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        self.path = path
        self._columns = columns
        self.names = list(columns)

    def __contains__(self, name: str) -> bool:
        return name in self._columns or f"{name}.0" in self._columns

    def values(self, name: str) -> list[Any]:
        """Return the cells of a column as they stand in the file.

        Raises:
            InvalidRequest: There is no such column.
        """
        column = self._column(name)
        return column.tolist() if isinstance(column, np.ndarray) else list(column)

    def tensor(self, spec: TensorSpec) -> Array:
        """Return a column as a tensor ``(rows, …)`` of the spec's dtype and shape.

        Raises:
            InvalidRequest: There is no such column, or it does not fit.
        """
        if spec.name in self._columns:
            return self._fit(spec, self._columns[spec.name])
        flat = self._numbered(spec.name)
        if not flat:
            self._column(spec.name)
        stacked = [self._fit(TensorSpec(name, spec.dtype), self._columns[name]) for name in flat]
        if len({len(part) for part in stacked}) > 1:
            raise self._error(f"the columns {flat[0]} … {flat[-1]} differ in length")
        return self._shaped(spec, np.stack(stacked, axis=1))

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            shown = ", ".join(self.names[:_SHOWN]) + (" …" if len(self.names) > _SHOWN else "")
            raise self._error(
                f"no column is named '{name}'.{nearest(name, self.names)} There are {shown or 'none'}"
            )
        return self._columns[name]

    def _numbered(self, name: str) -> list[str]:
        found = [column for column in self.names if re.fullmatch(re.escape(name) + r"\.\d+", column)]
        found.sort(key=lambda column: int(column.rpartition(".")[2]))
        for place, column in enumerate(found):
            if column != f"{name}.{place}":
                raise self._error(f"the column {name}.{place} is missing, between {name}.0 and {found[-1]}")
        return found

    def _fit(self, spec: TensorSpec, column: Column) -> Array:
        try:
            array = column if isinstance(column, np.ndarray) else _array(spec, column)
            if spec.dtype == "BYTES":
                return self._shaped(spec, array.astype(object))
            wanted = np.dtype(DTYPES[spec.dtype])
            if array.dtype.kind == "f" and wanted.kind in "iu" and (array != np.floor(array)).any():
                raise ValueError(f"it holds {array.dtype}, with fractions")
            if array.dtype.kind not in "biuf":
                raise ValueError(f"it holds {array.dtype}")
            if wanted.kind in "iu" and array.size:
                bounds = np.iinfo(wanted)
                if array.min() < bounds.min or array.max() > bounds.max:
                    raise ValueError(f"it holds {array.min()} to {array.max()}")
            return self._shaped(spec, array.astype(wanted))
        except (ValueError, TypeError, OverflowError) as error:
            raise self._error(f"the column '{spec.name}' does not become {spec}: {error}") from None

    def _shaped(self, spec: TensorSpec, array: Array) -> Array:
        if array.ndim and spec.accepts(array.shape[1:]):
            return np.ascontiguousarray(array)
        sizes = [abs(d) for d in spec.shape]
        if array.ndim and array.size == len(array) * int(np.prod(sizes)) and -1 not in spec.shape:
            return np.ascontiguousarray(array.reshape(len(array), *spec.shape))
        raise self._error(f"the column '{spec.name}' has rows of shape {list(array.shape[1:])}, not {spec}")

    def _error(self, message: str) -> InvalidRequest:
        return InvalidRequest(f"{self.path}: {message}")


def read_labelled(path: Path) -> Labelled:
    """Read a file of rows.

    Raises:
        InvalidRequest: It is missing, of another kind, or damaged.
        SemaforoError: Reading it needs a library that is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidRequest(
            f"{path}: rows are read from {', '.join(SUFFIXES)}, not from '{suffix or path.name}'"
        )
    try:
        if suffix == ".npz":
            columns: Mapping[str, Column] = _npz(path)
        elif suffix == ".csv":
            columns = _csv(path)
        elif suffix == ".parquet":
            columns = _parquet(path)
        else:
            columns = _json_lines(path)
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror or error}") from None
    except (ValueError, csv.Error, msgspec.DecodeError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None
    return Labelled(path, columns)


def _npz(path: Path) -> dict[str, Column]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _csv(path: Path) -> dict[str, Column]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        lines = csv.reader(stream)
        names = next(lines, [])
        rows = []
        for row in lines:
            if row and len(row) != len(names):
                raise ValueError(f"line {lines.line_num} has {len(row)} cells, the header has {len(names)}")
            if row:
                rows.append(row)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _json_lines(path: Path) -> dict[str, Column]:
    columns: dict[str, list[Any]] = {}
    rows = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise ValueError(f"line {number}: {error}") from None
            if rows and row.keys() != columns.keys():
                differs = sorted(row.keys() ^ columns.keys())
                raise ValueError(f"line {number} differs from the first in {', '.join(differs)}")
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            rows += 1
    return dict(columns)


def _parquet(path: Path) -> dict[str, Column]:
    try:
        from pyarrow import parquet
        from pyarrow.lib import ArrowException
    except ImportError:
        raise SemaforoError(
            f"{path}: reading Parquet needs pyarrow: pip install 'semaforo[data]', or give CSV, JSON lines or NPZ"
        ) from None
    try:
        table = parquet.read_table(path)
    except ArrowException as error:
        raise ValueError(str(error).splitlines()[0]) from None
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _array(spec: TensorSpec, cells: Sequence[Any]) -> Array:
    texts = bool(cells) and isinstance(cells[0], str)
    if texts and spec.shape:
        cells = [msgspec.json.decode(cell) for cell in cells]
    elif spec.dtype == "BYTES":
        out: Array = np.empty(len(cells), dtype=object)
        out[:] = [cell if isinstance(cell, str | bytes) else str(cell) for cell in cells]
        return out
    elif texts and spec.dtype == "BOOL":
        return np.array([_truth(cell) for cell in cells])
    elif texts:
        whole = np.dtype(DTYPES[spec.dtype]).kind in "iu"
        return np.array([_whole(cell) if whole else float(cell) for cell in cells])
    if spec.dtype == "BYTES":
        return np.array(cells, dtype=object)
    array = np.array(cells)
    if array.dtype == object:
        raise ValueError("a cell is empty, or its rows differ in length")
    return array


def _whole(cell: str) -> float:
    return int(cell) if re.fullmatch(r"\s*[+-]?\d+\s*", cell) else float(cell)


def _truth(cell: str) -> bool:
    known = cell.strip().lower()
    if known not in _WORDS:
        raise ValueError(f"'{cell}' is neither true nor false")
    return _WORDS[known]
