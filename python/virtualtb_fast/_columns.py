"""What people make catalogues of, in the exact form that the native module takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError

PRICE, CATEGORY = "price", "category"
"""What the columns given by the keywords of these names are called."""


def as_array(values: NDArray[Any] | list[Any]) -> NDArray[Any]:
    """A list of texts or categories as an array of objects."""
    if isinstance(values, np.ndarray):
        return values
    array = np.empty(len(values), object)
    array[:] = values
    return array


def float32(what: str, values: Any, dimensions: int | None) -> NDArray[np.float32]:
    """Numbers as float32 in C order, without a copy if that is what they are."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidArgumentError(f"{what}: expected numbers, got {error}") from error
    if array.dtype == object and dimensions == 1:
        # None stands for none.
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"{what}: expected numbers or None, got {error}") from error
    if array.dtype.kind not in "fiu" or (dimensions is not None and array.ndim != dimensions):
        expected = "numbers" if dimensions is None else f"numbers in {dimensions} dimension(s)"
        got = f"{array.dtype} of shape {array.shape}"
        raise InvalidArgumentError(f"{what}: expected {expected}, got {got}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def column_name(what: str, value: object) -> str:
    if not isinstance(value, str):
        got = type(value).__name__
        raise InvalidArgumentError(f"{what}: expected the name of a column, got a {got}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{what}: expected a name of UTF-8, got {value!r}") from error
    return value


def column_names(what: str, value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        got = type(value).__name__
        raise InvalidArgumentError(f"{what}: expected names of columns, got a {got}")
    return [column_name(what, name) for name in value]


def name_pairs(what: str, value: Any) -> list[tuple[str, str]]:
    """Names in the catalogue with names in the table."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [
            (column_name(what, name), column_name(what, column)) for name, column in value.items()
        ]
    return [(name, name) for name in column_names(what, value)]


def table_numbers(price: Any, numbers: Any) -> list[tuple[str, str]]:
    first = [] if price is None else [(PRICE, column_name("price", price))]
    return first + name_pairs("numbers", numbers)


def columns_of_numbers(price: Any, numbers: Any) -> list[tuple[str, Any]]:
    if numbers is not None and not isinstance(numbers, Mapping):
        got = type(numbers).__name__
        raise InvalidArgumentError(f"numbers: expected a mapping from names, got a {got}")
    first = [] if price is None else [(PRICE, price)]
    return first + [(column_name("numbers", name), all_) for name, all_ in (numbers or {}).items()]


def columns_of_categories(category: Any) -> list[tuple[str, Any]]:
    if category is None:
        return []
    if isinstance(category, Mapping):
        return [(column_name("category", name), column) for name, column in category.items()]
    return [(CATEGORY, category)]


def as_texts(what: str, values: Iterable[Any], none: bool) -> list[str | None]:
    """Texts that the native module can hold; None among them if that is allowed."""
    texts = list(values)
    for row, text in enumerate(texts):
        if not (isinstance(text, str) or (none and text is None)):
            got = f"{text!r} in row {row}"
            raise InvalidArgumentError(f"{what}: expected texts, or whole numbers, got {got}")
    try:
        for text in texts:
            if text is not None:
                text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{what}: expected texts of UTF-8, got {error}") from error
    return texts


def whole_ids(what: str, ids: Any) -> NDArray[Any]:
    """Ids as an array of whole numbers or of texts, each as it was given.

    NumPy would make floats of numbers beside some above 2**63, and texts of numbers beside texts.
    """
    array = ids if isinstance(ids, np.ndarray) else _elements(what, ids)
    if array.dtype.kind != "O" or array.size == 0:
        return array
    values = array.ravel().tolist()
    if all(isinstance(value, str) for value in values):
        return array
    expected = "texts" if isinstance(values[0], str) else "whole numbers"
    for place, value in enumerate(values):
        if expected == "texts" and isinstance(value, str):
            continue
        if (
            expected == "texts"
            or isinstance(value, bool | np.bool_)
            or not isinstance(value, int | np.integer)
        ):
            got = f"{value!r} in row {place}"
            wanted = expected if expected == "texts" else "whole numbers or texts"
            raise InvalidArgumentError(f"{what}: expected {wanted}, got {got}")
        if not 0 <= int(value) < 2**64:
            wanted = "whole numbers from 0 up" if value < 0 else "whole numbers below 2**64"
            raise InvalidArgumentError(f"{what}: expected {wanted}, got {value} in row {place}")
    return np.fromiter(values, np.uint64, len(values)).reshape(array.shape)


def _elements(what: str, values: Any) -> NDArray[Any]:
    """Values as objects, of the shape that NumPy gives them."""
    if hasattr(values, "__array__") or hasattr(values, "__array_interface__"):
        return np.asarray(values)
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Sequence):
        values = list(values)
    try:
        return np.asarray(values, dtype=object)
    except ValueError as error:
        raise InvalidArgumentError(f"{what}: expected ids, got {error}") from error


def id_column(ids: Any, items: int) -> NDArray[np.uint64] | list[str | None]:
    array = whole_ids("ids", ids)
    if array.ndim != 1 or len(array) != items:
        expected = f"{items} values, one an item"
        raise InvalidArgumentError(f"ids: expected {expected}, got shape {array.shape}")
    if array.dtype.kind in "iu":
        negative = np.flatnonzero(array < 0)
        if len(negative):
            got = f"{array[negative[0]]} in row {negative[0]}"
            raise InvalidArgumentError(f"ids: expected whole numbers from 0 up, got {got}")
        return np.ascontiguousarray(array, np.uint64)
    if array.dtype.kind not in "UOT":
        raise InvalidArgumentError(f"ids: expected whole numbers or texts, got {array.dtype}")
    return as_texts("ids", array.tolist(), none=False)


def category_column(
    name: str, column: Any
) -> tuple[NDArray[np.int64] | list[str | None], NDArray[np.bool_] | None]:
    """Whole numbers and which of them are missing, or texts."""
    array = column if isinstance(column, np.ndarray) else object_array(name, column)
    if array.ndim != 1:
        raise InvalidArgumentError(f"{name}: expected one value an item, got {array.shape}")
    missing = None
    if array.dtype == object:
        filled = [value for value in array.tolist() if value is not None]
        if not filled or isinstance(filled[0], str):
            return as_texts(name, array.tolist(), none=True), None
        missing = np.array([value is None for value in array.tolist()])
        for row, value in enumerate(array.tolist()):
            if not isinstance(value, int | np.integer | None):
                got = f"{value!r} in row {row}"
                raise InvalidArgumentError(f"{name}: expected whole numbers, got {got}")
        try:
            array = np.where(missing, 0, array).astype(np.int64)
        except OverflowError as error:
            raise InvalidArgumentError(f"{name}: expected 64-bit numbers, got more") from error
    if array.dtype.kind in "UT":
        return as_texts(name, array.tolist(), none=False), None
    if array.dtype.kind not in "biu":
        raise InvalidArgumentError(f"{name}: expected texts or whole numbers, got {array.dtype}")
    if array.dtype == np.uint64 and len(array) and array.max() >= 2**63:
        raise InvalidArgumentError(f"{name}: expected numbers below 2**63, got {array.max()}")
    return np.ascontiguousarray(array, np.int64), missing


def object_array(name: str, column: Any) -> NDArray[Any]:
    """Values as they are: NumPy would turn numbers beside texts into texts."""
    try:
        values = list(column)
    except TypeError:
        got = type(column).__name__
        raise InvalidArgumentError(f"{name}: expected one value an item, got a {got}") from None
    return as_array(values)


def of_table(columns: Any, ids: Any, price: Any, category: Any, numbers: Any) -> dict[str, Any]:
    """Which columns of a table hold what."""
    return {
        "attributes": [] if columns is None else column_names("columns", columns),
        "ids": None if ids is None else column_name("ids", ids),
        "numbers": table_numbers(price, numbers),
        "categories": name_pairs("category", category),
    }


def unknown_column(message: str, chosen: dict[str, Any], file: str | None) -> str | None:
    """What the native module says of a column that a table does not have, with the argument.

    Args:
        message: What it said.
        chosen: What it was given, by `of_table`.
        file: The table's file, if it is one.

    Returns:
        None if it said something else.
    """
    said = re.fullmatch(r"column: expected one of (.*), got \"(.*)\"", message, re.DOTALL)
    if said is None:
        return None
    known, name = said[1], said[2]
    import difflib

    numbers = dict(chosen["numbers"])
    arguments = (
        ("columns", chosen["attributes"]),
        ("ids", [chosen["ids"]]),
        ("price", [numbers.pop(PRICE, None)]),
        ("category", [column for _, column in chosen["categories"]]),
        ("numbers", list(numbers.values())),
    )
    argument = next((one for one, columns in arguments if name in columns), "column")
    near = difflib.get_close_matches(name, known.split(", "), 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    place = f" of {file}" if file is not None else ""
    some = f", one of {known}" if known else ", which has none"
    return f'{argument}: expected a column{place}{some}, got "{name}"{hint}'


def of_arrays(items: int, ids: Any, price: Any, category: Any, numbers: Any) -> dict[str, Any]:
    """The columns of so many items beside their attributes."""
    return {
        "ids": None if ids is None else id_column(ids, items),
        "numbers": [
            (name, float32(name, column, 1)) for name, column in columns_of_numbers(price, numbers)
        ],
        "categories": [
            (name, *category_column(name, column))
            for name, column in columns_of_categories(category)
        ],
    }
