"""Calls in the wrong order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from tests.reliability.bad_kit import Kit

import virtualtb_fast as vtb
from virtualtb_fast.envs import (
    GroundTruthStoreEnv,
    GroundTruthStoreVector,
    VirtualTBV0,
    VirtualTBV0Vector,
    VirtualTBV1,
    VirtualTBV1Vector,
)


def ended(kit: Kit) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls in the wrong order: before a reset, after the end, after close."""
    sim, store, zeros = kit.simulator, kit.store, np.zeros
    new: list[tuple[str, Any, tuple[int, ...]]] = [
        ("VirtualTB-v1", VirtualTBV1(sim), (6,)),
        ("VirtualTB-v0", VirtualTBV0(sim), (6,)),
        ("GroundTruthStore-v0", GroundTruthStoreEnv(store), (27,)),
        ("VirtualTB-v1, vector", VirtualTBV1Vector(3, sim), (3, 6)),
        ("VirtualTB-v0, vector", VirtualTBV0Vector(3, sim), (3, 6)),
        ("GroundTruthStore-v0, vector", GroundTruthStoreVector(3, store), (3, 27)),
    ]
    for name, env, shape in new:
        yield (
            f"{name}: a step before a reset",
            lambda env=env, shape=shape: env.step(zeros(shape, np.float32)),
        )
        if "vector" in name:
            yield f"{name}: recv before send", env.recv
            # What the step refuses, recv tells.
            env.send(zeros(shape, np.float32))
            yield f"{name}: a step sent before a reset", env.recv
    for kind, arguments, shape in (
        (VirtualTBV1, (sim,), (6,)),
        (VirtualTBV0, (sim,), (6,)),
        (GroundTruthStoreEnv, (store,), (27,)),
        (VirtualTBV1Vector, (3, sim), (3, 6)),
        (VirtualTBV0Vector, (3, sim), (3, 6)),
        (GroundTruthStoreVector, (3, store), (3, 27)),
    ):
        env: Any = kind(*arguments)  # type: ignore[operator]
        env.reset(seed=0)
        state = env.get_state()
        env.close()
        action = zeros(shape, np.float32)
        name = kind.__name__  # type: ignore[attr-defined]
        yield f"{name}: a step after close", lambda env=env, action=action: env.step(action)
        yield f"{name}: a reset after close", env.reset
        yield f"{name}: a seeded reset after close", lambda env=env: env.reset(seed=3)
        yield f"{name}: get_state after close", env.get_state
        yield (
            f"{name}: set_state after close",
            lambda env=env, state=state: env.set_state(state),
        )
        yield f"{name}: observe after close", env.observe
        if len(shape) == 2:
            yield f"{name}: send after close", lambda env=env, action=action: env.send(action)
            yield f"{name}: recv after close", env.recv
        if hasattr(env, "counters"):
            yield f"{name}: counters after close", env.counters
            yield f"{name}: reveal_archetypes after close", env.reveal_archetypes
        shown: Any = kind(*arguments, render_mode="ansi")  # type: ignore[operator]
        shown.reset(seed=0)
        shown.close()
        yield f"{name}: render after close", shown.render
        if len(shape) == 2:
            busy: Any = kind(*arguments)  # type: ignore[operator]
            busy.reset(seed=0)
            busy.send(action)
            yield f"{name}: send after send", lambda env=busy, action=action: env.send(action)
            yield f"{name}: a step after send", lambda env=busy, action=action: env.step(action)
            yield f"{name}: a reset after send", lambda env=busy: env.reset(seed=3)
            yield f"{name}: observe after send", busy.observe
            yield f"{name}: get_state after send", busy.get_state
    over = VirtualTBV1(sim)
    over.reset(seed=0)
    while not over.step(zeros(6, np.float32))[2]:
        pass
    yield "VirtualTB-v1: a step after the end", lambda: over.step(zeros(6, np.float32))
    masked = VirtualTBV1Vector(3, sim)
    masked.reset(seed=0, options={"reset_mask": np.array([True, False, True])})
    yield "a vector of which a part was never reset", lambda: masked.step(zeros((3, 6), np.float32))
    closed = vtb.Catalog.open(kit.path)
    closed.close()
    for name, call in {
        "search": lambda: closed.search([0.0] * 5),
        "count": closed.count,
        "rows": lambda: closed.rows(["item 1"]),
        "ids": closed.ids,
        "attributes": closed.attributes,
        "column": lambda: closed.column("brand"),
        "verify": closed.verify,
        "info": closed.info,
        "len": lambda: len(closed),
        "dimensions": lambda: closed.dimensions,
        "digest": lambda: closed.digest,
        "path": lambda: closed.path,
        "pickle": lambda: pickle.dumps(closed),
    }.items():
        yield f"Catalog.{name} after close", call  # type: ignore[misc]
    unkept = vtb.rollout(sim, sessions=3, keep=False)
    yield "the log of a rollout that kept none", lambda: unkept.log
    yield "a column of a rollout that kept none", lambda: unkept["clicks"]
    own = vtb.GroundTruthStore(
        7, calibrate=False, tau=1.0, b0=-4.0, items=400, customers=vtb.ConstantCustomer(0.1, 0.6)
    )
    yield "exact figures of customers of one's own", lambda: own.expected("zero")
    endless = vtb.GroundTruthStore(7, calibrate=False, tau=1.0, b0=-4.0, items=400, continuing=True)
    yield "a rollout in a store that never ends", lambda: vtb.rollout(endless, sessions=1)
    yield (
        "gymnasium.make of no simulator",
        lambda: gymnasium.make("virtualtb_fast:VirtualTB-v1", simulator="nobody"),
    )
