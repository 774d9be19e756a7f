"""Checkpoints and divergence: what every fit relies on."""

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from virtualtb_fast import _training  # noqa: E402
from virtualtb_fast.errors import FileFormatError, OutputError, TrainingDivergedError  # noqa: E402


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint = _training.Checkpoint(tmp_path / "fit.ckpt", "key")
    assert checkpoint.load() is None
    generator = np.random.default_rng(3)
    torch_generator = torch.Generator().manual_seed(5)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint.save(
        {
            "numpy": generator.bit_generator.state,
            "torch": torch_generator.get_state(),
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "arrays": [np.arange(4, dtype=np.uint8), np.float32(0.5), np.array(7)],
            "best": None,
        }
    )
    state = _training.Checkpoint(tmp_path / "fit.ckpt", "key").load()
    assert state is not None
    expected = generator.random(4), torch.rand(4, generator=torch_generator)
    generator.bit_generator.state = state["numpy"]
    torch_generator.set_state(state["torch"])
    np.testing.assert_array_equal(generator.random(4), expected[0])
    assert torch.equal(torch.rand(4, generator=torch_generator), expected[1])
    assert torch.equal(state["network"]["weight"], network.weight)
    other = torch.optim.Adam(torch.nn.Linear(3, 2).parameters())
    other.load_state_dict(state["optimizer"])
    assert state["arrays"][0].dtype == np.uint8
    np.testing.assert_array_equal(state["arrays"][0], np.arange(4))
    assert state["arrays"][1] == 0.5
    assert int(state["arrays"][2]) == 7
    assert state["arrays"][2].shape == ()
    assert state["best"] is None


def test_another_key_is_not_taken_up_and_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.ckpt"
    _training.Checkpoint(path, "one").save({"step": 1})
    assert _training.Checkpoint(path, "two").load() is None
    data = path.read_bytes()
    torch.save([1], path)
    with pytest.raises(FileFormatError, match="digest at the end, got none"):
        _training.Checkpoint(path, "one").load()
    path.write_bytes(data)
    assert _training.Checkpoint(path, "one").load() == {"step": 1}
    checkpoint = _training.Checkpoint(path)
    checkpoint.remove()
    checkpoint.remove()
    assert not path.exists()


def test_every_cut_and_twenty_thousand_flips_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.ckpt"
    state = {"step": 1, "weights": np.arange(200, dtype=np.float32)}
    checkpoint = _training.Checkpoint(path, "one")
    checkpoint.save(state)
    data = path.read_bytes()
    for length in range(len(data)):
        with pytest.raises(FileFormatError, match=r"fit\.ckpt: expected a checkpoint"):
            _training._require_seal(io.BytesIO(data[:length]), "fit.ckpt")
    random = np.random.default_rng(0)
    bits = random.integers(0, 8 * len(data), 20_000).tolist()

    def flipped(bit: int) -> bytes:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    _training._require_seal(io.BytesIO(data), "fit.ckpt")
    for number, bit in enumerate(bits):
        with pytest.raises(FileFormatError, match=r"fit\.ckpt: expected"):
            _training._require_seal(io.BytesIO(flipped(bit)), "fit.ckpt")
        if number % 100:
            continue
        # And as it is called.
        path.write_bytes(flipped(bit))
        with pytest.raises(FileFormatError, match=r"fit\.ckpt: expected"):
            checkpoint.load()
    path.write_bytes(data)
    held = checkpoint.load()
    assert held is not None
    np.testing.assert_array_equal(held["weights"], state["weights"])
    # The void guard: PyTorch compares no checksums, so that without the seal some are taken up.
    monkeypatch.setattr(_training, "_require_seal", lambda file, origin: None)
    taken = altered = 0
    for bit in bits[:1_000]:
        path.write_bytes(flipped(bit))
        with contextlib.suppress(FileFormatError, OutputError):
            held = checkpoint.load()
            taken += held is not None
            altered += held is not None and not (
                held.keys() == state.keys() and np.array_equal(held["weights"], state["weights"])
            )
    assert taken > 100
    assert altered > 50


def test_a_failed_save_leaves_the_last_state(tmp_path: Path) -> None:
    checkpoint = _training.Checkpoint(tmp_path / "fit.ckpt")
    checkpoint.save({"step": 1})

    class Unwilling:
        def __reduce__(self) -> tuple[object, ...]:
            raise ValueError("not me")

    with pytest.raises(ValueError, match="not me"):
        checkpoint.save({"step": Unwilling()})
    assert checkpoint.load() == {"step": 1}
    assert os.listdir(tmp_path) == ["fit.ckpt"]
    with pytest.raises(OutputError):
        _training.Checkpoint(tmp_path / "no" / "folder").save({})


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that refuses files")
def test_a_refusing_system_is_an_output_error() -> None:
    with pytest.raises(OutputError), _training.write_atomically(Path("/proc/refused")) as file:
        file.write(b"x")


def test_due_follows_the_clock(tmp_path: Path) -> None:
    assert _training.Checkpoint(tmp_path / "x", every=0).due()
    assert not _training.Checkpoint(tmp_path / "x", every=3600).due()


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), torch.tensor([1.0, float("nan")]), np.array([-np.inf])]
)
def test_divergence_says_which_and_when(bad: object) -> None:
    _training.require_finite("mail", 7, loss=1.0, gradient=torch.ones(3), value=np.ones(2))
    with pytest.raises(TrainingDivergedError, match=r"mail: the loss: .* in step 1,207") as caught:
        _training.require_finite("mail", 1207, fine=0, the_loss=bad)
    assert (caught.value.quantity, caught.value.step) == ("the loss", 1207)
