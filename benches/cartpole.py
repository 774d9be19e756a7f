"""TRPO on CartPole-v1, which it must balance: five seeds, with and without its steps.

    python -m benches.cartpole --json FILE

A seed plays 200,000 steps, then its greedy policy plays 100 episodes. The same loop in which only
the value network learns is the void guard beside it: what is solved is solved by the step. A seed
that is in the file already, of as many steps, is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from virtualtb_fast._training import torch_threads, write_atomically
from virtualtb_fast.evaluation.reproduce.parts import origin
from virtualtb_fast.networks import Categorical, Perceptron, stream
from virtualtb_fast.rl import returns, trpo

SEEDS = (100, 101, 102, 103, 104)
STEPS = 200_000
EPISODES = 100


def balance(seed: int, steps: int, *, frozen: bool = False) -> float:
    """Mean return of the greedy policy over `EPISODES`, after a training on CartPole-v1."""
    rng = stream(seed, "cartpole")
    policy = Perceptron((4, 64, 64, 2), last_gain=0.01, generator=rng)
    value = Perceptron((4, 64, 64, 1), generator=rng)
    optimizer = torch.optim.Adam(value.parameters(), 1e-3)
    n, horizon = 16, 128
    envs = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=n,
        vectorization_mode="vector_entry_point",
        vector_kwargs={},
    )
    observation, _ = envs.reset(seed=seed)
    fresh = np.ones(n, bool)
    for _ in range(steps // (n * horizon)):
        seen: dict[str, list[Any]] = {key: [] for key in ("x", "y", "a", "r", "end", "cut", "ok")}
        for _ in range(horizon):
            x = torch.from_numpy(np.asarray(observation, np.float32))
            with torch.no_grad():
                p = policy(x).softmax(-1)
            action = torch.multinomial(p, 1, generator=rng)
            observation, reward, end, cut, _ = envs.step(action[:, 0].numpy())
            # The step after an end only resets: it is no step of any episode.
            entries = (x, np.asarray(observation, np.float32).copy(), action, reward, end, cut)
            for key, entry in zip(("x", "y", "a", "r", "end", "cut"), entries, strict=True):
                seen[key].append(torch.as_tensor(entry))
            seen["ok"].append(torch.from_numpy(fresh))
            fresh = ~(end | cut)
        data = {key: torch.stack(rows, 1) for key, rows in seen.items()}
        data["cut"][:, -1] |= ~data["end"][:, -1]
        keep = data["ok"].reshape(-1)
        x, y, a, r, end, cut = (
            data[key].reshape(n * horizon, *data[key].shape[2:])[keep]
            for key in ("x", "y", "a", "r", "end", "cut")
        )
        with torch.no_grad():
            now, after = value(x)[:, 0], value(y)[:, 0]
        advantage, goal = returns.advantages(r.float(), now, after, end, cut, gamma=0.99, lam=0.95)
        advantage = (advantage - advantage.mean()) / advantage.std()
        if not frozen:
            heads = lambda x=x: Categorical(policy(x), (2,))  # noqa: E731
            trpo.step(heads, list(policy.parameters()), a, advantage)
        for _ in range(10):
            for rows in torch.randperm(len(x), generator=rng).split(256):
                loss = (value(x[rows])[:, 0] - goal[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    scores = np.zeros(EPISODES)
    judged = gymnasium.make_vec(
        "CartPole-v1", num_envs=EPISODES, vectorization_mode="vector_entry_point", vector_kwargs={}
    )
    observation, _ = judged.reset(seed=1000 + seed)
    alive = np.ones(EPISODES, bool)
    while alive.any():
        with torch.no_grad():
            action = policy(torch.from_numpy(np.asarray(observation, np.float32))).argmax(-1)
        observation, reward, end, cut, _ = judged.step(action.numpy())
        scores += np.where(alive, reward, 0.0)
        alive &= ~(end | cut)
    return float(scores.mean())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--json", type=Path, help="file of the result")
    options = parser.parse_args()
    held: dict[str, Any] = {}
    if options.json and options.json.exists():
        held = json.loads(options.json.read_text())
    if held.get("steps") != options.steps:
        held = {"steps": options.steps, "episodes": EPISODES, "seeds": {}}
    made = origin()
    held |= made
    for seed in options.seeds:
        if str(seed) in held["seeds"]:
            continue
        began = time.process_time()
        # Results depend on how PyTorch splits its sums.
        with torch_threads(1):
            trained = balance(seed, options.steps)
            took = time.process_time() - began
            # Its policy never changes, so fewer steps say as much.
            frozen = balance(seed, options.steps // 10, frozen=True)
        held["seeds"][str(seed)] = {
            "mean_return": trained,
            "without_steps": frozen,
            "cpu_seconds": round(took, 1),
            "commit": made["commit"],
        }
        print(f"seed {seed}: {trained:.1f}, without steps {frozen:.1f}, {took:.0f} s", flush=True)
        if options.json:
            with write_atomically(options.json) as file:
                file.write((json.dumps(held, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
