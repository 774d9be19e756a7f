"""Rows in random order: each once, mixed well, the same again, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from virtualtb_fast import _batches
from virtualtb_fast._batches import SessionRows
from virtualtb_fast.errors import InvalidArgumentError


def offsets(sessions: int, seed: int = 0) -> np.ndarray:
    lengths = np.random.default_rng(seed).integers(1, 9, sessions)
    return np.concatenate(([0], np.cumsum(lengths)))


@pytest.mark.parametrize("handful", [64, 1_000, 1 << 18])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_pass_has_each_row_of_the_sessions_once(handful: int, share: float) -> None:
    ends = offsets(2_000)
    chosen = np.random.default_rng(1).random(2_000) < share
    rows = SessionRows(ends, chosen, handful=handful)
    expected = np.flatnonzero(np.repeat(chosen, np.diff(ends)))
    assert len(rows) == len(expected)
    np.testing.assert_array_equal(rows.ordered(), expected)
    for seed in (0, 1):
        got = list(rows.batches(100, np.random.default_rng(seed)))
        assert len(got) == len(rows) // 100
        assert {len(batch) for batch in got} == {100}
        seen = np.concatenate(got)
        assert len(np.unique(seen)) == len(seen)
        assert np.isin(seen, expected).all()
        for skip in (1, 7, len(got)):
            again = list(rows.batches(100, np.random.default_rng(seed), skip))
            np.testing.assert_array_equal(again, got[skip:])


def test_rows_are_mixed() -> None:
    """Neighbours of the log are no neighbours here; in the order of the log they all would be."""
    ends = offsets(40_000)
    rows = SessionRows(ends, np.ones(40_000, np.bool_), handful=20_000)
    seen = np.concatenate(list(rows.batches(1_000, np.random.default_rng(0))))
    steps = np.abs(np.diff(seen))
    assert (steps == 1).mean() < 0.001
    # Each batch comes from all over the log.
    spread = [batch.std() for batch in rows.batches(1_000, np.random.default_rng(0))]
    assert min(spread) > 0.7 * len(rows) / np.sqrt(12)
    in_order = np.arange(len(rows))
    assert (np.diff(in_order) == 1).all()


def test_memory_is_that_of_a_handful() -> None:
    ends = offsets(1_000_000)
    rows = SessionRows(ends, np.ones(1_000_000, np.bool_))
    tracemalloc.start()
    for count, _ in enumerate(rows.batches(4_096, np.random.default_rng(0))):
        if count == 200:
            break
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    np.random.default_rng(0).permutation(len(rows))
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A permutation of all rows, the void guard, takes more than is allowed.
    assert peak < 20e6 < whole


def test_some_rows_in_order() -> None:
    ends = offsets(20_000)
    rows = SessionRows(ends, np.random.default_rng(1).random(20_000) < 0.1)
    some = rows.ordered(2_000)
    assert 1_000 < len(some) < 4_000
    assert (np.diff(some) > 0).all()
    assert np.isin(some, rows.ordered()).all()
    assert some[-1] > 0.9 * ends[-1]


def test_what_does_not_fit_is_refused() -> None:
    ends = offsets(10)
    with pytest.raises(InvalidArgumentError, match=r"expected bool of shape \(10,\)"):
        SessionRows(ends, np.ones(9, np.bool_))
    with pytest.raises(InvalidArgumentError, match="at least one session"):
        SessionRows(ends, np.zeros(10, np.bool_))
    assert _batches._BLOCK < _batches._HANDFUL
