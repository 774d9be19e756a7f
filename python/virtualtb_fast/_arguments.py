"""Checks of single arguments, each of which names the argument, what was expected and what came.

Annotations alone stop nobody, and the native module is to get nothing that it could not read.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast.errors import InvalidArgumentError

LARGEST = 2**62 - 1
"""The largest integer where only the native module knows the true bound, and names it."""
LARGEST_SEED = 2**64 - 1

Kind = TypeVar("Kind")
Text = TypeVar("Text", bound=str)


def integer(what: str, value: object, low: int = 0, high: int = LARGEST) -> int:
    """The value as an int within bounds: floats and booleans are refused."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if isinstance(value, bool | np.bool_) or not low <= number <= high:
        expected = f"an integer, {low} to {_bound(high)}"
        raise InvalidArgumentError(f"{what}: expected {expected}, got {value!r}")
    return number


def _bound(number: int) -> str:
    """A bound as people write it: 2**64 - 1 rather than twenty digits."""
    if number < 1 << 32:
        return str(number)
    for base, rest in ((number, ""), (number + 1, " - 1")):
        if base.bit_count() == 1:
            return f"2**{base.bit_length() - 1}{rest}"
    return str(number)


def seed(value: object) -> int:
    """A seed of a stream or of a world."""
    return integer("seed", value, 0, LARGEST_SEED)


def threads(value: object) -> int | None:
    """How many threads; None for one a core."""
    return None if value is None else integer("num_threads", value, 1, 1024)


def real(what: str, value: object) -> float:
    """The value as a float: booleans and texts are refused."""
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise InvalidArgumentError(f"{what}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidArgumentError(f"{what}: expected a number, got {value!r}") from error


def number(
    what: str, value: object, low: float, high: float = math.inf, *, above: bool = False
) -> float:
    """The value as a finite float within bounds, the lower one left out if ``above``."""
    try:
        found = real(what, value)
    except InvalidArgumentError:
        found = math.nan
    if not math.isfinite(found) or not low <= found <= high or (above and found == low):
        beyond = "" if low == -math.inf else f" {'above' if above else 'from'} {low:g}"
        most = "" if high == math.inf else f", up to {high:g}"
        raise InvalidArgumentError(f"{what}: expected a finite number{beyond}{most}, got {value!r}")
    return found


def widths(what: str, value: object) -> tuple[int, ...]:
    """The value, if it is a tuple of how many units each hidden layer has."""
    if not isinstance(value, tuple):
        raise InvalidArgumentError(f"{what}: expected a tuple of integers, got {value!r}")
    return tuple(integer(what, one, 1, 1 << 24) for one in value)


def names(what: str, value: object) -> tuple[str, ...]:
    """The value as a tuple, if it is several texts in order."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise InvalidArgumentError(f"{what}: expected a list of texts, got {value!r}")
    return tuple(value)


def flag(what: str, value: object) -> bool:
    """The value as a bool: numbers are refused."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidArgumentError(f"{what}: expected True or False, got {value!r}")
    return bool(value)


def text(what: str, value: Text) -> Text:
    """The value, if it is a text."""
    if not isinstance(cast(object, value), str):
        raise InvalidArgumentError(f"{what}: expected a text, got {value!r}")
    return value


def one_of(what: str, value: Text, known: tuple[str, ...]) -> Text:
    """The value, if it is one of these words."""
    if not isinstance(cast(object, value), str) or value not in known:
        raise InvalidArgumentError(f"{what}: expected one of {', '.join(known)}, got {value!r}")
    return value


def effort(value: object) -> float:
    """What multiplies the steps of a training: above 0, up to 100."""
    return number("effort", value, 0, 100, above=True)


def instance(what: str, value: object, kind: type[Kind]) -> Kind:
    """The value, if it is of this kind."""
    if not isinstance(value, kind):
        got = type(value).__name__
        raise InvalidArgumentError(f"{what}: expected a {kind.__name__}, got a {got}")
    return value


def settle(settings: object, check: Callable[..., Any], *which: str, **bounds: Any) -> None:
    """Puts what a check makes of fields in their place: NumPy's numbers become Python's.

    ``settings`` is a dataclass, frozen or not. What is kept is what JSON and PyTorch can take.
    """
    for name in which:
        object.__setattr__(settings, name, check(name, getattr(settings, name), **bounds))


def array(what: str, value: ArrayLike) -> NDArray[Any]:
    """The value as an array, if NumPy can make one of it."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"{what}: expected an array, got {error}") from error


def function(what: str, value: Callable[..., Any] | None) -> Any:
    """The value, if it can be called or is None."""
    if value is not None and not callable(value):
        raise InvalidArgumentError(f"{what}: expected a function or None, got {value!r}")
    return value


def as_path(path: object) -> str:
    """A path as text."""
    try:
        name = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        name = None
    if not isinstance(name, str) or not is_text(name):
        expected = "a non-empty text or os.PathLike of UTF-8"
        raise InvalidArgumentError(f"path: expected {expected}, got {path!r}")
    return name


def parsed(what: str, text: str | bytes) -> Any:
    """What a JSON text holds; of a key that is there twice nobody knows which was meant."""
    try:
        return json.loads(text, object_pairs_hook=functools.partial(_once, what))
    except InvalidArgumentError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgumentError(f"{what}: expected JSON, got {error}") from error


def _once(what: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held: dict[str, Any] = {}
    for key, value in pairs:
        if key in held:
            raise InvalidArgumentError(f"{what}: expected each key once, got {key!r} again")
        held[key] = value
    return held


def is_text(name: str) -> bool:
    """Whether it is not empty, and the native module and the operating system can hold it."""
    try:
        return name.encode().find(b"\0") < 0 < len(name)
    except UnicodeEncodeError:
        return False
