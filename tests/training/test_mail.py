"""MAIL's parts: discriminator, rewards, absorbing state, gradients, determinism, divergence."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from virtualtb_fast.errors import InvalidArgumentError, TrainingDivergedError

torch = pytest.importorskip("torch")

from virtualtb_fast.imitation import cloning, mail, mail_step  # noqa: E402
from virtualtb_fast.imitation import judge as judging  # noqa: E402
from virtualtb_fast.imitation.fitting import FitConfig  # noqa: E402
from virtualtb_fast.imitation.mail import MailConfig  # noqa: E402
from virtualtb_fast.imitation.response import (  # noqa: E402
    Engine,
    FittedResponse,
    ResponseConfig,
    ResponseNetwork,
)
from virtualtb_fast.logs import OUTCOMES  # noqa: E402
from virtualtb_fast.networks import stream  # noqa: E402
from virtualtb_fast.rl import trpo  # noqa: E402

SMALL = FitConfig(batch=256, rate=5e-3, epochs=2)
CLONING = cloning.CloningConfig(
    response=ResponseConfig(hidden=(16, 16), longest=10),
    fit=SMALL,
    engine_hidden=(8,),
    engine_fit=SMALL,
)
CONFIG = MailConfig(
    cloning=CLONING,
    sessions=200,
    iterations=4,
    judge_batch=128,
    judge_rate=3e-3,
    step_margin=-1.0,
    look_every=0,
)


def judge_of(pages: Any) -> judging.Judge:
    network = ResponseNetwork(pages.schema, CLONING.response, pages.action_units(), 0)
    return judging.Judge(network, (8,), 0)


def test_the_judges_logit_is_high_for_what_was_logged(known: Any) -> None:
    pages = known(500)
    judge = judge_of(pages)
    rows = np.arange(400)
    given = pages.customers(rows), pages.actions(rows), pages.numbers(rows)
    logged = judge.pages(*given, pages.answers(rows)[:, None])
    wrong = judge.pages(*given, (pages.answers(rows)[:, None] + 1) % 3)
    adam = torch.optim.Adam(judge.parameters(), 1e-2)
    for _ in range(150):
        loss = judging.judge_loss(judge, logged, wrong, torch.zeros(0, 1), 0.1)
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        assert float((judge(logged) > 0).float().mean()) > 0.6
        assert float((judge(wrong) < 0).float().mean()) > 0.6


def test_counted_absorbing_rows_are_the_rows_that_padding_would_make(known: Any) -> None:
    pages = known(50)
    judge = judge_of(pages)
    rng = stream(4)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    lengths = [np.array([1, 3, 3, 10, 12]), np.array([2, 2, 9])]
    shares = torch.stack([judging.ended_before(one, 10) for one in lengths])
    logged = simulated = judge.absorbing()[:1]
    plain = judging.judge_loss(judge, logged, simulated, torch.zeros(0, 1), 0.0)
    counted = judging.judge_loss(judge, logged, simulated, shares, 0.0) - plain
    # Padding by hand: every session, page after page, from its end to the longest.
    total, weight = 0.0, 0.0
    logits = judge(judge.absorbing())
    for side, sign in ((0, -1.0), (1, 1.0)):
        for length in lengths[side]:
            for page in range(length, 10):
                each = torch.nn.functional.softplus(sign * logits[page])
                total = total + each / len(lengths[side])
                weight += 1 / len(lengths[side])
    assert float(counted.detach()) == pytest.approx(2 * float(total.detach()) / weight, rel=1e-5)
    absorbing = judge.absorbing()
    assert (absorbing[:, -1] == 1).all()
    assert (absorbing[:, :SIZE] == 0).all()


SIZE = 5 + 4
"""Columns of customer and action of the known pages."""


def test_the_gradient_penalty_is_the_squared_slope(known: Any) -> None:
    pages = known(50)
    judge = judge_of(pages)
    x = torch.randn(20, judge.width, generator=stream(1))
    without, with_it = (
        float(judging.judge_loss(judge, x, x, torch.zeros(0, 1), penalty).detach())
        for penalty in (0.0, 3.0)
    )
    step = 1e-3
    slopes = torch.zeros(20)
    with torch.no_grad():
        for column in range(judge.width):
            shift = torch.zeros(judge.width)
            shift[column] = step
            slopes += ((judge(x + shift) - judge(x - shift)) / (2 * step)).square()
    assert with_it - without == pytest.approx(1.5 * float(slopes.mean()), rel=1e-2)


def test_rewards_are_what_their_names_say() -> None:
    logits = torch.linspace(-4, 4, 9)
    d = torch.sigmoid(logits)
    assert torch.allclose(judging.rewards_of(logits, "logit"), torch.log(d / (1 - d)), atol=1e-5)
    assert torch.allclose(judging.rewards_of(logits, "log_d"), torch.log(d), atol=1e-5)
    unbounded = judging.rewards_of(logits, "minus_log_one_minus_d")
    assert torch.allclose(unbounded, -torch.log(1 - d), atol=1e-5)
    # Finding 8: the paper's forms have one sign, the logit has both.
    assert (unbounded > 0).all()
    assert (judging.rewards_of(logits, "log_d") < 0).all()
    paper = MailConfig.paper(iterations=7)
    assert (paper.reward, paper.absorbing, paper.init) == ("minus_log_one_minus_d", False, "random")
    assert paper.iterations == 7


def test_an_end_is_worth_what_comes_after() -> None:
    rewards = torch.randn(10, generator=stream(2))
    worth = judging.worth_of_ends(rewards, 0.9)
    for page in range(10):
        brute = sum(0.9 ** (later - page) * float(rewards[later]) for later in range(page + 1, 10))
        assert float(worth[page]) == pytest.approx(brute, abs=1e-5)


def fresh(pages: Any, config: MailConfig = CONFIG, seed: int = 1) -> mail_step.Mail:
    unit = pages.action_units()
    network = ResponseNetwork(pages.schema, config.cloning.response, unit, seed)
    engine = Engine(pages.schema, unit, (8,), seed)
    return mail_step.Mail(pages, config, seed, FittedResponse(network), engine)


def test_constant_rewards_tell_no_policy_how_long_to_stay(known: Any) -> None:
    """The default form is invariant to a constant; the paper's form prefers long sessions."""
    pages = known(400)

    def correlation(config: MailConfig) -> float:
        one = fresh(pages, config)
        with torch.no_grad():
            for parameter in one.averaged.parameters():
                parameter.zero_()
            one.averaged.network.layers[-1].bias.fill_(2.0)
        batch = one._batch(pages, np.arange(len(pages)))
        reward, terminated = one._rewards(batch)
        totals = np.add.reduceat(
            (reward * config.gamma**batch.page).double().numpy(), pages.offsets[:-1]
        )
        assert terminated.sum() > 0
        lengths = np.diff(pages.offsets)
        return float(np.corrcoef(totals, lengths)[0, 1]) if totals.std() > 1e-5 else 0.0

    assert abs(correlation(dataclasses.replace(CONFIG, clip=50.0))) < 1e-6
    assert correlation(MailConfig.paper(cloning=CLONING)) > 0.5


def test_both_policies_get_a_gradient_at_the_first_step(known: Any) -> None:
    """Customers' (kappa) and engine's (sigma); a discriminator that knows nothing gives none."""
    result = mail.fit_mail(
        known(600), seed=5, config=dataclasses.replace(CONFIG, init="random", iterations=1)
    )
    engine, customers = (
        result.report[name] for name in ("engine_gradient_norm", "customers_gradient_norm")
    )
    assert engine > 1e-4
    assert customers > 1e-4
    pages = known(300)
    blind = fresh(pages)
    batch = blind._batch(pages, np.arange(len(pages)))
    sample = (batch.action / blind.engine.policy.unit, batch.answer)
    assert blind._gradient_norms(batch, sample, torch.zeros(len(pages))) == (0.0, 0.0)


def test_a_session_that_is_cut_is_worth_what_its_own_next_page_is(
    known: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = known(300)
    outcome = pages.outcome.copy()
    ends = pages.offsets[1:] - 1
    outcome[ends[pages.page[ends] >= 2]] = OUTCOMES.index("max_pages")
    pages = dataclasses.replace(pages, outcome=outcome)
    shape = dataclasses.replace(CLONING.response, longest=3)
    cloned = dataclasses.replace(CLONING, response=shape)
    one = fresh(pages, MailConfig.paper(cloning=cloned, sessions=200))
    batch = one._batch(pages, np.arange(len(pages)))
    reward, terminated = one._rewards(batch)
    given: list[Any] = []
    whole = mail_step.returns.advantages

    def spy(*columns: Any, **factors: Any) -> Any:
        given.extend(columns)
        return whole(*columns, **factors)

    monkeypatch.setattr(mail_step.returns, "advantages", spy)
    with torch.no_grad():
        later = one._values(dataclasses.replace(batch, page=batch.page + 1))
    one._improve(batch, reward, terminated, 0.0)
    following, ended, truncated = given[2:]
    assert 0 < int(truncated.sum()) < int(ended.sum() + truncated.sum())
    # Within a session the customer stays the same, so the next row is the next page.
    inside = ~ended
    assert torch.allclose(following[inside], later[inside], atol=1e-6)
    # Void guard: the next row in the log would not do.
    assert not torch.allclose(later[:-1][ended[:-1]], one._values(batch)[1:][ended[:-1]], atol=1e-6)


def test_without_evidence_policies_stay_where_they_are(known: Any) -> None:
    pages = known(600)
    config = dataclasses.replace(CONFIG, init="random", step_margin=0.6)
    still = mail.fit_mail(pages, seed=5, config=config)
    moved = mail.fit_mail(pages, seed=5, config=dataclasses.replace(config, step_margin=-1.0))
    start = fresh(pages, config, 5)
    assert still.report["steps"] == 0 < moved.report["steps"]
    first = [trpo.flat(list(one.engine.parameters())) for one in (still, start, moved)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_the_result_is_what_held_out_answers_are_likeliest_under(known: Any) -> None:
    pages = known(600)
    looking = dataclasses.replace(CONFIG, look_every=1, iterations=8, patience=9, average=0.0)
    seen: list[float] = []
    chosen, last = (
        mail.fit_mail(
            pages,
            seed=5,
            config=config,
            progress=lambda stage, _, __, figures: (
                seen.append(figures["held_out"]) if "held_out" in figures else None
            ),
        )
        for config in (looking, dataclasses.replace(looking, look_every=0))
    )
    assert last.report["best_iteration"] == last.report["iterations"] == 8
    held = np.flatnonzero(pages.held_out(CLONING.fit.held_out, 5))

    def nll(result: mail.MailResult) -> float:
        with torch.no_grad():
            return float(result.response.network.nll(pages, pages.rows_of(held)))

    assert len(seen) == 8
    assert nll(chosen) == pytest.approx(min(nll(chosen), *seen), abs=1e-6)
    # Void guard: adversarial steps from cloned customers make them worse here.
    assert nll(last) == pytest.approx(seen[-1], abs=1e-6)
    assert nll(last) > nll(chosen)
    impatient = dataclasses.replace(looking, patience=2)
    stopped = mail.fit_mail(pages, seed=5, config=impatient)
    assert stopped.report["stopped_early"]
    assert stopped.report["iterations"] == stopped.report["best_iteration"] + 2


@pytest.mark.parametrize("look_every", [0, 2])
def test_mail_goes_on_to_the_same_bits(known: Any, keeper: Any, look_every: int) -> None:
    pages = known(600)
    config = dataclasses.replace(CONFIG, look_every=look_every)
    kept, figures = keeper(), []
    whole = mail.fit_mail(
        pages,
        seed=6,
        config=config,
        checkpoint=kept,
        progress=lambda stage, done, of, now: figures.append((stage, done, of, now)),
    )
    at = next(i for i, one in enumerate(kept.history) if "mail" in one) + 1
    assert int(kept.history[at]["mail"]["numbers"][0]) == 2
    resumed = mail.fit_mail(pages, seed=6, config=config, checkpoint=keeper(kept.history[at]))
    early = mail.fit_mail(pages, seed=6, config=config, checkpoint=keeper(kept.history[1]))
    threads = dataclasses.replace(config, num_threads=2)
    other = mail.fit_mail(pages, seed=6, config=threads)
    for name, value in whole.response.network.tensors().items():
        for one in (resumed, early, other):
            assert np.array_equal(value, one.response.network.tensors()[name]), name
    assert whole.engine.to_policy() == resumed.engine.to_policy() == early.engine.to_policy()
    last = [one for one in figures if one[0] == "mail"]
    assert [one[1:3] for one in last] == [(n, 4) for n in (1, 2, 3, 4)]
    assert all(math.isfinite(value) for one in last for value in one[3].values())
    assert 0 < whole.report["simulating_share"] < 1


def test_mail_stops_when_the_judge_cannot_tell(known: Any) -> None:
    config = dataclasses.replace(CONFIG, iterations=30, stop_after=3, stop_accuracy=1.0)
    result = mail.fit_mail(known(300), seed=1, config=config)
    assert result.report["iterations"] == 3
    assert result.report["stopped_early"]


def test_a_divergence_says_what_and_when_and_keeps_the_last_good_state(
    known: Any, keeper: Any
) -> None:
    kept = keeper()
    wild = dataclasses.replace(CONFIG, value_rate=1e30, iterations=10)
    with pytest.raises(TrainingDivergedError, match="mail: value loss: ") as caught:
        mail.fit_mail(known(300), seed=1, config=wild, checkpoint=kept)
    assert (caught.value.quantity, caught.value.step) == ("value loss", 1)
    good = kept.state["mail"]
    assert good is caught.value.state
    assert int(good["numbers"][0]) == 0
    weights = [value for name, value in good.items() if name.startswith(("response", "engine"))]
    assert weights
    assert all(np.isfinite(value).all() for value in weights)


def test_sessions_with_lengths_drawn_at_the_start_are_refused(known: Any) -> None:
    once = ResponseConfig(heads="clicks", leave="once")
    config = MailConfig(cloning=cloning.CloningConfig(response=once))
    with pytest.raises(InvalidArgumentError, match="hazard"):
        mail.fit_mail(known(100), seed=0, config=config)


def test_heads_of_clicks_are_imitated_too(known: Any) -> None:
    shape = ResponseConfig(heads="clicks", clicks=3, second=3, hidden=(8,), longest=10)
    config = dataclasses.replace(
        CONFIG, cloning=dataclasses.replace(CLONING, response=shape), iterations=2
    )
    result = mail.fit_mail(known(300), seed=1, config=config)
    assert result.report["iterations"] == 2
    assert result.response.export()[0].heads == "clicks"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward": "logitt"}, "reward: expected one of logit, .*, got 'logitt'"),
        ({"init": "warm"}, "init: expected one of bc, random, got 'warm'"),
        ({"iterations": 0}, "iterations: expected an integer, 1 to"),
        ({"judge_epochs": 0}, "judge_epochs: expected an integer, 1 to"),
        ({"look_every": -1}, "look_every: expected an integer, 0 to"),
        ({"average": 1.5}, "average: expected a finite number from 0, up to 1, got 1.5"),
        ({"penalty": -1.0}, "penalty: expected a finite number from 0, got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        MailConfig(**settings)
