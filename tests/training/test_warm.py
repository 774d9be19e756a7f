"""Responses that start from a simulator's, and not from random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from virtualtb_fast import Simulator
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import Field, Schema

torch = pytest.importorskip("torch")

from virtualtb_fast.imitation.cloning import CloningConfig, clone_response  # noqa: E402
from virtualtb_fast.imitation.data import Pages  # noqa: E402
from virtualtb_fast.imitation.fitting import FitConfig  # noqa: E402
from virtualtb_fast.imitation.linear import fit_linear  # noqa: E402
from virtualtb_fast.imitation.response import (  # noqa: E402
    FittedResponse,
    ResponseConfig,
    ResponseNetwork,
)
from virtualtb_fast.imitation.simulate import logged_customers, simulator_of  # noqa: E402
from virtualtb_fast.imitation.warm import warm_network  # noqa: E402
from virtualtb_fast.networks import Perceptron, stream  # noqa: E402

FORMS = {
    "outcome": ResponseConfig(hidden=(12, 7)),
    "linear": ResponseConfig(kind="linear", hidden=(9,)),
    "clicks": ResponseConfig(heads="clicks", page_scale=1.0, hidden=(8,), clicks=4, second=3),
    "once": ResponseConfig(heads="clicks", leave="once", hidden=(8,), longest=20),
}


def simulator(pages: Pages, config: ResponseConfig, seed: int = 5) -> Simulator:
    """Answers of random weights, biases and effects among them."""
    network = ResponseNetwork(pages.schema, config, pages.action_units(), seed)
    rng, limit = stream(seed, "weights"), None
    with torch.no_grad():
        for one in network.parameters():
            one.copy_(torch.randn(one.shape, generator=rng))
    if config.leave == "once":
        limit = Perceptron((pages.schema.customer_width, 6, config.longest + 1), generator=rng)
    return simulator_of(FittedResponse(network, limit), logged_customers(pages), pages.schema)


def answering(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in tensors.items() if name.startswith(("action", "effect"))}


@pytest.mark.parametrize("form", FORMS)
def test_what_starts_exports_the_bits_that_it_started_from(
    known: Callable[..., Any], form: str
) -> None:
    pages, config = known(200), FORMS[form]
    # Of another log, whose units were others.
    start = simulator(known(200, seed=9), config)
    expected = answering(start.tensors())
    assert len(expected) >= 4
    network = warm_network(start, pages, config)
    back = network.tensors()
    assert back.keys() == expected.keys()
    for name, one in expected.items():
        assert back[name].dtype == one.dtype == np.float32
        assert back[name].tobytes() == one.tobytes(), name
    # It answers as the simulator does.
    given = pages.customer[:50], pages.page[:50], pages.action[:50]
    found = FittedResponse(network).probabilities(*given)
    for name, chances in start.response(*given).items():
        if name in found:
            np.testing.assert_allclose(found[name], chances, atol=1e-5)
    # Units are those of the log, but for less than half a power of two.
    ratio = (network.unit / pages.action_units()).numpy()
    assert (np.abs(np.log2(ratio)) <= 0.5).all()
    # The void guard: standard deviations are no powers of two, and lose bits on the way.
    plain = ResponseNetwork(pages.schema, config, pages.action_units(), 0)
    plain.take(start.tensors())
    lossy = plain.tensors()
    assert any(lossy[name].tobytes() != one.tobytes() for name, one in expected.items())
    for name, one in expected.items():
        np.testing.assert_allclose(lossy[name], one, rtol=1e-6)


def brief(config: ResponseConfig) -> CloningConfig:
    """One epoch of steps that hardly move."""
    return CloningConfig(response=config, fit=FitConfig(batch=64, rate=1e-5, epochs=1))


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Mean total variation of the answers."""
    gaps = [np.abs(one[name] - other[name]).sum(1).mean() / 2 for name in one if name in other]
    assert gaps
    return float(np.mean(gaps))


@pytest.mark.parametrize("form", ["outcome", "linear", "once"])
def test_little_effort_stays_near_the_start(known: Callable[..., Any], form: str) -> None:
    pages, config = known(400, seed=1), FORMS[form]
    start = simulator(known(400), config)
    fit = fit_linear if form == "linear" else clone_response
    given = pages.customer[:500], pages.page[:500], pages.action[:500]
    there = start.response(*given)
    warm = fit(pages, seed=1, config=brief(config), warm_start=start)
    cold = fit(pages, seed=1, config=brief(config))
    near, far = (apart(one.probabilities(*given), there) for one in (warm, cold))
    # The void guard: random weights are elsewhere, and do not get there.
    assert near < 0.02 < 0.1 < far
    # The loss before the first step is that of the start, its biases among the rest.
    network = warm_network(start, pages, config)
    _, held = pages.split(0.1, 1)
    rows = held.ordered(10**6)
    assert warm.report["start"] == pytest.approx(network.nll(pages, rows).item(), rel=1e-5)
    assert warm.report["start"] > cold.report["start"] + 0.1
    # What is started from is not changed.
    assert start == simulator(known(400), config)


def test_a_start_that_is_good_stays_good(known: Callable[..., Any]) -> None:
    """Averages that do worse on held-out answers are not what comes out."""
    pages = known(3_000)
    config = CloningConfig(
        response=ResponseConfig(hidden=(16,)), fit=FitConfig(batch=256, rate=5e-3, epochs=6)
    )
    learned = clone_response(pages, seed=1, config=config)
    start = simulator_of(learned, logged_customers(pages), pages.schema)
    wild = replace(config, fit=FitConfig(batch=64, rate=0.5, epochs=1))
    after = clone_response(pages, seed=1, config=wild, warm_start=start)
    assert after.report["start"] == pytest.approx(learned.report["held_out"], abs=1e-6)
    assert after.report["held_out"] <= after.report["start"]
    cold = clone_response(pages, seed=1, config=wild)
    assert cold.report["held_out"] > after.report["held_out"] + 0.01


def test_a_fit_that_goes_on_ends_at_the_same_bits(
    known: Callable[..., Any], keeper: type[Any]
) -> None:
    pages, config = known(600), FORMS["outcome"]
    start, shape = (
        simulator(pages, config),
        CloningConfig(response=config, fit=FitConfig(batch=64, rate=1e-3, epochs=2)),
    )
    whole = keeper()
    given: dict[str, Any] = {"seed": 1, "config": shape, "warm_start": start}
    expected = clone_response(pages, **given, checkpoint=whole).network.tensors()
    assert len(whole.history) > 2
    again = clone_response(pages, **given, checkpoint=keeper(whole.history[1])).network.tensors()
    cold = clone_response(pages, seed=1, config=shape).network.tensors()
    for name, one in expected.items():
        np.testing.assert_array_equal(again[name], one)
    assert not np.array_equal(cold["action.0.weight"], expected["action.0.weight"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ResponseConfig(hidden=(12,)), r"hidden layers \(12,\), got \(12, 7\)"),
        (ResponseConfig(hidden=(12, 7), kind="linear"), "of kind linear, got mlp"),
        (ResponseConfig(hidden=(12, 7), heads="clicks"), "heads clicks, got outcome"),
        (ResponseConfig(hidden=(12, 7), page_scale=1.0), "page_scale 1.0, got 0.1"),
        (ResponseConfig(hidden=(12, 7), slope=0.2), "slope 0.2, got 0.01"),
    ],
)
def test_answers_of_another_form_are_refused(
    known: Callable[..., Any], config: ResponseConfig, message: str
) -> None:
    pages = known(100)
    start = simulator(pages, FORMS["outcome"])
    with pytest.raises(InvalidArgumentError, match=f"warm_start: expected .* with .*{message}"):
        clone_response(pages, seed=1, config=CloningConfig(response=config), warm_start=start)


def test_other_heads_or_customers_are_refused(known: Callable[..., Any]) -> None:
    pages = known(100)
    clicks = simulator(pages, FORMS["clicks"])
    for change, message in (
        ({"leave": "once"}, "leave once, got hazard"),
        ({"second": 5}, r"categories of clicks, second \(4, 5\), got \(4, 3\)"),
    ):
        config = CloningConfig(response=replace(FORMS["clicks"], **change))
        with pytest.raises(InvalidArgumentError, match=message):
            clone_response(pages, seed=1, config=config, warm_start=clicks)
    for schema, message in (
        (Schema((Field("kind", 3), Field("length", 2)), action=4), r"length \(2\), got .* size"),
        (Schema((Field("kind", 3), Field("size", 3)), action=4), r"size \(3\), got .*size \(2\)"),
        (Schema((Field("kind", 3), Field("size", 2)), action=3), "action dimensions 3, got 4"),
    ):
        other = replace(pages, schema=schema, action=pages.action[:, : schema.action])
        config = CloningConfig(response=FORMS["clicks"])
        with pytest.raises(InvalidArgumentError, match=f"warm_start: expected .*{message}"):
            clone_response(other, seed=1, config=config, warm_start=clicks)
    with pytest.raises(InvalidArgumentError, match="warm_start: expected a Simulator"):
        clone_response(pages, seed=1, config=CloningConfig(), warm_start="clicks")  # type: ignore[arg-type]
