"""BC + MAIL in one tuning world, judged by its truth: each bound with its guard.

The long form, all methods in the worlds for reporting: `virtualtb-fast report responses`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from virtualtb_fast.evaluation import imitation  # noqa: E402
from virtualtb_fast.evaluation.imitation import Sizes  # noqa: E402

SIZES = Sizes(customers=10_000, judged=10_000, iterations=5)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """Results depend on how PyTorch splits its sums."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judged(found: dict[str, Any]) -> None:
    """The aims of `report responses`, each with its guard."""
    # What another action does to the odds of buying: correlation, learned with true.
    assert found["action_effect"]["learned"] >= 0.30
    assert abs(found["action_effect"]["action_blind"]) < 0.05
    # Nat a page beyond an oracle who knows the archetype.
    assert found["excess_likelihood"]["learned"] <= 0.007 < found["excess_likelihood"]["constant"]
    # R2P under the logger; the guard's customers are those that were learned, a bit keener to buy.
    r2p = found["r2p"]["logger"]
    assert abs(r2p["simulator"] - r2p["truth"]) <= 0.002 < abs(r2p["biased"] - r2p["truth"])
    # Total variation of sessions, under the logged and under a shifted policy.
    logger, shifted = found["distance"]["logger"], found["distance"]["shifted"]
    assert logger["distance"] <= 0.03 < logger["feature_blind"]
    # A table that knows the page alone may be within .06 (what shifts is how much all customers
    # buy); one that does not know the page either is not.
    assert shifted["distance"] <= 0.06 < shifted["constant"]
    # A fresh discriminator between real and generated pages.
    auc = found["telling_apart"]
    assert auc["auc"] <= 0.58 < auc["independent_fields"]
    # The engine's distance from the logger, in its standard deviations.
    assert found["engine"]["learned"] <= 0.1 < found["engine"]["untrained"]
    # Mean length of generated sessions over real ones: nobody was taught to stay or to go. The
    # guard's customers are those that were learned, more ready to leave.
    length = found["length"]
    assert abs(length["ratio"] - 1) <= 0.05 < abs(length["biased_ratio"] - 1)


@pytest.mark.timeout(1800)
def test_mail_after_cloning_is_close_to_the_truth() -> None:
    found = imitation.cell(0, "bc+mail", SIZES)
    print(json.dumps(found))
    judged(found)
    # Both policies learn from the discriminator.
    assert found["fit"]["engine_gradient_norm"] > 0
    assert found["fit"]["customers_gradient_norm"] > 0
