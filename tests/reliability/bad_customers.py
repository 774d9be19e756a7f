"""Bad calls of samplers of customers and of people's own columns, for `bad_calls`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.reliability.bad_kit import (
    INF,
    NAN,
    NO_COUNT,
    NO_DEVICE,
    NO_FLAG,
    NO_FUNCTION,
    NO_KEEPER,
    NO_RATE,
    NO_SEED,
    NO_SHARE,
    NO_SIZE,
    NO_TEXT,
    NO_THREADS,
    NO_WEIGHT,
    NO_WIDTHS,
    Bad,
    Call,
    Kit,
    bound,
)
from tests.reliability.cases import SCHEMA

from virtualtb_fast import customers
from virtualtb_fast.customers import CustomerSampler
from virtualtb_fast.customers.table import Categorical, Numeric, Table
from virtualtb_fast.schema import Customers, Field

FIELDS = SCHEMA.customer
CODES = np.random.default_rng(3).integers(0, 4, (60, 2)).astype(np.uint8)
COLUMNS: dict[str, list[Any]] = {"city": ["ash", "elm", None] * 4, "age": list(range(12))}
TABLE = Table.of(COLUMNS, numeric=["age"])

NO_CODES: list[Any] = [
    None, 3, "codes", b"codes", {}, [], [0, 1], CODES[:1], CODES[:, :1], CODES[None],
    CODES.astype(float), CODES + NAN, CODES.astype(bool), CODES.astype(object), CODES.astype(str),
    CODES.astype(complex), CODES + np.uint8(9), CODES.astype(int) - 9, [[0, 1], [0]],
    [["a", "b"], ["a", "b"]], [[2**70, 0], [0, 0]], Bad(),
]  # fmt: skip
NO_FIELDS: list[Any] = [
    None, 3, "ab", (), (3, 4), FIELDS[:1], (*FIELDS, Field("more", 2)), (FIELDS[0],) * 2, SCHEMA,
    FIELDS[0], {}, [f.name for f in FIELDS], tuple(Field(f.name, 2) for f in FIELDS), Bad(),
]  # fmt: skip
NO_CONFIG: list[Any] = [3, "none such", {}, [], (1,), customers.GanConfig, TABLE, Bad()]

SMALL: dict[str, Any] = {
    "steps": 2, "batch": 16, "discriminator_batch": 8, "latent": 2, "hidden": (4,),
    "discriminator_hidden": (4,),
}  # fmt: skip


def customer_calls() -> Iterator[Call]:
    """All of them."""
    yield from settings()
    yield from fits()
    yield from samplers()
    yield from tables()


def fits() -> Iterator[Call]:
    """Every way to fit a sampler."""
    common = {
        "codes": NO_CODES, "fields": NO_FIELDS, "seed": [None, *NO_SEED],
        "progress": NO_FUNCTION,
    }  # fmt: skip
    states = common | {"checkpoint": NO_KEEPER, "what": NO_TEXT}
    gan, few = customers.GanConfig, customers.LatentClassConfig
    kinds: list[tuple[str, dict[str, Any], dict[str, list[Any]], str | None]] = [
        ("fit_independent", {}, common, None),
        ("fit_bootstrap", {"rows": 20}, common | {"rows": [1, *NO_SIZE]}, None),
        (
            "fit_gmm", {"config": customers.GmmConfig(components=2, iterations=3)},
            common | {"config": [gan(), *NO_CONFIG]}, "sklearn",
        ),
        (
            "fit_latent_class", {"config": few(components=2, iterations=3, start_iterations=2)},
            states | {"config": [gan(), *NO_CONFIG]}, None,
        ),
        (
            "fit_autoregressive",
            {"config": customers.AutoregressiveConfig(hidden=4, steps=3, batch=16)},
            states | {"config": [gan(), *NO_CONFIG], "device": NO_DEVICE}, "torch",
        ),
        *[
            (
                name, {"config": gan(**SMALL)},
                states | {"config": [None, few(), *NO_CONFIG], "device": NO_DEVICE}, "torch",
            )
            for name in ("fit_gan_sd", "fit_gan", "fit_wgan", "fit_wgan_gp")
        ],
    ]  # fmt: skip
    for name, more, bad, needs in kinds:
        good = {"codes": CODES, "fields": FIELDS, "seed": 3, **more}
        # What reads anything as no settings at all is no bad value here.
        yield Call(name, bound(getattr(customers, name)), lambda kit, g=good: g, bad, needs=needs)


def settings() -> Iterator[Call]:
    """What fits are told: these are refused when they are made, not minutes later."""
    sizes = ("steps", "batch", "discriminator_batch", "latent", "num_threads")
    updates = ("generator_updates", "discriminator_updates")
    weights = ("alpha", "alpha_end", "beta", "adversarial", "r1", "gradient_penalty")
    shares = ("pair_memory", "rate_end", "real_label", "average")
    pairs: list[Any] = [None, 3, "ab", (1.0,), [1.0, 0.5], (NAN, 0.5), ("a", "b"), (-1.0, 0.5)]
    yield Call(
        "GanConfig", bound(customers.GanConfig), lambda kit: SMALL,
        {
            **dict.fromkeys((*sizes, *updates), NO_SIZE),
            **dict.fromkeys(weights, NO_WEIGHT),
            **dict.fromkeys(shares, NO_SHARE),
            **dict.fromkeys(("rate", "discriminator_rate"), NO_RATE),
            **dict.fromkeys(("hidden", "discriminator_hidden"), NO_WIDTHS),
            "clip": [value for value in NO_RATE if value is not None],
            "temperature": [*pairs, (0.0, 0.5)],
            "betas": [*pairs, (0.5, 1.0)],
            "attributes": [3, "region", (3,), [None], Bad()],
            "pairs": [None, 3, "some", ("region",), (("region",),), (("a", "b", "c"),), ((1, 2),),
                      Bad()],
            "adversary": [*NO_TEXT, "", "linear "],
            "estimator": [*NO_TEXT, "", "hard"],
        },
    )  # fmt: skip
    yield Call(
        "AutoregressiveConfig", bound(customers.AutoregressiveConfig), lambda kit: {},
        {
            **dict.fromkeys(("hidden", "steps", "batch", "patience", "num_threads"), NO_SIZE),
            **dict.fromkeys(("rate_end", "average"), NO_SHARE),
            "rate": NO_RATE, "decay": NO_WEIGHT, "held_out": [0.0, 1.0, *NO_SHARE],
        },
    )  # fmt: skip
    one_or_none = [value for value in NO_SIZE if value is not None]
    yield Call(
        "LatentClassConfig", bound(customers.LatentClassConfig), lambda kit: {},
        {
            **dict.fromkeys(
                ("starts", "start_iterations", "iterations", "rows", "trial_rows"), NO_SIZE
            ),
            "components": one_or_none, "prior": NO_WEIGHT, "tolerance": [NAN, INF, "1", None, True],
            "choices": [None, 3, "ab", [2], (), (0,), (2.5,), ("2",), (None,), Bad()],
        },
    )  # fmt: skip
    yield Call(
        "GmmConfig", bound(customers.GmmConfig), lambda kit: {},
        {**dict.fromkeys(("components", "iterations", "rows"), NO_SIZE),
         "regularisation": NO_WEIGHT},
    )  # fmt: skip


def samplers() -> Iterator[Call]:
    """What every fit returns."""
    mixed = customers.fit_independent(CODES, FIELDS)
    good = {"fields": FIELDS, "config": mixed.config, "tensors": dict(mixed.tensors)}
    shares, columns = mixed.tensors["customers.shares"], mixed.tensors["customers.fields"]
    yield Call(
        "CustomerSampler", bound(CustomerSampler), lambda kit: good,
        {
            "fields": NO_FIELDS,
            "config": [None, 3, "mixture", {}, Customers(), Customers(kind="rows", rows=2),
                       Customers(kind="mixture", components=2), Bad()],
            "tensors": [None, 3, [], "tensors", {}, {1: shares}, {"customers.shares": shares},
                        {"customers.shares": shares, "customers.fields": None},
                        {"customers.shares": shares, "customers.fields": columns * NAN},
                        {"customers.shares": shares, "customers.fields": columns.astype(float)},
                        {"customers.shares": shares, "customers.fields": columns[:, 1:]},
                        {"customers.shares": shares, "customers.fields": [[0.5], [0.5, 0.5]]},
                        {"customers.shares": -shares, "customers.fields": columns},
                        dict(mixed.tensors) | {"more": shares}, Bad()],
            "slope": [None, "a", True, [0.1], NAN, 2.0, Bad()],
            "report": [3, "text", [], Bad()],
        },
    )  # fmt: skip
    yield Call(
        "CustomerSampler.of",
        bound(CustomerSampler.of),
        lambda kit: {"simulator": kit.simulator},
        {"simulator": [None, 3, "virtualtb-v0-refit", {}, mixed, Bad()]},
    )
    no_given: list[Any] = [
        3, "region", [("region", 1)], {"nobody": 1}, {3: 1}, {"region": 5}, {"region": -1},
        {"region": 1.0}, {"region": "1"}, {"region": None}, {"region": True}, {"region": [1]},
        {"region": 2**70}, Bad(),
    ]  # fmt: skip
    drawn: dict[str, Callable[[Kit], CustomerSampler]] = {
        "CustomerSampler.sample": lambda kit: mixed,
        "CustomerSampler.sample of networks": lambda kit: CustomerSampler.of(kit.simulator),
    }
    for name, sampler in drawn.items():
        yield Call(
            name, lambda kit, s=sampler: s(kit).sample, lambda kit: {"count": 5, "seed": 1},
            {"count": NO_COUNT, "seed": [None, *NO_SEED], "first": NO_COUNT, "given": no_given,
             "num_threads": NO_THREADS},
        )  # fmt: skip
    yield Call(
        "CustomerSampler.given",
        bound(mixed.given),
        lambda kit: {"values": {"region": 1}},
        {"values": [None, *no_given]},
    )
    yield Call(
        "CustomerSampler.log_density",
        bound(mixed.log_density),
        lambda kit: {"codes": CODES},
        {"codes": [wrong for wrong in NO_CODES if wrong is not NO_CODES[7]]},
    )
    yield Call(
        "CustomerSampler.field_probabilities", bound(mixed.field_probabilities),
        lambda kit: {"count": 5}, {"count": NO_COUNT, "seed": [None, *NO_SEED]},
    )  # fmt: skip


def tables() -> Iterator[Call]:
    """People's own columns."""
    no_data: list[Any] = [
        None, 3, "columns", [], {}, {"age": 3}, {"age": []}, {"age": [[1], [2]]},
        {"age": [1, 2], "city": ["ash"]}, {"age": [None, None]}, {"age": [1, INF] * 20},
        {"age": [object(), object()]}, {"age": [1j, 2j]}, {"age": None}, Bad(),
    ]  # fmt: skip
    no_names: list[Any] = [None, 3, "age", ["nobody"], [3], [None], {"age": 1}, Bad()]
    yield Call(
        "Table.of", bound(Table.of), lambda kit: {"data": COLUMNS},
        {"data": no_data, "categorical": no_names, "numeric": [*no_names, ["city"]],
         "bins": [1, 256, *NO_COUNT], "largest": [2, 257, *NO_COUNT]},
    )  # fmt: skip
    yield Call(
        "Table", bound(Table), lambda kit: {"columns": TABLE.columns},
        {"columns": [None, 3, "age", (), list(TABLE.columns), (3,), (TABLE.columns[0],) * 2,
                     FIELDS, TABLE, Bad()]},
    )  # fmt: skip
    short = {"city": ["ash"], "age": [1, 2]}
    yield Call(
        "Table.encode", bound(TABLE.encode), lambda kit: {"data": COLUMNS},
        {"data": [None, 3, "columns", [], {}, {"city": ["ash"]}, short, COLUMNS | {"age": ["old"]},
                  COLUMNS | {"age": [[1]]}, COLUMNS | {"city": ["oak"] * 12},
                  COLUMNS | {"city": [object()] * 12}, COLUMNS | {"age": [INF] * 12},
                  COLUMNS | {"age": [None] * 12}, Bad()]},
    )  # fmt: skip
    codes = TABLE.encode(COLUMNS)
    yield Call(
        "Table.decode", bound(TABLE.decode), lambda kit: {"codes": codes},
        {"codes": [None, 3, "codes", [], codes[:, :1], codes[0], codes.astype(float),
                   codes.astype(bool), codes + np.uint8(99), codes.astype(int) - 9, [[0], [0, 1]],
                   [["a", "b"]], [[2**70, 0]], Bad()],
         "seed": [None, *NO_SEED]},
    )  # fmt: skip
    forms = json.loads(TABLE.to_json())
    changed = [
        json.dumps([form | {key: wrong} if form is one else form for form in forms])
        for one in forms for key in one for wrong in ([None], {}, "x" if key != "name" else 3)
    ]  # fmt: skip
    yield Call(
        "Table.from_json",
        bound(Table.from_json),
        lambda kit: {"text": TABLE.to_json()},
        {"text": [None, 3, "", "{", "[]", "{}", "[3]", "[{}]", b"[]", "\ud800", *changed, Bad()]},
    )
    numeric, categorical = TABLE.columns[1], TABLE.columns[0]
    assert isinstance(numeric, Numeric)
    assert isinstance(categorical, Categorical)
    yield Call(
        "Numeric", bound(Numeric),
        lambda kit: {"name": "age", "atoms": numeric.atoms, "edges": numeric.edges},
        {"name": [*NO_TEXT, ""], "atoms": [None, 3, "ab", [1.0], (2.0, 1.0), (NAN,), ("a",)],
         "edges": [None, 3, "ab", (3,), ((1.0, 2.0),), (("a",) * 9,)], "whole": NO_FLAG,
         "missing": NO_FLAG},
    )  # fmt: skip
    yield Call(
        "Categorical", bound(Categorical),
        lambda kit: {"name": "city", "values": ("ash", "elm"), "shares": (0.5, 0.5)},
        {"name": [*NO_TEXT, ""],
         "values": [None, 3, "ab", (), ("ash",), ("ash", "ash"), (None, 1), (NAN, 1)],
         "shares": [None, 3, "ab", (), (0.5,), (-1.0, 0.5), (0.0, 0.0), (NAN, 1.0), ("a", "b")],
         "pooled": [None, 3, ("oak",)], "pooled_shares": [None, 3, (1.0,)], "missing": NO_FLAG},
    )  # fmt: skip
    yield Call(
        "Numeric.from_sample", bound(Numeric.from_sample),
        lambda kit: {"name": "age", "sample": [1.0, 2.0]},
        {"name": [*NO_TEXT, ""], "sample": [None, [], "age", ["a"], [NAN], [INF], [[1], [1, 2]],
                                           [1j], {}, Bad()],
         "missing_share": NO_SHARE, "bins": [1, 256, *NO_COUNT]},
    )  # fmt: skip
    yield Call(
        "Categorical.from_counts", bound(Categorical.from_counts),
        lambda kit: {"name": "city", "values": ["ash", "elm"], "counts": [3, 4]},
        {"name": [*NO_TEXT, ""],
         "values": [None, 3, [], ["ash"], ["ash", "ash"], [None, "a"], [NAN, 1.0], Bad()],
         "counts": [None, 3, [], [1], [-1, 2], [0, 0], [NAN, 1], ["a", "b"], [[1], [1, 2]], Bad()],
         "missing": NO_COUNT, "largest": [1, *NO_COUNT], "rare": NO_COUNT},
    )  # fmt: skip
    for name, column, bad in (
        ("Numeric", numeric, ["a", [[1]], [INF], [None], ["old"], Bad()]),
        ("Categorical", categorical, [[["ash"]], ["oak"], [object()], [INF], Bad()]),
    ):
        values = COLUMNS[column.name]
        mask: list[Any] = [3, "mask", [True], np.ones(12), np.ones((12, 1), bool), Bad()]
        yield Call(
            f"{name}.encode", bound(column.encode), lambda kit, v=values: {"values": v},
            {"values": bad, "missing": mask},
        )  # fmt: skip
