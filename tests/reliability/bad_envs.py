"""Bad calls of the environments, for `bad_calls`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.reliability.bad_kit import (
    MASKS,
    NO_ANC,
    NO_COUNT,
    NO_FLAG,
    NO_RENDER,
    NO_REWARD,
    NO_SEED,
    NO_THREADS,
    VECTOR_SEEDS,
    Bad,
    Call,
    Kit,
    actions,
    array_likes,
    states,
)

from virtualtb_fast.envs import (
    GroundTruthStoreEnv,
    GroundTruthStoreVector,
    VirtualTBV0,
    VirtualTBV0Vector,
    VirtualTBV1,
    VirtualTBV1Vector,
)

SINGLE: dict[str, tuple[type, int]] = {
    "env": (VirtualTBV1, 6), "env_v0": (VirtualTBV0, 6), "shop": (GroundTruthStoreEnv, 27),
}  # fmt: skip
"""The kit's single environments, and how many numbers their actions have."""
MANY: dict[str, tuple[type, int]] = {
    "envs": (VirtualTBV1Vector, 6),
    "envs_v0": (VirtualTBV0Vector, 6),
    "shops": (GroundTruthStoreVector, 27),
}
"""The kit's vector environments, of three each."""


def environment(
    kind: Any, place: str, many: bool, more: dict[str, list[Any]] | None = None
) -> Iterator[Call]:
    """An environment's constructor."""
    good: dict[str, Callable[[Kit], Any]] = {
        "simulator": lambda kit: {"simulator": kit.simulator},
        "store": lambda kit: {"store": kit.store},
    }
    bad: dict[str, list[Any]] = {
        place: [3, b"x", [], 2.5, Bad(), "none"],
        "render_mode": NO_RENDER,
        "reward": NO_REWARD,
        "anc": NO_ANC,
        **(more or {}),
    }
    if many:
        bad |= {
            "num_envs": [0, 1 << 40, *NO_COUNT],
            "num_threads": NO_THREADS,
            "autoreset_mode": ["Never", "same_step", None, 1, b"SameStep", Bad()],
        }
    yield Call(kind.__name__, lambda kit: kind, good[place], bad)


def sent(envs: Any) -> Callable[..., Any]:
    """A step in the background, to its end: some actions are refused when it is received."""

    def send(**arguments: Any) -> Any:
        envs.send(**arguments)
        return envs.recv()

    return send


def environment_calls() -> Iterator[Call]:
    """All of them."""
    v1 = {"page_base": [2, -1, "0", None, True, 0.5, [0], Bad()]}
    v0 = v1 | {"published_spaces": NO_FLAG}
    yield from environment(VirtualTBV1, "simulator", False, v1)
    yield from environment(VirtualTBV0, "simulator", False, v0)
    yield from environment(VirtualTBV1Vector, "simulator", True, v1)
    yield from environment(VirtualTBV0Vector, "simulator", True, v0)
    yield from environment(GroundTruthStoreEnv, "store", False)
    yield from environment(GroundTruthStoreVector, "store", True)
    for name, (kind, size) in SINGLE.items():
        exact = array_likes(None, size) if name == "env_v0" else actions(None, size)
        yield Call(
            f"{kind.__name__}.step", lambda kit, n=name: getattr(kit, n).step,
            lambda kit, s=size: {"action": np.zeros(s, np.float32)}, {"action": exact}, steps=True,
        )  # fmt: skip
        yield Call(
            f"{kind.__name__}.reset", lambda kit, n=name: getattr(kit, n).reset, lambda kit: {},
            {"seed": [v for v in NO_SEED if v is not None]}, steps=True,
        )  # fmt: skip
        yield Call(
            f"{kind.__name__}.set_state", lambda kit, n=name: getattr(kit, n).set_state,
            lambda kit, n=name: {"state": getattr(kit, n).get_state()},
            {"state": states(lambda kit: kit.envs.get_state())},
        )  # fmt: skip
    for name, (kind, size) in MANY.items():
        exact = array_likes(3, size) if name == "envs_v0" else actions(3, size)
        yield Call(
            f"{kind.__name__}.step", lambda kit, n=name: getattr(kit, n).step,
            lambda kit, s=size: {"actions": np.zeros((3, s), np.float32)}, {"actions": exact},
            steps=True,
        )  # fmt: skip
        yield Call(
            f"{kind.__name__}.send", lambda kit, n=name: sent(getattr(kit, n)),
            lambda kit, s=size: {"actions": np.zeros((3, s), np.float32)}, {"actions": exact},
            steps=True,
        )  # fmt: skip
        yield Call(
            f"{kind.__name__}.reset", lambda kit, n=name: getattr(kit, n).reset, lambda kit: {},
            {"seed": VECTOR_SEEDS, "options": MASKS}, steps=True,
        )  # fmt: skip
        yield Call(
            f"{kind.__name__}.set_state", lambda kit, n=name: getattr(kit, n).set_state,
            lambda kit, n=name: {"state": getattr(kit, n).get_state()},
            {"state": states(lambda kit: kit.env.get_state())},
        )  # fmt: skip
