"""Columns of a prepared log: ``.npy`` files that grow, and are mapped when they are read.

What is written goes to the system's page cache, and what is read is mapped, so neither counts as
memory of the process, however long the log.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import FileFormatError

__all__ = ["ColumnWriter", "open_column"]

_HEADER: Final = 128
"""Bytes of the header, fixed, so that the number of rows can be filled in at the end."""


class ColumnWriter:
    """One column on its way to disk."""

    def __init__(self, folder: Path, name: str, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        """``shape`` is that of one row."""
        self.path = folder / f"{name}.npy"
        self._dtype, self._shape = np.dtype(dtype), shape
        self._rows = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO = open(self.path, "wb")  # noqa: SIM115
        self._file.write(b"\0" * _HEADER)

    def write(self, values: NDArray[Any]) -> None:
        """Adds rows."""
        held = np.ascontiguousarray(values, self._dtype)
        data = held.data.cast("B") if held.size else b""
        self._hash.update(data)
        self._file.write(data)
        self._rows += len(held)

    def close(self) -> str:
        """Fills in the header; returns the digest of the rows."""
        shape = (self._rows, *self._shape)
        about = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
        start = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(start + about.encode().ljust(_HEADER - 11) + b"\n")
        self._file.close()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._file.close()


def open_column(folder: Path, name: str) -> Any:
    """A column as a read-only map.

    Raises:
        FileFormatError: the file is missing or damaged.
    """
    path = folder / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        message = f"{path}: expected a column of a prepared log, got {error}"
        raise FileFormatError(message) from error
