"""Customers and pages a second of every kind of simulator against the published kind, in one run.

``python -m benches.simulators [--json FILE] [--repeats N]``

All simulators have VirtualTB-v0's fields, actions and layer sizes, and random weights. Before
anything is timed, the shares of every customer field are compared with what the sampler was given,
and the answers of a rollout with the probabilities that `Simulator.response` gives; a sampler with
other shares must fail the same comparison. One thread. Ratios are medians over rounds in which the
contenders take turns, in the time of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import virtualtb_fast as vtb
from virtualtb_fast.evaluation.machine import machine
from virtualtb_fast.schema import V0_SCHEMA, Config, Customers, Leave, Response

DRAWN, PAGES, SESSIONS = 200_000, 100_000, 16_384
HAZARD = Leave(kind="hazard", longest=100)
SAMPLERS = {
    "published generator": Customers(),
    "GAN-SD, 256 and 256 units": Customers(hidden=(256, 256)),
    "GAN-SD, 128 and 128 units": Customers(hidden=(128, 128)),
    "independent fields": Customers(kind="mixture", components=1),
    "mixture of 16": Customers(kind="mixture", components=16),
    "mixture of 256": Customers(kind="mixture", components=256),
    "200,000 rows": Customers(kind="rows", rows=200_000),
    "autoregressive, 32 units": Customers(kind="autoregressive", hidden=(32,)),
    "autoregressive, 64 units": Customers(kind="autoregressive", hidden=(64,)),
    "autoregressive, 128 units": Customers(kind="autoregressive", hidden=(128,)),
}
ANSWERS = {
    "clicks, limit once": (Response(), Leave()),
    "clicks, hazard": (Response(), HAZARD),
    "outcome": (Response(heads="outcome"), HAZARD),
    "outcome, linear": (Response(heads="outcome", kind="linear"), HAZARD),
}


def simulator(customers: Customers, response: Response, leave: Leave) -> vtb.Simulator:
    """Random weights of these kinds."""
    config, rng, tensors = Config(customers, response, leave), np.random.default_rng(1), {}
    sizes = [field.size for field in V0_SCHEMA.customer]
    for name, shape in config.shapes(V0_SCHEMA).items():
        scale = 1.5 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.1
        tensors[name] = rng.normal(0, scale, shape).astype(np.float32)
    if customers.kind == "mixture":
        count = customers.components
        blocks = [rng.dirichlet(np.full(size, 0.5), count) for size in sizes]
        tensors["customers.fields"] = np.concatenate(blocks, axis=1).astype(np.float32)
        tensors["customers.shares"] = rng.dirichlet(np.ones(count)).astype(np.float32)
    elif customers.kind == "rows":
        codes = rng.random((customers.rows, len(sizes))) ** 2 * sizes
        tensors["customers.rows"] = codes.astype(np.uint8)
    # Sessions of some eight pages, as VirtualTB-v0's, wherever that can be said in one bias.
    if leave.kind == "hazard":
        tensors["action.4.bias"][-2 if response.heads == "clicks" else 0] += 2.0
    else:
        limits = np.arange(leave.classes)
        tensors["leave.4.bias"] -= (np.abs(limits - 8) / 3).astype(np.float32)
    return vtb.Simulator.from_tensors(tensors, name="bench", config=config)


def shares(made: vtb.Simulator) -> np.ndarray:
    """The probability of every category of the first field, as the sampler was given it."""
    tensors, kind = made.tensors(), made.config.customers.kind
    size = V0_SCHEMA.customer[0].size
    if kind == "mixture":
        return tensors["customers.shares"] @ tensors["customers.fields"][:, :size]
    if kind == "rows":
        rows = tensors["customers.rows"][:, 0]
        return np.bincount(rows, minlength=size) / len(rows)
    if kind == "autoregressive":
        raised = np.exp(tensors["customers.0.bias"])
        return raised / raised.sum()
    noise = np.random.default_rng(2).random((50_000, made.config.customers.latent), np.float32)
    raised = np.exp(made.forward("generator", noise)[:, :size])
    return (raised / raised.sum(1, keepdims=True)).mean(0)


def check_customers(made: vtb.Simulator) -> None:
    """Raises unless customers come as given; other shares must not pass."""
    first = made.customers(DRAWN, seed=0, num_threads=1)[:, 0]
    want = shares(made)
    seen = np.bincount(first, minlength=len(want)) / DRAWN
    bound = 5 * np.sqrt(want * (1 - want) / DRAWN) + 2e-3
    assert (np.abs(seen - want) < bound).all()
    assert not (np.abs(seen - np.roll(want, 1)) < bound).all()


def check_answers(made: vtb.Simulator) -> None:
    """Raises unless clicks come as `Simulator.response` says; others must not pass."""
    log = vtb.rollout(made, "gaussian:0.1", pages=PAGES, seed=0)
    answers = made.response(log["customer"], log["page"], log["action"])
    chances = answers["outcome"][:, 1] if "outcome" in answers else 1 - answers["clicks"][:, 0]
    seen, want = (log["clicks"] > 0).sum(), chances.sum(dtype=np.float64)
    bound = 5 * np.sqrt((chances * (1 - chances)).sum(dtype=np.float64))
    assert abs(seen - want) < bound
    assert not abs(seen - 1.1 * want) < bound


def race(contenders: Mapping[str, Callable[[], int]], repeats: int) -> dict[str, dict[str, float]]:
    """Best rate of each, and the median over rounds of its rate against the first one's."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            started = time.process_time()
            count = run()
            rates[name].append(count / (time.process_time() - started))
    first = next(iter(rates.values()))
    return {
        name: {
            "rate": max(mine),
            "ratio": statistics.median(a / b for a, b in zip(mine, first, strict=True)),
        }
        for name, mine in rates.items()
    }


def run(repeats: int) -> dict[str, object]:
    """Checks, then races; as JSON can hold it."""
    published = ANSWERS["clicks, limit once"]
    samplers = {name: simulator(kind, *published) for name, kind in SAMPLERS.items()}
    answers = {name: simulator(SAMPLERS["mixture of 16"], *kind) for name, kind in ANSWERS.items()}
    for made in samplers.values():
        check_customers(made)
    for made in answers.values():
        check_answers(made)

    def draw(made: vtb.Simulator) -> Callable[[], int]:
        return lambda: len(made.customers(DRAWN, seed=1, num_threads=1))

    def play(made: vtb.Simulator) -> Callable[[], int]:
        def played() -> int:
            arguments = {"sessions": SESSIONS, "seed": 1, "num_threads": 1, "keep": False}
            return int(vtb.rollout(made, "gaussian:0.1", **arguments).pages)

        return played

    def ask(made: vtb.Simulator) -> Callable[[], int]:
        log = vtb.rollout(made, "gaussian:0.1", pages=PAGES, seed=1)
        columns = log["customer"], log["page"], log["action"]
        heads = next(iter(made.config.heads))
        return lambda: len(made.response(*columns, num_threads=1)[heads])

    return {
        "machine": machine(),
        "repeats": repeats,
        "customers a second": race({n: draw(m) for n, m in samplers.items()}, repeats),
        "pages a second, played": race({n: play(m) for n, m in answers.items()}, repeats),
        "pages a second, probabilities": race({n: ask(m) for n, m in answers.items()}, repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    results = run(options.repeats)
    console = Console()
    console.print(results["machine"])
    for what, contenders in results.items():
        if isinstance(contenders, dict):
            table = Table(what, "a second", "against the first")
            for name, figures in contenders.items():
                table.add_row(name, f"{figures['rate']:,.0f}", f"{figures['ratio']:.2f}")
            console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
