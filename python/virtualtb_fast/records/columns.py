"""Columns of a prepared log: ``.npy`` files that grow, and are read in pieces.

What is written goes to the system's page cache, and of what is read a bounded part is kept, so
memory does not grow with the log. Nothing is mapped: a page of a map that is gone, because somebody
cut the file, would end the process, where a read that ends too early is an error like others.

Training reads rows in random order, but of few neighbourhoods at a time (`_batches.py`). So a
column keeps the last pieces of the file that rows were taken from, and most batches read nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from virtualtb_fast.errors import FileFormatError, OutputError

__all__ = ["Column", "ColumnWriter"]

_HEADER: Final = 128
"""Bytes of the header, fixed, so that the number of rows can be filled in at the end."""
_STRIDE: Final = 1 << 20
"""Bytes that are hashed at a time."""
_MASKED: Final = 1 << 16
"""Rows that a mask is applied to at a time."""

_PIECE: Final = 1 << 11
"""About the bytes of a piece, which has 64 rows or more: what is shuffled together is near."""
_KEPT_ROWS: Final = 1 << 18
"""Rows that are kept: as many as are shuffled at a time."""
_KEPT: Final = (16 << 20, 256 << 20)
"""Fewest and most bytes that are kept."""


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What a file begins with."""
    about = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape!r}, }}"
    start = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    return start + about.encode().ljust(_HEADER - 11) + b"\n"


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
        self._file.seek(0)
        self._file.write(_header(self._dtype, (self._rows, *self._shape)))
        self._file.close()
        return self._hash.hexdigest()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._file.close()

    @property
    def form(self) -> dict[str, Any]:
        """What `Column` needs to know, as JSON holds it."""
        return {"dtype": self._dtype.str, "shape": [self._rows, *self._shape]}

    def read(self) -> Column:
        """The column that was closed."""
        return Column(self.path, **self.form)


class Column(NDArrayOperatorsMixin):
    """A column as a read-only array on disk: indexed by its first axis it gives arrays.

    Whole numbers, slices, masks and arrays of row numbers may stand between the brackets; what
    comes back is a copy. Any number of threads may use it. As an operand, or as an argument of
    NumPy's functions, it is read whole.

    Every method raises `FileFormatError` once the file has been cut, `OutputError` where the
    system refuses to read it.
    """

    def __init__(self, path: Path, dtype: str, shape: list[int]) -> None:
        """Opens the file.

        Raises:
            FileFormatError: it is missing, or not of this form.
            OutputError: the system refused.
        """
        self._path, self.dtype = path, np.dtype(dtype)
        self.shape = tuple(shape)
        self.ndim = len(self.shape)
        self._width = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError as error:
            expected = "expected a column of a prepared log"
            raise FileFormatError(f"{path}: {expected}, got none") from error
        except OSError as error:
            raise OutputError(error.errno, error.strerror, str(path)) from error
        self._close = weakref.finalize(self, self._file.close)
        self._lock, self._process = threading.Lock(), os.getpid()
        self._pool: NDArray[Any] | None = None
        got, wanted = os.fstat(self._file.fileno()).st_size, _HEADER + self.nbytes
        if got != wanted:
            raise FileFormatError(f"{path}: expected {wanted:,} bytes, got {got:,}")
        held = bytearray(_HEADER)
        self._fill(memoryview(held), 0)
        if held != _header(self.dtype, self.shape):
            expected = f"the header of {self.dtype} of shape {self.shape}"
            raise FileFormatError(f"{path}: expected {expected}, got {bytes(held)!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Column, (self._path, self.dtype.str, list(self.shape))

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self._width

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            first, end, step = key.indices(len(self))
            if step == 1:
                return self._range(first, max(first, end))
            return self._rows(np.arange(first, end, step))
        if isinstance(key, tuple):
            if key and isinstance(key[0], slice):
                return self[key[0]][(slice(None), *key[1:])]
            return self._range(0, len(self))[key]
        array = np.asarray(key)
        if array.dtype == np.bool_:
            return self._masked(array)
        if array.dtype.kind not in "iu" and array.size:
            raise IndexError(f"expected row numbers, got {array.dtype}")
        rows = array.astype(np.int64).ravel()
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            if rows.min() < -len(self) or rows.max() >= len(self):
                got = f"{rows.min():,} to {rows.max():,}"
                raise IndexError(f"expected rows of {len(self):,}, got {got}")
            rows[rows < 0] += len(self)
        # A single number of a column of numbers is one, not an array.
        return self._rows(rows).reshape((*array.shape, *self.shape[1:]))[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("expected copy=None or True for a column on disk, got False")
        found = self._range(0, len(self))
        return found if dtype is None else found.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = [np.asarray(one) if isinstance(one, Column) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def digest(self, told: Callable[[int], None]) -> str:
        """SHA-256 of the rows, read anew; ``told`` hears of bytes that were read."""
        hashed, total = hashlib.sha256(), self.nbytes
        piece = memoryview(bytearray(_STRIDE))
        for first in range(0, total, _STRIDE):
            some = piece[: total - first]
            self._fill(some, _HEADER + first)
            hashed.update(some)
            told(len(some))
        return hashed.hexdigest()

    # --- reading --------------------------------------------------------------------------------

    def _fill(self, into: memoryview, at: int) -> None:
        """Reads bytes from there on."""
        done = 0
        try:
            while done < len(into):
                got = self._some(into[done:], at + done)
                if not got:
                    expected = f"{len(into):,} bytes from {at:,} on"
                    message = f"expected {expected}, got {done:,}: it was cut while in use"
                    raise FileFormatError(f"{self._path}: {message}")
                done += got
        except OSError as error:
            raise OutputError(error.errno, error.strerror, str(self._path)) from error

    if hasattr(os, "preadv"):

        def _some(self, into: memoryview, at: int) -> int:
            # Forked processes share a file's position, but not this one.
            return os.preadv(self._file.fileno(), [into], at)

    else:

        def _some(self, into: memoryview, at: int) -> int:
            self._file.seek(at)
            return self._file.readinto(into) or 0

    def _held(self) -> threading.Lock:
        """The lock of this process: another one's may be held by a thread that is not here."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()
        return self._lock

    def _range(self, first: int, end: int) -> NDArray[Any]:
        with self._held():
            return self._read(first, end)

    def _read(self, first: int, end: int) -> NDArray[Any]:
        found = np.empty((end - first, *self.shape[1:]), self.dtype)
        if found.size:
            self._fill(found.data.cast("B"), _HEADER + first * self._width)
        return found

    def _masked(self, mask: NDArray[np.bool_]) -> NDArray[Any]:
        if mask.shape != (len(self),):
            raise IndexError(f"expected a mask of shape {(len(self),)}, got {mask.shape}")
        found = np.empty((int(np.count_nonzero(mask)), *self.shape[1:]), self.dtype)
        done = 0
        for first in range(0, len(self), _MASKED):
            some = mask[first : first + _MASKED]
            rows = self._range(first, first + len(some))[some]
            found[done : done + len(rows)] = rows
            done += len(rows)
        return found

    def _rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of these numbers, which are within the column."""
        if not len(rows) or not self._width:
            return np.empty((len(rows), *self.shape[1:]), self.dtype)
        with self._held():
            return self._gather(rows)

    # --- the pieces that are kept -----------------------------------------------------------------

    def _begin(self) -> NDArray[Any]:
        """All rows if they are few, else room for pieces, of which none is there yet."""
        most = min(max(_KEPT_ROWS * self._width, _KEPT[0]), _KEPT[1])
        self._all = self.nbytes <= most
        if self._all:
            return self._read(0, len(self))
        self._shift = 6 + max(0, (_PIECE // (64 * self._width)).bit_length() - 1)
        size = 1 << self._shift
        places = max(1, most // (size * self._width))
        self._place_of = np.full(-(-len(self) // size), -1, np.int32)
        """Where a piece is, or -1."""
        self._piece_at = np.full(places, -1, np.int64)
        """Which piece is there, or -1."""
        self._next = 0
        # Memory is only taken when it is filled.
        pool = np.empty((places * size, *self.shape[1:]), self.dtype)
        self._bytes = pool.data.cast("B")
        return pool

    def _gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        if self._pool is None:
            self._pool = self._begin()
        found: NDArray[Any]
        if self._all:
            found = self._pool.take(rows, axis=0)
            return found
        pieces = rows >> self._shift
        places = self._place_of[pieces]
        if places.min() < 0:
            missing = np.unique(pieces[places < 0])
            free = np.ones(len(self._piece_at), bool)
            free[places[places >= 0]] = False
            if len(missing) > np.count_nonzero(free):
                return self._in_parts(rows, pieces)
            self._fetch(missing, np.flatnonzero(free))
            places = self._place_of[pieces]
        at = (places.astype(np.int64) << self._shift) + (rows & ((1 << self._shift) - 1))
        found = self._pool.take(at, axis=0)
        return found

    def _in_parts(self, rows: NDArray[np.int64], pieces: NDArray[np.int64]) -> NDArray[Any]:
        """Rows of more pieces than there is room for."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(pieces, kind="stable")
        firsts = np.unique(pieces)[:: len(self._piece_at)]
        bounds = [*np.searchsorted(pieces[order], firsts).tolist(), len(rows)]
        for first, end in itertools.pairwise(bounds):
            found[order[first:end]] = self._gather(rows[order[first:end]])
        return found

    def _fetch(self, missing: NDArray[np.int64], free: NDArray[np.int64]) -> None:
        """Reads pieces, which ascend, to the places that were filled first among free ones.

        At every moment, that of an error or of Ctrl-C included, a piece that has a place is there.
        """
        oldest = int(np.searchsorted(free, self._next))
        chosen = np.concatenate((free[oldest:], free[:oldest]))[: len(missing)]
        gone = self._piece_at[chosen]
        self._place_of[gone[gone >= 0]] = -1
        self._piece_at[chosen] = -1
        self._next = int(chosen[-1]) + 1
        size = self._width << self._shift
        # Neighbours that come to lie side by side are read at once.
        apart = (np.diff(missing) != 1) | (np.diff(chosen) != 1)
        runs = np.concatenate(([0], np.flatnonzero(apart) + 1))
        firsts, places = (missing[runs] * size).tolist(), (chosen[runs] * size).tolist()
        lengths = (np.diff(runs, append=len(missing)) * size).tolist()
        for first, place, length in zip(firsts, places, lengths, strict=True):
            end = place + min(length, self.nbytes - first)
            self._fill(self._bytes[place:end], _HEADER + first)
        self._piece_at[chosen] = missing
        self._place_of[missing] = chosen
