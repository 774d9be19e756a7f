"""The published networks give the published numbers."""

from __future__ import annotations

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.published import PUBLISHED_DIGESTS


@pytest.fixture
def first_user():
    """Category 0 in every field."""
    user = np.zeros((1, 88), np.float32)
    user[0, [0, 8, 16, 27, 38, 49, 60, 62, 64, 67, 85]] = 1
    return user


def test_philox_gives_the_published_known_answers(kit):
    counters = np.array(
        [[0] * 4, [0xFFFFFFFF] * 4, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]], np.uint32
    )
    keys = [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0xA4093822, 0x299F31D0)]
    answers = [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ]
    for counter, key, answer in zip(counters, keys, answers, strict=True):
        assert kit.philox(counter[None], key)[0].tolist() == answer


def test_the_published_files_are_recognised(published):
    provenance = published.provenance
    assert provenance["published"] is True
    assert provenance["files"]["action_model.pt"] == PUBLISHED_DIGESTS["action"]
    assert published.name == "virtualtb-v0"


def test_golden_page(published, kit, first_user):
    row = np.concatenate((first_user, np.zeros((1, 28), np.float32)), axis=1)
    logits = published.forward("action", row)[0].astype(np.float64)
    clicks = [0.11700, 0.00508, 0.16904, 0.69846, 0.00036, 0.00829, 0, 0.00150, 0.00027, 0, 0]
    assert kit.softmax(logits[:11]) == pytest.approx(clicks, abs=1e-5)
    assert kit.softmax(logits[11:])[:2] == pytest.approx([0.21253, 0.78747], abs=1e-5)


def test_golden_leave(published, kit, first_user):
    limits = kit.softmax(published.forward("leave", first_user)[0].astype(np.float64))
    assert limits[1:5] == pytest.approx([0.64855, 0.28195, 0.01325, 0.00654], abs=1e-5)
    assert limits @ np.arange(101) == pytest.approx(1.765, abs=1e-3)


def test_golden_generator(published, kit):
    logits = published.forward("generator", np.full((1, 128), 0.5, np.float32))[0]
    field = [0.13743, 0.20564, 0.12710, 0.19933, 0.08344, 0.03756, 0.01533, 0.19416]
    assert kit.softmax(logits[:8].astype(np.float64)) == pytest.approx(field, abs=1e-5)


@pytest.mark.parametrize("model", ["generator", "action", "leave"])
def test_forward_agrees_with_torch(published, torch_functions, model):
    rng = np.random.default_rng(0)
    width = published.config.layers(published.schema)[model][0]
    rows = rng.uniform(0, 1, (500, width)).astype(np.float32)
    if model == "action":
        rows[:, 88] = rng.integers(0, 100, 500)
        # From tiny to far outside of the box: norms of 0.005 to 50.
        rows[:, 89:] = rng.normal(size=(500, 27)) * 10 ** rng.uniform(-3, 1, (500, 1))
    want = torch_functions[model](rows)
    got = published.forward(model, rows)
    scale = np.maximum(1, np.abs(want).max(axis=1, keepdims=True))
    assert np.abs(got - want).max() < 1e-4 * scale.max()
    assert (np.abs(got - want) / scale).max() < 1e-5
    # The void guard: a network whose first bias is off by a hundredth would be seen.
    tensors = published.tensors()
    tensors[f"{model}.0.bias"][0] += 0.01
    wrong = vtb.Simulator.from_tensors(tensors, name="wrong")
    assert (np.abs(wrong.forward(model, rows) - want) / scale).max() > 1e-5
