"""Experiments in cells: each a file of its own, written when it is done, and never done twice.

A cell is a function and its arguments. A run fills a folder with what is missing, on as many
processes as asked for, each of which trains on one thread, so that results depend neither on how
many there are nor on the number of cores; after a kill the same run does the rest. A run holds the
folder, since two at a time would do everything twice.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from virtualtb_fast._training import torch_threads, write_atomically
from virtualtb_fast._work import hold
from virtualtb_fast.errors import OutputError

__all__ = ["Cell", "mean_and_interval", "run_cells"]


@dataclass(frozen=True)
class Cell:
    """One piece of an experiment."""

    name: str
    """Of its file, without ``.json``."""
    work: Callable[..., dict[str, Any]]
    """A function of a module, called with the arguments; what it returns JSON can hold."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold."""
    settings: str = ""
    """What the work takes from elsewhere, as text: defaults that may be others next time."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Further arguments: where things are, which changes no result."""

    @property
    def key(self) -> str:
        """A digest of what its result depends on: a file with another one is done again."""
        what = [self.work.__module__, self.work.__qualname__, dict(self.arguments)]
        if self.settings:
            what.append(self.settings)
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def run_cells(
    folder: str | os.PathLike[str],
    cells: Sequence[Cell],
    *,
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """The results of all cells, in their order; those that are there are read.

    Args:
        folder: Where their files are.
        cells: Of different names.
        workers: Processes; with one, cells are done in this one.
        progress: Called with (the cell that was last begun or done, cells done, cells).

    Raises:
        OutputError: a file cannot be read or written, or another run is at work on the folder.
        VirtualTBError: what a cell raised; the others are done first, if there are workers.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error
    lock = hold(path / "lock", path)
    try:
        return _run(path, cells, workers, progress or (lambda *_: None))
    finally:
        os.close(lock)


def _run(
    path: Path, cells: Sequence[Cell], workers: int, told: Callable[[str, int, int], None]
) -> list[dict[str, Any]]:
    results = {cell.name: _read(path, cell) for cell in cells}
    missing = [cell for cell in cells if results[cell.name] is None]
    done = len(cells) - len(missing)
    if workers <= 1 or len(missing) == 1:
        for number, cell in enumerate(missing):
            told(cell.name, done + number, len(cells))
            with _one_thread():
                results[cell.name] = _work(path, cell)
    elif missing:
        told(missing[0].name, done, len(cells))
        for cell, result in _spread(path, missing, workers):
            results[cell.name] = result
            done += 1
            told(cell.name, done, len(cells))
    found = [results[cell.name] for cell in cells]
    return [one for one in found if one is not None]


def _spread(
    path: Path, missing: Sequence[Cell], workers: int
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    # A forked process would have the threads' locks of this one; a fresh one has nothing.
    context = multiprocessing.get_context("spawn")
    failed: BaseException | None = None
    with _alone(), concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        asked = {pool.submit(_work_alone, path, cell): cell for cell in missing}
        try:
            for future in concurrent.futures.as_completed(asked):
                error = future.exception()
                if error is None:
                    yield asked[future], future.result()
                else:
                    failed = failed or error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed is not None:
        raise failed


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Processes that are started here run the libraries of linear algebra on one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch on one thread: results depend on how it splits its sums."""
    with torch_threads(1) if find_spec("torch") else contextlib.nullcontext():
        yield


def _work_alone(path: Path, cell: Cell) -> dict[str, Any]:
    with _one_thread():
        return _work(path, cell)


def _work(path: Path, cell: Cell) -> dict[str, Any]:
    result = cell.work(**cell.arguments, **cell.places)
    held = {"key": cell.key, "result": result, "sha256": _digest(result)}
    text = json.dumps(held, indent=1, allow_nan=False)
    with write_atomically(path / f"{cell.name}.json") as file:
        file.write(text.encode())
    found: dict[str, Any] = json.loads(text)["result"]
    return found


def _digest(result: Any) -> str:
    """Of a result, whatever the spaces between its parts."""
    return hashlib.sha256(json.dumps(result).encode()).hexdigest()


def _read(path: Path, cell: Cell) -> dict[str, Any] | None:
    name = path / f"{cell.name}.json"
    try:
        held = json.loads(name.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(name)) from error
    except (ValueError, RecursionError):
        return None
    if not isinstance(held, dict) or held.get("key") != cell.key:
        return None
    result = held.get("result")
    # Cells of before digests were kept have none, and nothing else beside key and result.
    old = held.keys() == {"key", "result"}
    whole = isinstance(result, dict) and (old or held.get("sha256") == _digest(result))
    return result if whole else None


_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 % for 1 to 9 degrees of freedom."""


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over runs, and half the width of its 95 % interval (Student's); one run has none."""
    n = len(values)
    mean = sum(values) / n
    if n == 1:
        return mean, None
    sd = (sum((value - mean) ** 2 for value in values) / (n - 1)) ** 0.5
    t = _T95[n - 2] if n - 2 < len(_T95) else 1.96 + 2.5 / (n - 1)
    return mean, t * sd / n**0.5
