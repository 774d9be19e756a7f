"""Bad files of published networks, constant actions and arrays."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.reliability.bad_files_kit import (
    DIRECTORY,
    GZIP,
    HTML,
    LFS,
    LOOP,
    NOISE,
    SYSTEM,
    TEXT,
    ZEROS,
    Kind,
    Put,
    Rewrite,
    Table,
    corpus,
    cut,
    instead,
    less,
    put_at,
    swap,
)

import virtualtb_fast as vtb
from virtualtb_fast._npy import load_npy
from virtualtb_fast.policies import Policy
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA

# --- published networks -------------------------------------------------------------------------

MODELS = ("generator", "action", "leave")


@functools.cache
def weights(model: str) -> dict[str, Any]:
    """A state dict as the published files hold it."""
    import torch

    shapes = V0_CONFIG.shapes(V0_SCHEMA).items()
    return {
        name.removeprefix(f"{model}."): torch.full(shape, 0.01)
        for name, shape in shapes
        if name.startswith(f"{model}.")
    }


def torch_bytes(held: Any) -> bytes:
    """What PyTorch writes."""
    import torch

    out = io.BytesIO()
    torch.save(held, out)
    return out.getvalue()


@functools.cache
def good_network(model: str) -> bytes:
    """A published file's form."""
    return torch_bytes(weights(model))


def others_beside(folder: Path) -> None:
    """Writes the two other networks."""
    for model in ("generator", "action"):
        (folder / f"{model}_model.pt").write_bytes(good_network(model))


def network(edit: Callable[[dict[str, Any]], Any]) -> Rewrite:
    """Another state dict; what the edit gives, or what it was given if it gives nothing."""

    def change(_: bytes) -> bytes:
        held = {name: tensor.clone() for name, tensor in weights("leave").items()}
        out = edit(held)
        return torch_bytes(held if out is None else out)

    return change


def tensor(name: str, edit: Callable[[Any], Any]) -> Rewrite:
    """Another tensor."""
    return network(lambda held: held.update({name: edit(held[name])}))


class Harmful:
    """What would run code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


TORCH = "expected a state dict written by PyTorch, got"
NETWORKS: Table = {
    "empty": (instead(b""), TORCH),
    "a note": (instead(TEXT), TORCH),
    "zeros": (instead(ZEROS), TORCH),
    "a web page": (instead(HTML), TORCH),
    "a pointer to a large file": (instead(LFS), TORCH),
    "an archive": (instead(b"PK\3\4" + NOISE), TORCH),
    "a pickle": (instead(b"\x80\x04K\x01."), TORCH),
    "a folder": (DIRECTORY, "[Dd]irectory"),
    "a link to itself": (LOOP, SYSTEM),
    "half of it": (cut(0.5), TORCH),
    "a byte less": (less(1), TORCH),
    "a large file": (
        Put("sparse", lambda path: path.open("wb").truncate(1 << 40) and None),
        "expected at most .* bytes, got 1099511627776",
    ),
    "what would run code": (
        network(lambda _: Harmful()),
        "got Unp.*: Weights only load failed$",
    ),
    "a list": (network(lambda held: list(held.values())), "expected tensors .*, got list"),
    "a network within": (
        network(lambda held: {"model": held}),
        "expected tensors .* got .'model'",
    ),
    "another network": (
        lambda _: good_network("action"),
        r"got .* \(128, 116\)",
    ),
    "a tensor less": (network(lambda held: held.pop("2.bias") is None or None), "expected tensors"),
    "a tensor more": (network(lambda held: held.update(by=held["0.bias"])), "got .*'by'"),
    "names with a prefix": (
        network(lambda held: {f"module.{name}": one for name, one in held.items()}),
        "expected tensors .*, got .'module.0.bias'",
    ),
    "a text for a tensor": (tensor("0.bias", lambda _: "zeros"), "expected a tensor .*, got str"),
    "a number for a tensor": (tensor("0.bias", lambda _: 0.0), "expected a tensor .*, got float"),
    "double precision": (tensor("0.bias", lambda one: one.double()), "0.bias: .* got float64"),
    "whole numbers": (
        tensor("0.bias", lambda one: one.int()),
        "0.bias: .* got int32",
    ),
    "half of a precision NumPy lacks": (
        tensor("0.bias", lambda one: one.bfloat16()),
        "0.bias: expected a tensor that NumPy can hold, got Tensor of torch.bfloat16",
    ),
    "a sparse tensor": (
        tensor("0.weight", lambda one: one.to_sparse()),
        "got Tensor of .*sparse",
    ),
    "a tensor transposed": (tensor("0.weight", lambda one: one.T), "0.weight: expected .* shape"),
    "a bias too short": (tensor("0.bias", lambda one: one[:-1]), r"got float32 of shape \(127,\)"),
    "no number": (
        tensor("2.bias", lambda one: one * float("nan")),
        "2.bias: .*finite.* got nan",
    ),
    "infinite": (
        tensor("0.bias", lambda one: one * float("inf")),
        "0.bias: .*finite.* got inf",
    ),
}

# --- constant actions and arrays ----------------------------------------------------------------


def npy(values: Any, *, pickled: bool = False) -> Rewrite:
    """What NumPy writes of an array."""

    def change(_: bytes) -> bytes:
        out = io.BytesIO()
        np.save(out, values, allow_pickle=pickled)
        return out.getvalue()

    return change


def header(text: str) -> Rewrite:
    """Another header of the same length."""

    def change(data: bytes) -> bytes:
        end = 10 + int.from_bytes(data[8:10], "little")
        return data[:10] + text.encode().ljust(end - 11) + b"\n" + data[end:]

    return change


def npz(_: bytes) -> bytes:
    """Several arrays in one file."""
    out = io.BytesIO()
    np.savez(out, action=np.zeros(6))
    return out.getvalue()


VECTOR = "expected a vector of numbers, got"
TEXT_ACTIONS: Table = {
    "empty": (instead(b""), "expected at least one number, got none"),
    "blanks": (instead(b" \n\n"), "expected at least one number, got none"),
    "a word": (swap("0.5", "half"), f"{VECTOR} could not convert string to float: 'half'"),
    "decimal commas and semicolons": (swap(", ", "; ", 9), VECTOR),
    "a list": (lambda data: b"[" + data + b"]", VECTOR),
    "a BOM": (lambda data: b"\xef\xbb\xbf" + data, VECTOR),
    "UTF-16": (lambda data: data.decode().encode("utf-16"), f"{VECTOR} .*utf-8"),
    "noise": (instead(NOISE), VECTOR),
    "a byte of zero": (lambda data: data + b"\0", VECTOR),
    "an archive": (instead(GZIP), VECTOR),
    "a folder": (DIRECTORY, "expected an action, a .npy or text file, got a directory"),
    "a link to itself": (LOOP, SYSTEM),
    "no number": (swap("0.5", "nan"), "expected finite numbers within .* got NaN"),
    "infinite": (swap("0.5", "inf"), "expected finite numbers within .* got inf"),
    "beyond float32": (swap("0.5", "1e39"), "expected finite numbers .* got inf"),
    "more than a megabyte": (
        instead(b"0.25 " * 250_000),
        "at most 1,048,576 .*, got more",
    ),
}
ARRAY_ACTIONS: Table = {
    "empty": (instead(b""), "expected a vector, got"),
    "text": (instead(b"0.5, 0.25\n"), "expected a vector, got"),
    "zeros": (instead(ZEROS), "expected a vector, got"),
    "half of its header": (lambda data: data[:40], "expected a vector, got"),
    "numbers less": (less(8), "expected a vector, got"),
    "a matrix": (npy(np.zeros((3, 3))), r"expected shape \(A,\), got \(3, 3\)"),
    "a number alone": (npy(np.float64(0.5)), r"expected shape \(A,\), got \(\)"),
    "texts": (npy(np.array(["a", "b"])), "expected a vector of numbers, got <U1"),
    "objects": (
        npy(np.array([None, {}], object), pickled=True),
        "expected a vector, got .*Python objects",
    ),
    "complex numbers": (npy(np.zeros(6, complex)), "expected a vector of numbers, got complex128"),
    "times": (npy(np.zeros(6, "M8[s]")), "expected a vector of numbers, got datetime64"),
    "records": (npy(np.zeros(6, [("a", "f4")])), "expected a vector of numbers, got .."),
    "several arrays": (npz, "expected a vector, got several .*: action"),
    "no number": (npy(np.full(6, np.nan)), "expected finite numbers within .* got NaN"),
    "no numbers": (npy(np.zeros(0)), "expected .* got"),
    "another version": (put_at(6, b"\x09"), "expected a vector, got"),
    "a shape beyond memory": (
        swap("(6,), }       ", "(1099511627776,), }"),
        "a vector, got mmap length",
    ),
    "a shape beyond all": (swap("(6,), }          ", "(9" + "9" * 30 + ",), }"), "expected .* got"),
    "a header that runs code": (swap("'<f8'", "exit()"), "expected a vector, got"),
    "a header that does not end": (swap("(6,), }", "(6,    "), "expected a vector, got"),
    "a header of other lines": (header("  1\n 2\n"), "expected a vector, got"),
    "a header of no key": (header("{[1]: 2}"), "expected a vector, got"),
    "a shape that is true": (swap("(6,), }   ", "(True,), }"), "expected a vector, got"),
    "a folder": (DIRECTORY, "expected an action, a .npy or text file, got a directory"),
    "a link to itself": (LOOP, SYSTEM),
}
ARRAYS: Table = {
    "empty": (instead(b""), r"expected an array \(.npy\), got"),
    "a note": (instead(TEXT), r"expected an array \(.npy\), got"),
    "zeros": (instead(ZEROS), r"expected an array \(.npy\), got"),
    "a log": (instead(corpus("log/drawn.parquet")), r"expected an array \(.npy\), got"),
    "half of its header": (lambda data: data[:40], r"expected an array \(.npy\), got"),
    "numbers less": (less(8), r"expected an array \(.npy\), got"),
    "objects": (
        npy(np.array([None, {}], object), pickled=True),
        r"expected an array \(.npy\), got",
    ),
    "several arrays": (npz, r"expected an array \(.npy\), got"),
    "a shape beyond all": (
        swap("(4, 3), }         ", f"({10**18}, 3), }}"),
        "expected an array .* got",
    ),
    "a shape that overflows": (
        swap("(4, 3), }         ", f"({2**62}, 4), }}"),
        r"expected an array \(.npy\), got",
    ),
    "a negative shape": (swap("(4, 3), } ", "(-4, 3), }"), r"expected an array \(.npy\), got"),
    "a folder": (DIRECTORY, r"expected an array \(.npy\), got a directory"),
    "a link to itself": (LOOP, SYSTEM),
}


def read_array(path: Path) -> None:
    """Maps an array."""
    load_npy(str(path), "an array (.npy)", "an array (.npy)")


KINDS = [
    Kind(
        "published network",
        "leave_model.pt",
        lambda: good_network("leave"),
        lambda path: vtb.import_published(path.parent),
        NETWORKS,
        needs=("torch",),
        beside=others_beside,
    ),
    Kind(
        "action as text",
        "action.txt",
        lambda: b"0.5, 0.25, 0, -1, 1e-3, 1\n",
        lambda path: Policy.parse(f"constant:{path}"),
        TEXT_ACTIONS,
    ),
    Kind(
        "action as array",
        "action.npy",
        lambda: npy(np.arange(6) / 10)(b""),
        lambda path: Policy.parse(f"constant:{path}"),
        ARRAY_ACTIONS,
    ),
    Kind(
        "array",
        "items.npy",
        lambda: npy(np.ones((4, 3)))(b""),
        read_array,
        ARRAYS,
    ),
]
