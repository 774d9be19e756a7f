"""Simulators: building, files, names, copies."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import virtualtb_fast as vtb
from virtualtb_fast import simulator as module
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA, Leave


def rebuild(simulator, tensors, **changes):
    arguments = {"name": "changed", "schema": simulator.schema, "config": simulator.config}
    return vtb.Simulator.from_tensors(tensors, **(arguments | changes))


def test_it_holds_what_it_was_made_of(shop):
    provenance = {"seed": 7, "days": [1, 2], "note": "käse"}
    again = rebuild(shop, shop.tensors(), provenance=provenance)
    assert again.name == "changed"
    assert again.provenance == provenance
    assert again.schema == shop.schema
    assert again.config == shop.config
    for name, tensor in shop.tensors().items():
        assert np.array_equal(again.tensors()[name], tensor)


def test_arrays_of_any_layout_are_stored_in_order(shop, tmp_path):
    tensors = shop.tensors()
    other = {name: np.asfortranarray(tensor) for name, tensor in tensors.items()}
    strided = {name: np.repeat(tensor, 2, axis=-1)[..., ::2] for name, tensor in tensors.items()}
    path = tmp_path / "a.safetensors"
    for layout in (other, strided):
        rebuild(shop, layout).save(path)
        read = vtb.load_simulator(path).tensors()
        assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


def test_neither_its_arrays_nor_its_provenance_can_be_changed_from_outside(shop):
    tensors = shop.tensors()
    mine = rebuild(shop, tensors, provenance={"a": 1})
    for source in (tensors, mine.tensors()):
        for tensor in source.values():
            tensor[:] = 0
    mine.provenance["a"] = 2
    assert mine.provenance == {"a": 1}
    assert all(tensor.any() for tensor in mine.tensors().values())
    with pytest.raises(AttributeError):
        mine.name = "other"


def test_a_file_gives_back_the_same_simulator(shop, simulator, tmp_path):
    for index, one in enumerate((shop, simulator)):
        path = tmp_path / f"{index}.safetensors"
        one.save(path)
        again = vtb.Simulator.load(path)
        assert again == one
        assert again.digest == one.digest
        assert again.to_bytes() == one.to_bytes() == path.read_bytes()
        assert list(tmp_path.glob("*.partial")) == []


def test_its_files_are_safetensors(shop):
    """Read by the format's definition: length, JSON header, little-endian data."""
    data = shop.to_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    assert header.pop("__metadata__")["name"] == "shop"
    assert (8 + length) % 8 == 0
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        assert entry["dtype"] == "F32"
        start, stop = entry["data_offsets"]
        assert start == end
        got = np.frombuffer(body[start:stop], "<f4").reshape(entry["shape"])
        assert np.array_equal(got, shop.tensors()[name])
        end = stop
    assert end == len(body)
    assert set(header) == set(shop.tensors())


def test_the_digest_is_the_files_sha256_with_its_own_digits_zeroed(shop):
    data = shop.to_bytes()
    assert data.count(shop.digest.encode()) == 1
    zeroed = data.replace(shop.digest.encode(), b"0" * 64)
    assert hashlib.sha256(zeroed).hexdigest() == shop.digest


def test_equality_is_equality_of_content(shop, simulator):
    twin = rebuild(shop, shop.tensors(), name=shop.name)
    assert twin == shop
    assert hash(twin) == hash(shop)
    assert twin != simulator
    assert shop != "shop"
    assert rebuild(shop, shop.tensors()) != shop
    assert shop.digest[:12] in repr(shop)


def test_copies_are_the_object_and_pickles_are_shared(shop):
    assert copy.copy(shop) is shop
    assert copy.deepcopy(shop) is shop
    assert copy.deepcopy({"a": [shop]})["a"][0] is shop
    data = pickle.dumps([shop, shop])
    assert len(data) < len(shop.to_bytes()) + 500
    first, second = pickle.loads(data)
    assert first is second
    assert pickle.loads(data)[0] is first
    assert first == shop


def test_a_reduced_one_has_the_same_file_and_a_digest_of_its_own(tmp_path):
    exact = vtb.load_simulator()
    reduced = exact.reduced()
    assert reduced.is_reduced
    assert not exact.is_reduced
    assert reduced != exact
    assert reduced.digest == exact.reduced().digest
    assert "reduced" in repr(reduced)
    assert reduced.reduced() is reduced
    assert reduced.to_bytes() == exact.to_bytes()
    reduced.save(tmp_path / "file.safetensors")
    assert vtb.load_simulator(tmp_path / "file.safetensors") == exact
    again = pickle.loads(pickle.dumps(reduced))
    assert again == reduced
    assert again.is_reduced
    shifted = reduced.with_page_base(1)
    assert shifted.is_reduced
    assert shifted == exact.with_page_base(1).reduced()


@pytest.mark.parametrize(
    ("hidden", "leave"),
    [((24, 24, 24), ()), ((8, 8), (40, 40)), ((16, 16), (64,)), ((128, 256), ())],
)
def test_networks_of_any_width_are_reduced(shop, kit, hidden, leave):
    response = dataclasses.replace(shop.config.response, hidden=hidden)
    rule = Leave(kind="hazard", longest=9)
    if leave:
        rule = dataclasses.replace(shop.config.leave, hidden=leave)
    config = dataclasses.replace(shop.config, response=response, leave=rule)
    exact = kit.random_simulator(8, kit.shop_schema, config)
    reduced = exact.reduced()
    assert vtb.rollout(reduced, "random", sessions=200).pages >= 200
    given = exact.customers(300, 1), np.arange(300) % 9, np.zeros((300, 6), np.float32)
    far = [np.abs(one.response(*given)["clicks"] - exact.response(*given)["clicks"]).max()
           for one in (reduced, kit.random_simulator(9, kit.shop_schema, config))]  # fmt: skip
    assert 0 < far[0] < 0.05 < far[1]


def test_what_has_no_layer_between_hidden_ones_is_not_reduced(kit):
    with pytest.raises(vtb.InvalidArgumentError, match="expected a response of at least two"):
        kit.learned("mixture", "outcome").reduced()


def test_an_altered_pickle_is_refused(simulator):
    data = pickle.dumps(simulator)
    at = data.index(simulator.tensors()["leave.0.weight"].tobytes()[:64])
    altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    name = simulator.digest.encode()
    # As if the digest that travels beside the file were another: nothing is found in the cache.
    altered = altered.replace(name, b"0" * 64, 1)
    with pytest.raises(vtb.FileFormatError):
        pickle.loads(altered)


def test_forward_is_the_network(shop, kit):
    rng = np.random.default_rng(0)
    for model, network in kit.numpy_networks(shop).items():
        width = shop.config.layers(shop.schema)[model][0]
        for rows in (1, 5, 200):
            x = rng.normal(size=(rows, width)).astype(np.float32)
            got = shop.forward(model, x)
            assert got.dtype == np.float32
            assert got == pytest.approx(network(x), abs=2e-5)


def test_logits_of_answers_are_those_of_the_network(shop, kit):
    codes, pages = shop.customers(300, 1), np.arange(300) % 9
    actions = np.random.default_rng(1).uniform(-2, 3, (300, 6)).astype(np.float32)
    x = np.zeros((300, shop.schema.customer_width + 7), np.float32)
    for field, columns in enumerate(shop.schema.slices.values()):
        x[np.arange(300), columns.start + codes[:, field]] = 1
    scale = np.float32(shop.config.response.page_scale)
    x[:, -7], x[:, -6:] = pages.astype(np.float32) * scale, actions
    got = shop.response(codes, pages, actions, logits=True)
    assert list(got) == ["clicks", "second"]
    want = shop.forward("action", x)
    np.testing.assert_array_equal(np.concatenate(list(got.values()), axis=1), want)
    for head, chances in shop.response(codes, pages, actions).items():
        np.testing.assert_allclose(kit.softmax(got[head]), chances, atol=1e-6)
        assert np.abs(got[head] - chances).max() > 0.1
    with pytest.raises(vtb.InvalidArgumentError, match="logits"):
        shop.response(codes, pages, actions, logits=1)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("customers", np.zeros((1, 7), np.float32)),
        (None, np.zeros((1, 7), np.float32)),
        ("generator", np.zeros((1, 7))),
        ("generator", np.zeros((7,), np.float32)),
        ("generator", np.zeros((7, 1), np.float32)),
        ("generator", np.zeros((1, 8), np.float32)),
        ("generator", np.zeros((1, 14), np.float32)[:, ::2]),
        ("generator", np.zeros((0, 7), np.float32)),
        ("generator", [[0.0] * 7]),
        ("generator", "rows"),
    ],
)
def test_forward_refuses_other_inputs(shop, model, inputs):
    with pytest.raises(vtb.InvalidArgumentError, match=r"expected .* got"):
        shop.forward(model, inputs)


def without(tensors):
    del tensors["leave.2.bias"]


def with_more(tensors):
    tensors["leave.6.bias"] = np.zeros(3, np.float32)


def transposed(tensors):
    tensors["generator.2.weight"] = tensors["generator.2.weight"].T.copy()


def flat(tensors):
    tensors["generator.2.weight"] = tensors["generator.2.weight"].ravel()


def scalar(tensors):
    tensors["generator.2.bias"] = np.float32(1)


def double(tensors):
    tensors["action.0.bias"] = tensors["action.0.bias"].astype(np.float64)


def integers(tensors):
    tensors["action.0.bias"] = np.zeros_like(tensors["action.0.bias"], np.int32)


def nan(tensors):
    tensors["action.0.bias"][1] = np.nan


def infinite(tensors):
    tensors["action.2.weight"][1, 1] = -np.inf


def overflowing(tensors):
    tensors["action.0.weight"][:] = 3e38


def no_array(tensors):
    tensors["action.0.bias"] = "bias"


def surrogate(tensors):
    tensors["\ud800"] = tensors.pop("action.0.bias")


def no_name(tensors):
    tensors[3] = tensors.pop("action.0.bias")


def empty(tensors):
    tensors.clear()


CHANGES = [
    without, with_more, transposed, flat, scalar, double, integers, nan, infinite, overflowing,
    no_array, no_name, surrogate, empty,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_tensors_that_do_not_belong_are_refused(shop, change):
    tensors = shop.tensors()
    change(tensors)
    with pytest.raises(vtb.InvalidArgumentError, match=r"expected .*(got|, not)"):
        rebuild(shop, tensors)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": 3},
        {"name": None},
        {"name": "a\0b"},
        {"name": "\ud800"},
        {"provenance": {"a": "\ud800"}},
        {"schema": "v0"},
        {"schema": V0_SCHEMA},
        {"config": None},
        {"config": V0_CONFIG},
        {"provenance": {"a": float("nan")}},
        {"provenance": {"a": object()}},
        {"provenance": 3},
        {"provenance": {"a": np.zeros(2)}},
    ],
)
def test_other_arguments_that_make_no_simulator_are_refused(shop, changes):
    with pytest.raises(vtb.InvalidArgumentError):
        rebuild(shop, shop.tensors(), **changes)


def test_what_is_no_mapping_of_tensors_is_refused(shop):
    for tensors in (None, [], "tensors", 3):
        with pytest.raises(vtb.InvalidArgumentError):
            rebuild(shop, tensors)
    with pytest.raises(vtb.InvalidArgumentError):
        vtb.Simulator("native")


texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=60)


@given(texts, st.dictionaries(st.text(max_size=9), st.text(max_size=9)))
@settings(max_examples=60)
def test_any_name_and_provenance_survive(tmp_path_factory, kit, name, provenance):
    from virtualtb_fast.schema import Config, Customers, Field, Leave, Response, Schema

    schema = Schema((Field("a", 2),), 1)
    config = Config(Customers(1, (1,)), Response(1.0, 2, 2, (1,)), Leave(2, (1,)))
    tensors = {key: np.ones(shape, "f4") for key, shape in config.shapes(schema).items()}
    one = vtb.Simulator.from_tensors(
        tensors, name=name, schema=schema, config=config, provenance=provenance
    )
    path = tmp_path_factory.mktemp("any") / "one.safetensors"
    one.save(path)
    again = vtb.load_simulator(path)
    assert (again.name, again.provenance, again) == (name, provenance, one)


def test_the_default_comes_with_the_package():
    assert module.DEFAULT in module.embedded_simulators()
    first = vtb.load_simulator()
    assert first is vtb.load_simulator(module.DEFAULT)
    assert first.name == module.DEFAULT
    assert first.schema == V0_SCHEMA
    assert first.config == V0_CONFIG
    assert first.provenance


def test_simulators_and_paths_are_accepted_where_names_are(shop, tmp_path, monkeypatch):
    assert vtb.load_simulator(shop) is shop
    shop.save(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for path in ("mine", "./mine", tmp_path / "mine", str(tmp_path / "mine")):
        assert vtb.load_simulator(path) == shop


def test_unknown_names_list_what_there_is():
    with pytest.raises(vtb.InvalidArgumentError, match=r"got 'virtualtb-v9'") as caught:
        vtb.load_simulator("virtualtb-v9")
    assert all(name in str(caught.value) for name in module.embedded_simulators())


@pytest.mark.parametrize("path", [None, 3, b"bytes", "", "a\0b", "\ud800", ["a"]])
def test_what_is_no_path_is_refused(shop, path):
    for call in (vtb.load_simulator, vtb.Simulator.load, shop.save):
        with pytest.raises(vtb.InvalidArgumentError, match="path: expected"):
            call(path)


@given(st.text(max_size=300))
@settings(max_examples=100)
def test_any_text_is_a_simulator_or_one_of_our_errors(text):
    # Hypothesis reads constants from the sources, and so finds real names.
    if text in module.embedded_simulators():
        assert vtb.load_simulator(text).name == text
        return
    with pytest.raises(vtb.VirtualTBError):
        vtb.load_simulator(text)


@given(
    st.sampled_from(["generator", "action", "leave"]),
    npst.arrays(
        st.sampled_from([np.float32, np.float64, np.int32]),
        st.one_of(npst.array_shapes(max_dims=3, max_side=19), st.just((3, 7)), st.just((2, 11))),
    ),
)
@settings(max_examples=100)
def test_any_array_is_forwarded_or_refused(shop, model, inputs):
    width = shop.config.layers(shop.schema)[model][0]
    if inputs.ndim == 2 and inputs.shape[1] == width and inputs.dtype == np.float32:
        assert shop.forward(model, inputs).shape[0] == len(inputs)
    else:
        with pytest.raises(vtb.InvalidArgumentError):
            shop.forward(model, inputs)


def test_missing_files_and_directories_are_refused(shop, tmp_path):
    with pytest.raises(vtb.OutputError):
        vtb.Simulator.load(tmp_path / "missing.safetensors")
    with pytest.raises(vtb.OutputError):
        vtb.load_simulator(tmp_path)
    with pytest.raises(vtb.OutputError):
        shop.save(tmp_path / "no" / "folder.safetensors")
    with pytest.raises(vtb.OutputError):
        shop.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_file(shop, simulator, tmp_path):
    path = tmp_path / "one.safetensors"
    shop.save(path)
    # A directory of the name that the file is written under at first.
    (tmp_path / "one.safetensors.partial").mkdir()
    with pytest.raises(vtb.OutputError):
        simulator.save(path)
    assert vtb.load_simulator(path) == shop
    (tmp_path / "one.safetensors.partial").rmdir()
    simulator.save(path)
    assert vtb.load_simulator(path) == simulator


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_output_error(shop, tmp_path):
    (tmp_path / "one.safetensors.partial").symlink_to("/dev/full")
    with pytest.raises(vtb.OutputError):
        shop.save(tmp_path / "one.safetensors")
    assert not (tmp_path / "one.safetensors").exists()


def test_a_page_base_is_the_page_in_the_bias(shop, kit):
    one = shop.with_page_base(1)
    assert shop.with_page_base(0) is shop
    assert shop.with_page_base(1) is one
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 18)).astype(np.float32)
    later = rows.copy()
    later[:, shop.schema.customer_width] += shop.config.response.page_scale
    assert one.forward("action", rows) == pytest.approx(shop.forward("action", later), abs=1e-5)
    for model in ("generator", "leave"):
        for name, tensor in shop.tensors().items():
            if name.startswith(model):
                assert np.array_equal(one.tensors()[name], tensor)
    for base in (2, -1, None, True, "1"):
        with pytest.raises(vtb.InvalidArgumentError, match="page_base"):
            shop.with_page_base(base)


LIGHT = """
import sys, time
import numpy, gymnasium
start = time.perf_counter()
import virtualtb_fast
spent = time.perf_counter() - start
heavy = {"torch", "pyarrow", "matplotlib", "rich", "sklearn", "scipy", "tensorboard", "safetensors"}
heavy |= {"argparse", "click", "typer", "virtualtb_fast.cli"}
print(spent, *sorted(heavy & set(sys.modules)))
"""


def test_the_import_is_light():
    spent = []
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True
        )
        seconds, *heavy = run.stdout.split()
        assert heavy == []
        spent.append(float(seconds))
    assert min(spent) < 0.05


def test_every_public_name_is_there():
    assert set(vtb.__all__) <= set(dir(vtb))
    assert vtb.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="nothing"):
        _ = vtb.nothing
