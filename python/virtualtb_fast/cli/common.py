"""What the commands share: types of options, the progress bar, tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from virtualtb_fast.errors import InvalidArgumentError, OutputError

__all__ = [
    "Progress",
    "Stages",
    "add_json",
    "add_seed",
    "add_threads",
    "effort",
    "in_words",
    "plural",
    "print_json",
    "print_table",
    "print_warnings",
    "refuse_ending",
    "refuse_existing",
    "size",
    "whole",
]

_PATIENCE = 1.0
"""Seconds until a progress bar appears."""

_WORDS: Final = (
    ("(overwrite=True?)", "(--overwrite?)"),
    ("rollout(..., resume=True) (--resume)", "--resume"),
    ("resume=True (--resume)", "--resume"),
    ("resume=True", "--resume"),
    ("overwrite=True", "--overwrite"),
)
"""What the library's messages call arguments, and what they are on the command line."""

_TABLES: Final = (
    *("arrow", "avro", "csv", "db", "feather", "h5", "hdf5", "ipc", "json", "jsonl", "ndjson"),
    *("npy", "npz", "orc", "pickle", "pkl", "sqlite", "tsv", "txt", "xls", "xlsx"),
)
"""Endings that promise another format than Parquet."""


def in_words(message: str) -> str:
    """A message of the library in the command line's words."""
    for argument, option in _WORDS:
        message = message.replace(argument, option)
    return message


def refuse_ending(option: str, path: str) -> None:
    """Refuses to write Parquet under a name that promises something else.

    Raises:
        InvalidArgumentError: it ends so.
    """
    stem, ending = os.path.splitext(path)
    if ending[1:].lower() in _TABLES:
        message = f"{option}: expected the name of a Parquet file, got {path!r}"
        raise InvalidArgumentError(f"{message} (did you mean {stem + '.parquet'!r}?)")


def refuse_existing(*paths: str | None, overwrite: bool) -> None:
    """Refuses to replace files unasked, before the work that would be lost.

    Args:
        paths: Names of options' files, None where an option was not given.
        overwrite: Whether they may be replaced.

    Raises:
        OutputError: one exists.
    """
    for path in paths:
        if path is not None and os.path.exists(path) and not overwrite:
            raise OutputError(f"{path}: expected a new file, got one that exists (--overwrite?)")


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: ``1 session``, ``2 sessions``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: float) -> str:
    """Bytes in the unit that fits: ``812 bytes``, ``18.4 kB``, ``1,418.0 MB``."""
    if count < 1e3:
        return plural(int(count), "byte")
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def whole(low: int, high: int) -> Callable[[str], int]:
    """A type for options: a whole number within bounds; ``1_000`` and ``1e6`` will do."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            try:
                number = int(float(text)) if float(text).is_integer() else low - 1
            except (ValueError, OverflowError):
                number = low - 1
        if not low <= number <= high:
            expected = (
                f"a whole number, {low:,} to {high:,}"
                if high < 2**40
                else (f"a whole number, at least {low:,}")
            )
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
        return number

    return parse


def effort(text: str) -> float:
    """A type for options: by how much the steps of a training are multiplied."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number above 0, up to 100, got {text!r}")
    return value


def add_seed(parser: argparse._ActionsContainer) -> None:
    """The option ``--seed``."""
    parser.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        default=0,
        metavar="S",
        help="stream of random numbers (default: 0); same seed, same bytes",
    )


def add_threads(parser: argparse._ActionsContainer) -> None:
    """The option ``--threads``."""
    parser.add_argument(
        "--threads",
        type=whole(1, 1024),
        metavar="N",
        help="threads (default: one a core); no effect on the result",
    )


def add_json(parser: argparse._ActionsContainer) -> None:
    """The option ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_warnings(warnings: Sequence[str]) -> None:
    """A line each on standard error."""
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)


def print_table(rows: Sequence[tuple[str, str]], least: int = 0) -> None:
    """Names and values in two columns; a row without a name goes on with the last one.

    Args:
        rows: Names and values.
        least: The first column's width at least: that of a table that goes on.
    """
    width = max(least, *(len(name) for name, _ in rows))
    for name, value in rows:
        print(f"{name:>{width}}  {value}")


class Progress:
    """A progress bar on standard error with the rate and the time left.

    It appears after a second, and only on a terminal. ``total`` is in the unit of what is counted
    by ``done``; the rate is in pages.
    """

    def __init__(self, total: int, unit: str, *, quiet: bool = False) -> None:
        """``unit`` says what ``total`` counts: ``sessions`` or ``pages``."""
        self._total, self._unit = total, unit
        self._started = time.perf_counter()
        self._first: tuple[float, int] | None = None
        self._shown: Any = None
        self._task: Any = None
        self._quiet = quiet or not sys.stderr.isatty()

    def __call__(self, pages: int, sessions: int) -> None:
        """How much is done."""
        seconds = time.perf_counter() - self._started
        if self._first is None and pages > 0:
            self._first = (time.perf_counter(), pages)
        if self._quiet or (self._shown is None and seconds < _PATIENCE):
            return
        if self._shown is None:
            self._shown = self._bar()
            self._shown.start()
        # Pages that an earlier run had played took none of this one's time.
        since, before = self._first or (self._started, 0)
        rate = (pages - before) / max(time.perf_counter() - since, 1e-9)
        done = min(sessions if self._unit == "sessions" else pages, self._total)
        self._shown.update(self._task, completed=done, pages=f"{pages:,}", rate=f"{rate:,.0f}")

    def _bar(self) -> Any:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        bar = Bar(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[pages]} pages"),
            TextColumn("{task.fields[rate]}/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = bar.add_task("", total=self._total, pages="", rate="")
        return bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown is not None:
            self._shown.stop()


class Stages:
    """A progress bar on standard error for work in stages, each with a total or without.

    It appears after a second, and only on a terminal.
    """

    def __init__(self, *, quiet: bool = False, still: bool = False) -> None:
        """With ``quiet`` nothing is shown.

        With ``still`` it is drawn when something is said and not in between, where no thread of
        its own would disturb what is being measured.
        """
        self._started = time.perf_counter()
        self._still = still
        self._shown: Any = None
        self._task: Any = None
        self._stage: str | None = None
        self._quiet = quiet or not sys.stderr.isatty()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """What is going on, how much of it is done, and of how much (0: not known)."""
        if self._quiet:
            return
        if self._shown is None:
            if time.perf_counter() - self._started < _PATIENCE:
                return
            self._shown = self._bar()
            self._shown.start()
        count = f"{done:,}" if done else ""
        if stage != self._stage:
            if self._task is not None:
                self._shown.remove_task(self._task)
            self._stage = stage
            self._task = self._shown.add_task(stage, total=total or None, count=count)
        self._shown.update(self._task, completed=done, count=count, refresh=self._still)

    def _bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        return Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            auto_refresh=not self._still,
        )

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown is not None:
            self._shown.stop()


def add_actions(
    parser: argparse.ArgumentParser, name: str
) -> Callable[[str, str], argparse.ArgumentParser]:
    """Gives a command actions of its own, told apart by the option ``name``.

    Returns:
        A function of an action's name and description that adds it.
    """
    what = name.upper()
    parser.usage = f"%(prog)s {what} ..."
    actions = parser.add_subparsers(
        dest=name, required=True, metavar=what, help=argparse.SUPPRESS, prog=parser.prog
    )

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name, description=text, formatter_class=parser.formatter_class, allow_abbrev=False
        )

    return action
