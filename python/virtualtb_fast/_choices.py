"""What a search may choose from (ids, rows, filters), in the form that the native module takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._columns import PRICE, as_texts, column_name, whole_ids
from virtualtb_fast.errors import InvalidArgumentError


def id_array(what: str, ids: Any, texts: bool) -> NDArray[Any]:
    """Ids as uint64 in C order, or as objects that are texts."""
    if texts:
        array = ids if isinstance(ids, np.ndarray) else np.asarray(ids, dtype=object)
        array = array.astype(object) if array.dtype != object else array
        for text in array.ravel().tolist():
            if not isinstance(text, str):
                raise InvalidArgumentError(f"{what}: expected texts, got {text!r}")
        return array
    array = whole_ids(what, ids)
    if array.size == 0:
        return np.zeros(array.shape, np.uint64)
    if array.dtype.kind not in "iu":
        got = "texts" if array.dtype.kind == "O" else array.dtype
        raise InvalidArgumentError(f"{what}: expected whole numbers, got {got}")
    if array.dtype.kind == "i" and array.min() < 0:
        raise InvalidArgumentError(f"{what}: expected ids from 0 up, got {array.min()}")
    return np.ascontiguousarray(array, np.uint64)


def row_array(what: str, rows: Any, items: int) -> NDArray[np.uint32]:
    array = np.asarray(rows)
    if array.size == 0:
        return array.astype(np.uint32)
    if array.dtype.kind not in "iu":
        raise InvalidArgumentError(f"{what}: expected whole numbers, got {array.dtype}")
    if array.min() < 0 or array.max() >= items:
        got = array.min() if array.min() < 0 else array.max()
        raise InvalidArgumentError(f"{what}: expected rows from 0 to {items - 1}, got {got}")
    return np.ascontiguousarray(array, np.uint32)


def nested(given: Any) -> bool:
    """Whether there is a list for each customer."""
    if isinstance(given, np.ndarray) and given.dtype != object:
        return given.ndim == 2
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        return False
    return len(given) > 0 and not isinstance(given[0], str) and np.ndim(given[0]) > 0


def not_padding(given: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a matrix has more than what stands for none in the results of searches."""
    none: Any = "" if given.dtype.kind in "OUT" else -1
    if given.dtype == np.uint64:
        none = np.uint64(2**64 - 1)
    there: NDArray[np.bool_] = given != none
    return there


def wanted_categories(name: str, wanted: Any) -> list[str | int]:
    if isinstance(wanted, str | int | np.integer):
        wanted = [wanted]
    elif not isinstance(wanted, Iterable):
        got = type(wanted).__name__
        raise InvalidArgumentError(f"{name}: expected a category or several, got a {got}")
    values: list[str | int] = []
    for value in wanted:
        if isinstance(value, str):
            values += [text for text in as_texts(name, [value], none=False) if text is not None]
        elif isinstance(value, int | np.integer | np.bool_) and -(2**63) <= int(value) < 2**63:
            values.append(int(value))
        else:
            expected = "texts or 64-bit whole numbers"
            raise InvalidArgumentError(f"{name}: expected {expected}, got {value!r}")
    return values


def bounds(name: str, bounds: Any) -> tuple[float | None, float | None]:
    try:
        low, high = bounds
        pair = tuple(None if bound is None else float(bound) for bound in (low, high))
    except (TypeError, ValueError):
        expected = "(low, high), numbers or None"
        raise InvalidArgumentError(f"{name}: expected {expected}, got {bounds!r}") from None
    return pair[0], pair[1]


def joined(
    what: str, given: Any, queries: int | None, flat: Callable[[Any], NDArray[Any]]
) -> tuple[NDArray[Any], list[int] | None]:
    """Lists to choose from end to end, and where each query's ends if each has its own.

    ``queries`` is None for a single customer; ``flat`` checks one list.
    """
    if not nested(given):
        return flat(given), None
    if queries is None:
        raise InvalidArgumentError(f"{what}: expected one list for one customer, got more")
    if len(given) != queries:
        raise InvalidArgumentError(f"{what}: expected {queries} lists, got {len(given)}")
    if isinstance(given, np.ndarray) and given.ndim == 2:
        there = not_padding(given)
        return flat(given[there]), np.cumsum(there.sum(axis=1)).tolist()
    lists = [flat(one) for one in given]
    return np.concatenate(lists), np.cumsum([len(one) for one in lists]).tolist()


def filters(category: Any, price: Any, numbers: Any) -> list[tuple[Any, ...]]:
    """Conditions on columns of categories (a mapping, or None) and on columns of numbers."""
    chosen: list[tuple[Any, ...]] = [
        (column_name("category", name), wanted_categories(name, wanted))
        for name, wanted in (category or {}).items()
    ]
    ranges: dict[str, Any] = {} if price is None else {PRICE: price}
    if numbers is not None:
        if not isinstance(cast(object, numbers), Mapping):
            got = type(numbers).__name__
            raise InvalidArgumentError(f"numbers: expected a mapping of ranges, got {got}")
        ranges.update({column_name("numbers", name): pair for name, pair in numbers.items()})
    return chosen + [(name, *bounds(name, pair)) for name, pair in ranges.items()]
