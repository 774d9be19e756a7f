"""What bad calls are made on, and values that are no good for anything."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.cases import SCHEMA, small_simulator

import virtualtb_fast as vtb
from virtualtb_fast.envs import (
    GroundTruthStoreEnv,
    GroundTruthStoreVector,
    VirtualTBV0,
    VirtualTBV0Vector,
    VirtualTBV1,
    VirtualTBV1Vector,
)
from virtualtb_fast.policies import Policy

NAN, INF = float("nan"), float("inf")


OWN = """\
format = "virtualtb_fast.log_schema"
version = 1
rows = { session = "s" }
customer = { numeric = ["age"] }
action = { columns = ["w"] }
feedback = { bought = "order" }
"""
"""A schema file."""


class Kit:
    """Objects to call, all of which have a state that can be compared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simulator = small_simulator()
        self.store = vtb.GroundTruthStore(7, calibrate=False, tau=1.0, b0=-4.0, items=400)
        self.hidden = self.store.reveal()
        rng = np.random.default_rng(0)
        self.attributes = rng.normal(size=(60, 5)).astype(np.float32)
        ids = [f"item {row}" for row in range(60)]
        columns = {"brand": ["ash", "elm", None] * 20, "year": [1, 2, 3, 4] * 15}
        prices = np.linspace(1, 60, 60)
        self.path = str(folder / "items.vtbcat")
        self.catalog = vtb.Catalog.build(
            self.attributes, self.path, ids=ids, price=prices, category=columns
        )
        self.numbered = vtb.Catalog.build(self.attributes, ids=range(100, 160))
        self.log_path = folder / "log.parquet"
        self.rollout = vtb.rollout(self.simulator, sessions=20, seed=1, out=self.log_path)
        self.log = self.rollout.log
        self.policy = Policy.constant(np.zeros(6))
        width = SCHEMA.observation_width
        self.layer = (np.zeros((6, width), np.float32), np.zeros(6, np.float32))
        self.network = Policy.from_tensors([self.layer], schema=SCHEMA)
        self.network.save(folder / "policy.safetensors")
        self.simulator.save(folder / "simulator.safetensors")
        (folder / "text.txt").write_text("no file of ours")
        (folder / "empty").write_bytes(b"")
        (folder / "own.toml").write_text(OWN)
        self.env = VirtualTBV1(self.simulator)
        self.env_v0 = VirtualTBV0(self.simulator)
        self.envs = VirtualTBV1Vector(3, self.simulator, num_threads=1)
        self.envs_v0 = VirtualTBV0Vector(3, self.simulator, num_threads=1)
        self.shop = GroundTruthStoreEnv(self.store)
        self.shops = GroundTruthStoreVector(3, self.store, num_threads=1)
        for env in self.all_envs():
            env.reset(seed=5)

    def all_envs(self) -> list[Any]:
        """The environments, single and vector."""
        return [self.env, self.env_v0, self.envs, self.envs_v0, self.shop, self.shops]

    def state(self) -> bytes:
        """All that a refused call must leave as it was: of objects, arrays given, and files."""
        files = {
            path.name: path.read_bytes()
            for path in sorted(self.folder.iterdir())
            if not path.name.endswith(".new")
        }
        return pickle.dumps(
            [
                [env.get_state() for env in self.all_envs()],
                [env.np_random_seed for env in self.all_envs()],
                [env.observe().tobytes() for env in self.all_envs()],
                self.simulator.digest,
                self.store.digest,
                self.catalog.digest,
                self.catalog.info(),
                self.numbered.digest,
                self.log.digest(),
                self.policy.name,
                self.network.name,
                self.attributes.tobytes(),
                [part.tobytes() for part in self.layer],
                files,
            ]
        )


Arguments = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """How something is called well, and what is refused."""

    name: str
    """As people write it."""
    function: Callable[[Kit], Callable[..., Any]]
    good: Callable[[Kit], Arguments] = lambda kit: {}
    bad: dict[str, list[Any]] = field(default_factory=dict)
    """Values by argument; a value that needs the kit is a `Made`."""
    raises: type[Exception] = vtb.VirtualTBError
    steps: bool = False
    """Whether the good call changes what it is called on."""
    needs: str | None = None
    """A module that not everybody has."""


@dataclass(frozen=True)
class Made:
    """A value made of the kit."""

    make: Callable[[Kit], Any]
    says: str

    def __repr__(self) -> str:
        return self.says


def bound(function: Callable[..., Any]) -> Callable[[Kit], Callable[..., Any]]:
    """For what no kit is needed: the function of a `Call`."""
    return lambda kit: function


def in_folder(name: str) -> Made:
    return Made(lambda kit: kit.folder / name, f"<{name}>")


class Bad:
    """No value of any kind."""

    def __repr__(self) -> str:
        return "Bad()"


# What is no integer, no flag, and so on: lists that several arguments share.
NO_INTEGER: list[Any] = [1.0, "1", None, True, NAN, [1], b"1", np.float32(1), np.bool_(1), Bad()]
NO_COUNT: list[Any] = [-1, 10**30, -(10**30), *NO_INTEGER]
NO_SEED: list[Any] = [-1, 2**64, 1.0, "1", True, [1], b"1", Bad()]
NO_THREADS: list[Any] = [0, -1, 1025, 2**70, 1.5, "all", True, [2]]
NO_PATH: list[Any] = [None, 3, 2.5, b"bytes", "", "a\0b", "\ud800", ["a"], {}, Bad()]
NO_TEXT: list[Any] = [None, 3, b"text", ["a"], Bad()]
NO_NAME: list[Any] = [*NO_TEXT, "nothing of that name", ""]
NO_FLAG: list[Any] = [None, 0, 1, "no", [], NAN]
NO_REAL: list[Any] = ["1", True, [1.0], b"1", 10**400, Bad()]
NO_ANC: list[Any] = [(1,), (1, 2, 3), 1.0, "ab", (-1, 0.1), (1, -0.1), (NAN, 0), (1, INF), Bad()]
NO_REWARD: list[Any] = ["money", None, 3, b"buy", ""]
NO_RENDER: list[Any] = ["rgb_array", 3, True, b"ansi"]
NO_FUNCTION: list[Any] = [3, "print", [], {}, Bad()]
NO_KEEPER: list[Any] = [3, "state", {}, [], object(), Bad()]
NO_DEVICE: list[Any] = [None, "nowhere", "", "cuda:99", "meta", "cpu:x", 2.5, [], b"cpu", Bad()]
NO_SHARE: list[Any] = [-0.1, 1.1, NAN, INF, -INF, "1", None, True, [0.5], 10**400, Bad()]
NO_SIZE: list[Any] = [0, *NO_COUNT]
NO_RATE: list[Any] = [0.0, -1.0, NAN, INF, "1", None, True, [0.1], 1j, Bad()]
NO_WEIGHT: list[Any] = NO_RATE[1:]
NO_WIDTHS: list[Any] = [None, 3, "ab", [8], (0,), (-1,), (2.5,), ("8",), (True,), (10**9,), Bad()]


def actions(rows: int | None, size: int) -> list[Any]:
    """What is no float32 action of this size, or no actions of so many rows."""
    shape = (size,) if rows is None else (rows, size)
    good = np.zeros(shape, np.float32)
    other = np.zeros((rows or 2, size + 1), np.float32)

    def with_value(value: float) -> Any:
        wrong = good.copy()
        wrong.flat[-1] = value
        return wrong

    return [
        None, 0.5, "action", good.tolist(), b"\0" * good.nbytes, good[..., :-1], other, good[None],
        good.astype(np.float64), good.astype(np.float16), good.astype(np.int32),
        good.astype(bool), good.astype(object), good.astype(complex), good.astype(">f4"),
        np.zeros((*shape[:-1], 2 * size), np.float32)[..., ::2], np.zeros(0, np.float32),
        with_value(NAN), with_value(INF), with_value(-INF), with_value(2e6), Bad(),
    ]  # fmt: skip


def array_likes(rows: int | None, size: int) -> list[Any]:
    """The same where any array of numbers is taken."""
    shape = (size,) if rows is None else (rows, size)
    good = np.zeros(shape)
    return [
        None, 0.5, "action", b"\0\0", good[..., :-1], good[None], good.astype(object),
        good.astype(complex), good + NAN, good + INF, good - INF, good + 2e6, good + 1e300,
        [["a"] * size], [[0.0], [0.0, 1.0]], Bad(),
    ]  # fmt: skip


def states(other: Callable[[Kit], bytes]) -> list[Any]:
    """What is no snapshot of an environment."""
    return [
        None, 3, "state", b"", b"state", bytearray(b"state"), b"\0" * 300, [],
        Made(other, "<another's>"),
        Made(lambda kit: kit.envs.get_state()[:-1] + b"\xff\xff", "<longer>"),
        Made(lambda kit: kit.envs.get_state()[:40], "<shorter>"),
        Made(lambda kit: memoryview(kit.envs.get_state()), "<a view>"),
    ]  # fmt: skip


MASKS: list[Any] = [
    {"reset_mask": mask}
    for mask in (
        [True] * 3, np.ones(2, bool), np.ones((3, 1), bool), np.ones(3, np.int64), "mask", 3,
        np.zeros(3, bool), np.ones(3, object), b"\1\1\1", True,
    )
]  # fmt: skip
VECTOR_SEEDS: list[Any] = [
    -1, 2**64, "123", 1.0, True, b"123", [1, 2], [1, 2, 3, 4], [1, 2, -3], [1, 2, "3"], [[1]] * 3,
    [1.0, 2.0, 3.0], [True, 1, 2], np.zeros((3, 1), np.int64), np.array([0.5, 1, 2]), Bad(),
]  # fmt: skip
RANGES: list[Any] = [5, (1,), (1, 2, 3), ("a", "b"), (5, 1), (NAN, 1), "ab", [[1, 2]], Bad()]
WEIGHTS: list[Any] = [
    None, 3.0, "weights", [1.0], [[1.0] * 4], [[[1.0] * 5]], ["a"] * 5, [NAN] * 5, [INF] * 5,
    [1e300] * 5, [None] * 5, [True] * 5, [1j] * 5, [[1.0] * 5, [1.0]], b"\0" * 20, Bad(),
]  # fmt: skip
TEXT_IDS: list[Any] = ["none such", 3, [3], [None], ["item 1", "item 1.5"], [b"item 1"], [["x"]]]
NUMBER_IDS: list[Any] = [
    "100",
    [99],
    [-1],
    [0.5],
    [NAN],
    [True],
    [2**64],
    [None],
    [100, "a"],
    Bad(),
]
ROWS: list[Any] = [60, [60], [-1], [0.5], ["1"], [NAN], [None], [2**64], [True], Bad()]
FILES: list[Any] = [in_folder(name) for name in ("none", "text.txt", "empty", "")]
CODES = np.zeros((2, 2), np.uint8)
