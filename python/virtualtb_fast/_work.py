"""The work directory of a fit: one process at a time, checkpoints by stage, what they cost."""

from __future__ import annotations

import _thread
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from virtualtb_fast._arguments import as_path
from virtualtb_fast._training import Checkpoint, Progress
from virtualtb_fast.errors import MissingExtraError, OutputError

__all__ = [
    "Costs",
    "Kept",
    "Meter",
    "StageCheckpoint",
    "Watch",
    "WorkFolder",
    "hold",
    "stage_key",
    "versions",
]

_ELAPSED = "__seconds__"


def stage_key(**parts: Any) -> str:
    """A digest of what a stage's result depends on."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


class WorkFolder:
    """The folder beside an output, held by one process.

    The lock is the system's: it goes with the process, however that ends.
    """

    def __init__(self, out: Path) -> None:
        """``out`` is the file that is made; the folder is ``OUT.work``."""
        self.path = out.with_name(f"{out.name}.work")
        self._out, self._lock = out, -1

    def __enter__(self) -> WorkFolder:
        """Takes the folder.

        Raises:
            OutputError: another process has it, or the system refused.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(error.errno, error.strerror, str(self.path)) from error
        self._lock = hold(self.path / "lock", self._out)
        return self

    def __exit__(self, *_: object) -> None:
        """Lets it go; a folder in which nothing was kept is removed."""
        if self.path.is_dir() and os.listdir(self.path) == ["lock"]:
            self.remove()
        os.close(self._lock)

    def clear(self) -> None:
        """Removes all that is in it but the lock."""
        for one in self.path.iterdir():
            if one.name == "lock":
                continue
            if one.is_dir():
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the folder, when the output is there."""
        shutil.rmtree(self.path, ignore_errors=True)


def hold(lock: Path, what: Path) -> int:
    """Takes a lock, made if it is not there, which goes with the process; it ends with `os.close`.

    Args:
        lock: Its file, which then says who has it.
        what: What is locked, for the message.

    Raises:
        OutputError: another process has it, or the system refused.
    """
    try:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(lock.parent)) from error
    try:
        _lock(file)
        os.truncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
    except BlockingIOError:
        holder = os.read(file, 32).decode(errors="replace").strip()
        os.close(file)
        process = f" (process {holder})" if holder else ""
        raise OutputError(
            f"{what}: expected no other run at work on it, got one{process}"
        ) from None
    except OSError as error:
        os.close(file)
        raise OutputError(error.errno, error.strerror, str(lock.parent)) from error
    return file


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Kept(KeyboardInterrupt):
    """Ctrl-C, with all that was done until then in a checkpoint."""


_PATIENCE: Final = 5.0
"""Seconds after Ctrl-C within which the step that is under way may end."""


class StageCheckpoint(Checkpoint):
    """A checkpoint that knows how long its stage has taken, kills and resumptions included.

    As a context it answers Ctrl-C: where a step may be under way, whose state is torn, it is `due`,
    and raises `Kept` when the state after that step is saved. A second Ctrl-C does not wait for
    that, and a step that takes longer than 5 seconds is not waited for: what is on disk then is a
    state from before it. Where the stage fails meanwhile, its error is what is heard. Threads but
    the main one, and programs with handlers of SIGINT of their own, have it their way.
    """

    def __init__(self, path: Path, key: str) -> None:
        """See `virtualtb_fast._training.Checkpoint`."""
        super().__init__(path, key)
        self._handles = self._asked = False
        self._timer: threading.Timer | None = None
        self._before, self._began = 0.0, time.perf_counter()
        self._saved = False
        self.resumed = False
        """Whether a state of an earlier process was taken up."""

    @property
    def seconds(self) -> float:
        """Wall time of the stage so far."""
        return self._before + time.perf_counter() - self._began

    def load(self) -> dict[str, Any] | None:
        """The state that was last saved."""
        held = super().load()
        if held is None:
            return None
        before = float(held.pop(_ELAPSED, 0.0))
        if not self._saved and not self.resumed:
            self._before, self.resumed = before, True
        return held

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file; raises `Kept` after Ctrl-C."""
        self._wait_no_longer()
        super().save({**state, _ELAPSED: self.seconds})
        self._saved = True
        if self._asked:
            raise Kept

    def due(self) -> bool:
        """Whether it is time for another one, or Ctrl-C was pressed."""
        return self._asked or super().due()

    def __enter__(self) -> StageCheckpoint:
        main = threading.current_thread() is threading.main_thread()
        self._handles = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._handles:
            signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # In this order: no Ctrl-C comes after the timer's end to start another.
        if self._handles:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._wait_no_longer()
        if self._asked and kind is None:
            # It was over before it was asked; some stages keep nothing even then.
            raise Kept if self._saved or self.resumed else KeyboardInterrupt

    def _interrupted(self, *_: object) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._timer = threading.Timer(_PATIENCE, _thread.interrupt_main)
        self._timer.daemon = True
        self._timer.start()

    def _wait_no_longer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Meter:
    """The most memory that this process has had to itself, so far as it was looked at."""

    def __init__(self) -> None:
        self.peak = 0
        """Bytes: pages of files that are mapped do not count where the system says so."""
        self.look()

    def look(self) -> None:
        """Looks now."""
        self.peak = max(self.peak, _anonymous())


@dataclass(slots=True)
class Costs:
    """What a fit takes: of its run and not of its result, so no file holds it."""

    simulating: float = 0.0
    """Seconds spent simulating."""
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def done(self, stage: str, seconds: float, resumed: bool = False, **more: Any) -> None:
        """A stage is finished."""
        self.stages[stage] = {"seconds": round(seconds, 3), "resumed": resumed, **more}

    def to_dict(self, peak: int) -> dict[str, Any]:
        """What `virtualtb_fast.fit` tells of them; ``peak`` is memory in bytes."""
        seconds = sum(float(stage["seconds"]) for stage in self.stages.values())
        return {
            "seconds": round(seconds, 3),
            "simulating_share": round(self.simulating / seconds, 4) if seconds else 0.0,
            "peak_memory_bytes": peak,
            "stages": self.stages,
        }


@dataclass(slots=True)
class Watch:
    """Passes progress on, to TensorBoard too, and looks at memory."""

    progress: Progress | None
    tensorboard: Any
    meter: Meter = field(default_factory=Meter)
    _writer: Any = None
    _name: str = "log"

    def __enter__(self) -> Watch:
        if self.tensorboard is not None:
            folder = as_path(self.tensorboard)
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError(
                    'tensorboard= needs TensorBoard: pip install "virtualtb-fast[train]"'
                ) from error
            try:
                self._writer = SummaryWriter(folder)
            except OSError as error:
                raise OutputError(error.errno, error.strerror, folder) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def stage(self, name: str) -> None:
        """What is going on from here on, for progress and for the names of scalars."""
        self._name = name

    def __call__(self, _: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        self.meter.look()
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(f"{self._name}/{name}", value, done)
        if self.progress is not None:
            self.progress(self._name, done, total, figures)


def _anonymous() -> int:
    with contextlib.suppress(OSError, KeyError, ValueError):
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["RssAnon"].split()[0]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    # In kilobytes, on macOS in bytes; mapped files are in it.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def versions() -> dict[str, str]:
    """Of everything that a result may depend on."""
    import platform

    import numpy as np
    import torch

    from virtualtb_fast import __version__

    return {
        "virtualtb_fast": str(__version__),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
