"""Reading the three published files, or files of the same form that the test writes."""

from __future__ import annotations

import builtins
import os

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA

torch = pytest.importorskip("torch", reason="import_published needs PyTorch")

MODELS = ("generator", "action", "leave")


def state(model, seed=0):
    """A state dict as the published files hold it."""
    rng = np.random.default_rng(seed)
    shapes = V0_CONFIG.shapes(V0_SCHEMA).items()
    return {
        name.removeprefix(f"{model}."): torch.tensor(rng.normal(0, 0.1, shape), dtype=torch.float32)
        for name, shape in shapes
        if name.startswith(f"{model}.")
    }


@pytest.fixture
def folder(tmp_path):
    for model in MODELS:
        torch.save(state(model), tmp_path / f"{model}_model.pt")
    return tmp_path


def test_the_published_files(published, published_folder):
    with np.load(published_folder / "virtualtb_v0.npz") as arrays:
        tensors = published.tensors()
        assert set(arrays) == set(tensors)
        for name in arrays:
            assert np.array_equal(arrays[name], tensors[name])
    assert published.schema == V0_SCHEMA
    assert published.config == V0_CONFIG


def test_the_published_weights_survive_a_file_and_keep_their_digest(published, tmp_path):
    published.save(tmp_path / "v0.safetensors")
    again = vtb.load_simulator(tmp_path / "v0.safetensors")
    assert again == published
    assert again.provenance == published.provenance


def test_other_weights_of_the_same_shapes_are_told_apart(folder):
    simulator = vtb.import_published(folder)
    assert simulator.name == "virtualtb-v0"
    assert simulator.provenance["published"] is False
    got = simulator.tensors()["leave.2.weight"]
    assert np.array_equal(got, state("leave")["2.weight"].numpy())


def test_old_and_new_torch_files_are_read_alike(folder):
    before = vtb.import_published(folder).tensors()
    for model in MODELS:
        path = folder / f"{model}_model.pt"
        torch.save(state(model), path, _use_new_zipfile_serialization=False)
    after = vtb.import_published(os.fspath(folder)).tensors()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("model", MODELS)
def test_a_missing_file_is_named(folder, model):
    (folder / f"{model}_model.pt").unlink()
    with pytest.raises(vtb.OutputError, match=rf"{model}_model\.pt"):
        vtb.import_published(folder)


def missing(tensors):
    del tensors["2.bias"]


def surplus(tensors):
    tensors["6.weight"] = torch.zeros(3)


def transposed(tensors):
    tensors["2.weight"] = tensors["2.weight"].T


def shorter(tensors):
    tensors["0.bias"] = tensors["0.bias"][:-1]


def double(tensors):
    tensors["0.weight"] = tensors["0.weight"].double()


def no_tensor(tensors):
    tensors["0.weight"] = "weights"


def not_finite(tensors):
    tensors["2.weight"][3, 1] = float("nan")


def infinite(tensors):
    tensors["0.bias"][0] = float("-inf")


CHANGES = [missing, surplus, transposed, shorter, double, no_tensor, not_finite, infinite]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_tensors_that_do_not_belong_are_refused(folder, model, change):
    tensors = state(model)
    change(tensors)
    torch.save(tensors, folder / f"{model}_model.pt")
    with pytest.raises(vtb.FileFormatError, match=r"expected .* got"):
        vtb.import_published(folder)


@pytest.mark.parametrize(
    "content", [b"", b"no torch file", b"PK\x03\x04", b"\x80\x02", b"\x80\x04K\x01."]
)
def test_files_that_are_no_state_dicts_are_refused(folder, content):
    (folder / "action_model.pt").write_bytes(content)
    with pytest.raises(vtb.FileFormatError, match=r"action_model\.pt"):
        vtb.import_published(folder)


def test_files_cut_short_are_refused(folder):
    path = folder / "leave_model.pt"
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(vtb.FileFormatError):
            vtb.import_published(folder)


def test_a_pickle_that_would_run_code_is_refused(folder, tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save(Harmful(), folder / "action_model.pt")
    with pytest.raises(vtb.FileFormatError):
        vtb.import_published(folder)
    assert not (tmp_path / "harm").exists()


def test_an_oversized_file_is_refused_before_it_is_read(folder):
    os.truncate(folder / "leave_model.pt", 1 << 40)
    with pytest.raises(vtb.FileFormatError, match="at most"):
        vtb.import_published(folder)


@pytest.mark.parametrize("directory", [None, 3, b"\xff"])
def test_what_is_no_path_is_refused(directory):
    with pytest.raises(vtb.VirtualTBError):
        vtb.import_published(directory)


def test_without_torch_the_message_says_what_to_install(folder, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **keywords):
        if name == "torch":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(vtb.MissingExtraError, match=r"virtualtb-fast\[train\]"):
        vtb.import_published(folder)
