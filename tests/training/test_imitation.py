"""Pages, the fitting loop, cloning, the linear family, ensembles, customers who see the page."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError
from virtualtb_fast.schema import Field, Schema

torch = pytest.importorskip("torch")

from virtualtb_fast._training import Checkpoint  # noqa: E402
from virtualtb_fast.imitation import cloning, fitting, items, linear  # noqa: E402
from virtualtb_fast.imitation.data import Pages, one_hot  # noqa: E402
from virtualtb_fast.imitation.ensemble import Ensemble  # noqa: E402
from virtualtb_fast.imitation.fitting import FitConfig, Part  # noqa: E402
from virtualtb_fast.imitation.response import ResponseConfig  # noqa: E402
from virtualtb_fast.imitation.simulate import logged_customers, simulator_of  # noqa: E402

SMALL = FitConfig(batch=256, rate=5e-3, epochs=2)
SCHEMA = Schema((Field("kind", 3), Field("size", 2)), action=4)


@pytest.fixture(scope="module")
def log() -> Any:
    return vtb.rollout(vtb.GroundTruthStore(0), "logger", sessions=3_000, seed=11 << 24).log


@pytest.fixture(scope="module")
def pages(log: Any) -> Pages:
    return Pages.from_log(log)


def test_pages_share_the_logs_memory_and_split_by_session(log: Any, pages: Pages) -> None:
    assert pages.action is log["action"]
    assert (len(pages), pages.sessions) == (len(log), 3_000)
    held = pages.held_out(0.2, 5)
    assert abs(held.mean() - 0.2) < 4 * np.sqrt(0.16 / 3_000)
    assert (held == pages.held_out(0.2, 5)).all()
    assert (held != pages.held_out(0.2, 5 << 32)).any()
    train, rest = (part.ordered() for part in pages.split(0.2, 5))
    assert np.array_equal(np.sort(np.concatenate((train, rest))), np.arange(len(log)))
    assert not set(log["session"][train]) & set(log["session"][rest])
    some = np.array([7, 2, 2])
    rows = pages.rows_of(some)
    assert (log["session"][rows] == np.repeat(some, pages.lengths(some))).all()
    assert (log["page"][rows][:1] == 0).all()
    assert np.array_equal(pages.customers(rows).numpy(), log.schema.one_hot(log["customer"][rows]))
    with pytest.raises(InvalidArgumentError, match="leaves both"):
        pages.held_out(0.0, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("customer", np.zeros((3, 2), np.uint8)),
        ("action", np.zeros((8, 4))),
        ("action", np.zeros((9, 4), np.int64)),
        ("outcome", np.zeros(9)),
        ("offsets", np.array([0, 4])),
        ("offsets", np.array([0, 4, 4, 9])),
    ],
)
def test_pages_that_do_not_fit_are_refused(name: str, value: Any) -> None:
    good = {
        "customer": np.zeros((9, 2), np.uint8),
        "action": np.zeros((9, 4), np.float32),
        "page": np.zeros(9, np.int16),
        "outcome": np.zeros(9, np.uint8),
        "clicks": np.zeros(9, np.uint8),
        "second": np.zeros(9, np.uint8),
        "offsets": np.array([0, 5, 9]),
    }
    Pages(SCHEMA, **good)
    with pytest.raises(InvalidArgumentError, match=f"{name}: expected"):
        Pages(SCHEMA, **{**good, name: value})


def test_one_hot_is_the_schemas() -> None:
    codes = np.array([[2, 1], [0, 0]], np.uint8)
    assert np.array_equal(one_hot(SCHEMA, torch.from_numpy(codes)).numpy(), SCHEMA.one_hot(codes))


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_cloning_finds_what_the_answers_follow(kind: str, known: Any) -> None:
    pages = known()
    shape = ResponseConfig(kind=kind, hidden=(16,), longest=12)
    config = cloning.CloningConfig(response=shape, fit=FitConfig(batch=256, rate=2e-2, epochs=8))
    fitted = cloning.clone_response(pages, seed=1, config=config)
    assert fitted.report["held_out"] < fitted.report["start"] - 0.02
    codes = np.array([[0, 0], [1, 1], [2, 0]], np.uint8)
    push = np.zeros((3, 4), np.float32)
    push[:, 0] = 0.02
    odds = [
        np.log(fitted.probabilities(codes, np.zeros(3), action)["outcome"]) @ [-1, 1, 0]
        for action in (push, 0 * push)
    ]
    # A push of one standard deviation is worth +1, -1 and 0.
    np.testing.assert_allclose(odds[0] - odds[1], [1, -1, 0], atol=0.25)


def test_a_fit_goes_on_to_the_same_bits_and_depends_on_its_seed(known: Any, keeper: Any) -> None:
    pages, config = known(800), cloning.CloningConfig(fit=SMALL)
    kept = keeper()
    whole = cloning.clone_response(pages, seed=3, config=config, checkpoint=kept)
    assert len(kept.history) > 2
    again = keeper(kept.history[1])
    resumed = cloning.clone_response(pages, seed=3, config=config, checkpoint=again)
    finished = cloning.clone_response(pages, seed=3, config=config, checkpoint=keeper(kept.state))
    other = cloning.clone_response(pages, seed=3 << 32, config=config)
    pairs = [one.network.tensors() for one in (whole, resumed, finished, other)]
    for name, value in pairs[0].items():
        assert np.array_equal(value, pairs[1][name])
        assert np.array_equal(value, pairs[2][name])
    assert not np.array_equal(pairs[0]["action.0.weight"], pairs[3]["action.0.weight"])
    assert whole.report == resumed.report


def test_a_fit_goes_on_from_between_two_looks(
    known: Any, keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtualtb_fast.imitation import fitting

    monkeypatch.setattr(fitting, "_BETWEEN", 2)
    pages, config = known(800), cloning.CloningConfig(fit=SMALL)
    looks: list[int] = []
    kept = keeper()
    whole = cloning.clone_response(
        pages,
        seed=3,
        config=config,
        checkpoint=kept,
        progress=lambda stage, step, of, figures: looks.append(step),
    )
    between = [state for state in kept.history if int(state["step"]) not in looks]
    assert len(between) > 3
    for state in (between[0], between[len(between) // 2], between[-1]):
        again = cloning.clone_response(pages, seed=3, config=config, checkpoint=keeper(state))
        for name, value in whole.network.tensors().items():
            assert np.array_equal(value, again.network.tensors()[name])
        assert whole.report == again.report
    # What is on the disk can be gone on from: nothing is kept of what diverged.
    kept, wild = keeper(), dataclasses.replace(SMALL, rate=1e30)
    with pytest.raises(TrainingDivergedError):
        cloning.clone_response(
            pages, seed=3, config=cloning.CloningConfig(fit=wild), checkpoint=kept
        )
    for state in kept.history:
        assert all(np.isfinite(one).all() for one in state.values())


def test_a_killed_fit_goes_on_from_its_file(known: Any, tmp_path: Any) -> None:
    class KilledError(Exception):
        pass

    def kill(stage: str, step: int, steps: int, figures: Any) -> None:
        if step > steps // 2:
            raise KilledError

    pages, config = known(800), cloning.CloningConfig(fit=SMALL)
    shared = {"seed": 3, "config": config}
    whole = cloning.clone_response(pages, **shared)
    path = tmp_path / "fit.ckpt"
    with pytest.raises(KilledError):
        cloning.clone_response(
            pages, **shared, checkpoint=Checkpoint(path, "key", every=0), progress=kill
        )
    steps: list[int] = []
    again = cloning.clone_response(
        pages,
        **shared,
        checkpoint=Checkpoint(path, "key", every=0),
        progress=lambda stage, step, of, figures: steps.append(step),
    )
    # Three of five looks were before the kill.
    assert len(steps) == 2
    for name, value in whole.network.tensors().items():
        assert np.array_equal(value, again.network.tensors()[name])


def test_a_fit_that_diverges_says_what_and_when(known: Any, keeper: Any) -> None:
    pages = known(800)
    kept = keeper()
    wild = dataclasses.replace(SMALL, rate=1e30)
    with pytest.raises(TrainingDivergedError, match="cloning of customers: ") as caught:
        cloning.clone_response(
            pages, seed=3, config=cloning.CloningConfig(fit=wild), checkpoint=kept
        )
    assert caught.value.quantity.replace(" ", "_") in ("loss", "held_out_loss")
    assert caught.value.step > 0
    broken = np.array(pages.action)
    broken[5] = np.nan
    with pytest.raises(TrainingDivergedError):
        cloning.clone_engine(dataclasses.replace(pages, action=broken), seed=3)


def test_a_checkpoint_that_keeps_nothing_is_refused_before_the_fit(pages: Pages) -> None:
    network = torch.nn.Linear(1, 1)
    before = network.weight.detach().clone()
    with pytest.raises(InvalidArgumentError, match="checkpoint: expected an object with load"):
        fitting.fit(
            network,
            lambda rows: network.weight.sum(),
            *pages.split(0.1, 0),
            SMALL,
            seed=0,
            name="a line",
            checkpoint=3,  # type: ignore[arg-type]
        )
    assert (network.weight == before).all()


def test_settings_and_answers_that_do_not_fit_are_refused(known: Any) -> None:
    infinite = ({"rate": math.inf}, {"weight_decay": math.nan}, {"average": 1.0})
    kinds = ({"rate": "x"}, {"batch": True}, {"batch": 2.0})
    low = ({"batch": 0}, {"rate": -1.0}, {"held_out": 1.0}, {"patience": 0})
    for wrong in (*low, *infinite, *kinds):
        with pytest.raises(InvalidArgumentError):
            FitConfig(**wrong)
    with pytest.raises(InvalidArgumentError, match="kind linear"):
        ResponseConfig(kind="linear", heads="clicks")
    with pytest.raises(InvalidArgumentError, match="heads outcome"):
        ResponseConfig(leave="once")
    few = ResponseConfig(heads="clicks", clicks=2, second=2)
    pages = known(200)
    many = dataclasses.replace(pages, clicks=np.full(len(pages), 7, np.uint8))
    with pytest.raises(InvalidArgumentError, match=r"answers: expected below \(2, 2, 2\)"):
        cloning.clone_response(many, seed=0, config=cloning.CloningConfig(response=few))


@pytest.mark.parametrize("kind", ["mlp", "linear", "clicks"])
def test_the_native_simulator_answers_as_the_network_does(
    kind: str, tmp_path: Any, known: Any
) -> None:
    pages = known(600)
    heads = {"heads": "clicks", "clicks": 3, "second": 4} if kind == "clicks" else {"kind": kind}
    shape = ResponseConfig(hidden=(8, 6), longest=12, **heads)
    fitted = cloning.clone_response(
        pages, seed=2, config=cloning.CloningConfig(response=shape, fit=SMALL)
    )
    simulator = simulator_of(fitted, logged_customers(pages), pages.schema)
    rows = np.arange(200)
    given = pages.customer[rows], pages.page[rows].astype(np.int64), pages.action[rows]
    ours, native = fitted.probabilities(*given), simulator.response(*given)
    assert ours.keys() == native.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, native[name], atol=2e-6)
    simulator.save(tmp_path / "s.safetensors")
    assert vtb.load_simulator(tmp_path / "s.safetensors") == simulator
    assert vtb.rollout(simulator, "zero", sessions=50).mean_session_length > 1


def test_lengths_drawn_at_the_start_are_learned(known: Any) -> None:
    pages = known(3_000)
    shape = ResponseConfig(heads="clicks", clicks=2, second=2, leave="once", longest=9)
    config = cloning.CloningConfig(
        response=dataclasses.replace(shape, hidden=(8,)),
        fit=FitConfig(batch=128, rate=1e-2, epochs=4),
        limit_hidden=(8,),
    )
    fitted = cloning.clone_response(pages, seed=2, config=config)
    limit = cloning.clone_limit(pages, seed=2, config=config)
    simulator = simulator_of(
        dataclasses.replace(fitted, limit=limit), logged_customers(pages), pages.schema
    )
    played = vtb.rollout(simulator, "zero", sessions=20_000)
    true = len(pages) / pages.sessions
    assert abs(played.mean_session_length - true) < 0.1
    # Void guard: every class alike would be off.
    assert abs(np.arange(1, 10).mean() - true) > 0.5


def test_an_ensemble_disagrees_where_nothing_was_logged(known: Any) -> None:
    pages = known(1_000)
    config = dataclasses.replace(
        linear.LINEAR, fit=SMALL, response=ResponseConfig(hidden=(8,), longest=12)
    )
    fits = (linear.fit_linear(pages, seed=seed, config=config) for seed in (9, 10, 11))
    several = Ensemble(tuple(fits))
    assert several.members[0].network.config.kind == "linear"
    assert several.members[0].report["method"] == "linear"
    given = pages.customer[:300], pages.page[:300]
    near, far = pages.action[:300], 50 * pages.action[:300]
    apart = [several.disagreement(*given, action).mean() for action in (near, far)]
    assert 0 < 5 * apart[0] < apart[1]
    assert several.spread(*given, near).mean() < several.spread(*given, far).mean()
    mean = several.probabilities(*given, near)
    np.testing.assert_allclose(mean.sum(1), 1, atol=1e-6)
    # Void guard: one model thrice agrees with itself.
    same = dataclasses.replace(several, members=several.members[:1] * 3)
    assert same.disagreement(*given, far).max() < 1e-12


def test_customers_who_see_the_page_are_learned() -> None:
    store = vtb.GroundTruthStore(0)
    pages = Pages.from_log(vtb.rollout(store, "logger", sessions=60_000, seed=12 << 24).log)
    learned = items.fit_item_customers(pages, store.items(), seed=4)
    hidden = store.reveal()
    codes = pages.customer[pages.offsets[:5_000]]
    sizes = [one.size for one in store.schema.customer]
    columns = codes.astype(np.int64) + np.cumsum([0, *sizes[:-1]])
    logs = np.log(hidden.shares)[:, None] + np.log(hidden.fields)[:, columns].sum(2)
    belief = np.exp(logs - logs.max(0))
    true = (belief / belief.sum(0)).T @ hidden.theta
    found = learned.tastes(codes)
    agreement = np.corrcoef(found.ravel(), true.ravel())[0, 1]
    assert agreement > 0.6
    # Void guard: tastes of other customers, which share what all have in common.
    shuffled = np.corrcoef(found.ravel(), np.roll(true, 1, 0).ravel())[0, 1]
    assert shuffled < agreement - 0.05
    np.testing.assert_allclose(learned.by_page, [-0.03, -0.02, 0.05], atol=0.03)
    world = vtb.GroundTruthStore(0, customers=learned)
    for policy in ("logger", "zero"):
        played = vtb.rollout(world, policy, sessions=20_000, seed=13 << 24)
        true_course = store.expected(policy)
        assert abs(played.r2p - true_course.r2p) < 0.006
        assert abs(played.mean_session_length - true_course.mean_length) < 0.15
    other = dataclasses.replace(learned, shared=learned.shared + 1)
    assert vtb.GroundTruthStore(0, customers=other).digest != world.digest


def test_pages_without_items_or_with_strange_prices_are_refused(pages: Pages, known: Any) -> None:
    catalogue = vtb.GroundTruthStore(0).items()
    with pytest.raises(InvalidArgumentError, match="with items and prices"):
        items.fit_item_customers(known(100), catalogue, seed=0)
    few = dataclasses.replace(catalogue, attributes=catalogue.attributes[:100])
    with pytest.raises(InvalidArgumentError, match="rows below 100"):
        items.fit_item_customers(pages, few, seed=0)
    odd = dataclasses.replace(pages, value=np.where(pages.outcome == 1, 1e7, 0).astype(np.float32))
    with pytest.raises(InvalidArgumentError, match="the price of an item of the page"):
        items.fit_item_customers(odd, catalogue, seed=0)


def test_parts_share_a_keeper(keeper: Any) -> None:
    kept = keeper()
    one, two = Part(kept, "one"), Part(kept, "two")
    assert one.load() is None
    one.save({"x": 1})
    two.save({"y": 2})
    assert one.load() == {"x": 1}
    assert two.load() == {"y": 2}
    assert fitting.unpack(fitting.pack({"a": torch.ones(2)}, "p."), "p.")["a"].sum() == 2
