"""People's own customer columns as category codes, and back.

A categorical column keeps its most frequent values; the rare ones are pooled and drawn back from
their logged shares. A numeric column becomes bins of equal counts, within which values are drawn
back as they were logged; values that many customers have (a price of 0, an age of 18) get bins of
their own. Missing values are a category.

    table = Table.of({"city": cities, "age": ages})
    sampler = fit_gan_sd(table.encode(columns), table.fields)
    table.decode(sampler.sample(1_000), seed=0)["age"]
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast.customers.columns import (
    Categorical,
    Column,
    Numeric,
    as_column,
    as_numbers,
    is_missing,
    key,
    plain,
)
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Field

__all__ = ["Categorical", "Numeric", "Table"]


@dataclass(frozen=True)
class Table:
    """Columns of customers."""

    columns: tuple[Column, ...]
    """In the order of the codes' columns."""

    def __post_init__(self) -> None:
        columns: object = self.columns
        good = isinstance(columns, tuple) and len(columns) > 0
        if not good or not all(isinstance(one, Categorical | Numeric) for one in self.columns):
            expected = "a tuple of one Categorical or Numeric or more"
            raise InvalidArgumentError(f"table: expected {expected}, got {columns!r}")
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            raise InvalidArgumentError(f"table: expected different names, got {names}")

    @classmethod
    def of(
        cls,
        data: Mapping[str, ArrayLike],
        *,
        categorical: Sequence[str] = (),
        numeric: Sequence[str] = (),
        bins: int = 32,
        largest: int = 256,
    ) -> Table:
        """Columns from logged customers.

        Args:
            data: Arrays of one length by name, or a DataFrame.
            categorical: Columns to take as categories.
            numeric: Columns to take as numbers. Of the others, numbers with more than ``bins``
                different values are taken as numbers, and everything else as categories.
            bins: Most bins of a numeric column.
            largest: Most codes of a categorical one.

        Raises:
            InvalidArgumentError: no columns, different lengths, a name that is not there, or a
                column without a single value.
        """
        bins = arguments.integer("bins", bins, 2, 255)
        largest = arguments.integer("largest", largest, 3, 256)
        categorical = arguments.names("categorical", categorical)
        numeric = arguments.names("numeric", numeric)
        _require_table(data)
        arrays = {str(name): as_column(str(name), data[name]) for name in data}
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1 or lengths == {0}:
            got = {name: len(array) for name, array in arrays.items()}
            raise InvalidArgumentError(f"table: expected columns of one length, got {got}")
        unknown = {*categorical, *numeric} - set(arrays)
        if unknown:
            raise InvalidArgumentError(
                f"table: expected columns out of {list(arrays)}, got {sorted(unknown)}"
            )
        columns: list[Column] = []
        for name, array in arrays.items():
            gone = is_missing(array, None)
            present = array[~gone]
            if not len(present):
                raise InvalidArgumentError(
                    f"column {name!r}: expected a value, got none: all are missing"
                )
            many = name in numeric
            if name not in categorical and not many and array.dtype.kind in "iuf":
                many = len(np.unique(present)) > bins
            if many:
                kept = as_numbers(name, array, gone)[~gone]
                columns.append(Numeric.from_sample(name, kept, float(gone.mean()), bins))
                continue
            if present.dtype == object:
                present = np.array([plain(name, one) for one in present], object)
                known = {key(one): one for one in present}
                counted = Counter(map(key, present))
                values, numbers = list(known.values()), [counted[one] for one in known]
            else:
                unique, found = np.unique(present, return_counts=True)
                values, numbers = unique.tolist(), found.tolist()
            missing = int(gone.sum())
            columns.append(
                Categorical.from_counts(name, values, numbers, missing=missing, largest=largest)
            )
        return cls(tuple(columns))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the codes."""
        return tuple(column.field for column in self.columns)

    def encode(self, data: Mapping[str, ArrayLike]) -> NDArray[np.uint8]:
        """Codes (n, F), uint8, of columns by name; raises as the columns' ``encode`` does."""
        _require_table(data)
        lacking = [column.name for column in self.columns if column.name not in data]
        if lacking:
            raise InvalidArgumentError(f"table: expected columns {lacking}, got {list(data)}")
        codes = [column.encode(data[column.name]) for column in self.columns]
        if len({len(one) for one in codes}) > 1:
            got = {column.name: len(one) for column, one in zip(self.columns, codes, strict=True)}
            raise InvalidArgumentError(f"table: expected columns of one length, got {got}")
        return np.column_stack(codes)

    def decode(self, codes: NDArray[np.uint8], seed: int = 0) -> dict[str, NDArray[Any]]:
        """Columns by name of codes (n, F), drawn by a seed where a code stands for many values.

        Raises:
            InvalidArgumentError: codes of another shape, or out of range.
        """
        array = arguments.array("codes", codes)
        sizes = np.array([field.size for field in self.fields])
        good = array.ndim == 2 and array.shape[1] == len(sizes) and array.dtype.kind in "iu"
        if not good or not ((array >= 0) & (array < sizes)).all():
            expected = f"integers (n, {len(sizes)}) below {sizes.tolist()}"
            got = f"{array.dtype} of shape {array.shape}"
            raise InvalidArgumentError(f"codes: expected {expected}, got {got}")
        random = np.random.default_rng(arguments.seed(seed))
        return {
            column.name: column.decode(array[:, number], random)
            for number, column in enumerate(self.columns)
        }

    def to_json(self) -> str:
        """A form that files can hold."""
        return json.dumps([{"kind": one.kind, **asdict(one)} for one in self.columns])

    @classmethod
    def from_json(cls, text: str) -> Table:
        """Reads `to_json`'s form back; raises `InvalidArgumentError` if it is another."""
        held = arguments.parsed("table", text)
        if not isinstance(held, list):
            raise InvalidArgumentError(f"table: expected a list of columns, got {held!r:.80}")
        return cls(tuple(_column(one) for one in held))


def _column(held: Any) -> Column:
    """One column of `Table.to_json`'s form."""
    kinds: dict[str, type[Column]] = {one.kind: one for one in (Categorical, Numeric)}
    kind = held.get("kind") if isinstance(held, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        expected = f"an object of kind {' or '.join(kinds)}"
        raise InvalidArgumentError(f"table: expected {expected}, got {held!r:.80}")
    parts = {name: _tuples(part) for name, part in held.items() if name != "kind"}
    known = [one.name for one in fields(kinds[kind])]
    needed = {one.name for one in fields(kinds[kind]) if one.default is MISSING}
    if not needed <= set(parts) <= set(known):
        got = f"{sorted(parts)} of a {kind} column"
        raise InvalidArgumentError(f"table: expected the keys {known}, got {got}")
    return kinds[kind](**parts)


def _tuples(part: Any) -> Any:
    """Lists, and lists in them, as the columns have them."""
    return tuple(map(_tuples, part)) if isinstance(part, list) else part


def _require_table(data: Any) -> None:
    """Raises `InvalidArgumentError` unless it is a mapping, or has names as a DataFrame does."""
    # Arrow's tables have columns too, but going through one does not give their names.
    methods = ("keys", "__iter__", "__getitem__")
    named = all(hasattr(type(data), name) for name in methods)
    if not isinstance(data, Mapping) and not named:
        expected = "arrays by name, or a DataFrame"
        raise InvalidArgumentError(f"table: expected {expected}, got a {type(data).__name__}")
