"""One column of customers as category codes, and back: categories, or numbers in bins.

``table.py`` puts columns together and says what they do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast.customers._column_checks import check_categorical, check_numeric
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Field

__all__ = [
    "Categorical",
    "Column",
    "Numeric",
    "as_column",
    "as_numbers",
    "is_missing",
    "key",
    "plain",
]

Value: TypeAlias = str | int | float | bool
"""A category; JSON keeps each of these apart."""

_LARGEST = 256
"""Categories of a field: codes are one byte."""
_INNER = 8
"""Pieces of a bin, of equal counts, within which values are taken to be uniform."""


@dataclass(frozen=True, slots=True)
class Categorical:
    """A column of categories."""

    kind: ClassVar[str] = "categorical"

    name: str
    """Name of the column."""
    values: tuple[Value, ...]
    """Categories with a code of their own, the code being the place."""
    shares: tuple[float, ...]
    """Their shares among customers who have a value."""
    pooled: tuple[Value, ...] = ()
    """Rare categories, which share the code after those."""
    pooled_shares: tuple[float, ...] = ()
    """Their shares among customers who have one of them."""
    missing: bool = False
    """Whether the last code means that there is no value."""

    def __post_init__(self) -> None:
        check_categorical(self, _LARGEST, lambda value: key(plain(self.name, value)))

    @classmethod
    def from_counts(
        cls,
        name: str,
        values: Iterable[Value],
        counts: ArrayLike,
        *,
        missing: int = 0,
        largest: int = _LARGEST,
        rare: int = 0,
    ) -> Categorical:
        """A column from how often each value was logged.

        Args:
            name: Of the column.
            values: Different texts, numbers or truth values.
            counts: How many customers have each.
            missing: How many have none.
            largest: Most codes of the column, missing and pooled ones included.
            rare: Values of at most so many customers are pooled.

        Raises:
            InvalidArgumentError: no values, the same twice, one that is no category, or counts that
                do not fit.
        """
        if not isinstance(cast(object, values), Iterable):
            got = type(values).__name__
            raise InvalidArgumentError(f"column {name!r}: expected several values, got a {got}")
        what = f"column {name!r}: "
        missing, rare = (
            arguments.integer(f"{what}missing", missing),
            arguments.integer(f"{what}rare", rare),
        )
        largest = arguments.integer(f"{what}largest", largest, 2, _LARGEST)
        known = [plain(name, value) for value in values]
        numbers = arguments.array(f"{what}counts", counts)
        numbers = numbers.astype(np.float64) if numbers.dtype.kind in "iuf" else np.empty((0, 0))
        if not known or len(set(map(key, known))) != len(known):
            expected = "different values, at least one"
            raise InvalidArgumentError(f"column {name!r}: expected {expected}, got {known[:8]!r}")
        if numbers.shape != (len(known),) or not (numbers >= 0).all() or not numbers.sum() > 0:
            expected = f"{len(known)} counts from 0 on, not all 0"
            raise InvalidArgumentError(f"column {name!r}: expected {expected}, got {counts!r}")
        order = np.argsort(-numbers, kind="stable")
        room = min(largest, _LARGEST) - bool(missing)
        if room < 2:
            expected = "3 or more codes with missing values, 2 or more otherwise"
            raise InvalidArgumentError(f"column {name!r}: expected {expected}, got {largest}")
        many = int((numbers > rare).sum())
        kept = many if many == len(known) and many <= room else min(many, room - 1)
        kept = max(1, kept)
        total, rest = numbers.sum(), numbers[order[kept:]]
        # The order of the kept ones is that of their values where they can be ordered: codes
        # of ages or grades then stay readable.
        front = sorted(order[:kept].tolist(), key=lambda index: key(known[index]))
        return cls(
            name,
            tuple(known[index] for index in front),
            tuple(float(numbers[index] / total) for index in front),
            tuple(known[index] for index in order[kept:]),
            tuple(
                (
                    rest / rest.sum() if rest.sum() > 0 else np.ones(len(rest)) / max(1, len(rest))
                ).tolist()
            ),
            bool(missing),
        )

    @property
    def field(self) -> Field:
        """The field of its codes."""
        size = len(self.values) + bool(self.pooled) + self.missing
        # A column that is constant still needs a second code, which nobody has.
        return Field(self.name, max(2, size))

    def encode(
        self, values: ArrayLike, missing: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Codes (n,), uint8, of values (n,).

        Args:
            values: The column.
            missing: Where it has no value; None, NaN and masked values are found by themselves.

        Raises:
            InvalidArgumentError: a value that was not among the counted ones (where rare ones are
                pooled, it joins those); a missing one in a column that had none. It names the row.
        """
        array = as_column(self.name, values)
        gone = is_missing(array, missing)
        codes = {key(value): code for code, value in enumerate(self.values)}
        codes.update({key(value): len(self.values) for value in self.pooled})
        unknown = len(self.values) if self.pooled else -1
        out = np.full(len(array), -1, np.int64)
        present = np.flatnonzero(~gone)
        if array.dtype == object:
            out[present] = [
                codes.get(key(plain(self.name, one)), unknown) for one in array[present]
            ]
        else:
            unique, inverse = np.unique(array[present], return_inverse=True)
            looked = [codes.get(key(plain(self.name, one)), unknown) for one in unique]
            out[present] = np.array(looked, np.int64)[inverse]
        _check_known(self.name, array, out, gone)
        return _with_missing(self, out, gone)

    def code_table(self, values: Sequence[Value]) -> NDArray[np.uint8]:
        """Codes of these values, in their order, and at the end that of a missing one.

        For whoever has a long column as places in a list of its values: one look-up encodes it. A
        column without missing values has 255 at the end.
        """
        codes = self.encode(np.array([*values, None], object)[:-1])
        return np.append(codes, self.field.size - 1 if self.missing else 255).astype(np.uint8)

    def decode(self, codes: NDArray[np.uint8], random: np.random.Generator) -> NDArray[Any]:
        """Values (n,) of codes (n,): None where missing; pooled ones by their logged shares."""
        if self.pooled:
            extra, chances = self.pooled, self.pooled_shares
        else:
            extra, chances = self.values, self.shares
        drawn = random.choice(len(extra), len(codes), p=np.array(chances) / sum(chances))
        out = np.empty(len(codes), object)
        for row, code in enumerate(codes.tolist()):
            if self.missing and code == self.field.size - 1:
                out[row] = None
            else:
                out[row] = self.values[code] if code < len(self.values) else extra[drawn[row]]
        kinds = {type(value) for value in out.tolist()}
        if kinds == {str}:
            return out.astype(str)
        if len(kinds) == 1 and kinds <= {int, float, bool}:
            return out.astype(kinds.pop())
        return out


@dataclass(frozen=True, slots=True)
class Numeric:
    """A column of numbers."""

    kind: ClassVar[str] = "numeric"

    name: str
    """Name of the column."""
    atoms: tuple[float, ...]
    """Values with a code of their own, ascending: the first codes."""
    edges: tuple[tuple[float, ...], ...]
    """A bin each after those, ascending: where its pieces of equal counts begin and end."""
    whole: bool = False
    """Whether all logged values are whole numbers; values that are drawn are then, too."""
    missing: bool = False
    """Whether the last code means that there is no value."""

    def __post_init__(self) -> None:
        check_numeric(self, _LARGEST, _INNER)

    @classmethod
    def from_sample(
        cls, name: str, sample: ArrayLike, missing_share: float = 0.0, bins: int = 32
    ) -> Numeric:
        """A column from logged numbers.

        Args:
            name: Of the column.
            sample: Logged numbers, at least one, finite; missing ones left out.
            missing_share: Share of customers without one.
            bins: Most codes besides the one for missing values, 2 to 255.

        Raises:
            InvalidArgumentError: no numbers, some that are not finite, or a wrong number of bins.
        """
        what = f"column {name!r}: "
        array = arguments.array(f"{what}sample", sample)
        missing_share = arguments.number(f"{what}missing_share", missing_share, 0, 1)
        bins = arguments.integer(f"{what}bins", bins, 2, _LARGEST - 1)
        good = array.dtype.kind in "iufb"
        numbers = np.sort((array if good else np.empty(0)).astype(np.float64).ravel())
        if not len(numbers) or not np.isfinite(numbers).all():
            expected = "finite numbers, at least one"
            raise InvalidArgumentError(f"column {name!r}: expected {expected}, got {sample!r}")
        values, counts = np.unique(numbers, return_counts=True)
        if len(values) <= bins:
            frequent = np.ones(len(values), bool)
        else:
            frequent = counts > len(numbers) / bins
        atoms = values[frequent]
        rest = numbers[~np.isin(numbers, atoms)]
        edges: list[tuple[float, ...]] = []
        if len(rest):
            many = max(1, bins - len(atoms))
            # Bins of equal counts; where values repeat, some would be empty and are left out.
            places = np.unique(np.quantile(rest, np.linspace(0, 1, many + 1)))
            for number, (low, high) in enumerate(itertools.pairwise(places)):
                last = number == len(places) - 2
                inside = rest[(rest >= low) & ((rest <= high) if last else (rest < high))]
                inner = np.quantile(inside, np.linspace(0, 1, _INNER + 1))
                edges.append((float(low), *inner[1:-1].tolist(), float(high)))
            if len(places) == 1:
                edges.append((float(places[0]),) * (_INNER + 1))
        whole = bool((numbers == np.round(numbers)).all())
        return cls(name, tuple(atoms.tolist()), tuple(edges), whole, missing_share > 0)

    @property
    def field(self) -> Field:
        """The field of its codes."""
        return Field(self.name, max(2, len(self.atoms) + len(self.edges) + self.missing))

    def encode(
        self, values: ArrayLike, missing: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Codes (n,), uint8, of numbers (n,).

        Numbers beyond the logged ones go into the bin that is next to them.

        Args:
            values: The column.
            missing: Where it has no value; None, NaN and masked values are found by themselves.

        Raises:
            InvalidArgumentError: what is no number, or infinite; a missing one in a column that had
                none. It names the row.
        """
        column = as_column(self.name, values)
        gone = is_missing(column, missing)
        array = as_numbers(self.name, column, gone)
        array[gone] = 0
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array))[0])
            what = f"column {self.name!r}, row {row}"
            raise InvalidArgumentError(f"{what}: expected a finite number, got {array[row]}")
        atoms = np.array(self.atoms)
        out = np.zeros(len(array), np.int64)
        if self.edges:
            starts = np.array([edge[0] for edge in self.edges])
            inside = np.searchsorted(starts, array, side="right") - 1
            out = len(atoms) + np.clip(inside, 0, len(starts) - 1)
        if len(atoms):
            place = np.clip(np.searchsorted(atoms, array), 0, len(atoms) - 1)
            exact = atoms[place] == array
            if not self.edges:
                # Only atoms: the nearest one.
                below = np.maximum(place - 1, 0)
                nearer = np.abs(atoms[below] - array) < np.abs(atoms[place] - array)
                out = np.where(nearer, below, place)
            out = np.where(exact, place, out)
        return _with_missing(self, out, gone)

    def decode(self, codes: NDArray[np.uint8], random: np.random.Generator) -> NDArray[Any]:
        """Numbers (n,), float64, of codes (n,): NaN where missing."""
        numbers = codes.astype(np.int64)
        out = np.full(len(codes), np.nan)
        known = len(self.atoms) + len(self.edges)
        # A constant column's second code, which nobody has, reads as the first.
        numbers[(numbers >= known) & ((numbers != self.field.size - 1) | (not self.missing))] = 0
        atom = numbers < len(self.atoms)
        if self.atoms:
            out[atom] = np.array(self.atoms)[numbers[atom]]
        binned = ~atom & (numbers < known)
        if self.edges:
            table = np.array(self.edges)
            which = numbers[binned] - len(self.atoms)
            piece, within = random.integers(0, _INNER, len(which)), random.random(len(which))
            low, high = table[which, piece], table[which, piece + 1]
            drawn = low + within * (high - low)
            if self.whole:
                # Whole numbers of the piece, its upper end belonging to the next one.
                drawn = np.minimum(np.floor(drawn), np.maximum(low, np.ceil(high) - 1))
            out[binned] = drawn
        return out


Column: TypeAlias = Categorical | Numeric


def plain(name: str, value: object) -> Value:
    """A category as a Python value: NumPy's own kinds would not survive JSON."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float) and not np.isfinite(plain):
        raise InvalidArgumentError(f"column {name!r}: expected a finite category, got {plain}")
    if not isinstance(plain, str | int | float | bool):
        got = type(plain).__name__
        expected = "texts, numbers or truth values"
        raise InvalidArgumentError(f"column {name!r}: expected {expected}, got a {got}")
    if isinstance(plain, int) and not -(1 << 63) <= plain < 1 << 64:
        raise InvalidArgumentError(f"column {name!r}: expected categories of 64 bits, got a larger")
    return plain


def key(value: Value) -> tuple[str, Any]:
    """Tells 1, True and "1" apart, and orders; 1 and 1.0 are the same category."""
    if isinstance(value, bool):
        return ("bool", value)
    return ("text", value) if isinstance(value, str) else ("number", float(value))


def as_column(name: str, values: ArrayLike) -> NDArray[Any]:
    """One column as an array of texts, numbers, truth values or objects, masked ones as None."""
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    array = arguments.array(f"column {name!r}", values)
    if array.ndim != 1:
        got = f"shape {array.shape}"
        raise InvalidArgumentError(f"column {name!r}: expected one dimension, got {got}")
    if array.dtype.kind not in "OUSbiuf":
        expected = "texts, numbers or truth values"
        raise InvalidArgumentError(f"column {name!r}: expected {expected}, got {array.dtype}")
    if mask is not None and mask.any():
        array = array.astype(object)
        array[mask] = None
    return array.astype(str) if array.dtype.kind == "S" else array


def is_missing(array: NDArray[Any], given: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Where a column has no value: where it is said, and at None, NaN and pandas' NA."""
    gone = np.zeros(len(array), bool)
    if given is not None:
        gone = arguments.array("missing", given).copy()
        if gone.shape != array.shape or gone.dtype != np.bool_:
            expected, got = f"bool of shape {array.shape}", f"{gone.dtype} of shape {gone.shape}"
            raise InvalidArgumentError(f"missing: expected {expected}, got {got}")
    if array.dtype.kind == "f":
        gone |= np.isnan(array)
    elif array.dtype == object:
        # NaN alone differs from itself; pandas' NA has no truth value, but a telling name.
        gone |= np.array(
            [
                one is None
                or type(one).__name__ in ("NAType", "NaTType")
                or (isinstance(one, float) and one != one)
                for one in array
            ],
            bool,
        )
    return gone


def as_numbers(name: str, array: NDArray[Any], gone: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The column in float64, NaN where missing; the error names the first row without a number."""
    if array.dtype.kind in "iufb":
        return np.where(gone, np.nan, array.astype(np.float64))
    out = np.full(len(array), np.nan)
    for row in np.flatnonzero(~gone):
        try:
            out[row] = float(array[row])
        except (TypeError, ValueError, OverflowError):
            what = f"column {name!r}, row {row}"
            raise InvalidArgumentError(f"{what}: expected a number, got {array[row]!r}") from None
    return out


def _check_known(
    name: str, array: NDArray[Any], codes: NDArray[np.int64], gone: NDArray[np.bool_]
) -> None:
    strange = (codes < 0) & ~gone
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        what = f"column {name!r}, row {row}"
        raise InvalidArgumentError(
            f"{what}: expected a known category, got {plain(name, array[row])!r}"
        )


def _with_missing(
    column: Column, codes: NDArray[np.int64], gone: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    if gone.any() and not column.missing:
        row = int(np.flatnonzero(gone)[0])
        expected = "a value, as all had that it was made from, got none"
        raise InvalidArgumentError(f"column {column.name!r}, row {row}: expected {expected}")
    return np.where(gone, column.field.size - 1, codes).astype(np.uint8)
