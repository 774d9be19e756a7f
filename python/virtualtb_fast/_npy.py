"""Arrays of NumPy's own format (``.npy``), read so that a bad file is an error of this package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError, OutputError

__all__ = ["load_npy"]


def load_npy(path: str, what: str, named: str) -> NDArray[Any]:
    """One array, mapped: its size does not matter, and what a header claims takes no memory.

    Args:
        path: The file. Nothing in it is unpickled.
        what: What was expected, for messages of what the file holds.
        named: The same, for messages that there is no such file.

    Raises:
        InvalidArgumentError: it holds something else, or was cut short.
        OutputError: the operating system could not read it.
    """
    try:
        # Shapes beyond all numbers overflow before they are refused.
        with np.errstate(over="ignore"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, path).naming(named) from error
    # What NumPy's parser of headers raises depends on where they are damaged: anything at all.
    except Exception as error:
        raise InvalidArgumentError(f"{path}: expected {what}, got {error}") from error
    if not isinstance(array, np.ndarray):
        names = ", ".join(array.files[:5])
        array.close()
        raise InvalidArgumentError(f"{path}: expected {what}, got several (.npz): {names}")
    if array.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"{path}: expected {what} of numbers, got {array.dtype}")
    return array
