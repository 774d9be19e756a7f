"""The bench of environments: outcomes that are compared, and who is refused for theirs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.evaluation import speed
from virtualtb_fast.evaluation.speed.measure import flop_a_page
from virtualtb_fast.evaluation.speed.outcomes import Outcome, Plan, Reference, play
from virtualtb_fast.evaluation.speed.players import Own, Rollouts, Single, Vector, sync_envs
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plan(simulator: vtb.Simulator) -> Plan:
    return Plan.of(simulator, seed=5, streams=20, sessions=3)


@pytest.fixture(scope="module")
def reference(simulator: vtb.Simulator, plan: Plan) -> Reference:
    return Reference(simulator, plan, 5, 20_000)


def measured(simulator: vtb.Simulator, *field: speed.Contender) -> dict:
    return speed.measure(simulator, threads=1, rounds=2, seconds=0.01, field=field)


def test_all_forms_of_ours_bring_one_digest(
    simulator: vtb.Simulator, plan: Plan, reference: Reference
) -> None:
    players = {
        "one": Single(simulator),
        # One at a time, some at a time, and more places than there are streams.
        **{f"vector {n}": Vector.ours(simulator, n, 1) for n in (1, 7, 50)},
        "threads": Vector.ours(simulator, 20, 3),
        "sync": sync_envs(simulator, 7),
        "counts": Rollouts(simulator, keep=False),
        "memory": Rollouts(simulator, 2, 2),
        "file": Rollouts(simulator, file=True),
    }
    outcomes = {name: player.check(plan) for name, player in players.items()}
    assert {outcome.digest() for outcome in outcomes.values()} == {reference.digest}
    for outcome in outcomes.values():
        assert outcome.sessions == plan.total
    for name in ("counts", "memory", "file"):
        again = players[name].again(reference.seed, 20_000)
        assert again is not None
        assert again.digest() == reference.long_digest
        pages, clicks = players[name].work(5_000)
        assert 0 < clicks < 10 * pages
    # Void guard: other sessions have another digest.
    others = Plan.of(simulator, seed=6, streams=20, sessions=3)
    assert players["one"].check(others).digest() != reference.digest
    for player in players.values():
        player.close()


def test_outcomes_are_counted_by_hand() -> None:
    page = np.array([0, 1, 2, 0, 0, 1])
    clicks = np.array([1, 0, 3, 2, 0, 5], np.uint8)
    outcome = Outcome.of_pages(page, clicks)
    assert outcome.sessions_by_length.tolist() == [0, 1, 1, 1]
    assert outcome.clicks_by_page.tolist() == [3, 5, 3]
    assert (outcome.clicks_squared, outcome.clicks_times_pages) == (45, 24)
    assert (outcome.sessions, outcome.pages, outcome.clicks, outcome.length) == (3, 6, 11, 2.0)
    halves = Outcome.of_pages(page[:3], clicks[:3]) + Outcome.of_pages(page[3:], clicks[3:])
    assert halves.digest() == outcome.digest()
    for other in ([0, 1, 3, 2, 0, 5], [1, 0, 3, 2, 1, 5]):
        assert Outcome.of_pages(page, np.array(other)).digest() != outcome.digest()


class Cheat(Own):
    """The vector environment with something left out."""

    def __init__(self, simulator: vtb.Simulator, how: str) -> None:
        self.envs, self.how = Vector.ours(simulator, 64, 1), how
        self.batch = 64
        self.envs.start(range(64))

    def step(self):
        rewards, terminated, truncated = self.envs.step()
        if self.how == "no clicks":
            return np.zeros_like(rewards), terminated, truncated
        if self.how == "sessions of one page":
            return rewards, np.ones_like(terminated), truncated
        if self.how == "sessions without end":
            return rewards, np.zeros_like(terminated), truncated
        return rewards, terminated, truncated

    def work(self, pages):
        if self.how == "no work when timed":
            return pages, 0
        return super().work(pages)


def cheat(simulator: vtb.Simulator, how: str) -> speed.Contender:
    return speed.Contender(
        how, 64, 1, lambda: Cheat(simulator, how), ours=False, same_sessions=False
    )


def test_whoever_leaves_nothing_out_is_measured(simulator: vtb.Simulator) -> None:
    [row] = measured(simulator, cheat(simulator, "honest"))["contenders"]
    assert (row["what"], row["outcome"]) == ("honest", None)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no clicks", r"no clicks, 64: expected a CTR of .* got 0\.0000"),
        ("sessions of one page", r"(pages a session|CTR of)"),
        ("sessions without end", "expected sessions of at most 100 pages, got longer ones"),
        ("no work when timed", r"no work when timed, 64: expected a CTR of .* got 0\.0000"),
    ],
)
def test_whoever_skips_work_is_refused(simulator: vtb.Simulator, how: str, message: str) -> None:
    with pytest.raises(vtb.StateError, match=message):
        measured(simulator, cheat(simulator, how))


def test_stale_pages_are_refused_of_whoever_claims_our_sessions(simulator: vtb.Simulator) -> None:
    class Stale(Vector):
        """Shows every third page twice."""

        calls, last = 0, None

        def step(self):
            self.calls += 1
            if self.last is None or self.calls % 3:
                self.last = super().step()
            return self.last

    class OwnStreams(Vector):
        def start(self, streams):
            super().start([stream + 1 for stream in streams])

    for kind in (Stale, OwnStreams):
        field = speed.Contender("vector env", 16, 1, lambda kind=kind: kind.ours(simulator, 16, 1))
        with pytest.raises(vtb.StateError, match=r"vector env, 16: expected"):
            measured(simulator, field)


def test_other_draws_are_taken_within_the_band(simulator: vtb.Simulator) -> None:
    torch_rival = pytest.importorskip("virtualtb_fast.evaluation.speed.torch_rival")
    field = [
        speed.Contender(
            what, 128, 1, lambda draw=draw: torch_rival.BatchedTorch(simulator, 128, draw),
            ours=False, same_sessions=False,
        )
        for what, draw in (("plain", torch_rival.multinomial), ("tuned", torch_rival.inverse_cdf))
    ]  # fmt: skip
    assert len(measured(simulator, *field)["contenders"]) == 2
    # Void guard: with the best category of each head in place of a draw it is refused.
    greedy = speed.Contender(
        "greedy", 128, 1, lambda: torch_rival.BatchedTorch(simulator, 128, lambda x: x.argmax(-1)),
        ours=False, same_sessions=False,
    )  # fmt: skip
    with pytest.raises(vtb.StateError, match="greedy, 128: expected"):
        measured(simulator, greedy)


def test_simulators_of_other_kinds_have_no_rival_in_pytorch(kit) -> None:
    pytest.importorskip("torch")
    shop = kit.learned("mixture", "outcome")
    field, absent = speed.contenders(shop, 1, [2])
    assert len(absent) == 2
    assert "plays the published kinds alone" in absent[0]
    assert absent[1].startswith("reduced precision: ")
    left_out = [one for one in field if one.what.startswith("PyTorch") or "reduced" in one.what]
    assert not left_out
    ours = [one for one in field if one.what in ("env.step", "vector env", "rollout in memory")]
    rows = measured(shop, *ours)["contenders"]
    assert len({row["outcome"] for row in rows}) == 1


def test_a_page_costs_what_its_products_cost(simulator: vtb.Simulator, kit) -> None:
    page, customer = 28 * 128 + 128 * 256 + 256 * 21, 86_272
    assert V0_CONFIG.layers(V0_SCHEMA)["action"] == (116, 128, 256, 21)
    assert flop_a_page(simulator, 7.8) == pytest.approx(2 * (page + customer / 7.8))
    # Customers of a mixture cost no products.
    shop = kit.learned("mixture", "hazard")
    assert flop_a_page(shop, 2.0) == flop_a_page(shop, 5.0) > 0


def test_sessions_that_never_end_are_given_up() -> None:
    class Endless:
        batch = 1

        def step(self):
            return 0, False, False

    with pytest.raises(vtb.StateError, match="at most 9 pages"):
        play(Endless(), 1, 5, 9)


def test_readme_shows_rivals_memory_and_picture_when_there_are_any(tmp_path: Path) -> None:
    result = json.loads((ROOT / "benches" / "results" / "environments.json").read_text())
    code = (
        "import json, sys, readme_tables\n"
        "readme_tables.ROOT = readme_tables.Path(sys.argv[1])\n"
        "readme_tables.RESULTS = readme_tables.ROOT\n"
        "print(readme_tables.speed(json.load(sys.stdin)))\n"
    )

    def shown() -> str:
        words = [sys.executable, "-c", code, str(tmp_path)]
        ran = subprocess.run(
            words, input=json.dumps(result), cwd=ROOT / "tools", capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    result["contenders"] = [row for row in result["contenders"] if row["what"] != "SyncVectorEnv"]
    result.pop("memory", None)
    before = shown()
    assert "SyncVectorEnv" not in before
    assert "kB" not in before
    row = {"what": "SyncVectorEnv", "batch": 256, "threads": 1, "pages_per_second": 1234.0}
    result["contenders"].append(row)
    result["memory"] = [{"what": "vector env", "bytes_a_session": 2500.0}]
    (tmp_path / "environments.png").touch()
    after = shown()
    assert "| `SyncVectorEnv` over `env.step`, 256 customers | 1,230 |" in after
    assert "a customer 2.5 kB" in after
    assert "](environments.png)" in after
