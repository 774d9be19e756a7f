"""Simulator files that are cut short or altered: all refused, with one kind of error.

Those made by hand are in ``tests/reliability/bad_files_tensors.py``.
"""

from __future__ import annotations

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
