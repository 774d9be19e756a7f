"""Policies: networks against PyTorch and numpy, their file, and what is refused."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.policies import Activation, Policy
from virtualtb_fast.rollout import rollout

LEAKY: Activation = ("leaky_relu", 0.05)


def layers(schema: vtb.schema.Schema, hidden: tuple[int, ...], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    sizes = (schema.observation_width, *hidden, schema.action)
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    return [
        (
            (rng.normal(0, 1, shape) * 0.5 / np.sqrt(shape[1])).astype(np.float32),
            rng.normal(0, 0.1, shape[0]).astype(np.float32),
        )
        for shape in shapes
    ]


def reference(
    weights: list[Any], x: np.ndarray, hidden: Callable[..., Any], last: Callable[..., Any]
) -> np.ndarray:
    for index, (weight, bias) in enumerate(weights):
        x = x @ weight.astype(float).T + bias
        x = (last if index + 1 == len(weights) else hidden)(x)
    return x


@pytest.mark.parametrize(
    ("hidden", "activation", "output"),
    [
        ((), "tanh", "identity"),
        ((7,), "relu", "tanh"),
        ((64, 33), "tanh", LEAKY),
        ((9,) * 4, LEAKY, "tanh"),
    ],
)
def test_networks_compute_what_their_tensors_say(
    simulator: vtb.Simulator, hidden: tuple[int, ...], activation: Activation, output: Activation
) -> None:
    functions: dict[Any, Callable[..., Any]] = {
        "tanh": np.tanh,
        "identity": lambda x: x,
        "relu": lambda x: np.maximum(x, 0),
        LEAKY: lambda x: np.where(x > 0, x, 0.05 * x),
    }
    rng = np.random.default_rng(1)
    width = simulator.schema.observation_width
    mean = rng.normal(0, 0.3, width).astype(np.float32)
    # Columns that hardly vary have tiny deviations; a clip tames them.
    sd = np.exp(rng.uniform(-12, 1, width)).astype(np.float32)
    weights = layers(simulator.schema, hidden)
    policy = Policy.from_tensors(
        weights,
        schema=simulator.schema,
        activation=activation,
        output=output,
        observation_mean=mean,
        observation_sd=sd,
        observation_clip=3.0,
    )
    played = rollout(simulator, policy, sessions=400)
    x = np.clip((played.log.observations().astype(float) - mean) / sd, -3, 3)
    want = reference(weights, x, functions[activation], functions[output])
    np.testing.assert_allclose(played["action"], want.clip(-1, 1), atol=1e-5)
    # Void guard: actions differ by far more than the tolerance.
    assert np.ptp(played["action"], axis=0).mean() > 1e-2
    assert not played["action_logp"].any()


def test_a_network_agrees_with_pytorch(simulator: vtb.Simulator) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    module = nn.Sequential(nn.Linear(91, 128), nn.Tanh(), nn.Linear(128, 27), nn.Tanh())
    weights = [
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in module
        if isinstance(layer, nn.Linear)
    ]
    policy = Policy.from_tensors(weights, schema=simulator.schema, output="tanh")

    def function(observation: np.ndarray, session: np.ndarray, page: np.ndarray) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(observation)).numpy()

    native = rollout(simulator, policy, sessions=500)
    with torch.inference_mode():
        want = module(torch.from_numpy(native.log.observations())).numpy()
    np.testing.assert_allclose(native["action"], want, atol=1e-5)
    called = rollout(simulator, function, sessions=500)
    # Roundings may send single customers another way, but not the lot.
    assert abs(called.ctr - native.ctr) < 0.01


def test_a_function_may_compute_the_same_network(simulator: vtb.Simulator) -> None:
    # Weights that make every sum exact: then both ways must agree to the last bit.
    weight = np.zeros((27, 91), np.float32)
    weight[np.arange(27), np.arange(27)] = 0.5
    weight[0, 88], weight[1, 90] = 0.0625, 0.0078125
    policy = Policy.from_tensors([(weight, np.zeros(27, np.float32))], schema=simulator.schema)
    native = rollout(simulator, policy, sessions=800)
    called = rollout(simulator, lambda observation, _, __: observation @ weight.T, sessions=800)
    assert native.digest() == called.digest()


def test_sampled_networks_draw_around_their_output(shop: vtb.Simulator) -> None:
    weights = layers(shop.schema, (16,))
    log_sd = np.linspace(-3, -1.5, shop.schema.action)
    plain = Policy.from_tensors(weights, schema=shop.schema)
    noisy = Policy.from_tensors(weights, schema=shop.schema, log_sd=log_sd)
    played = rollout(shop, noisy, sessions=5_000)
    mean = reference(weights, played.log.observations().astype(float), np.tanh, lambda x: x)
    low, high = shop.schema.action_range
    inside = ((played["action"] > low) & (played["action"] < high)).all(1)
    assert inside.mean() > 0.5
    z = ((played["action"] - mean) / np.exp(log_sd))[inside]
    density = (-0.5 * z**2 - log_sd - 0.5 * np.log(2 * np.pi)).sum(1)
    np.testing.assert_allclose(played["action_logp"][inside], density, atol=1e-3)
    assert abs(z.mean()) < 0.05
    assert abs(z.std() - 1) < 0.05
    # Void guard: without the noise there is nothing to standardise.
    still = rollout(shop, plain, sessions=100)
    mean = reference(weights, still.log.observations().astype(float), np.tanh, lambda x: x)
    assert ((still["action"] - mean.clip(low, high)) / np.exp(log_sd)).std() < 0.01
    assert noisy != plain


def test_action_clip_comes_before_the_range(shop: vtb.Simulator) -> None:
    weights = layers(shop.schema, ())
    policy = Policy.from_tensors(weights, schema=shop.schema, action_clip=(-0.1, 0.2))
    action = rollout(shop, policy, sessions=200)["action"]
    assert (action.min(), action.max()) == (np.float32(-0.1), np.float32(0.2))


def test_files_and_copies_come_back(simulator: vtb.Simulator, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    policy = Policy.from_tensors(
        layers(simulator.schema, (8,)),
        schema=simulator.schema,
        log_sd=np.zeros(27),
        provenance={"trained": "never"},
    )
    policy.save(path)
    back = Policy.load(path)
    assert back == policy
    assert hash(back) == hash(policy)
    assert (back.config, back.provenance) == (policy.config, {"trained": "never"})
    for name, tensor in policy.tensors().items():
        assert np.array_equal(back.tensors()[name], tensor)
    back.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    want = rollout(simulator, policy, sessions=30)
    for same in (str(path), Policy.parse(str(path)), pickle.loads(pickle.dumps(back))):
        assert rollout(simulator, same, sessions=30).digest() == want.digest()
    assert want.metadata["policy"] == policy.name
    assert copy.deepcopy(policy) is policy
    for word in ("zero", "gaussian:0.1"):
        assert pickle.loads(pickle.dumps(Policy.parse(word))) == Policy.parse(word)
    constant = Policy.constant(np.arange(27))
    assert pickle.loads(pickle.dumps(constant)) == constant != Policy.constant(np.zeros(27))


def test_altered_files_are_refused(simulator: vtb.Simulator, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    Policy.from_tensors(layers(simulator.schema, ()), schema=simulator.schema).save(path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(good), 300):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        with pytest.raises(vtb.FileFormatError, match="expected"):
            Policy.load(path)
    simulator.save(path)
    with pytest.raises(vtb.FileFormatError, match=r"virtualtb_fast\.policy"):
        Policy.load(path)
    with pytest.raises(vtb.OutputError):
        Policy.load(tmp_path / "missing.safetensors")
    with pytest.raises(vtb.InvalidArgumentError, match="expected a network"):
        Policy.parse("zero").save(tmp_path / "zero.safetensors")


def test_constants_come_from_files(simulator: vtb.Simulator, tmp_path: Path) -> None:
    action = np.linspace(-1, 1, 27).astype(np.float32)
    np.save(tmp_path / "action.npy", action)
    (tmp_path / "action.txt").write_text("\n".join(map(repr, action.tolist())))
    (tmp_path / "action.csv").write_text(", ".join(map(repr, action.tolist())))
    for name in ("action.npy", "action.txt", "action.csv"):
        policy = Policy.parse(f"constant:{tmp_path / name}")
        assert policy == Policy.constant(action)
    assert np.array_equal(rollout(simulator, policy, sessions=3)["action"][0], action)
    (tmp_path / "bad.txt").write_text("1, two")
    np.save(tmp_path / "bad.npy", np.zeros((3, 3)))
    for name in ("bad.txt", "bad.npy"):
        with pytest.raises(vtb.InvalidArgumentError, match="expected"):
            Policy.parse(f"constant:{tmp_path / name}")
    with pytest.raises(vtb.OutputError, match="missing"):
        Policy.parse(f"constant:{tmp_path / 'missing.txt'}")


def test_another_schema_is_refused(simulator: vtb.Simulator, shop: vtb.Simulator) -> None:
    policy = Policy.from_tensors(layers(shop.schema, ()), schema=shop.schema)
    with pytest.raises(vtb.InvalidArgumentError, match="expected 91 observation columns"):
        rollout(simulator, policy, sessions=3)
    fields = (*simulator.schema.customer[:-1], vtb.schema.Field("other", 3))
    renamed = vtb.schema.Schema(fields, 27)
    policy = Policy.from_tensors(layers(renamed, ()), schema=renamed)
    with pytest.raises(vtb.InvalidArgumentError, match="expected schema"):
        rollout(simulator, policy, sessions=3)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": []},
        {"layers": [(np.zeros((27, 90), np.float32), np.zeros(27, np.float32))]},
        {"layers": [(np.zeros((27, 91)), np.zeros(27, np.float32))]},
        {"layers": [(np.full((27, 91), np.nan, np.float32), np.zeros(27, np.float32))]},
        {"layers": [np.zeros((27, 91), np.float32)]},
        {"activation": "sigmoid"},
        {"output": ("leaky_relu", 2.0)},
        {"observation_mean": np.zeros(90)},
        {"observation_sd": np.zeros(91)},
        {"observation_clip": -1.0},
        {"log_sd": np.zeros(26)},
        {"log_sd": np.full(27, 50.0)},
        {"action_clip": (1.0, 0.0)},
        {"provenance": {"x": object()}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_networks_that_cannot_be_are_refused(
    simulator: vtb.Simulator, change: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"layers": layers(simulator.schema, ()), "schema": simulator.schema}
    with pytest.raises(vtb.InvalidArgumentError, match="expected"):
        Policy.from_tensors(**arguments | change)
