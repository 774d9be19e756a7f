"""What `send` and `recv` gain when a PyTorch policy acts for 4,096 customers, in one run.

``python -m benches.asynchronous [--json FILE] [--rounds N] [--steps N] [--customers N]``

The policy is a network of 91-256-256-27 (tanh), PyTorch on one thread. Contenders:

- whole: one vector environment, ``step``, at one and at two threads;
- halves in turn: two of half the customers each, ``step`` one after the other: what halving costs;
- halves at once: the same two with ``send`` and ``recv``, as in `send`'s docstring.

Before anything is timed, all of them play the same actions and must bring the same observations and
rewards, and other actions must bring others. A ratio is the median over rounds, in which contenders
take turns, of the ratio within a round; wall time, since it is about two things at once.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import virtualtb_fast as vtb
from virtualtb_fast.evaluation.machine import load, machine

SEED = 3 << 24
CHECKED = 25
Act = Callable[[slice, int, np.ndarray], np.ndarray]
"""Actions for some of the customers: which, at what step, after what observations."""
Seen = Callable[[slice, int, np.ndarray, np.ndarray], None]
"""Is shown a step's observations and rewards."""


class Whole:
    """One vector environment."""

    def __init__(self, customers: int, threads: int) -> None:
        self.part = slice(0, customers)
        self.envs = made(customers, threads)

    def start(self) -> None:
        """The first sessions."""
        self.observations, _ = self.envs.reset(seed=SEED)

    def play(self, act: Act, steps: int, seen: Seen) -> None:
        """Goes on for some steps."""
        for number in range(steps):
            actions = act(self.part, number, self.observations)
            self.observations, rewards, *_ = self.envs.step(actions)
            seen(self.part, number, self.observations, rewards)


class Halves:
    """Two vector environments of one thread each."""

    def __init__(self, customers: int) -> None:
        half = customers // 2
        self.parts = slice(0, half), slice(half, customers)
        self.envs = [made(half, 1), made(half, 1)]

    def start(self) -> None:
        """The first sessions."""
        seeds = [SEED + part.start for part in self.parts]
        self.observations = [
            envs.reset(seed=seed)[0] for envs, seed in zip(self.envs, seeds, strict=True)
        ]

    def play(self, act: Act, steps: int, seen: Seen) -> None:
        """Goes on for some steps."""
        for number in range(steps):
            for half in (0, 1):
                actions = act(self.parts[half], number, self.observations[half])
                self.take(half, number, self.envs[half].step(actions), seen)

    def take(self, half: int, number: int, step: tuple[Any, ...], seen: Seen) -> None:
        """Keeps and shows what a step of a half has brought."""
        self.observations[half], rewards, *_ = step
        seen(self.parts[half], number, self.observations[half], rewards)


class AtOnce(Halves):
    """One half is simulated while the policy acts for the other."""

    def play(self, act: Act, steps: int, seen: Seen) -> None:
        """Goes on for some steps."""
        one, two = self.envs
        one.send(act(self.parts[0], 0, self.observations[0]))
        for number in range(steps):
            two.send(act(self.parts[1], number, self.observations[1]))
            self.take(0, number, one.recv(), seen)
            if number + 1 < steps:
                one.send(act(self.parts[0], number + 1, self.observations[0]))
            self.take(1, number, two.recv(), seen)


def made(customers: int, threads: int) -> Any:
    return gymnasium.make_vec(
        "virtualtb_fast:VirtualTB-v1",
        num_envs=customers,
        num_threads=threads,
        autoreset_mode="SameStep",
    ).unwrapped


def digest(player: Any, table: np.ndarray) -> str:
    """Of all observations and rewards under a table of actions (steps, customers, 27)."""
    steps, customers, _ = table.shape
    observations = np.empty((steps, customers, 91), np.float32)
    rewards = np.empty((steps, customers))

    def seen(part: slice, number: int, observed: np.ndarray, rewarded: np.ndarray) -> None:
        observations[number, part], rewards[number, part] = observed, rewarded

    player.start()
    player.play(lambda part, number, _: table[number, part], steps, seen)
    return hashlib.sha256(observations.tobytes() + rewards.tobytes()).hexdigest()


def check(players: dict[str, Any], customers: int) -> str:
    """Raises unless all play the same sessions, and other actions make others."""
    draw = np.random.default_rng(0)
    table = draw.uniform(-1, 1, (CHECKED, customers, 27)).astype(np.float32)
    digests = {name: digest(player, table) for name, player in players.items()}
    assert len(set(digests.values())) == 1, digests
    first = next(iter(players.values()))
    (brought,) = set(digests.values())
    assert digest(first, np.roll(table, 1, axis=2)) != brought
    return brought


def policy() -> Act:
    """A network that acts for whomever it is asked."""
    torch.manual_seed(0)
    sizes = (91, 256, 256, 27)
    layers = [
        layer
        for size, width in itertools.pairwise(sizes)
        for layer in (torch.nn.Linear(size, width), torch.nn.Tanh())
    ]
    network = torch.nn.Sequential(*layers)

    def act(part: slice, number: int, observations: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(observations)).numpy()

    return act


def run(customers: int, rounds: int, steps: int) -> dict[str, Any]:
    """Checks, then races; as JSON can hold it."""
    torch.set_num_threads(1)
    busy = load()
    players: dict[str, Any] = {
        "whole, 1 thread": Whole(customers, 1),
        "whole, 2 threads": Whole(customers, 2),
        "halves in turn": Halves(customers),
        "halves at once": AtOnce(customers),
    }
    outcome = check(players, customers)
    act = policy()
    constant = np.zeros((customers, 27), np.float32)
    alone, observations = players["whole, 1 thread"], np.zeros((customers, 91), np.float32)

    def ignore(*_: Any) -> None:
        """Nobody looks."""

    def simulate() -> None:
        alone.play(lambda part, number, observed: constant, steps, ignore)

    def think() -> None:
        for number in range(steps):
            act(alone.part, number, observations)

    races: dict[str, Callable[[], None]] = {
        name: lambda player=player: player.play(act, steps, ignore)
        for name, player in players.items()
    }
    races |= {"simulation alone": simulate, "policy alone": think}
    times: dict[str, list[float]] = {name: [] for name in races}
    for number in range(rounds + 1):
        for name, race in races.items():
            started = time.perf_counter()
            race()
            # The first round warms up.
            if number:
                times[name].append((time.perf_counter() - started) / steps)
    first = times["whole, 1 thread"]
    return {
        "machine": machine(),
        "load": busy,
        "versions": {"virtualtb_fast": vtb.__version__, "torch": torch.__version__},
        "customers": customers,
        "rounds": rounds,
        "steps": steps,
        "outcome": outcome,
        "contenders": {
            name: {
                "ms_a_step": statistics.median(mine) * 1e3,
                "pages_per_second": customers / statistics.median(mine),
                "ratio": statistics.median(a / b for a, b in zip(first, mine, strict=True)),
            }
            for name, mine in times.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--customers", type=int, default=4096)
    options = parser.parse_args()
    results = run(options.customers, options.rounds, options.steps)
    console = Console()
    console.print(results["machine"])
    table = Table("", "ms a step", "pages a second", "against the first")
    for name, figures in results["contenders"].items():
        table.add_row(
            name,
            f"{figures['ms_a_step']:.2f}",
            f"{figures['pages_per_second']:,.0f}",
            f"{figures['ratio']:.2f}",
        )
    console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
