"""Tables of customers, as every fit reads them: checked codes, one-hot rows, shares.

A table may be a memory map of more rows than fit into memory: everything here goes through it in
blocks of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Field

__all__ = [
    "blocks",
    "check_customers",
    "digest",
    "hashed_seed",
    "marginals",
    "offsets",
    "one_hot",
    "pair_marginals",
    "smoothed",
]

_BLOCK = 1 << 17
"""Rows that are looked at at once."""


def blocks(codes: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """The table, some rows at a time."""
    for first in range(0, len(codes), _BLOCK):
        yield codes[first : first + _BLOCK]


def check_customers(codes: ArrayLike, fields: Sequence[Field], least: int = 2) -> NDArray[np.uint8]:
    """The table of customers, if it is one.

    Args:
        codes: Category codes, integers (n, F); a memory map stays one.
        fields: The F fields.
        least: Fewest rows.

    Returns:
        uint8 (n, F).

    Raises:
        InvalidArgumentError: another shape or dtype, or a code out of range; the message names the
            first such row and field.
    """
    known = tuple(fields) if isinstance(fields, list | tuple) else ()
    if not known or not all(isinstance(field, Field) for field in known):
        raise InvalidArgumentError(f"fields: expected one Field or more, got {fields!r}")
    if len({field.name for field in known}) < len(known):
        got = [field.name for field in known]
        raise InvalidArgumentError(f"fields: expected different names, got {got}")
    table = codes if isinstance(codes, np.ndarray) else arguments.array("codes", codes)
    if table.ndim != 2 or table.shape[1] != len(known) or len(table) < least:
        expected = f"shape (n, {len(known)}) with n at least {least}"
        raise InvalidArgumentError(f"codes: expected {expected}, got {table.shape}")
    if table.dtype.kind not in "iu":
        hint = ", with NaN in it" if table.dtype.kind == "f" and np.isnan(table).any() else ""
        raise InvalidArgumentError(f"codes: expected integers, got {table.dtype}{hint}")
    sizes = np.array([field.size for field in known])
    for number, block in enumerate(blocks(table)):
        wrong = (block < 0) | (block >= sizes)
        if wrong.any():
            row, column = (int(index[0]) for index in np.nonzero(wrong))
            expected = f"0 to {known[column].size - 1}"
            what = f"codes: row {number * _BLOCK + row}, field {known[column].name!r}"
            raise InvalidArgumentError(f"{what}: expected {expected}, got {block[row, column]}")
    return table if table.dtype == np.uint8 else table.astype(np.uint8)


def digest(codes: NDArray[np.uint8]) -> str:
    """SHA-256 of the codes, row by row, in hexadecimal."""
    total = hashlib.sha256()
    for block in blocks(codes):
        total.update(np.ascontiguousarray(block).tobytes())
    return total.hexdigest()


def offsets(fields: Sequence[Field]) -> NDArray[np.int64]:
    """Where each field's one-hot block starts, and the width at the end: (F + 1,)."""
    return np.concatenate(([0], np.cumsum([field.size for field in fields]))).astype(np.int64)


def one_hot(codes: NDArray[np.uint8], fields: Sequence[Field]) -> NDArray[np.float32]:
    """One-hot rows (n, W) of checked codes (n, F)."""
    starts = offsets(fields)
    rows = np.zeros((len(codes), int(starts[-1])), np.float32)
    np.put_along_axis(rows, codes + starts[:-1], np.float32(1), axis=1)
    return rows


def marginals(codes: NDArray[np.uint8], fields: Sequence[Field]) -> NDArray[np.float64]:
    """Shares of all categories, the fields' blocks side by side: (W,)."""
    starts = offsets(fields)
    counts = np.zeros(int(starts[-1]))
    for block in blocks(codes):
        counts += np.bincount((block + starts[:-1]).ravel(), minlength=len(counts))
    return counts / len(codes)


def smoothed(codes: NDArray[np.uint8], fields: Sequence[Field]) -> NDArray[np.float64]:
    """Shares of all categories, half a customer added to each, so that none is impossible: (W,)."""
    sizes = np.repeat([field.size for field in fields], [field.size for field in fields])
    return (marginals(codes, fields) * len(codes) + 0.5) / (len(codes) + 0.5 * sizes)


def pair_marginals(codes: NDArray[np.uint8], fields: Sequence[Field]) -> NDArray[np.float64]:
    """Shares of all pairs of categories: (W, W), symmetric, the shares themselves as diagonal."""
    starts = offsets(fields)
    table = np.zeros((int(starts[-1]), int(starts[-1])))
    for block in blocks(codes):
        for a, b in combinations(range(len(fields)), 2):
            shape = fields[a].size, fields[b].size
            flat = block[:, a].astype(np.int64) * shape[1] + block[:, b]
            counts = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
            table[starts[a] : starts[a + 1], starts[b] : starts[b + 1]] += counts
    table /= len(codes)
    return table + table.T + np.diag(marginals(codes, fields))


def hashed_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed of one's own: torch ignores the high half of what it is seeded with."""
    total = hashlib.sha256(f"{purpose}:{arguments.seed(seed)}".encode()).digest()
    return int.from_bytes(total[:8], "little") >> 1
