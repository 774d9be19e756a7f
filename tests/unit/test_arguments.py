"""Checks of single arguments: what passes, and what an error says."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _arguments


@pytest.mark.parametrize("value", [0, 7, np.int8(7), np.uint64(7), np.array(7)])
def test_all_integers_will_do(value: Any) -> None:
    number = _arguments.integer("k", value, 0, 10)
    assert type(number) is int
    assert number == value


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: _arguments.integer("k", 0, 1, 10), "k: expected an integer, 1 to 10, got 0"),
        (lambda: _arguments.integer("k", 11, 1, 10), "1 to 10, got 11"),
        (lambda: _arguments.integer("k", 2.0, 1, 10), "1 to 10, got 2.0"),
        (lambda: _arguments.integer("k", "2", 1, 10), "1 to 10, got '2'"),
        (lambda: _arguments.integer("k", True, 0, 10), "0 to 10, got True"),
        (lambda: _arguments.integer("k", np.bool_(True), 0, 10), "0 to 10, got"),
        (lambda: _arguments.integer("k", None), "0 to 2**62 - 1, got None"),
        (lambda: _arguments.integer("k", 2**62), "0 to 2**62 - 1, got 4611686018427387904"),
        (lambda: _arguments.integer("k", 0, 1, 2**40), "1 to 2**40, got 0"),
        (lambda: _arguments.seed(-1), "seed: expected an integer, 0 to 2**64 - 1, got -1"),
        (lambda: _arguments.seed(2**64), "got 18446744073709551616"),
        (lambda: _arguments.threads(0), "num_threads: expected an integer, 1 to 1024, got 0"),
        (lambda: _arguments.real("tau", "1"), "tau: expected a number, got '1'"),
        (lambda: _arguments.real("tau", True), "got True"),
        (lambda: _arguments.real("tau", np.bool_(True)), "expected a number"),
        (lambda: _arguments.real("tau", 1j), "got 1j"),
        (lambda: _arguments.real("tau", np.complex64(1)), "expected a number"),
        (lambda: _arguments.real("tau", 10**400), "expected a number, got 1000"),
        (lambda: _arguments.flag("repeat", 1), "repeat: expected True or False, got 1"),
        (lambda: _arguments.text("leave", 3), "leave: expected a text, got 3"),
        (lambda: _arguments.instance("name", 3, str), "name: expected a str, got a int"),
        (lambda: _arguments.function("progress", 3), "expected a function or None, got 3"),
        (lambda: _arguments.as_path(""), "path: expected a non-empty text or os.PathLike"),
        (lambda: _arguments.as_path(b"x"), "got b'x'"),
        (lambda: _arguments.as_path("a\0b"), "got 'a\\x00b'"),
        (lambda: _arguments.as_path("\ud800"), "of UTF-8, got"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(check: Any, message: str) -> None:
    with pytest.raises(vtb.InvalidArgumentError, match=r"expected .* got ") as caught:
        check()
    assert message in str(caught.value)


@dataclass(frozen=True, slots=True)
class Settings:
    count: int
    rate: float
    hidden: tuple[int, ...]


def test_settings_keep_pythons_own_numbers() -> None:
    settings = Settings(np.int64(3), np.float32(0.5), (np.int8(4),))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="JSON"):
        json.dumps(asdict(settings))
    _arguments.settle(settings, _arguments.integer, "count", low=1)
    _arguments.settle(settings, _arguments.number, "rate", low=0)
    _arguments.settle(settings, _arguments.widths, "hidden")
    assert json.loads(json.dumps(asdict(settings))) == {"count": 3, "rate": 0.5, "hidden": [4]}
    with pytest.raises(vtb.InvalidArgumentError, match="count: expected an integer, 4 to"):
        _arguments.settle(settings, _arguments.integer, "count", low=4)


def test_what_is_right_comes_back() -> None:
    assert _arguments.seed(2**64 - 1) == 2**64 - 1
    assert _arguments.threads(None) is None
    assert _arguments.threads(1024) == 1024
    assert _arguments.real("tau", np.float32(0.5)) == 0.5
    assert type(_arguments.real("tau", 3)) is float
    assert _arguments.flag("repeat", np.False_) is False
    assert _arguments.text("leave", "end") == "end"
    assert _arguments.function("progress", None) is None
    assert _arguments.function("progress", print) is print
    assert _arguments.as_path(Path("a") / "b") == str(Path("a") / "b")
