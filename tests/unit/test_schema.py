"""The numbers have one home, and schemas refuse what no simulator could have."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.schema import (
    V0_CONFIG,
    V0_SCHEMA,
    Config,
    Customers,
    Field,
    Leave,
    Response,
    Schema,
)


def test_virtualtb_v0():
    assert [field.size for field in V0_SCHEMA.customer] == [8, 8, 11, 11, 11, 11, 2, 2, 3, 18, 3]
    assert V0_SCHEMA.customer_width == 88
    assert V0_SCHEMA.observation_width == 91
    assert V0_SCHEMA.action == 27
    columns = V0_SCHEMA.clicks_column, V0_SCHEMA.second_column, V0_SCHEMA.page_column
    assert columns == (88, 89, 90)
    assert V0_CONFIG.layers(V0_SCHEMA) == {
        "generator": (128, 128, 88),
        "action": (116, 128, 256, 21),
        "leave": (88, 128, 256, 101),
    }
    shapes = V0_CONFIG.shapes(V0_SCHEMA)
    assert len(shapes) == 16
    assert shapes["action.4.weight"] == (21, 256)
    assert shapes["leave.0.bias"] == (128,)
    high = V0_CONFIG.observation_high(V0_SCHEMA)
    assert high.tolist() == [1] * 88 + [10, 9, 100]


def test_slices_cover_the_customer_without_gap_or_overlap():
    at = 0
    for field, columns in zip(V0_SCHEMA.customer, V0_SCHEMA.slices.values(), strict=True):
        assert columns == slice(at, at + field.size)
        at = columns.stop
    assert V0_SCHEMA.customer_columns == slice(0, at)


def test_a_session_of_limit_zero_still_has_a_page():
    assert Leave(classes=2).longest == 1
    assert Leave(classes=101).longest == 100


names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


@st.composite
def schemas(draw):
    fields = tuple(Field(name, draw(st.integers(2, 256))) for name in draw(names))
    low = draw(st.floats(-1e5, 1e5, width=32))
    span = (low, low + draw(st.floats(0.5, 1e5, width=32)))
    return Schema(fields, draw(st.integers(1, 300)), span)


@given(schemas(), st.data())
def test_codes_and_one_hots_are_inverse(schema, data):
    sizes = [field.size for field in schema.customer]
    rows = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    codes = np.array(data.draw(st.lists(rows, min_size=1, max_size=5)))
    one_hot = schema.one_hot(codes)
    assert one_hot.shape == (len(codes), schema.customer_width)
    assert one_hot.dtype == np.float32
    assert (one_hot.sum(1) == len(sizes)).all()
    assert np.array_equal(schema.codes(one_hot), codes)
    assert np.array_equal(schema.one_hot(codes[0]), one_hot[0])


@given(schemas())
def test_schemas_survive_json(schema):
    assert Schema.from_json(schema.to_json()) == schema


@given(
    st.integers(1, 300),
    st.lists(st.integers(1, 99), min_size=1, max_size=4),
    st.floats(0, 0.99),
    st.floats(-1e6, 1e6),
)
def test_configs_survive_json(latent, hidden, slope, scale):
    config = Config(
        Customers(latent, tuple(hidden)),
        Response(scale, 5, 3, tuple(hidden)),
        Leave(7, tuple(hidden)),
        slope,
    )
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "make",
    [
        lambda: Field("", 3),
        lambda: Field("a", 1),
        lambda: Field("a", 257),
        lambda: Field("a", True),
        lambda: Field("a", 2.0),
        lambda: Schema((), 3),
        lambda: Schema((Field("a", 2), Field("a", 2)), 3),
        lambda: Schema([Field("a", 2)], 3),
        lambda: Schema((Field("a", 2),), 0),
        lambda: Schema((Field("a", 2),), -1),
        lambda: Schema((Field("a", 2),), 3, (1.0, 1.0)),
        lambda: Schema((Field("a", 2),), 3, (1.0, -1.0)),
        lambda: Schema((Field("a", 2),), 3, (float("nan"), 1.0)),
        lambda: Schema((Field("a", 2),), 3, (-float("inf"), 1.0)),
        lambda: Customers(kind="gmm"),
        lambda: Customers(latent=0),
        lambda: Customers(hidden=()),
        lambda: Customers(hidden=[3]),
        lambda: Response(page_scale=float("inf")),
        lambda: Response(clicks=1),
        lambda: Response(second=300),
        lambda: Leave(kind="hazard"),
        lambda: Leave(classes=0),
        lambda: Leave(hidden=(0,)),
        lambda: Config(slope=1.0),
        lambda: Config(slope=-0.1),
        lambda: Config(slope=float("nan")),
    ],
)
def test_what_no_simulator_could_have_is_refused(make):
    with pytest.raises(InvalidArgumentError, match=r"expected .* got"):
        make()


@pytest.mark.parametrize(
    "codes",
    [
        [[0, 0]],
        [0] * 12,
        [0.0] * 11,
        [8] + [0] * 10,
        [0] * 10 + [-1],
        "codes",
    ],
)
def test_codes_that_no_customer_has_are_refused(codes):
    with pytest.raises(InvalidArgumentError, match="codes: expected"):
        V0_SCHEMA.one_hot(codes)


@pytest.mark.parametrize("kind", [Schema, Config])
@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"customer": 3}', "[" * 100_000])
def test_other_json_is_refused(kind, text):
    with pytest.raises(InvalidArgumentError):
        kind.from_json(text)


@pytest.mark.parametrize("key", ["customers", "response", "leave", "slope"])
def test_configs_with_a_part_of_the_wrong_kind_are_refused(key):
    for wrong in (None, [], "x", {"hidden": 3}):
        data = json.loads(V0_CONFIG.to_json())
        data[key] = wrong
        with pytest.raises(InvalidArgumentError):
            Config.from_json(json.dumps(data))
