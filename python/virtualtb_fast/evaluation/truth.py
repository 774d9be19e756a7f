"""What only a ground-truth store knows of a simulator that was fitted to its log.

Like `responses`, this looks behind the store's curtain, which training never does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation import responses
from virtualtb_fast.rollout import rollout
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import LOGGED_SD, GroundTruthStore

__all__ = ["truth"]

_CUSTOMERS: Final = 20_000
_PAGES: Final = 100_000
_SESSIONS: Final = 100_000


def truth(
    store: GroundTruthStore,
    simulator: Simulator,
    metadata: Mapping[str, str],
    seed: int,
    *,
    customers: int = _CUSTOMERS,
    pages: int = _PAGES,
    sessions: int = _SESSIONS,
) -> dict[str, Any]:
    """A simulator beside the true customers of its store, each figure with a void guard.

    Args:
        store: The truth, of a day without hours for figures of responses.
        simulator: What is judged; figures of responses need heads ``outcome``.
        metadata: What the log says of itself.
        seed: Of all draws.
        customers: Drawn for the likelihood of customers and the effect of actions.
        pages: Played for the likelihood of responses.
        sessions: Simulated under each policy.

    Returns:
        ``customer_excess``: E[-log p(x)] - H in nat, of the simulator, fresh true customers and
        independent fields. With heads ``outcome``: ``response_excess`` (nat a page beyond an
        oracle; guard ``constant``), ``action_effect`` (correlation; guard ``blind``) and ``r2p``
        under the logger and the zero action.

    Raises:
        InvalidArgumentError: the log, or the simulator's customers, are not this store's.
    """
    digest = metadata.get("store_digest")
    if digest is not None and digest != store.digest:
        held = json.loads(metadata.get("store_config", "{}")).get("seed", "another")
        raise InvalidArgumentError(f"store: expected that of the log, seed {held}, got another one")
    if simulator.schema.customer != store.schema.customer:
        raise InvalidArgumentError("store: expected the simulator's customers, got other ones")
    hidden = store.reveal()
    random = np.random.default_rng((seed, 77))
    played = rollout(store, "logger", sessions=customers, seed=_seed(seed, 0)).log
    true = played["customer"][played.session_offsets()[:-1]]
    apart = np.stack([random.permutation(column) for column in true.T], 1)
    ours = simulator.customers(customers, _seed(seed, 1))
    entropy = _entropy(hidden, true)
    found: dict[str, Any] = {
        "store": store.digest,
        "customer_excess": {
            name: float(-hidden.log_density(codes).mean() - entropy)
            for name, codes in (("simulator", ours), ("fresh", true), ("independent", apart))
        },
    }
    plain = bool(np.isnan(played["hour"]).all())
    if simulator.config.response.heads == "outcome" and plain:
        found |= _responses(store, simulator, true, seed, pages, sessions)
    return found


def _entropy(hidden: Any, true: NDArray[np.uint8]) -> float:
    calibration = hidden.calibration or {}
    # A store with explicit parameters was not calibrated: what its own customers say then.
    return float(calibration.get("entropy", -hidden.log_density(true).mean()))


def _responses(
    store: GroundTruthStore,
    simulator: Simulator,
    true: NDArray[np.uint8],
    seed: int,
    pages: int,
    sessions: int,
) -> dict[str, Any]:
    def learned(codes: Any, page: Any, action: Any) -> Any:
        return simulator.response(codes, page.astype(np.int64), action)["outcome"]

    def blind(codes: Any, page: Any, action: Any) -> Any:
        return learned(codes, page, np.zeros_like(action))

    log = rollout(store, "logger", sessions=len(true), seed=_seed(seed, 2)).log
    shares = np.bincount(log["outcome"], minlength=3)[:3] / len(log)

    def constant(codes: Any, page: Any, action: Any) -> Any:
        return np.broadcast_to(shares, (len(codes), 3))

    models: dict[str, responses.Answers] = {"simulator": learned, "constant": constant}
    policies = {"logger": f"gaussian:{LOGGED_SD}", "zero": "zero"}
    r2p = {}
    for number, (name, policy) in enumerate(policies.items()):
        stream = _seed(seed, 3 + number)
        counts = rollout(simulator, policy, sessions=sessions, seed=stream, keep=False).summary
        expected = store.expected("logger" if name == "logger" else "zero").r2p
        r2p[name] = {"simulator": counts.clicks / counts.pages, "truth": expected}
    return {
        "response_excess": responses.excess_likelihood(
            models, store, pages=pages, seed=_seed(seed, 5)
        ),
        "action_effect": {
            "simulator": responses.action_effect(learned, store, true, _seed(seed, 6)),
            "blind": responses.action_effect(blind, store, true, _seed(seed, 6)),
        },
        "r2p": r2p,
    }


def _seed(seed: int, purpose: int) -> int:
    return int(np.random.SeedSequence((seed, 78, purpose)).generate_state(1, np.uint64)[0])
