"""Simulator files that are cut short, altered or malformed: all refused, with one kind of error."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualtb_fast as vtb


def refuse(path):
    """Loading must fail, by our error, soon, and with the file's name in the message."""
    start = time.process_time()
    with pytest.raises(vtb.FileFormatError) as caught:
        vtb.Simulator.load(path)
    assert time.process_time() - start < 1
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sim.safetensors"


def header_length(data):
    return struct.unpack("<Q", data[:8])[0]


def test_every_truncation_of_a_small_file(shop, path):
    data = shop.to_bytes()
    path.write_bytes(data)
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        refuse(path)


def test_truncations_of_a_large_file(simulator, path):
    data = simulator.to_bytes()
    path.write_bytes(data)
    header = 8 + header_length(data)
    beyond = range(header, len(data), 9973)
    for length in sorted({*range(header + 1), *beyond, len(data) - 1}, reverse=True):
        os.truncate(path, length)
        refuse(path)


def test_bytes_after_the_end(shop, path):
    for surplus in (b"\0", b"\0" * 4096, shop.to_bytes()):
        path.write_bytes(shop.to_bytes() + surplus)
        refuse(path)


def load_flipped(path, data, bits):
    """Flips each bit in turn in one file; the number of flips that were refused."""
    refused = 0
    with path.open("wb+", buffering=0) as file:
        file.write(data)
        for bit in bits:
            at, mask = bit // 8, 1 << bit % 8
            os.pwrite(file.fileno(), bytes([data[at] ^ mask]), at)
            try:
                vtb.Simulator.load(path)
            except vtb.FileFormatError:
                refused += 1
            os.pwrite(file.fileno(), data[at : at + 1], at)
    return refused


def test_every_single_bit_flip_of_a_small_file(shop, path):
    data = shop.to_bytes()
    bits = range(8 * len(data))
    assert len(bits) > 20_000
    assert load_flipped(path, data, bits) == len(bits)


def test_random_bit_flips_of_a_large_file(simulator, path):
    data = simulator.to_bytes()
    bits = np.random.default_rng(0).integers(0, 8 * len(data), 1_000).tolist()
    assert load_flipped(path, data, bits) == len(bits)


def test_a_file_that_was_not_changed_still_loads(shop, path):
    path.write_bytes(shop.to_bytes())
    assert load_flipped(path, shop.to_bytes(), []) == 0
    assert vtb.Simulator.load(path) == shop


# Files that someone made by hand, digest and all.


def take_apart(simulator):
    data = simulator.to_bytes()
    length = header_length(data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(header, body, *, text=None):
    """A file with a right digest, whatever else is wrong with it."""
    if isinstance(header.get("__metadata__"), dict) and "digest" in header["__metadata__"]:
        header["__metadata__"]["digest"] = "0" * 64
    text = text or json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + body
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


def test_a_file_made_by_hand_with_nothing_wrong_loads(shop, path):
    path.write_bytes(put_together(*take_apart(shop)))
    assert vtb.Simulator.load(path).tensors().keys() == shop.tensors().keys()


def metadata(key, value):
    def change(header, body):
        header["__metadata__"][key] = value
        return body

    return change


def part(key, **values):
    def change(header, body):
        inner = json.loads(header["__metadata__"][key])
        header["__metadata__"][key] = json.dumps(inner | values)
        return body

    return change


def entry(name, **values):
    def change(header, body):
        header[name] |= values
        return body

    return change


def drop(name):
    def change(header, body):
        del header[name]
        return body

    return change


def drop_metadata(key):
    def change(header, body):
        del header["__metadata__"][key]
        return body

    return change


def shorter(header, body):
    """A tensor less, with offsets that fit."""
    name = max(header, key=lambda name: header[name].get("data_offsets", [0])[0])
    start = header.pop(name)["data_offsets"][0]
    return body[:start]


def longer(header, body):
    """A tensor more, with offsets that fit."""
    at = len(body)
    header["leave.9.bias"] = {"dtype": "F32", "shape": [3], "data_offsets": [at, at + 12]}
    return body + bytes(12)


def value(number):
    def change(header, body):
        start = header["action.0.weight"]["data_offsets"][0]
        return body[: start + 40] + struct.pack("<f", number) + body[start + 44 :]

    return change


def swap(header, body):
    """Weight and bias under one another's names."""
    header["leave.0.bias"], header["leave.0.weight"] = (
        header["leave.0.weight"],
        header["leave.0.bias"],
    )
    return body


def half(header, body):
    """Half precision in as many bytes: another shape, or another type."""
    header["generator.0.bias"] |= {"dtype": "F16", "shape": [18]}
    return body


def nested(header, body):
    header["__metadata__"]["provenance"] = "[" * 50_000
    return body


WRONG = {
    "no format": drop_metadata("format"),
    "no version": drop_metadata("format_version"),
    "no digest": drop_metadata("digest"),
    "no schema": drop_metadata("schema"),
    "no config": drop_metadata("config"),
    "no name": drop_metadata("name"),
    "no provenance": drop_metadata("provenance"),
    "no metadata": drop("__metadata__"),
    "one key more": metadata("author", "somebody"),
    "another format": metadata("format", "virtualtb_fast.policy"),
    "a later version": metadata("format_version", "2"),
    "metadata that are no text": metadata("name", 3),
    "an empty schema": metadata("schema", ""),
    "a schema that is none": metadata("schema", "[]"),
    "a provenance that is no object": metadata("provenance", "[1]"),
    "a provenance that is no JSON": metadata("provenance", "{"),
    "a deeply nested provenance": nested,
    "no fields": part("schema", customer=[]),
    "one category": part("schema", customer=[{"name": "a", "size": 1}]),
    "a field without a name": part("schema", customer=[{"size": 11}]),
    "negative sizes": part("schema", customer=[{"name": "a", "size": -11}]),
    "sizes beyond memory": part("schema", customer=[{"name": "a", "size": 1 << 62}]),
    "two fields of one name": part(
        "schema", customer=[{"name": "a", "size": 5}, {"name": "a", "size": 6}]
    ),
    "no action": part("schema", action=0),
    "an action beyond memory": part("schema", action=1 << 63),
    "a range upside down": part("schema", action_range=[1, -1]),
    "a range without end": part("schema", action_range=[-1, 1e39]),
    "one key more in the schema": part("schema", items=5),
    "one key more in the config": part("config", depth=5),
    "another kind of sampler": part("config", customers={"kind": "gmm", "components": 5}),
    "another kind of leave": part("config", leave={"kind": "hazard"}),
    "no hidden layer": part("config", leave={"kind": "once", "classes": 13, "hidden": []}),
    "too many categories": part("config", leave={"kind": "once", "classes": 257, "hidden": [6]}),
    "layers beyond memory": part(
        "config", leave={"kind": "once", "classes": 13, "hidden": [1 << 40]}
    ),
    "a slope of one": part("config", slope=1.0),
    "a slope that is no number": part("config", slope=None),
    "a tensor less": shorter,
    "a tensor more": longer,
    "a gap where a tensor was": drop("action.0.bias"),
    "names swapped": swap,
    "another dtype": entry("action.0.bias", dtype="I32"),
    "another dtype and shape": half,
    "an unknown dtype": entry("action.0.bias", dtype="F33"),
    "a shape transposed": entry("action.0.weight", shape=[18, 20]),
    "a shape flattened": entry("action.0.weight", shape=[360]),
    "a shape with a dimension more": entry("action.0.weight", shape=[20, 18, 1]),
    "a negative shape": entry("action.0.weight", shape=[-20, -18]),
    "a shape beyond memory": entry("action.0.weight", shape=[1 << 40, 1 << 40]),
    "offsets beyond the end": entry("action.0.bias", data_offsets=[1 << 30, (1 << 30) + 80]),
    "offsets upside down": entry("action.0.bias", data_offsets=[80, 0]),
    "offsets that overlap": entry("action.2.bias", data_offsets=[0, 32]),
    "not a number": value(float("nan")),
    "infinite": value(float("inf")),
    "numbers that overflow": value(3.4e38),
}


@pytest.mark.parametrize("what", WRONG)
def test_files_made_by_hand_with_one_thing_wrong(shop, path, what):
    header, body = take_apart(shop)
    body = WRONG[what](header, body)
    path.write_bytes(put_together(header, body))
    assert "altered" not in refuse(path)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"null",
        b"{",
        b'{"a":1}',
        b"\xff" * 16,
        b"[" * 4096,
        b'{"__metadata__":{}}',
        b'{"__metadata__":null}',
    ],
)
def test_headers_that_are_none(path, text):
    path.write_bytes(put_together({}, b"", text=text))
    refuse(path)


def test_a_key_written_twice(shop, path):
    header, body = take_apart(shop)
    header["__metadata__"]["digest"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    for first, second in (
        (b'{"__metadata__":', b'{"leave.0.bias":3,"__metadata__":'),
        (b'"digest":', b'"digest":"' + b"1" * 64 + b'","digest":'),
    ):
        path.write_bytes(put_together(header, body, text=text.replace(first, second, 1)))
        refuse(path)


@pytest.mark.parametrize("length", [0, 7, 1 << 20 | 1, 100_000_001, 1 << 31, 1 << 62, 2**64 - 1])
def test_oversized_headers(shop, path, length):
    path.write_bytes(struct.pack("<Q", length) + shop.to_bytes()[8:])
    refuse(path)


def test_a_header_of_many_entries_is_refused_at_once(path):
    entries = {f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
               for index in range(200_000)}  # fmt: skip
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    refuse(path)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(shop, path):
    path.write_bytes(shop.to_bytes())
    os.truncate(path, 1 << 40)
    assert "at most" in refuse(path)


@given(st.binary(max_size=600))
@settings(max_examples=200)
def test_any_bytes(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "sim.safetensors"
    path.write_bytes(content)
    refuse(path)


@given(st.data())
@settings(max_examples=200)
def test_any_edit(tmp_path_factory, shop, data):
    """Bytes cut out, put in or overwritten somewhere."""
    whole = shop.to_bytes()
    at = data.draw(st.integers(0, len(whole)))
    cut = data.draw(st.integers(0, min(64, len(whole) - at)))
    edited = whole[:at] + data.draw(st.binary(max_size=64)) + whole[at + cut :]
    path = tmp_path_factory.mktemp("any") / "sim.safetensors"
    path.write_bytes(edited)
    if edited != whole:
        refuse(path)
