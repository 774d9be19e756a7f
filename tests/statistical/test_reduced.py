"""What reduced precision changes: seldom an answer, hardly any figure, and never who comes.

Expected clicks are compared page by page, so that no draw comes between. Void guards: the same
weights rounded to five bits, each by itself. `test_reduced_logits.py` bounds the logits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from benches.reduced import CTR, POLICIES, rough

import virtualtb_fast as vtb
from virtualtb_fast import _core

SESSIONS = 50_000
CHANGED = 0.03
"""Probability, a page, that the drawn number of clicks changes; most under random actions."""


@pytest.fixture(scope="module", params=["refit", "published"])
def exact(request: pytest.FixtureRequest) -> vtb.Simulator:
    if request.param == "refit":
        return vtb.load_simulator()
    simulator: vtb.Simulator = request.getfixturevalue("published")
    return simulator


def changes(one: vtb.Simulator, other: vtb.Simulator, policy: str) -> tuple[float, float]:
    """Relative change of the CTR; probability that a page's clicks change."""
    log = vtb.rollout(one, policy, sessions=SESSIONS, seed=31 << 32).log
    assert log is not None
    customer = np.repeat(one.customers(SESSIONS, 31 << 32), np.diff(log.session_offsets()), axis=0)
    given: Any = customer, log["page"].astype(np.int64), log["action"]
    chances = [simulator.response(*given)["clicks"] for simulator in (one, other)]
    clicks = [(chance @ np.arange(chance.shape[1])).mean(dtype=np.float64) for chance in chances]
    # With the same uniform, an answer changes if the uniform lies between cumulative sums.
    apart = np.abs(np.cumsum(chances[0], 1) - np.cumsum(chances[1], 1)).max(1)
    return float(clicks[1] / clicks[0] - 1), float(apart.mean())


def test_clicks_are_the_same_within_half_a_per_cent(exact: vtb.Simulator) -> None:
    reduced, guard = exact.reduced(), rough(exact)
    worst = [0.0, 0.0]
    for policy in POLICIES:
        ctr, changed = changes(exact, reduced, policy)
        assert abs(ctr) < CTR, (policy, ctr)
        assert changed < CHANGED, (policy, changed)
        moved = changes(exact, guard, policy)
        worst = [max(worst[0], abs(moved[0])), max(worst[1], moved[1])]
    assert worst[0] > CTR
    assert worst[1] > CHANGED


def test_the_same_customers_come_for_as_long(exact: vtb.Simulator) -> None:
    reduced = exact.reduced()
    np.testing.assert_array_equal(reduced.customers(2_000, 5), exact.customers(2_000, 5))
    lengths = []
    for simulator in (exact, reduced):
        log = vtb.rollout(simulator, "zero", sessions=100_000, seed=32 << 32).log
        assert log is not None
        lengths.append(np.diff(log.session_offsets()))
    assert (lengths[0] != lengths[1]).any()
    assert abs(lengths[1].mean() / lengths[0].mean() - 1) < 0.005
    # Void guard: other sessions of the same simulator are not the same, one by one.
    same = (lengths[0] == lengths[1]).mean()
    assert same > 0.9 > (lengths[0] == np.roll(lengths[0], 1)).mean()


def test_every_instruction_set_and_number_of_threads_gives_the_same_bytes() -> None:
    reduced = vtb.load_simulator().reduced()
    arguments: Any = {"policy": "random", "sessions": 2_000, "seed": 7}
    want = vtb.rollout(reduced, **arguments).digest()
    assert vtb.rollout(vtb.load_simulator(), **arguments).digest() != want
    for threads, batch in ((1, 1), (2, 7), (3, 1_024)):
        played = vtb.rollout(reduced, num_threads=threads, batch_size=batch, **arguments)
        assert played.digest() == want
    code = (
        "import virtualtb_fast as vtb;"
        f"print(vtb.rollout(vtb.load_simulator().reduced(), **{arguments}).digest())"
    )
    for name in _core.cpu_info()["available"]:
        played = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"VIRTUALTB_FAST_ISA": name},
            capture_output=True,
            text=True,
            check=True,
        )
        assert played.stdout.strip() == want, name
