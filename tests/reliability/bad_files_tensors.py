"""Bad files of simulators: safetensors with metadata, under a digest.

All but the first few are made by somebody who knows the form: their digest is right.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

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
    Rewrite,
    Table,
    corpus,
    cut,
    instead,
    less,
    more,
    put_at,
    swap,
)

import virtualtb_fast as vtb

Header = dict[str, Any]
Edit = Callable[[Header, bytearray], None]


def take_apart(data: bytes) -> tuple[Header, bytearray]:
    """Header and numbers."""
    end = 8 + int(struct.unpack("<Q", data[:8])[0])
    return json.loads(data[8:end]), bytearray(data[end:])


def put_together(header: Header, body: bytes, text: bytes | None = None) -> bytes:
    """A file with a right digest, whatever else is wrong with it."""
    if isinstance(header.get("__metadata__"), dict) and "digest" in header["__metadata__"]:
        header["__metadata__"]["digest"] = "0" * 64
    text = text or json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + body
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)


def edited(edit: Edit) -> Rewrite:
    """The file with another header or other numbers."""

    def change(data: bytes) -> bytes:
        header, body = take_apart(data)
        edit(header, body)
        return put_together(header, bytes(body))

    return change


def metadata(**values: Any) -> Rewrite:
    """Other metadata; None leaves a key out."""

    def edit(header: Header, _: bytearray) -> None:
        held = header["__metadata__"]
        held |= values
        header["__metadata__"] = {key: one for key, one in held.items() if one is not None}

    return edited(edit)


def part(key: str, **values: Any) -> Rewrite:
    """Other values within a piece of JSON in the metadata; `...` leaves a key out."""

    def edit(header: Header, _: bytearray) -> None:
        inner = json.loads(header["__metadata__"][key]) | values
        kept = {name: one for name, one in inner.items() if one is not ...}
        header["__metadata__"][key] = json.dumps(kept)

    return edited(edit)


def entry(name: str, **values: Any) -> Rewrite:
    """Another description of a tensor."""
    return edited(lambda header, _: header[name].update(values))


def drop(name: str) -> Rewrite:
    """An entry less."""
    return edited(lambda header, _: header.pop(name) and None)


def text(change: Callable[[bytes], bytes]) -> Rewrite:
    """Another header, as text."""

    def whole(data: bytes) -> bytes:
        header, body = take_apart(data)
        header["__metadata__"]["digest"] = "0" * 64
        held = json.dumps(header, separators=(",", ":")).encode()
        changed = change(held)
        assert changed != held
        return put_together({}, bytes(body), changed)

    return whole


def header_only(held: bytes) -> Rewrite:
    """No more than a header."""
    return lambda _: put_together({}, b"", held)


def length(value: int) -> Rewrite:
    """Another length of the header."""
    return put_at(0, struct.pack("<Q", value))


def number(name: str, value: float, index: int = 0) -> Rewrite:
    """Another number in a tensor."""

    def edit(header: Header, body: bytearray) -> None:
        struct.pack_into("<f", body, header[name]["data_offsets"][0] + 4 * index, value)

    return edited(edit)


def without_last(header: Header, body: bytearray) -> None:
    """A tensor less, with offsets that fit."""
    tensors = [name for name in header if name != "__metadata__"]
    name = max(tensors, key=lambda name: header[name]["data_offsets"][0])
    del body[header.pop(name)["data_offsets"][0] :]


def with_another(header: Header, body: bytearray) -> None:
    """A tensor more, with offsets that fit."""
    at = len(body)
    header["leave.9.bias"] = {"dtype": "F32", "shape": [3], "data_offsets": [at, at + 12]}
    body += bytes(12)


def swapped(one: str, other: str) -> Rewrite:
    """Two tensors under one another's names."""

    def edit(header: Header, _: bytearray) -> None:
        header[one], header[other] = header[other], header[one]

    return edited(edit)


def renamed(old: str, new: str) -> Rewrite:
    """A tensor under another name."""
    return edited(lambda header, _: header.update({new: header.pop(old)}))


def code(value: int) -> Rewrite:
    """Another category of the first customer in a table of customers."""

    def change(_: bytes) -> bytes:
        header, body = take_apart(corpus("simulator/rows.safetensors"))
        body[header["customers.rows"]["data_offsets"][0]] = value
        return put_together(header, bytes(body))

    return change


def of(name: str, change: Rewrite) -> Rewrite:
    """The same with a simulator of another kind."""
    return lambda _: change(corpus(f"simulator/{name}.safetensors"))


def once(**values: Any) -> dict[str, Any]:
    """A rule of leaving."""
    return {"kind": "once", "classes": 13, "hidden": [6]} | values


def answers(**values: Any) -> dict[str, Any]:
    """A response."""
    return {"page_scale": 0.25, "clicks": 5, "second": 3, "hidden": [12]} | values


MANY = json.dumps(
    {f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(20_000)}
).encode()

SIMULATORS: Table = {
    # Not the file at all.
    "empty": (instead(b""), "expected a simulator file, got 0 bytes"),
    "seven bytes": (instead(ZEROS[:7]), "expected a simulator file, got 7 bytes"),
    "zeros": (instead(ZEROS), "expected a safetensors file, got"),
    "noise": (instead(NOISE), "expected a safetensors header of at most .* got"),
    "a note": (instead(TEXT), "expected a safetensors header of at most .* got"),
    "a web page": (instead(HTML), "expected a safetensors header of at most .* got"),
    "a pointer to a large file": (instead(LFS), "expected a safetensors header .* got"),
    "an archive": (instead(GZIP), "expected a safetensors header .* got"),
    "a folder": (DIRECTORY, "directory"),
    "a link to itself": (LOOP, SYSTEM),
    "a policy": (
        instead(corpus("policy/drawn.safetensors")),
        'expected format "virtualtb_fast.simulator", got "virtualtb_fast.policy"',
    ),
    "a log": (instead(corpus("log/drawn.parquet")), "expected a safetensors header .* got"),
    "a catalogue": (instead(corpus("catalog/numbers")), "expected a safetensors header .* got"),
    # Accidents.
    "half of it": (cut(0.5), "expected a safetensors file, got .*"),
    "half of the header": (cut(0.1), "expected a safetensors header of at most .* cut short"),
    "a byte less": (less(1), "expected a safetensors file, got"),
    "a byte more": (more(b"\0"), "expected a safetensors file, got"),
    "twice": (lambda data: data + data, "expected a safetensors file, got"),
    "a number altered": (put_at(-6, b"\x7f"), "expected the content of digest .* altered"),
    "CRLF": (swap(b'{"__', b'\r\n{"__'), "expected a safetensors file, got"),
    "a BOM": (swap(b'{"__', b'\xef\xbb\xbf{"__'), "expected a safetensors file, got"),
    # The header's length and form.
    "a header of no length": (length(0), "expected a safetensors file, got"),
    "a header beyond the end": (length(1 << 31), "expected a safetensors header of at most"),
    "a header beyond all": (length(2**64 - 1), "expected a safetensors header of at most"),
    "a header a byte too short": (length(1400), "expected a safetensors file, got"),
    "a header that is a list": (header_only(b"[]"), "expected a safetensors file, got"),
    "a header that is null": (header_only(b"null"), "expected a safetensors file, got"),
    "a header of nothing": (header_only(b"{}"), 'expected metadata key "format", got none'),
    "an open header": (header_only(b"{"), "expected a safetensors file, got"),
    "a header of brackets": (header_only(b"[" * 4096), "expected a safetensors file, got"),
    "a header of other bytes": (header_only(b"\xff" * 16), "expected a safetensors file, got"),
    "a header of entries without number": (
        header_only(MANY),
        "expected a safetensors header of at most 1048576 bytes, got",
    ),
    "metadata that are null": (header_only(b'{"__metadata__":null}'), "expected metadata key"),
    "metadata that are a list": (
        header_only(b'{"__metadata__":[]}'),
        "expected a safetensors file, got invalid JSON",
    ),
    # Keys.
    "no format": (metadata(format=None), 'expected metadata key "format", got none'),
    "no version": (metadata(format_version=None), 'expected metadata key "format_version", got'),
    "no digest": (metadata(digest=None), 'expected metadata key "digest", got none'),
    "no schema": (metadata(schema=None), 'expected metadata key "schema", got none'),
    "no config": (metadata(config=None), 'expected metadata key "config", got none'),
    "no name": (metadata(name=None), 'expected metadata key "name", got none'),
    "no provenance": (metadata(provenance=None), 'expected metadata key "provenance", got'),
    "no metadata": (drop("__metadata__"), "expected metadata key .* got none"),
    "one key more": (metadata(author="somebody"), 'expected the metadata keys .* got "author"'),
    "a later version": (metadata(format_version="2"), 'expected format_version "1", got "2"'),
    "metadata that are no text": (metadata(name=3), "expected a safetensors file, got"),
    "a key twice": (
        text(lambda held: held.replace(b'"digest":', b'"digest":"' + b"1" * 64 + b'","digest":')),
        "expected one digest, got another form",
    ),
    "a tensor twice": (
        text(lambda held: held.replace(b'{"__m', b'{"leave.0.bias":3,"__m')),
        "expected a safetensors file, got invalid JSON",
    ),
    # Schema, config and provenance.
    "an empty schema": (metadata(schema=""), "expected schema as JSON of this version, got"),
    "a schema that is a list": (metadata(schema="[]"), "expected schema as JSON"),
    "a provenance that is a list": (metadata(provenance="[1]"), "provenance: expected an object"),
    "an open provenance": (metadata(provenance="{"), "expected provenance as JSON"),
    "a deep provenance": (metadata(provenance="[" * 50_000), "expected provenance as JSON"),
    "no fields": (part("schema", customer=[]), "customer: expected 1 to 256 fields, got 0"),
    "one category": (part("schema", customer=[{"name": "a", "size": 1}]), "expected 2 to 256"),
    "257 categories": (part("schema", customer=[{"name": "a", "size": 257}]), "expected 2 to 256"),
    "a field without a name": (part("schema", customer=[{"size": 11}]), "expected schema as JSON"),
    "a negative size": (
        part("schema", customer=[{"name": "a", "size": -11}]),
        "got invalid value: integer `-11`",
    ),
    "a size beyond memory": (
        part("schema", customer=[{"name": "a", "size": 1 << 62}]),
        "expected 2 to 256",
    ),
    "a size that is a text": (
        part("schema", customer=[{"name": "a", "size": "5"}]),
        "got invalid type: string",
    ),
    "two fields of one name": (
        part("schema", customer=[{"name": "a", "size": 5}, {"name": "a", "size": 6}]),
        "customer: expected fields of different names, got",
    ),
    "no action": (part("schema", action=0), "expected 1 to .*, got 0"),
    "an action beyond memory": (
        part("schema", action=1 << 63),
        "expected 1 to 16384 dimensions, got 92",
    ),
    "a range upside down": (part("schema", action_range=[1, -1]), "expected low < high .* got"),
    "a range without end": (part("schema", action_range=[-1, 1e39]), "low < high .* got .-1, inf"),
    "a range of three": (part("schema", action_range=[-1, 0, 1]), "expected schema as JSON"),
    "a surplus key in the schema": (part("schema", items=5), "expected schema as JSON"),
    "a surplus key in the config": (part("config", depth=5), "expected config as JSON"),
    "no leave": (part("config", leave=...), "expected config as JSON .* missing field"),
    "another sampler": (part("config", customers={"kind": "gmm"}), "expected config as JSON"),
    "another rule of leaving": (part("config", leave={"kind": "never"}), "expected config as JSON"),
    "half a rule of leaving": (part("config", leave={"kind": "hazard"}), "expected config as JSON"),
    "no hidden layer": (
        part("config", leave=once(hidden=[])),
        "expected 1 to 14 hidden layers, got 0",
    ),
    "a hidden layer of none": (
        part("config", leave=once(hidden=[0])),
        "expected layers of 1 to 16384 .* got 0",
    ),
    "a layer beyond memory": (
        part("config", leave=once(hidden=[1 << 40])),
        "expected layers of .* got 1099",
    ),
    "layers that overflow": (
        part("config", leave=once(hidden=[1 << 32, 1 << 32])),
        "expected layers of 1 to 16384 units, got 4294967296",
    ),
    "257 classes": (part("config", leave=once(classes=257)), "expected 2 to 256 .* got 257"),
    "clicks and outcome": (
        part("config", response=answers(heads="outcome")),
        "got others for .outcome",
    ),
    "another head": (part("config", response=answers(heads="stars")), "expected clicks or outcome"),
    "an infinite scale": (
        text(lambda held: held.replace(b"0.25", b"1e400")),
        "expected config as JSON",
    ),
    "a slope of one": (part("config", slope=1.0), "slope: expected a number in .0, 1., got 1"),
    "a slope that is null": (part("config", slope=None), "expected config as JSON"),
    # Tensors.
    "a tensor less": (edited(without_last), "expected shape .* got no such tensor"),
    "a tensor more": (edited(with_another), "expected 14 known names, got leave.9.bias"),
    "a gap where a tensor was": (drop("action.0.bias"), "expected a safetensors file, got"),
    "names swapped": (swapped("leave.0.bias", "leave.0.weight"), "expected shape .* got"),
    "a name of another model": (renamed("leave.0.bias", "stay.0.bias"), "got no such tensor"),
    "a name of other letters": (renamed("leave.0.bias", "Leave.0.bias"), "got no such tensor"),
    "another dtype": (entry("action.0.bias", dtype="I32"), "expected F32 or U8, got I32"),
    "half precision": (
        entry("generator.0.bias", dtype="F16", shape=[18]),
        "expected F32 or U8, got F16",
    ),
    "double precision": (entry("action.0.bias", dtype="F64", shape=[6]), "got F64"),
    "codes for numbers": (entry("action.0.bias", dtype="U8", shape=[48]), "expected F32, got U8"),
    "an unknown dtype": (entry("action.0.bias", dtype="F33"), "expected a safetensors file"),
    "a shape transposed": (entry("action.0.weight", shape=[18, 12]), "expected shape .* got"),
    "a shape flattened": (entry("action.0.weight", shape=[216]), "expected shape .* got"),
    "a dimension more": (entry("action.0.weight", shape=[12, 18, 1]), "expected shape .* got"),
    "a negative shape": (entry("action.0.weight", shape=[-12, -18]), "expected a safetensors"),
    "a shape of fractions": (entry("action.0.weight", shape=[12.5, 18]), "expected a safetensors"),
    "a shape beyond memory": (entry("action.0.weight", shape=[1 << 40, 1 << 40]), "got overflow"),
    "a shape that overflows to the right size": (
        entry("action.0.bias", shape=[(1 << 62) + 12, 4]),
        "expected a safetensors file, got overflow",
    ),
    "offsets beyond the end": (
        entry("action.0.bias", data_offsets=[1 << 30, (1 << 30) + 48]),
        "expected a safetensors file, got",
    ),
    "offsets upside down": (entry("action.0.bias", data_offsets=[48, 0]), "expected a safetensors"),
    "offsets that overlap": (entry("action.2.bias", data_offsets=[0, 32]), "expected a safetens"),
    "negative offsets": (entry("action.0.bias", data_offsets=[-48, 0]), "expected a safetensors"),
    "one offset": (entry("action.0.bias", data_offsets=[0]), "expected a safetensors"),
    "not a number": (number("action.0.weight", float("nan"), 9), "expected finite values, got NaN"),
    "infinite": (number("leave.2.bias", float("inf")), "expected finite values, got inf"),
    "minus infinite": (number("leave.2.bias", -float("inf")), "expected finite values, got -inf"),
    "numbers that overflow": (
        number("action.0.weight", 3.4e38),
        "expected sums of at most 1e30, got",
    ),
    # Other kinds of customers.
    "a code beyond its field": (code(5), "customers.rows, row 0.*: expected a code below 5, got 5"),
    "shares that are no chances": (
        of("mixture", number("customers.shares", 0.9)),
        "customers.shares: expected probabilities that sum to 1 .* got a sum of",
    ),
    "a negative share": (
        of("mixture", number("customers.shares", -0.1)),
        "expected prob.* got -0.1",
    ),
    "a negative chance": (
        of("mixture", number("customers.fields", -0.1)),
        "expected prob.* got -0.1",
    ),
    "more rows than there are": (
        of("rows", part("config", customers={"kind": "rows", "rows": 1 << 40})),
        "customers.rows: expected 1 to 16777216, got 1099511627776",
    ),
    "no rows": (
        of("rows", part("config", customers={"kind": "rows", "rows": 0})),
        "to 16777216, got 0",
    ),
    "no components": (
        of("mixture", part("config", customers={"kind": "mixture", "components": 0})),
        "customers.components: expected 1 to 16384, got 0",
    ),
}

KINDS = [
    Kind(
        "simulator",
        "shop.safetensors",
        lambda: corpus("simulator/a-mlp.safetensors"),
        vtb.Simulator.load,
        SIMULATORS,
    ),
]
