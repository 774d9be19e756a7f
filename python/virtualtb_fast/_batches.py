"""Rows in random order, of a log that may be larger than memory.

A permutation of all rows would take 8 bytes a row and would read the log page by page at random.
Here blocks of neighbouring rows are taken in random order, many of them at a time, and the rows of
these are mixed: memory is that of one such handful, whatever the length of the log, and reading is
mostly sequential. A log that fits into one handful is shuffled as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError

__all__ = ["SessionRows"]

_HANDFUL: Final = 1 << 18
"""Rows that are mixed at a time."""

_BLOCKS: Final = 1 << 16
"""Most blocks; of a longer log they are longer."""

_BLOCK: Final = 64
"""Fewest rows of a block."""


class SessionRows:
    """The rows of some of the sessions of a log."""

    def __init__(
        self,
        offsets: NDArray[np.int64],
        chosen: NDArray[np.bool_],
        *,
        handful: int = _HANDFUL,
    ) -> None:
        """Looks at the offsets once.

        Args:
            offsets: (S + 1,): session i is rows ``offsets[i]`` to ``offsets[i + 1]``.
            chosen: (S,): which sessions.
            handful: Rows that are mixed at a time.

        Raises:
            InvalidArgumentError: arrays that do not fit together, or no session is chosen.
        """
        if chosen.shape != (len(offsets) - 1,) or chosen.dtype != np.bool_:
            expected = f"bool of shape ({len(offsets) - 1},)"
            got = f"{chosen.dtype} of shape {chosen.shape}"
            raise InvalidArgumentError(f"chosen: expected {expected}, got {got}")
        self._offsets, self._chosen = offsets, chosen
        self._total = int(offsets[-1])
        self._block = max(_BLOCK, -(-self._total // _BLOCKS))
        self._taken = max(1, handful // self._block)
        self._count = 0
        for first in range(0, len(chosen), _HANDFUL):
            some = chosen[first : first + _HANDFUL]
            self._count += int(np.diff(offsets[first : first + len(some) + 1])[some].sum())
        if not self._count:
            raise InvalidArgumentError("chosen: expected at least one session, got none")

    def __len__(self) -> int:
        """Rows of the chosen sessions."""
        return self._count

    def ordered(self, most: int | None = None) -> NDArray[np.int64]:
        """Row numbers, ascending: all, or about ``most`` of them, of whole blocks spread evenly."""
        blocks = -(-self._total // self._block)
        wanted = blocks if most is None else max(1, blocks * min(most, self._count) // self._count)
        some = np.unique(np.linspace(0, blocks - 1, wanted).astype(np.int64))
        found = self._rows(some)
        return found if len(found) else self._rows(np.arange(blocks))

    def batches(
        self, size: int, random: np.random.Generator, skip: int = 0
    ) -> Iterator[NDArray[np.int64]]:
        """One pass: ``len(self) // size`` batches of row numbers, each row at most once.

        Args:
            size: Rows a batch, at most ``len(self)``.
            random: Where the order comes from; for equal states it is equal.
            skip: Batches at the beginning that are not wanted; the others are what they would be.
        """
        blocks = random.permutation(-(-self._total // self._block))
        left = np.empty(0, np.int64)
        for first in range(0, len(blocks), self._taken):
            rows = self._rows(np.sort(blocks[first : first + self._taken]))
            rows = np.concatenate((left, rows))
            random.shuffle(rows)
            full = len(rows) // size
            for batch in range(min(skip, full), full):
                yield rows[batch * size : (batch + 1) * size]
            skip -= min(skip, full)
            left = rows[full * size :]

    def _rows(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The chosen rows of some blocks, which ascend."""
        rows = (blocks[:, None] * self._block + np.arange(self._block)).ravel()
        rows = rows[rows < self._total]
        session = np.searchsorted(self._offsets, rows, side="right") - 1
        kept: NDArray[np.int64] = rows[self._chosen[session]]
        return kept
