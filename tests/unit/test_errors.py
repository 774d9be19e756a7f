"""The exception tree: one root, and the built-in error that each one also is."""

from __future__ import annotations

import pickle

import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core, errors

BUILT_IN = {
    "CustomerModelError": RuntimeError,
    "DegenerateWorldError": ValueError,
    "FileFormatError": ValueError,
    "InvalidActionError": ValueError,
    "InvalidArgumentError": ValueError,
    "LogError": ValueError,
    "MissingExtraError": ImportError,
    "OutputError": OSError,
    "PolicyError": RuntimeError,
    "RareConditionError": ValueError,
    "StateError": RuntimeError,
    "TrainingDivergedError": ArithmeticError,
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_error_is_of_the_tree_and_of_its_built_in_kind(name):
    error = getattr(errors, name)
    assert issubclass(error, errors.VirtualTBError)
    assert issubclass(error, BUILT_IN[name])
    assert getattr(vtb, name) is error
    copy = pickle.loads(pickle.dumps(error("expected this, got that")))
    assert type(copy) is error
    assert str(copy) == "expected this, got that"


def test_nothing_is_missing_from_the_tree():
    assert set(errors.__all__) == {*BUILT_IN, "VirtualTBError"}


def test_the_native_module_raises_these_classes(tmp_path):
    with pytest.raises(vtb.FileFormatError, match="nowhere"):
        _core.Simulator.from_bytes(b"no simulator", "nowhere")
    with pytest.raises(vtb.OutputError) as caught:
        _core.Simulator.load(str(tmp_path / "missing.safetensors"))
    assert caught.value.errno == 2
    assert str(caught.value.filename).endswith("missing.safetensors")
