"""Reading the three published files, or files of the same form that the test writes.

Bad ones are in ``tests/reliability/bad_files_others.py``.
"""

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
