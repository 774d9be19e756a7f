"""What every fit shares: live figures, checkpoints, and what happens when a figure is no number.

A fit is a loop of steps. It draws from generators of its own, calls a `Progress` as it goes, saves
all of its state in a `Checkpoint` now and then, and after a kill begins where that left off; the
result is that of an undisturbed run to the last bit, because the state holds the generators too,
and because nothing depends on when it was saved.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from virtualtb_fast.errors import (
    FileFormatError,
    InvalidArgumentError,
    OutputError,
    TrainingDivergedError,
)

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = [
    "Checkpoint",
    "Keeper",
    "Progress",
    "State",
    "device",
    "load_adam",
    "pack",
    "pack_adam",
    "require_finite",
    "require_keeper",
    "torch_threads",
    "unpack",
    "write_atomically",
]

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (stage, steps done, steps in all or 0 if not known, live figures by name)."""

State: TypeAlias = "dict[str, NDArray[Any]]"
"""All of a training's state as flat arrays: what a checkpoint holds."""

_EVERY = 20.0
"""Seconds between two checkpoints, unless asked otherwise."""


class Keeper(Protocol):
    """Where a training keeps its state: `Checkpoint`, or alike."""

    def load(self) -> Mapping[str, Any] | None:
        """The state that was saved last."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces it."""

    def due(self) -> bool:
        """Whether it is time to."""
        ...


AnyKeeper = TypeVar("AnyKeeper")


def require_keeper(value: AnyKeeper) -> AnyKeeper:
    """The value, if it can keep a state.

    Raises:
        InvalidArgumentError: it has not what a `Keeper` has.
    """
    methods = ("load", "save", "due")
    if not all(callable(getattr(value, name, None)) for name in methods):
        expected = f"an object with {', '.join(methods)}, or None"
        raise InvalidArgumentError(f"checkpoint: expected {expected}, got {value!r}")
    return value


class Checkpoint:
    """The whole state of a fit that is under way, in one file.

    The file is written beside its name and renamed, so a kill at any moment leaves either the
    last state or the one before it. Its last line is the SHA-256 of what comes before: PyTorch
    compares no checksums, and a state that was altered would be taken up without a word.
    """

    def __init__(
        self, path: str | os.PathLike[str], key: str = "", *, every: float | None = None
    ) -> None:
        """``key`` says what is fitted to what: a state with another key is not taken up.

        Args:
            path: The file.
            key: A digest of data, settings and seed.
            every: Seconds between two checkpoints, for `due`; 20 unless given.
        """
        self.path = Path(path)
        self._key, self._every = key, _EVERY if every is None else every
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was last saved; None if there is none, or it has another key.

        Raises:
            FileFormatError: the file is damaged.
            OutputError: the operating system could not read it.
        """
        import torch

        try:
            with open(self.path, "rb") as file:
                _require_seal(file, str(self.path))
                # Nothing in the file may run code; arrays are kept as tensors by `save`.
                held = torch.load(file, map_location="cpu", weights_only=True)
        except FileFormatError:
            raise
        except FileNotFoundError:
            return None
        except Exception as error:
            # Invalid arguments are seeks to where a damaged archive points.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise OutputError(error.errno, error.strerror, str(self.path)) from error
            what = f"expected a checkpoint, got {said(error)}"
            raise FileFormatError(f"{self.path}: {what}") from error
        if not isinstance(held, dict) or set(held) != {"key", "state"}:
            got = f"one of {sorted(map(str, held))}" if isinstance(held, dict) else _kind(held)
            raise FileFormatError(f"{self.path}: expected a checkpoint of key and state, got {got}")
        if held["key"] != self._key:
            return None
        state = _to_arrays(held["state"])
        if not isinstance(state, dict):
            expected = "a checkpoint whose state is a mapping"
            raise FileFormatError(f"{self.path}: expected {expected}, got {_kind(state)}")
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the file.

        Args:
            state: Nested mappings and lists of tensors, NumPy arrays, numbers, texts and None.

        Raises:
            OutputError: the operating system could not write it; the last state is still there.
        """
        import torch

        held = {"key": self._key, "state": _to_tensors(state)}
        with write_atomically(self.path) as file:
            sealed: Any = _Sealed(file)
            try:
                torch.save(held, sealed)
            except RuntimeError as error:
                # What the system said is hidden where PyTorch's writer fails again at its end.
                if sealed.refused is not None:
                    raise sealed.refused from error
                raise
            file.write(sealed.seal())
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self._last >= self._every

    def remove(self) -> None:
        """Removes the file, if there is one."""
        self.path.unlink(missing_ok=True)


def said(error: BaseException) -> str:
    """What PyTorch's reader said, without its advice to read what would run code."""
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {first}"


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"


_SEAL: Final = b"\nvirtualtb_fast.checkpoint "
"""What stands before the digits of the last line."""
_STRIDE: Final = 1 << 20


class _Sealed:
    """A file whose bytes are hashed as they are written."""

    def __init__(self, file: Any) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.refused: OSError | None = None

    def write(self, data: Any) -> int:
        self._hash.update(data)
        try:
            return int(self._file.write(data))
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> bytes:
        """The last line of a file of what was written."""
        return _SEAL + self._hash.hexdigest().encode() + b"\n"


def _require_seal(file: Any, origin: str) -> None:
    """Raises `FileFormatError` unless the last line is of what comes before; rewinds the file."""
    length = file.seek(0, os.SEEK_END) - len(_SEAL) - 65
    if length < 0:
        raise FileFormatError(f"{origin}: expected a checkpoint, got too short a file")
    file.seek(0)
    hashed = hashlib.sha256()
    for first in range(0, length, _STRIDE):
        hashed.update(file.read(min(_STRIDE, length - first)))
    held, got = file.read(), hashed.hexdigest()
    if held != _SEAL + got.encode() + b"\n":
        if not (held.startswith(_SEAL) and held.endswith(b"\n")):
            what = "a checkpoint with its digest at the end, got none: another file, or cut short"
        else:
            stated = held[len(_SEAL) : -1].decode(errors="replace")
            what = f"content of digest {stated}, got {got}: the file was altered"
        raise FileFormatError(f"{origin}: expected {what} (remove it to begin anew)")
    file.seek(0)


@contextlib.contextmanager
def write_atomically(path: Path) -> Any:
    """A file that appears under its name only when it is complete and on the disk.

    Raises:
        OutputError: the operating system refused; what was under the name is as it was.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        try:
            with open(beside, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:
        # PyTorch's writer says so when the disk is full.
        if "write" not in str(error):
            raise
        raise OutputError(f"{path}: {error}") from error


def require_finite(stage: str, step: int, **quantities: Any) -> None:
    """Stops a training that diverged.

    Args:
        stage: What is trained.
        step: The step in which the quantities were computed.
        quantities: Numbers, or tensors and arrays of them.

    Raises:
        TrainingDivergedError: one of them is not finite; the message says which, and when.
    """
    for name, value in quantities.items():
        if isinstance(value, int | float):
            good = math.isfinite(value)
        elif hasattr(value, "isfinite"):
            good = bool(value.isfinite().all())
        else:
            import numpy as np

            good = bool(np.isfinite(value).all())
        if not good:
            shown = f"{value}" if isinstance(value, int | float) else "numbers that are not"
            quantity = name.replace("_", " ")
            raise TrainingDivergedError(
                f"{stage}: {quantity}: expected finite numbers, got {shown} in step {step:,}; "
                "the training diverged",
                quantity=quantity,
                step=step,
            )


def device(value: object) -> str:
    """The name of a device of torch that there is here.

    Raises:
        InvalidArgumentError: it is none, or this machine has no such device.
    """
    import torch

    try:
        if not isinstance(value, str | torch.device):
            raise TypeError(f"a {type(value).__name__}")
        found = torch.device(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidArgumentError(f"device: expected 'cpu' or 'cuda', got {value!r}") from error
    if found.type == "cuda":
        count = torch.cuda.device_count()
        if (found.index or 0) >= count:
            gpus = "'cuda:0'" if count == 1 else f"'cuda:0' to 'cuda:{count - 1}'"
            there = f"{gpus} or 'cpu'" if count else "'cpu', since PyTorch finds no GPU here"
            raise InvalidArgumentError(f"device: expected {there}, got {value!r}")
    elif found.type != "cpu" and not (found.type == "mps" and torch.backends.mps.is_available()):
        raise InvalidArgumentError(f"device: expected 'cpu' or 'cuda', got {value!r}")
    return str(found)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's threads for a while: sums, and so results, depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pack(tensors: Mapping[str, torch.Tensor], prefix: str) -> State:
    """Tensors as arrays of their own, under prefixed names."""
    return {prefix + key: value.detach().numpy().copy() for key, value in tensors.items()}


def unpack(state: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, torch.Tensor]:
    """What `pack` packed."""
    import numpy as np
    import torch

    return {
        key.removeprefix(prefix): torch.from_numpy(np.array(value))
        for key, value in state.items()
        if key.startswith(prefix)
    }


def pack_adam(optimizer: torch.optim.Optimizer, prefix: str) -> State:
    """An Adam's moments and steps as arrays."""
    state: State = {}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= pack(moments, f"{prefix}{index}.")
    return state


def load_adam(
    optimizer: torch.optim.Optimizer, state: Mapping[str, NDArray[Any]], prefix: str
) -> None:
    """Gives an Adam what `pack_adam` packed."""
    held = optimizer.state_dict()
    for key, value in unpack(state, prefix).items():
        index, name = key.split(".")
        held["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(held)


def _to_tensors(value: Any) -> Any:
    """NumPy arrays as marked tensors, which a checkpoint may hold."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        return {"__array__": torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _to_tensors(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_tensors(one) for one in value)
    return value


def _to_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"__array__"}:
            return value["__array__"].numpy()
        return {key: _to_arrays(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_arrays(one) for one in value)
    return value
