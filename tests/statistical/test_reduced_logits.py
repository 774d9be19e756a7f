"""How far logits at reduced precision may be from the exact ones: by proof and by measurement.

The proof bounds each logit of each page, for any customer and action. With ``x`` what goes into the
first layer, in real numbers::

    h1 = act(W1 x + b1)      z2 = W2 h1 + b2      h2 = act(z2)      l = W3 h2 + b3

The reduced form multiplies with ``V``, the rounded ``W2``, and with codes of ``h1`` whose unit is
``step = max(largest / 239, -smallest / 16)`` (`kernels/bytes.rs`), so that ``V`` sees ``h1 + d``
with ``|d| <= step / 2``. That moves ``z2`` by ``(V - W2) h1 + V d``, of which the first part is
known. Where ``z2`` is larger than what it can move by, its sign stays, and the activation is a
multiplication by 1 or by the slope, ``D`` (0 elsewhere); elsewhere (``S`` is 1 there, else 0) the
activation moves by no more than ``z2`` does. So the reduced form's logits ``l'`` have::

    |l' - l| <= |W3 D (V - W2) h1| + |W3 D V| step / 2 + |W3| S (|(V - W2) h1| + |V| step / 2)

and what float32 rounds: ``n`` inputs summed one after the other are off by at most
``n u / (1 - n u)`` of the sum of magnitudes, ``u = 2**-24`` (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, section 3.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benches import reduced as bench

import virtualtb_fast as vtb

HALF = 0.5001
"""Of a step, by which a code is off: float32 moves 239 steps by no more than 1e-4 of one."""


@pytest.fixture(scope="module", params=["refit", "published"])
def exact(request: pytest.FixtureRequest) -> vtb.Simulator:
    if request.param == "refit":
        return vtb.load_simulator()
    simulator: vtb.Simulator = request.getfixturevalue("published")
    return simulator


def rounding(inputs: int) -> float:
    """Of sums of so many products and a bias, and of the activation, in float32."""
    steps = (inputs + 3) * 2.0**-24
    return 1.01 * steps / (1 - steps)


def inputs(simulator: vtb.Simulator, given: Any) -> np.ndarray:
    codes, page, action = given
    scaled = page.astype(np.float32) * np.float32(simulator.config.response.page_scale)
    x = np.zeros((len(page), simulator.schema.customer_width))
    for field, columns in enumerate(simulator.schema.slices.values()):
        x[np.arange(len(page)), columns.start + codes[:, field]] = 1
    return np.concatenate((x, scaled[:, None], action), axis=1).astype(np.float64)


def bounded(simulator: vtb.Simulator, given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Logits in float64, and how far from them those of this form of the simulator may be."""
    tensors = {key: value.astype(np.float64) for key, value in simulator.tensors().items()}
    (w1, w2, w3), (b1, b2, b3) = (
        [tensors[f"action.{at}.{part}"] for at in (0, 2, 4)] for part in ("weight", "bias")
    )
    slope = np.float64(np.float32(simulator.config.slope))
    others = [simulator._native.reduced_weights(layer) for layer in (0, 1, 2)]
    assert [one is not None for one in others] == [False, simulator.is_reduced, False]
    v = w2 if others[1] is None else others[1]

    x = inputs(simulator, given)
    z1 = x @ w1.T + b1
    h1 = np.maximum(z1, slope * z1)
    off1 = rounding(w1.shape[1]) * (np.abs(x) @ np.abs(w1).T + np.abs(b1))
    step = np.maximum((h1 + off1).max(1) / 239, (off1 - h1).max(1) / 16)
    # What is below float32's smallest normal number counts as 0.
    code = HALF * np.maximum(step, 1e-35) if simulator.is_reduced else np.zeros(len(x))

    z2 = h1 @ w2.T + b2
    h2 = np.maximum(z2, slope * z2)
    known = h1 @ (v - w2).T
    size = np.abs(h1) + off1 + code[:, None]
    floats = off1 @ np.abs(v).T + rounding(w2.shape[1]) * (size @ np.abs(v).T + np.abs(b2))
    off2 = np.abs(known) + code[:, None] * np.abs(v).sum(1) + floats
    sure = np.abs(z2) > off2
    slopes = np.where(z2 > 0, 1, slope) * sure

    off = np.abs((slopes * known) @ w3.T) + (slopes * floats + ~sure * off2) @ np.abs(w3).T
    for row, (slopes_of, code_of) in enumerate(zip(slopes, code, strict=True)):
        off[row] += code_of * np.abs(w3 * slopes_of @ v).sum(1)
    off += rounding(w3.shape[1]) * ((np.abs(h2) + off2) @ np.abs(w3).T + np.abs(b3))
    return h2 @ w3.T + b3, off


def logits(simulator: vtb.Simulator, given: Any) -> np.ndarray:
    heads = simulator.response(*given, logits=True).values()
    return np.concatenate(list(heads), axis=1).astype(np.float64)


@pytest.mark.parametrize("policy", bench.POLICIES)
def test_every_logit_is_within_what_was_proved(exact: vtb.Simulator, policy: str) -> None:
    given = bench.played(exact, policy, 400, 104 << 32 | 2 << 24)
    reduced = exact.reduced()
    true, off = bounded(reduced, given)
    assert len(true) > 2_000
    assert (np.abs(logits(reduced, given) - true) <= off).all()
    # Errors add up as by chance, not at their worst.
    assert (np.abs(logits(reduced, given) - true) <= 0.5 * off).all()
    # The exact form has a bound of the same kind, fifty times as narrow.
    same, narrow = bounded(exact, given)
    np.testing.assert_array_equal(same, true)
    assert (np.abs(logits(exact, given) - true) <= narrow).all()
    assert narrow.max() < 0.02 * off.max()
    # Void guards: weights of five bits; the answers to the pages before; and no eight bits could
    # keep the exact form's bound.
    assert (np.abs(logits(bench.rough(exact), given) - true) > off).any()
    assert (np.abs(np.roll(logits(exact, given), 1, axis=0) - true) > off).any(1).mean() > 0.1
    assert (np.abs(logits(reduced, given) - true) > narrow).any(1).mean() > 0.95
    # It says something: half of all logits are held to less than half of what logits differ by.
    assert np.median(off) < 0.5 * true.std()


@pytest.mark.parametrize("policy", bench.POLICIES)
def test_errors_are_small_beside_the_logits(exact: vtb.Simulator, policy: str) -> None:
    given = bench.played(exact, policy, bench.SESSIONS, 104 << 32 | 3 << 24)
    want = bench.centred(exact, given)
    ours = bench.errors(want, bench.centred(exact.reduced(), given))
    guard = bench.errors(want, bench.centred(bench.rough(exact), given))
    assert 0 < ours["rms"] <= bench.RMS < guard["rms"]
    assert 0 < ours["most"] <= bench.MOST < guard["most"]


def test_probabilities_are_those_of_logits(exact: vtb.Simulator) -> None:
    """Where they can be told: logits in the thousands leave most probabilities 0."""
    given = bench.played(exact, "zero", 200, 104 << 32 | 4 << 24)
    for form in (exact, exact.reduced()):
        told = form.response(*given)
        for head, values in form.response(*given, logits=True).items():
            assert values.dtype == np.float32
            raised = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
            want = raised / raised.sum(1, keepdims=True)
            np.testing.assert_allclose(told[head], want, atol=1e-6)
            assert not np.allclose(told[head], np.roll(want, 1, axis=1), atol=1e-6)
