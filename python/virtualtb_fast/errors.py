"""Every error that this package raises on purpose, as one tree.

Each is also the built-in error that a caller would expect, so ``except ValueError`` keeps working.
Messages name what was expected and what was got. The native module raises the same classes.
"""

import errno
import os
from collections.abc import Mapping
from typing import Any

__all__ = [
    "CustomerModelError",
    "DegenerateWorldError",
    "FileFormatError",
    "InvalidActionError",
    "InvalidArgumentError",
    "LogError",
    "MissingExtraError",
    "OutputError",
    "PolicyError",
    "RareConditionError",
    "StateError",
    "TrainingDivergedError",
    "VirtualTBError",
]


class VirtualTBError(Exception):
    """The root of the tree: ``except VirtualTBError`` catches all of it."""


class InvalidArgumentError(VirtualTBError, ValueError):
    """An argument has a wrong type, shape or value. Nothing was changed."""


class InvalidActionError(VirtualTBError, ValueError):
    """An action has a wrong shape or dtype, or is not finite. No environment moved."""


class DegenerateWorldError(VirtualTBError, ValueError):
    """A ground-truth store of this seed would be no fair test; the message says which figure."""


class LogError(VirtualTBError, ValueError):
    """A log cannot be learned from; the message names file, column and row."""


class StateError(VirtualTBError, RuntimeError):
    """A call that is not possible now: a step before a reset, after the end, or after close."""


class FileFormatError(VirtualTBError, ValueError):
    """A file is not of the form it should have, was cut short, or was altered."""


class OutputError(VirtualTBError, OSError):
    """The operating system refused to read or write a file, or the output is there already."""

    wanted: str = "a file"
    """What should have been under the name: a log, a schema file, ..."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._folder = ""
        if self.errno in (errno.ENOENT, errno.ENOTDIR) and isinstance(self.filename, str):
            # Looked at now: when the message is read, it may be there.
            folder = os.path.dirname(self.filename)
            if folder and not os.path.isdir(folder):
                got = "a file" if os.path.exists(folder) else "none"
                self._folder = f"expected a folder {folder}, got {got}"

    def naming(self, wanted: str) -> "OutputError":
        """This error, with what should have been under the name."""
        self.wanted = wanted
        return self

    def __str__(self) -> str:
        if not isinstance(self.filename, str) or not self.filename:
            return super().__str__()
        if self._folder:
            return f"{self.filename}: {self._folder}"
        if self.errno in (errno.ENOENT, errno.ENOTDIR):
            return f"{self.filename}: expected {self.wanted}, got no file of this name"
        if self.errno == errno.EISDIR:
            return f"{self.filename}: expected {self.wanted}, got a directory"
        if self.errno == errno.EEXIST:
            return f"{self.filename}: expected a folder or a new name, got a file"
        return f"{self.filename}: {self.strerror}"


class PolicyError(VirtualTBError, RuntimeError):
    """A policy given as a Python callable failed, or returned something that is no action."""


class CustomerModelError(VirtualTBError, RuntimeError):
    """A customer model given as a Python callable failed, or returned no answer."""


class MissingExtraError(VirtualTBError, ImportError):
    """An optional dependency is not installed; the message says what to install."""


class RareConditionError(VirtualTBError, ValueError):
    """A sampler was asked for customers that it draws too rarely, or never."""


class TrainingDivergedError(VirtualTBError, ArithmeticError):
    """A training met a value that is not finite and stopped. What was good is kept in ``state``."""

    def __init__(
        self,
        message: str,
        *,
        quantity: str = "",
        step: int = -1,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.quantity = quantity
        """What was not finite, for example ``"generator_loss"``."""
        self.step = step
        """The step at which it was seen, from 0."""
        self.state = state
        """The last good state, as the function's ``resume`` takes it; None before the first."""
