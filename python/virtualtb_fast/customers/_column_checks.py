"""What a column that was read from JSON must be, before anything is computed with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["check_categorical", "check_numeric"]

_WHOLE = 1 << 53
"""Whole numbers up to here are float64s."""


def check_categorical(column: Any, largest: int, key: Callable[[Any], Any]) -> None:
    """Raises `InvalidArgumentError` unless a `Categorical` could have been counted.

    Args:
        column: The column.
        largest: Most codes.
        key: Tells categories apart; raises for what is none.
    """
    _require(column, "name", "a name", isinstance(column.name, str) and column.name != "")
    _require(column, "missing", "a truth value", isinstance(column.missing, bool))
    for name, shares in (("values", "shares"), ("pooled", "pooled_shares")):
        values, chances = getattr(column, name), getattr(column, shares)
        lists = isinstance(values, tuple) and isinstance(chances, tuple)
        good = lists and len(values) == len(chances)
        good = good and all(_is_number(one) and one >= 0 for one in chances)
        # Shares of values of which none was seen may all be 0; but values are drawn by them.
        good = good and (not chances or sum(chances) > 0 or bool(column.pooled))
        _require(column, shares, f"a number from 0 on for each of {name}, not all 0", good)
    if column.pooled:
        _require(column, "pooled_shares", "numbers, not all 0", sum(column.pooled_shares) > 0)
    known = [key(value) for value in (*column.values, *column.pooled)]
    _require(column, "values", "different ones", len(set(known)) == len(known))
    size = len(column.values) + bool(column.pooled) + column.missing
    _require(column, "values", f"1 to {largest} codes", bool(column.values) and size <= largest)


def check_numeric(column: Any, largest: int, pieces: int) -> None:
    """Raises `InvalidArgumentError` unless a `Numeric` could have been sampled.

    Args:
        column: The column.
        largest: Most codes.
        pieces: Of a bin.
    """
    _require(column, "name", "a name", isinstance(column.name, str) and column.name != "")
    for name in ("whole", "missing"):
        _require(column, name, "a truth value", isinstance(getattr(column, name), bool))
    atoms, edges = column.atoms, column.edges
    good = isinstance(atoms, tuple) and all(map(_is_number, atoms))
    good = good and all(low < high for low, high in pairwise(atoms))
    _require(column, "atoms", "numbers, ascending", good)
    good = isinstance(edges, tuple) and all(
        isinstance(edge, tuple) and len(edge) == pieces + 1 and all(map(_is_number, edge))
        for edge in edges
    )
    good = good and all(low <= high for edge in edges for low, high in pairwise(edge))
    good = good and all(low[0] <= high[0] for low, high in pairwise(edges))
    _require(column, "edges", f"bins of {pieces + 1} numbers, ascending", good)
    size = len(atoms) + len(edges) + column.missing
    _require(column, "atoms and edges", f"1 to {largest} codes", 0 < size <= largest)


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _WHOLE


def _require(column: Any, what: str, expected: str, good: bool) -> None:
    if not good:
        got = repr(getattr(column, what, None))[:80]
        where = f"column {str(column.name)[:80]!r}: {what}"
        raise InvalidArgumentError(f"{where}: expected {expected}, got {got}")
