"""Ten thousand steps against the published networks in PyTorch, number by number.

The reference draws the same uniforms, by its own Philox, and inverts distribution functions that
it computes in float64. Customers, page limits, clicks, deals and ends must be identical.
"""

from __future__ import annotations

import numpy as np
import pytest

STEPS = 10_000


def actions(rng, count):
    """Pages as a learner would show them: tiny, uniform, zero, and beyond the box."""
    out = rng.normal(size=(count, 27))
    norms = 10 ** rng.uniform(-2.5, 0.7, (count, 1))
    out *= norms / np.linalg.norm(out, axis=1, keepdims=True)
    out[::5] = rng.uniform(-1, 1, (len(out[::5]), 27))
    out[::11] = 0
    return out.astype(np.float32)


@pytest.mark.parametrize("seed", [0, 7 << 32 | 3, 2**64 - 1])
def test_v0_replays_the_published_networks(published, torch_functions, kit, make, seed):
    env = make("v0", simulator=published)
    reference = kit.Reference(torch_functions, quirks=True)
    assert np.array_equal(env.reset(seed=seed)[0], reference.reset(seed))
    total, ends = 0, 0
    for step, action in enumerate(actions(np.random.default_rng(seed), STEPS)):
        observation, reward, terminated, _, info = env.step(action)
        want, clicks, deals, done, ctr = reference.step(action)
        assert np.array_equal(observation, want), step
        assert (reward, info["deals"], terminated) == (clicks, deals, done), step
        assert info["CTR"] == ctr
        total += clicks
        if done:
            ends += 1
            # Every third session is played on past its end (quirk 2) before the reset.
            if ends % 3:
                assert np.array_equal(env.reset()[0], reference.reset())
    assert ends > 800
    assert total > 1000


@pytest.mark.parametrize("seed", [1, 5 << 32])
def test_v1_replays_the_published_networks(published, torch_functions, kit, make, seed):
    env = make("v1", simulator=published)
    reference = kit.Reference(torch_functions)
    assert np.array_equal(env.reset(seed=seed)[0], reference.reset(seed))
    lengths = []
    for step, action in enumerate(actions(np.random.default_rng(seed), STEPS // 2)):
        observation, reward, terminated, _, info = env.step(action)
        want, clicks, deals, done, ctr = reference.step(np.clip(action, -1, 1))
        assert np.array_equal(observation, want), step
        assert (reward, info["clicks"], info["deals"]) == (clicks, clicks, deals), step
        assert (terminated, info["page"], info["CTR"]) == (done, reference.page, ctr), step
        assert info["clipped"] == bool(np.abs(action).max() > 1)
        if done:
            assert reference.page == max(1, reference.limit)
            lengths.append(reference.page)
            assert np.array_equal(env.reset()[0], reference.reset())
    assert len(set(lengths)) > 10


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_shop_of_another_shape_replays(shop, kit, make, version):
    """Other fields, action range, page scale, depth and slope than VirtualTB-v0's."""
    env = make(version, simulator=shop)
    networks = kit.numpy_networks(shop)
    reference = kit.Reference(networks, shop.schema, shop.config, quirks=version == "v0")
    rng = np.random.default_rng(3)
    assert np.array_equal(env.reset(seed=9)[0], reference.reset(9))
    for step in range(3_000):
        action = rng.uniform(-4, 4, 6).astype(np.float32)
        observation, reward, terminated, _, info = env.step(action)
        executed = np.clip(action, -2, 3) if version == "v1" else action
        want, clicks, deals, done, ctr = reference.step(executed)
        assert np.array_equal(observation, want), step
        assert (reward, info["deals"], terminated) == (clicks, deals, done), step
        assert info["CTR"] == ctr
        if done:
            assert np.array_equal(env.reset()[0], reference.reset())


@pytest.mark.parametrize("tensor", ["action.4.bias", "leave.4.bias", "generator.2.bias"])
def test_the_replay_sees_a_slightly_wrong_network(published, torch_functions, kit, make, tensor):
    """The void guard: one output that is 0.05 nat off in one network does not replay."""
    tensors = published.tensors()
    tensors[tensor][2] += np.float32(0.05)
    env = make("v1", simulator=type(published).from_tensors(tensors, name="off"))
    reference = kit.Reference(torch_functions)
    same = np.array_equal(env.reset(seed=0)[0], reference.reset(0))
    for action in np.clip(actions(np.random.default_rng(0), STEPS), -1, 1):
        got, want = env.step(action), reference.step(action)
        same &= np.array_equal(got[0], want[0]) and (got[1], got[2]) == (want[1], want[3])
        if not same:
            break
        if want[3]:
            same &= np.array_equal(env.reset()[0], reference.reset())
    assert not same
