"""What all tests share: where data are, simulators to test with, and an independent reference.

`Reference` plays sessions with numpy and Python alone. It shares no code with the native module:
it has its own Philox, computes in float64 and samples one number at a time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import hypothesis
import numpy as np
import pytest
from tests.processes import Started

import virtualtb_fast as vtb
from virtualtb_fast.schema import (
    V0_CONFIG,
    V0_SCHEMA,
    Config,
    Customers,
    Field,
    Leave,
    Response,
    Schema,
)

# A slow machine is no fault of the product, and a commit that passed must not fail by a later draw:
# the same examples every time. `--hypothesis-profile=search` (`make search`) draws many new ones.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
hypothesis.settings.load_profile("same")

# Who starts the tests in the background of a shell has them ignore Ctrl-C, and what they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LATENT, FIELDS, LEAVE, RESPONSE, POLICY, NEXT_LATENT, NEXT_FIELDS, NEXT_LEAVE = range(8)
"""Purposes of draws, in the top byte of the first counter word."""


def philox(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox4x32-10 of counters (n, 4), uint32; from the paper's definition (SC 2011)."""
    words = [counters[:, index].astype(np.uint64) for index in range(4)]
    low = np.uint64(0xFFFFFFFF)
    first, second = (np.uint64(word) for word in key)
    for _ in range(10):
        left, right = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words = [
            (right >> np.uint64(32)) ^ words[1] ^ first,
            right & low,
            (left >> np.uint64(32)) ^ words[3] ^ second,
            left & low,
        ]
        first = (first + np.uint64(0x9E3779B9)) & low
        second = (second + np.uint64(0xBB67AE85)) & low
    return np.stack(words, axis=1).astype(np.uint32)


def uniforms(seed: int, session: int, page: int, purpose: int, count: int) -> np.ndarray:
    """The first uniforms in [0, 1) of a draw: the top 24 bits of each word."""
    blocks = -(-count // 4)
    counters = np.empty((blocks, 4), np.uint32)
    counters[:, 0] = purpose << 24 | np.arange(blocks)
    counters[:, 1] = page
    counters[:, 2], counters[:, 3] = session & 0xFFFFFFFF, session >> 32
    words = philox(counters, (seed & 0xFFFFFFFF, seed >> 32)).reshape(-1)[:count]
    return (words >> 8).astype(np.float64) / (1 << 24)


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def pick(probabilities: np.ndarray, uniform: float) -> int:
    """The category in which the uniform falls."""
    inside = np.cumsum(probabilities)[:-1]
    return int((inside <= uniform).sum())


def numpy_networks(simulator: vtb.Simulator) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The three networks in float64, straight from the tensors."""
    tensors = {key: value.astype(np.float64) for key, value in simulator.tensors().items()}
    slope = simulator.config.slope

    def network(model: str) -> Callable[[np.ndarray], np.ndarray]:
        layers = len([key for key in tensors if key.startswith(f"{model}.")]) // 2

        def forward(x: np.ndarray) -> np.ndarray:
            for layer in range(layers):
                x = x @ tensors[f"{model}.{2 * layer}.weight"].T
                x = x + tensors[f"{model}.{2 * layer}.bias"]
                if layer + 1 < layers:
                    x = np.where(x > 0, x, slope * x)
            return x

        return forward

    return {model: network(model) for model in ("generator", "action", "leave")}


class Reference:
    """One environment, played as VirtualTB 0.0.5 plays it, with networks given as functions."""

    def __init__(
        self,
        networks: dict[str, Callable[[np.ndarray], np.ndarray]],
        schema: Schema = V0_SCHEMA,
        config: Config = V0_CONFIG,
        *,
        quirks: bool = False,
    ) -> None:
        self.networks, self.schema, self.config, self.quirks = networks, schema, config, quirks

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.seed, self.session = (seed, 0) if seed is not None else (self.seed, self.session + 1)
        self.page = self.total = 0
        self._arrive(LATENT, FIELDS, LEAVE, page=0)
        return self.observation()

    def _arrive(self, latent: int, fields: int, leave: int, page: int) -> None:
        z = uniforms(self.seed, self.session, page, latent, self.config.customers.latent)
        logits = self.networks["generator"](z[None])[0]
        drawn = uniforms(self.seed, self.session, page, fields, len(self.schema.customer))
        slices = self.schema.slices.values()
        pairs = zip(slices, drawn, strict=True)
        codes = [pick(softmax(logits[columns]), u) for columns, u in pairs]
        self.user = np.zeros(self.schema.customer_width)
        for columns, code in zip(slices, codes, strict=True):
            self.user[columns.start + code] = 1
        probabilities = softmax(self.networks["leave"](self.user[None])[0])
        self.limit = pick(probabilities, uniforms(self.seed, self.session, page, leave, 1)[0])
        self.clicks = self.second = 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, int, int, bool, float]:
        """Observation, clicks, second head, done, CTR."""
        page = np.array([self.page * self.config.response.page_scale])
        row = np.concatenate((self.user, page, action.astype(np.float64)))
        logits = self.networks["action"](row[None])[0]
        first, second = uniforms(self.seed, self.session, self.page, RESPONSE, 2)
        heads = self.config.response.clicks
        self.clicks = pick(softmax(logits[:heads]), first)
        self.second = pick(softmax(logits[heads:]), second)
        clicks, deals = self.clicks, self.second
        self.total += clicks
        self.page += 1
        done = self.page >= self.limit
        if done and self.quirks:
            self._arrive(NEXT_LATENT, NEXT_FIELDS, NEXT_LEAVE, page=self.page)
        ctr = self.total / self.page / (self.config.response.clicks - 1)
        return self.observation(), clicks, deals, done, ctr

    def observation(self) -> np.ndarray:
        feedback = [self.clicks, self.second, self.page]
        return np.concatenate((self.user, feedback)).astype(np.float32)


def random_simulator(
    seed: int,
    schema: Schema = V0_SCHEMA,
    config: Config = V0_CONFIG,
    *,
    pages: float = 4.0,
    name: str = "random",
) -> vtb.Simulator:
    """A simulator of random weights: varied customers, sessions of about ``pages`` pages."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for key, shape in config.shapes(schema).items():
        scale = 1.5 / np.sqrt(shape[-1]) if len(shape) == 2 else 0.1
        tensors[key] = rng.normal(0, scale, shape).astype(np.float32)
    sizes = [field.size for field in schema.customer]
    if config.customers.kind == "mixture":
        count = config.customers.components
        blocks = [rng.dirichlet(np.full(size, 0.5), count) for size in sizes]
        tensors["customers.fields"] = np.concatenate(blocks, axis=1).astype(np.float32)
        tensors["customers.shares"] = rng.dirichlet(np.ones(count)).astype(np.float32)
    elif config.customers.kind == "rows":
        codes = rng.integers(0, sizes, (config.customers.rows, len(sizes)))
        tensors["customers.rows"] = codes.astype(np.uint8)
    if config.leave.kind == "hazard":
        return vtb.Simulator.from_tensors(tensors, name=name, schema=schema, config=config)
    # Customers differ by far fewer columns than there are inputs.
    tensors["leave.0.weight"] *= 4
    last = f"leave.{2 * len(config.leave.hidden)}.bias"
    limits = np.arange(config.leave.classes)
    tensors[last] += (-np.abs(limits - pages) / (0.4 * pages)).astype(np.float32)
    return vtb.Simulator.from_tensors(tensors, name=name, schema=schema, config=config)


SHOP_SCHEMA = Schema(
    customer=(Field("region", 5), Field("member", 2), Field("age", 4)),
    action=6,
    action_range=(-2.0, 3.0),
)
SHOP_CONFIG = Config(
    customers=Customers(latent=7, hidden=(9, 5)),
    response=Response(page_scale=0.25, clicks=5, second=3, hidden=(20,)),
    leave=Leave(classes=13, hidden=(6,)),
    slope=0.2,
)


CUSTOMERS = {
    "mlp": Customers(latent=7, hidden=(9, 5)),
    "mixture": Customers(kind="mixture", components=6),
    "rows": Customers(kind="rows", rows=23),
    "autoregressive": Customers(kind="autoregressive", hidden=(10,)),
}
"""Every kind of sampler of customers."""
RESPONSES = {
    "once": (SHOP_CONFIG.response, SHOP_CONFIG.leave),
    "hazard": (SHOP_CONFIG.response, Leave(kind="hazard", longest=3)),
    "outcome": (
        Response(page_scale=0.25, hidden=(20,), heads="outcome", items=4),
        Leave(kind="hazard", longest=3),
    ),
    "linear": (
        Response(page_scale=0.25, hidden=(20,), heads="outcome", items=4, kind="linear"),
        Leave(kind="hazard", longest=3),
    ),
}
"""Every kind of answer, with the rule of leaving that goes with it."""


@functools.cache
def learned(customers: str, response: str) -> vtb.Simulator:
    """A shop of random weights of these kinds."""
    config = Config(CUSTOMERS[customers], *RESPONSES[response], SHOP_CONFIG.slope)
    name = f"{customers}, {response}"
    return random_simulator(4, SHOP_SCHEMA, config, pages=3.0, name=name)


def table(steps: int, envs: int, size: int = 27, seed: int = 0) -> np.ndarray:
    """Actions (steps, envs, size): tiny, in the box and beyond it."""
    rng = np.random.default_rng(seed)
    norms = 10 ** rng.uniform(-2, 0.6, (steps, envs, 1))
    return (rng.uniform(-1, 1, (steps, envs, size)) * norms).astype(np.float32)


def equal(left: Any, right: Any) -> bool:
    """Whether two structures of dictionaries and arrays agree to the last bit, types too."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, np.ndarray):
        if (left.dtype, left.shape) != (right.dtype, right.shape):
            return False
        if left.dtype == object:
            return all(equal(one, two) for one, two in zip(left, right, strict=True))
        return left.tobytes() == right.tobytes()
    return type(left) is type(right) and left == right


@contextlib.contextmanager
def v0_is_not_outdated() -> Iterator[None]:
    """Puts back the package's own filter, which pytest's "warnings are errors" overrides."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*VirtualTB-v0 is out of date")
        yield


@dataclass(frozen=True)
class Kit:
    """Helpers that several test modules need; they cannot import one another."""

    philox = staticmethod(philox)
    uniforms = staticmethod(uniforms)
    softmax = staticmethod(softmax)
    pick = staticmethod(pick)
    numpy_networks = staticmethod(numpy_networks)
    random_simulator = staticmethod(random_simulator)
    learned = staticmethod(learned)
    customers = tuple(CUSTOMERS)
    responses = tuple(RESPONSES)
    shop_schema = SHOP_SCHEMA

    @staticmethod
    def responses_of(kind: str) -> tuple[Response, Leave]:
        """How such customers answer and leave."""
        return RESPONSES[kind]

    Reference = Reference
    table = staticmethod(table)
    equal = staticmethod(equal)
    v0_is_not_outdated = staticmethod(v0_is_not_outdated)


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def simulator() -> vtb.Simulator:
    """Random weights in VirtualTB-v0's shapes."""
    return random_simulator(1)


@pytest.fixture(scope="session")
def shop() -> vtb.Simulator:
    """Random weights for a shop of another shape altogether."""
    return random_simulator(2, SHOP_SCHEMA, SHOP_CONFIG, pages=3.0, name="shop")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data that ``VIRTUALTB_DATA`` names."""
    folder = os.environ.get("VIRTUALTB_DATA")
    if not folder:
        pytest.skip("VIRTUALTB_DATA is not set: this test needs the published data")
    return Path(folder)


@pytest.fixture(scope="session")
def published_folder(data: Path) -> Path:
    """The folder of the three published networks."""
    folder = data / "virtualtb_v0"
    if not folder.is_dir():
        pytest.skip(f"the published networks are not in {folder}")
    pytest.importorskip("torch", reason="reading the published networks needs PyTorch")
    return folder


@pytest.fixture(scope="session")
def published(published_folder: Path) -> vtb.Simulator:
    """The published networks as a simulator."""
    return vtb.import_published(published_folder)


@pytest.fixture(scope="session")
def torch_networks(published_folder: Path) -> dict[str, Any]:
    """The published networks as PyTorch modules, float64, read without this package."""
    import torch

    shapes = {
        "generator": (128, 128, 88),
        "action": (116, 128, 256, 21),
        "leave": (88, 128, 256, 101),
    }
    networks = {}
    for model, sizes in shapes.items():
        layers: list[torch.nn.Module] = []
        for index in range(len(sizes) - 1):
            layers += [torch.nn.Linear(sizes[index], sizes[index + 1]), torch.nn.LeakyReLU()]
        network = torch.nn.Sequential(*layers[:-1])
        path = published_folder / f"{model}_model.pt"
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        networks[model] = network.double().eval()
    return networks


@pytest.fixture(scope="session")
def torch_functions(torch_networks: dict[str, Any]) -> dict[str, Callable[..., np.ndarray]]:
    """The same as functions of numpy arrays."""
    import torch

    def function(network: Any) -> Callable[[np.ndarray], np.ndarray]:
        def forward(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(np.asarray(x, np.float64))).numpy()

        return forward

    return {model: function(network) for model, network in torch_networks.items()}


@pytest.fixture
def make(simulator: vtb.Simulator) -> Iterator[Callable[..., Any]]:
    """``gymnasium.make`` with the random simulator unless another is given; closes at the end."""
    made: list[Any] = []

    def one(version: str = "v1", **arguments: Any) -> Any:
        arguments.setdefault("simulator", simulator)
        with v0_is_not_outdated():
            made.append(gymnasium.make(f"virtualtb_fast:VirtualTB-{version}", **arguments))
        return made[-1]

    yield one
    for env in made:
        env.close()


@pytest.fixture
def make_vec(simulator: vtb.Simulator) -> Iterator[Callable[..., Any]]:
    """``gymnasium.make_vec`` likewise."""
    made: list[Any] = []

    def many(version: str = "v1", **arguments: Any) -> Any:
        arguments.setdefault("simulator", simulator)
        with v0_is_not_outdated():
            made.append(gymnasium.make_vec(f"virtualtb_fast:VirtualTB-{version}", **arguments))
        return made[-1]

    yield many
    for envs in made:
        envs.close()


def _start(
    simulator: vtb.Simulator, folder: Path, code: str, **variables: str
) -> subprocess.Popen[str]:
    """Runs code in another process, with ``sim`` and ``rollout`` at hand."""
    path = folder / "simulator.safetensors"
    if not path.exists():
        simulator.save(path)
    head = (
        "import sys, virtualtb_fast as vtb\n"
        "from virtualtb_fast.rollout import rollout\n"
        f"sim = vtb.load_simulator({str(path)!r})\n"
    )
    return Started(
        [sys.executable, "-c", head + code],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """``start(simulator, folder, code, **variables)``: a process of its own."""
    return _start
