"""Bad calls of schemas and of what a simulator is made of, for `bad_calls`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.reliability.bad_kit import CODES, INF, NAN, NO_COUNT, Bad, Call, bound
from tests.reliability.cases import CONFIG, SCHEMA

from virtualtb_fast.schema import Config, Customers, Field, Leave, Response, Schema

NO_SCHEMA: list[Any] = [None, 3, "schema", {}, [], CONFIG, Schema, SCHEMA.to_json(), Bad()]
NO_FIELDS: list[Any] = [None, 3, "ab", (), (3,), [Field("a", 2)], SCHEMA, Field("a", 2), Bad()]
NO_JSON: list[Any] = [None, 3, "", "{", "[]", "{}", b"{}", "3", "\ud800", Bad()]
NO_PART: list[Any] = [*NO_JSON, [], {}, {"kind": None}, {"kind": ["mlp"]}, {"kind": "no such"}]


def schema_calls() -> Iterator[Call]:
    """All of them."""
    yield from made()
    yield Call(
        "Schema", lambda kit: Schema,
        lambda kit: {"customer": (Field("a", 2),), "action": 3, "action_range": (-1.0, 1.0)},
        {"customer": [None, 3, (), "ab", (3,), [Field("a", 2)], (Field("a", 2),) * 2, Bad()],
         "action": [0, -1, 2.5, "3", None, True, 10**9, Bad()],
         "action_range": [None, 3, (1.0,), (1.0, -1.0), (NAN, 1.0), (-INF, INF), ("a", "b"),
                          Bad()]},
    )  # fmt: skip
    yield Call(
        "Schema.one_hot", lambda kit: SCHEMA.one_hot, lambda kit: {"codes": CODES},
        {"codes": [None, 3, "codes", [[0]], [[9, 9]], [[-1, 0]], [[0.5, 0]], [["a", "b"]],
                   [[0, 0], [0]], [[2**70, 0]], Bad()]},
    )  # fmt: skip
    yield Call(
        "Schema.codes", lambda kit: SCHEMA.codes,
        lambda kit: {"observations": np.zeros((2, 12), np.float32)},
        {"observations": [None, 3, "x", [[0.0] * 12], np.zeros(3), np.zeros((2, 0)), Bad()]},
    )  # fmt: skip
    yield Call(
        "Schema.from_json", lambda kit: Schema.from_json, lambda kit: {"text": SCHEMA.to_json()},
        {"text": [None, 3, "", "{", "[]", "{}", '{"customer": 3}', b"{}", Bad()]},
    )  # fmt: skip
    yield Call(
        "Config.from_json", lambda kit: Config.from_json, lambda kit: {"text": CONFIG.to_json()},
        {"text": [None, 3, "", "{", "[]", "{}", '{"customers": 3}', b"{}", Bad()]},
    )  # fmt: skip
    yield Call(
        "Field", lambda kit: Field, lambda kit: {"name": "a", "size": 2},
        {"name": [None, 3, "", b"a", Bad()], "size": [0, 1, 257, *NO_COUNT]},
    )  # fmt: skip
    yield Call(
        "Config", lambda kit: Config, lambda kit: {},
        {"slope": [1.0, -0.1, NAN, "a", None, True, Bad()],
         "customers": [None, 3, {}, Bad()], "response": [None, 3, {}, Response(heads="outcome")],
         "leave": [None, 3, {}, Bad()]},
    )  # fmt: skip
    yield Call(
        "Customers", lambda kit: Customers, lambda kit: {},
        {"latent": [0, -1, 2.5, "3", True, 10**9], "hidden": [3, "ab", (0,), (2.5,), ("a",), Bad()],
         "kind": ["gan", None, 3], "components": [3, "a"], "rows": [3, "a"]},
    )  # fmt: skip
    yield Call(
        "Leave", lambda kit: Leave, lambda kit: {},
        {"classes": [0, 1, -1, 2.5, "3", True], "hidden": [3, "ab", (0,), (2.5,)],
         "kind": ["never", None, 3], "longest": [3, "a", -1]},
    )  # fmt: skip
    yield Call(
        "Response", lambda kit: Response, lambda kit: {},
        {"page_scale": [NAN, INF, "a", None, True], "clicks": [0, 1, -1, 2.5, "3", True],
         "second": [0, 1, -1, 2.5, "3", True], "hidden": [3, "ab", (0,), (2.5,), None],
         "kind": ["tree", None, 3], "heads": ["both", None, 3]},
    )  # fmt: skip


def made() -> Iterator[Call]:
    """What is asked of a part that is made, and how it comes back from a file."""
    parts: dict[str, Callable[..., Any]] = {
        "Config.layers": CONFIG.layers,
        "Config.shapes": CONFIG.shapes,
        "Config.dtypes": CONFIG.dtypes,
        "Config.observation_high": CONFIG.observation_high,
    }
    for name, method in parts.items():
        yield Call(name, bound(method), lambda kit: {"schema": SCHEMA}, {"schema": NO_SCHEMA})
    parts = {
        "Customers.layers": CONFIG.customers.layers,
        "Customers.shapes": CONFIG.customers.shapes,
        "Leave.layers": CONFIG.leave.layers,
    }
    for name, method in parts.items():
        good = {"fields": SCHEMA.customer}
        yield Call(name, bound(method), lambda kit, good=good: good, {"fields": NO_FIELDS})
    for part in (CONFIG.customers, CONFIG.response, CONFIG.leave):
        kind, form = type(part), part.to_dict()
        changed = [form | {key: wrong} for key in form for wrong in (None, "-1", [0], {}, Bad())]
        less = [{name: form[name] for name in form if name != key} for key in form]
        yield Call(
            f"{kind.__name__}.from_json", bound(kind.from_json),
            lambda kit, form=form: {"value": form},
            {"value": [*NO_PART, *changed, *less, form | {"more": 1}, form | {3: 1}]},
        )  # fmt: skip
