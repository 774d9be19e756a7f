"""What a person sees."""

from __future__ import annotations

import numpy as np
import pytest

import virtualtb_fast as vtb


@pytest.fixture
def text_of(make):
    """The text after a page, and what the text must say."""

    def play(**arguments):
        env = make(render_mode="ansi", **arguments)
        observation, _ = env.reset(seed=1)
        action = np.zeros(env.action_space.shape, np.float32)
        action[3], action[5] = -0.25, 0.5
        _, _, _, _, info = env.step(action)
        return env.render(), env.simulator.schema, observation, info

    return play


def test_it_says_what_a_person_wants_to_know(text_of):
    text, schema, observation, info = text_of()
    for field, code in zip(schema.customer, schema.codes(observation), strict=True):
        assert f"{field.name}={code}" in text
    assert "page 1" in text
    assert "norm 0.559" in text
    assert text.index("w5=+0.500") < text.index("w3=-0.250")
    assert f"{info['clicks']} of 10" in text
    assert "█" * info["clicks"] in text
    assert f"{info['deals']} of 9" in text
    assert f"{info['CTR']:.4f}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_it_speaks_of_the_shops_own_fields(text_of, shop):
    text, *_ = text_of(simulator=shop)
    assert "region=" in text
    assert "of 4" in text
    assert "of 2" in text


def test_nothing_is_claimed_of_a_page_that_was_not_shown(make):
    env = make(render_mode="ansi")
    env.reset(seed=0)
    assert "none shown yet" in env.render()
    action = np.zeros(27, np.float32)
    while not env.step(action)[2]:
        assert "over" not in env.render()
    assert "over" in env.render()
    env.reset()
    text = env.render()
    assert "none shown yet" in text
    assert "over" not in text


def test_v0_says_that_the_next_customer_is_shown_at_the_end(make):
    env = make("v0", render_mode="ansi")
    env.reset(seed=0)
    action = np.full(27, 0.1, np.float32)
    while True:
        *_, terminated, _, info = env.step(action)
        if terminated and info["clicks"]:
            break
        if terminated:
            env.reset()
        else:
            assert "\ncustomer" in env.render()
    assert "\nnext" in env.render()
    assert f"{info['clicks']} of 10" in env.render()


def test_human_prints_every_frame_and_returns_nothing(make, capsys):
    env = make(render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(27, np.float32))
    assert env.render() is None
    out = capsys.readouterr().out
    assert out.count("VirtualTB-v1") == 3
    assert out.count("none shown yet") == 1


def test_without_a_render_mode_it_says_so(make, make_vec):
    for env in (make(), make_vec(num_envs=2)):
        env.reset(seed=0)
        with pytest.warns(UserWarning, match="render mode"):
            assert env.render() is None


def test_rendering_changes_nothing(make):
    quiet, loud = make(), make(render_mode="ansi")
    quiet.reset(seed=3), loud.reset(seed=3)
    for action in np.random.default_rng(0).uniform(-1, 1, (60, 27)).astype(np.float32):
        one, two = quiet.step(action), loud.step(action)
        loud.render()
        assert one[0].tobytes() == two[0].tobytes()
        assert one[1:] == two[1:]
        if one[2]:
            quiet.reset(), loud.reset()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_vector_environments_give_one_text_each(make, make_vec, mode):
    envs = make_vec(num_envs=6, render_mode="ansi", autoreset_mode=mode)
    envs.reset(seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (6, 27)).astype(np.float32)
    envs.step(actions)
    texts = envs.render()
    assert len(texts) == 6
    for index, text in enumerate(texts):
        env = make(render_mode="ansi")
        env.reset(seed=1 + index)
        ended = env.step(actions[index])[2]
        if not (ended and mode == "SameStep"):
            assert text.replace(f"[{index}]", "").split() == env.render().split()
        assert f"[{index}]" in text


def test_vector_environments_print_a_few(make_vec, capsys):
    envs = make_vec(num_envs=40, render_mode="human", autoreset_mode="SameStep")
    envs.reset(seed=1)
    envs.step(np.zeros((40, 27), np.float32))
    out = capsys.readouterr().out
    assert out.count("VirtualTB-v1 [") == 8
    assert out.count("and 36 environments more") == 2


def test_a_closed_environment_is_not_rendered(make):
    env = make(render_mode="ansi")
    env.reset(seed=0)
    env.close()
    with pytest.raises(vtb.StateError):
        env.render()
