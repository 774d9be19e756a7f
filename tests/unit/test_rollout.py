"""Rollouts: one answer for every way of computing it, and nothing lost when one is stopped."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.logs import COLUMNS
from virtualtb_fast.policies import Policy
from virtualtb_fast.rollout import Rollout, Summary, rollout

PAGES = 200_000

Start = Callable[..., subprocess.Popen[str]]
"""Runs code in another process, with ``sim`` and ``rollout`` at hand."""


def same(one: Rollout, other: Rollout) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in COLUMNS)


@pytest.fixture(scope="module")
def long(simulator: vtb.Simulator) -> Rollout:
    return rollout(simulator, "gaussian:0.5", pages=PAGES, seed=5, num_threads=1)


@pytest.mark.parametrize(
    ("threads", "batch_size"), [(1, 57), (2, None), (3, 1024), (8, 8192), (8, 10**9)]
)
def test_threads_and_batches_change_nothing(
    simulator: vtb.Simulator, long: Rollout, threads: int, batch_size: int | None
) -> None:
    again = rollout(
        simulator,
        "gaussian:0.5",
        sessions=long.sessions,
        seed=5,
        num_threads=threads,
        batch_size=batch_size,
    )
    assert again.digest() == long.digest()
    assert again.summary == long.summary


def test_another_seed_policy_or_simulator_is_another_log(
    simulator: vtb.Simulator, shop: vtb.Simulator
) -> None:
    digests = {
        rollout(sim, policy, sessions=50, seed=seed).digest()
        for sim in (simulator, shop)
        for policy in ("random", "zero")
        for seed in (0, 1)
    }
    assert len(digests) == 8


def test_files_have_the_same_rows_and_bytes(
    simulator: vtb.Simulator, long: Rollout, tmp_path: Path
) -> None:
    seen = set()
    for threads in (1, 2, 3, 8):
        path = tmp_path / f"{threads}.parquet"
        arguments = {"pages": PAGES, "seed": 5, "num_threads": threads, "out": path}
        played = rollout(simulator, "gaussian:0.5", **arguments)
        assert played.digest() == long.digest()
        assert played.summary == long.summary
        seen.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert same(played, long)
    long.log.write(tmp_path / "written.parquet")
    seen.add(hashlib.sha256((tmp_path / "written.parquet").read_bytes()).hexdigest())
    assert len(seen) == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".parquet"] * 5


def test_instruction_sets_agree(
    simulator: vtb.Simulator, long: Rollout, start: Start, tmp_path: Path
) -> None:
    available = _core.cpu_info()["available"]
    # The reference is slow by design: it plays fewer pages, and so does one fast set with it.
    short = rollout(simulator, "gaussian:0.5", pages=8_000, seed=5)
    runs = {name: (PAGES, long.digest()) for name in available if name != "scalar"}
    runs["scalar"] = (8_000, short.digest())
    for name, (pages, digest) in runs.items():
        code = f"print(rollout(sim, 'gaussian:0.5', pages={pages}, seed=5).digest())"
        with start(simulator, tmp_path, code, VIRTUALTB_FAST_ISA=name) as process:
            out, error = process.communicate()
        assert (process.returncode, out.strip()) == (0, digest), (name, error)


def test_pages_take_the_fewest_sessions(simulator: vtb.Simulator) -> None:
    for pages in (1, 100, 40_000):
        played = rollout(simulator, pages=pages)
        assert played.pages >= pages
        assert played.pages - np.count_nonzero(played["session"] == played.sessions - 1) < pages
        assert same(played, rollout(simulator, sessions=played.sessions))


def test_sessions_are_those_of_an_environment(
    simulator: vtb.Simulator, make: Callable[..., Any]
) -> None:
    played = rollout(simulator, "gaussian:0.5", sessions=40, seed=9)
    offsets, observations = played.log.session_offsets(), played.log.observations()
    env = make()
    for session in range(40):
        observation, _ = env.reset(seed=9 if session == 0 else None)
        for row in range(offsets[session], offsets[session + 1]):
            assert np.array_equal(observation, observations[row])
            observation, reward, over, _, info = env.step(played["action"][row])
            assert (reward, info["deals"]) == (played["clicks"][row], played["second"][row])
            assert over == (row + 1 == offsets[session + 1])
            assert played["outcome"][row] == (2 if over else 0)


def test_a_function_is_the_policy_that_it_computes(shop: vtb.Simulator) -> None:
    action = np.array([-1.5, 0.25, 3.0, 0.0, 1.0, -2.0], np.float32)
    want = rollout(shop, Policy.constant(action), sessions=700, seed=2)
    for batch_size in (1, 19, None):
        calls = []

        def policy(
            observation: np.ndarray, session: np.ndarray, page: np.ndarray, calls: Any = calls
        ) -> np.ndarray:
            calls.append((observation.copy(), session.copy(), page.copy()))
            return np.tile(action.astype(float), (len(page), 1))

        got = rollout(shop, policy, sessions=700, seed=2, batch_size=batch_size)
        assert same(got, want)
        assert got.digest() == want.digest()
        observation, session, page = map(np.concatenate, zip(*calls, strict=True))
        assert (observation.dtype, session.dtype, page.dtype) == (np.float32, np.int64, np.int64)
        order = np.lexsort((page, session))
        assert np.array_equal(session[order], want["session"])
        assert np.array_equal(page[order], want["page"])
        assert np.array_equal(observation[order], want.log.observations())
        assert got.metadata["policy"].startswith("python:")


def test_actions_outside_the_range_are_clipped(shop: vtb.Simulator) -> None:
    played = rollout(shop, Policy.constant([9.0, -9.0, 0.5, 3.0, -2.0, 0.0]), sessions=3)
    assert played["action"][0].tolist() == [3.0, -2.0, 0.5, 3.0, -2.0, 0.0]
    wide = rollout(shop, "gaussian:10", sessions=300)
    low, high = shop.schema.action_range
    assert wide["action"].min() == low
    assert wide["action"].max() == high
    # The density is that of the draw, which a clipped action does not show any more.
    assert np.ptp(wide["action_logp"]) > 1


def test_policies_draw_what_they_say(shop: vtb.Simulator) -> None:
    low, high = shop.schema.action_range

    def uniform_misfit(actions: np.ndarray) -> float:
        """Kolmogorov-Smirnov distance from the uniform, times root n."""
        values = np.sort((actions.ravel() - low) / (high - low))
        grid = np.arange(1, len(values) + 1) / len(values)
        return float(np.abs(values - grid).max() * np.sqrt(len(values)))

    random = rollout(shop, "random", sessions=10_000)
    normal = rollout(shop, "gaussian:0.3", sessions=10_000)
    # 2.2 is exceeded once in 8,000 runs. The other policy must fail where this one passes.
    assert uniform_misfit(random["action"]) < 2.2 < uniform_misfit(normal["action"])
    np.testing.assert_allclose(random["action_logp"], -6 * np.log(high - low), rtol=1e-6)
    correlations = np.corrcoef(random["action"], rowvar=False) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(len(random))

    z = normal["action"].astype(float) / 0.3
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)
    assert abs((random["action"] / 0.3).std() - 1) > 1
    density = (-0.5 * z**2 - np.log(0.3) - 0.5 * np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(normal["action_logp"], density, atol=1e-4)

    zero = rollout(shop, "zero", sessions=100)
    assert not zero["action"].any()
    assert not zero["action_logp"].any()


def test_the_summary_counts_the_rows(simulator: vtb.Simulator) -> None:
    played = rollout(simulator, sessions=3_000, seed=4)
    summary, clicks = played.summary, played["clicks"].astype(np.int64)
    by_session = np.bincount(played["session"], clicks)
    lengths = np.bincount(played["session"])
    assert (summary.pages, summary.sessions) == (len(clicks), 3_000)
    assert (summary.clicks, summary.second) == (clicks.sum(), played["second"].sum())
    assert summary.clicks > 0
    assert summary.click_pages == np.count_nonzero(clicks)
    assert summary.clicks_squared == (by_session**2).sum()
    assert summary.pages_squared == (lengths**2).sum()
    assert summary.clicks_times_pages == (by_session * lengths).sum()
    assert np.array_equal(summary.sessions_by_length, np.bincount(lengths))
    assert np.array_equal(summary.pages_by_page, np.bincount(played["page"]))
    assert np.array_equal(summary.clicks_by_page, np.bincount(played["page"], clicks))
    assert played.ctr == summary.ctr == clicks.sum() / (10 * len(clicks))
    assert summary.mean_session_length == lengths.mean()
    text = json.dumps(summary.to_dict(), allow_nan=False)
    assert json.loads(text)["pages"] == summary.pages
    for shown in (repr(played), str(summary)):
        assert f"{summary.pages:,}" in shown
        assert "CTR" in shown


def test_intervals_hold_as_often_as_they_say(simulator: vtb.Simulator) -> None:
    runs = [rollout(simulator, "random", sessions=400, seed=seed << 32) for seed in range(200)]
    pages = sum(run.pages for run in runs)
    ctr = sum(run.clicks for run in runs) / (10 * pages)
    length = pages / sum(run.sessions for run in runs)
    inside = sum(low <= ctr <= high for low, high in (run.ctr_interval for run in runs))
    lengths = [run.mean_session_length_interval for run in runs]
    inside_length = sum(low <= length <= high for low, high in lengths)
    # 190 are expected; a correct interval gives fewer than 178 once in 3,000 runs.
    assert inside >= 178
    assert inside_length >= 178
    # Void guard: intervals of half the width must fail.
    halves = ((run.ctr, (run.ctr_interval[1] - run.ctr) / 2) for run in runs)
    assert sum(abs(ctr - middle) <= margin for middle, margin in halves) < 170
    assert np.isnan(rollout(simulator, sessions=1).ctr_interval).all()


def test_counts_alone_need_no_log(simulator: vtb.Simulator) -> None:
    played = rollout(simulator, sessions=500, keep=False)
    assert played.summary == rollout(simulator, sessions=500).summary
    with pytest.raises(vtb.StateError, match="keep=False"):
        played["clicks"]


def test_progress_is_told_and_its_errors_come_out(simulator: vtb.Simulator) -> None:
    told: list[tuple[int, int]] = []
    played = rollout(
        simulator, sessions=60_000, num_threads=1, progress=lambda *done: told.append(done)
    )
    assert told == sorted(told)
    assert told[-1] == (played.pages, played.sessions)

    def fail(pages: int, sessions: int) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        rollout(simulator, sessions=10**9, keep=False, progress=fail)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda n: np.zeros(27), "shape (27,)"),
        (lambda n: np.zeros((n, 26)), "(5, 26)"),
        (lambda n: np.zeros((n + 1, 27)), "(6, 27)"),
        (lambda n: np.zeros((n, 27), complex), "complex128"),
        (lambda n: np.zeros((n, 27), bool), "bool"),
        (lambda n: [["a"] * 27] * n, "<U1"),
        (lambda n: None, "object"),
        (lambda n: np.full((n, 27), np.nan), "NaN for session 0, page 0"),
        (lambda n: np.full((n, 27), np.inf), "inf for session 0, page 0"),
        (lambda n: np.full((n, 27), 1e300), "inf for session 0, page 0"),
        (lambda n: np.full((n, 27), -2e6), "-2000000 for session 0, page 0"),
    ],
)
def test_answers_that_are_no_actions_are_refused(
    simulator: vtb.Simulator, answer: Callable[[int], Any], got: str
) -> None:
    with pytest.raises(vtb.PolicyError, match="expected") as caught:
        rollout(simulator, lambda _, session, __: answer(len(session)), sessions=5)
    assert got in str(caught.value)


def test_all_numbers_will_do_as_answers(simulator: vtb.Simulator) -> None:
    want = rollout(simulator, Policy.constant(np.ones(27)), sessions=20).digest()
    for answer in (
        lambda n: np.ones((n, 27), np.int8),
        lambda n: np.ones((27, n)).T,
        lambda n: [[1] * 27] * n,
    ):
        got = rollout(simulator, lambda _, s, __, a=answer: a(len(s)), sessions=20)
        assert got.digest() == want


@pytest.mark.parametrize(
    "bad",
    [
        {"sessions": 0},
        {"sessions": -1},
        {"sessions": 2.0},
        {"sessions": True},
        {"sessions": "10"},
        {"sessions": 2**41},
        {"sessions": None},
        {"pages": 10},
        {"sessions": None, "pages": 0},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 0.5},
        {"seed": None},
        {"num_threads": 0},
        {"num_threads": -2},
        {"num_threads": 1025},
        {"num_threads": 1.0},
        {"batch_size": 0},
        {"batch_size": "all"},
        {"policy": ""},
        {"policy": "best"},
        {"policy": "gaussian:-1"},
        {"policy": "gaussian:nan"},
        {"policy": 7},
        {"policy": None},
        {"policy": Policy.constant(np.zeros(26))},
        {"progress": 3},
        {"simulator": "no-such-simulator"},
        {"simulator": 5},
    ],
    ids=str,
)
def test_bad_arguments_are_refused(simulator: vtb.Simulator, bad: dict[str, Any]) -> None:
    arguments = {"simulator": simulator, "policy": "zero", "sessions": 10} | bad
    with pytest.raises(vtb.InvalidArgumentError, match=r"expected .* got "):
        rollout(**arguments)


def test_the_public_name_is_the_function(simulator: vtb.Simulator) -> None:
    assert vtb.rollout is rollout
    assert sys.modules["virtualtb_fast.rollout"].rollout is rollout


def test_summaries_of_workers_add_up(shop: vtb.Simulator) -> None:
    whole = rollout(shop, "random", sessions=700, seed=3)
    parts = [rollout(shop, "random", sessions=n, seed=s) for n, s in ((700, 3), (50, 9), (1, 4))]
    total = sum(part.summary for part in parts)
    assert isinstance(total, Summary)
    for name in ("pages", "sessions", "clicks", "units", "clicks_squared", "clicks_times_pages"):
        assert getattr(total, name) == sum(getattr(part.summary, name) for part in parts)
    joined = np.concatenate([part["clicks"] for part in parts])
    assert total.ctr == joined.sum() / (total.page_items * len(joined))
    assert total.sessions_by_length.sum() == 751
    assert total.pages_by_page.sum() == total.pages
    assert total != whole.summary
    with pytest.raises(InvalidArgumentError, match="summaries of the same kind"):
        whole.summary + dataclasses.replace(whole.summary, priced=True)
    with pytest.raises(TypeError):
        whole.summary + 1
