"""Checkpoints and divergence: what every fit relies on."""

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
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError, match=r"fit\.ckpt: expected a checkpoint"):
        _training.Checkpoint(path, "one").load()
    torch.save([1], path)
    with pytest.raises(FileFormatError, match="digest at the end, got none"):
        _training.Checkpoint(path, "one").load()
    path.write_bytes(data)
    assert _training.Checkpoint(path, "one").load() == {"step": 1}
    # PyTorch compares no checksums: some of these load without ours.
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match=r"fit\.ckpt: expected"):
            _training.Checkpoint(path, "one").load()
    checkpoint = _training.Checkpoint(path)
    checkpoint.remove()
    checkpoint.remove()
    assert not path.exists()


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
