"""People's own columns as codes and back."""

from __future__ import annotations

import numpy as np
import pytest

from virtualtb_fast.customers.table import Categorical, Numeric, Table
from virtualtb_fast.errors import InvalidArgumentError


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_categories_come_back() -> None:
    column = Categorical.from_counts("city", ["b", "a", "c"], [5, 3, 2])
    assert column.values == ("a", "b", "c")
    assert column.shares == (0.3, 0.5, 0.2)
    assert column.field.size == 3
    codes = column.encode(np.array(["c", "a", "b", "a"]))
    assert codes.dtype == np.uint8
    assert codes.tolist() == [2, 0, 1, 0]
    assert column.decode(codes, random()).tolist() == ["c", "a", "b", "a"]


def test_numbers_texts_and_truth_values_are_different_categories() -> None:
    values = [1, "1", True, 2.5]
    column = Categorical.from_counts("mixed", values, [1, 1, 1, 1])
    codes = column.encode(np.array([True, 1, "1", 2.5], object))
    assert len(set(codes.tolist())) == 4
    assert column.decode(codes, random()).tolist() == [True, 1, "1", 2.5]
    assert column.encode(np.array([1.0], object)) == column.encode(np.array([1], object))


def test_rare_categories_are_pooled_and_drawn_back_by_their_shares() -> None:
    values = [f"v{number:04}" for number in range(1000)]
    counts = np.arange(1000, 0, -1)
    column = Categorical.from_counts("many", values, counts)
    assert column.field.size == 256
    assert len(column.values) == 255
    assert len(column.pooled) == 745
    codes = column.encode(np.array(values))
    assert (codes[:255] == np.arange(255)).all()
    assert (codes[255:] == 255).all()
    back = column.decode(np.full(40_000, 255, np.uint8), random())
    expected = counts[255:] / counts[255:].sum()
    found = np.array([(back == value).mean() for value in values[255:]])
    assert abs(found - expected).max() < 5 * np.sqrt(expected.max() / 40_000)
    # Void guard: equal shares would be further off.
    assert abs(1 / 745 - expected).max() > 5 * np.sqrt(expected.max() / 40_000)
    # Unseen values join the pooled ones.
    assert column.encode(np.array(["never seen"])).tolist() == [255]


def test_room_is_kept_for_missing_values() -> None:
    column = Categorical.from_counts("many", list(range(300)), np.ones(300), missing=4)
    assert column.field.size == 256
    assert column.encode(np.array([None, 299, 0], object)).tolist() == [255, 254, 0]
    exact = Categorical.from_counts("full", list(range(255)), np.ones(255), missing=1)
    assert exact.pooled == ()
    assert exact.field.size == 256
    small = Categorical.from_counts("small", list("abcde"), [9, 8, 7, 2, 1], largest=4)
    assert (small.values, small.pooled, small.field.size) == (("a", "b", "c"), ("d", "e"), 4)
    rare = Categorical.from_counts("rare", list("abcde"), [9, 8, 7, 2, 1], rare=2)
    assert rare.pooled == ("d", "e")


def test_missing_categories() -> None:
    column = Categorical.from_counts("x", ["a", "b"], [1, 1], missing=1)
    values = np.array(["a", None, float("nan"), "b"], object)
    assert column.encode(values).tolist() == [0, 2, 2, 1]
    assert column.decode(np.array([0, 2, 1], np.uint8), random()).tolist() == ["a", None, "b"]
    given = column.encode(np.array(["a", "b"]), np.array([True, False]))
    assert given.tolist() == [2, 1]
    masked = np.ma.MaskedArray(np.array(["a", "b"]), [False, True])
    assert column.encode(masked).tolist() == [0, 2]
    with pytest.raises(InvalidArgumentError, match=r"'y', row 1: expected a value"):
        Categorical.from_counts("y", ["a"], [2]).encode(np.array(["a", None], object))


def test_unseen_categories_are_refused_by_row_and_value() -> None:
    column = Categorical.from_counts("x", ["a", "b"], [1, 1])
    with pytest.raises(InvalidArgumentError, match=r"'x', row 2: expected a known .* got 'z'"):
        column.encode(np.array(["a", "b", "z"]))


def test_a_constant_column_has_a_second_code_that_reads_as_the_first() -> None:
    column = Categorical.from_counts("x", ["only"], [7])
    assert column.field.size == 2
    assert column.encode(np.array(["only"])).tolist() == [0]
    assert column.decode(np.array([0, 1], np.uint8), random()).tolist() == ["only", "only"]
    number = Numeric.from_sample("n", [4.0, 4.0])
    assert number.field.size == 2
    assert number.decode(np.array([0, 1], np.uint8), random()).tolist() == [4.0, 4.0]


def test_a_table_of_codes_encodes_by_one_look_up() -> None:
    column = Categorical.from_counts("x", ["b", "a", "c"], [5, 3, 1], missing=2, largest=3)
    assert column.values == ("b",)
    assert column.code_table(["a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert Categorical.from_counts("x", ["a"], [1]).code_table(["a"]).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "counts", "match"),
    [
        ([], [], "at least one"),
        (["a", "a"], [1, 1], "different values"),
        (["a"], [1, 2], "1 counts"),
        (["a"], [0], "not all 0"),
        (["a"], [-1], "counts from 0 on"),
        ([float("nan")], [1], "finite category"),
        ([("a",)], [1], "got a tuple"),
    ],
)
def test_counts_that_make_no_column(values: list, counts: list, match: str) -> None:
    with pytest.raises(InvalidArgumentError, match=match):
        Categorical.from_counts("x", values, counts)


def test_numbers_go_into_bins_of_equal_counts() -> None:
    sample = random().lognormal(0, 1, 50_000)
    column = Numeric.from_sample("income", sample, bins=20)
    assert column.field.size == 20
    codes = column.encode(sample)
    shares = np.bincount(codes, minlength=20) / len(sample)
    assert abs(shares - 0.05).max() < 0.001
    assert (np.diff(codes[np.argsort(sample)].astype(int)) >= 0).all()


def test_numbers_are_drawn_back_as_they_were_logged() -> None:
    sample = random().lognormal(0, 1, 50_000)
    column = Numeric.from_sample("income", sample, bins=20)
    back = column.decode(column.encode(sample), np.random.default_rng(1))
    places = np.linspace(0.01, 0.99, 50)
    off = np.quantile(back, places) / np.quantile(sample, places) - 1
    assert abs(off).max() < 0.03
    assert (column.encode(back) == column.encode(sample)).all()
    assert sample.min() <= back.min() <= back.max() <= sample.max()
    # Void guard: values drawn uniformly over whole bins miss that.
    edges = np.array(column.edges)
    flat = edges[column.encode(sample)]
    uniform = flat[:, 0] + random().random(len(flat)) * (flat[:, -1] - flat[:, 0])
    assert abs(uniform.mean() / sample.mean() - 1) > 5 * abs(back.mean() / sample.mean() - 1)


def test_frequent_numbers_have_bins_of_their_own() -> None:
    sample = np.concatenate((np.zeros(500), np.full(200, 18.0), random().uniform(1, 90, 300)))
    column = Numeric.from_sample("age", sample, bins=8)
    assert column.atoms == (0.0, 18.0)
    assert column.encode([0, 18]).tolist() == [0, 1]
    assert column.encode([17.9])[0] >= 2
    back = column.decode(column.encode(sample), random())
    assert (back == 0).mean() == 0.5
    assert (back == 18).mean() == 0.2


def test_whole_numbers_stay_whole() -> None:
    sample = random().integers(0, 1000, 5000)
    column = Numeric.from_sample("count", sample, bins=16)
    back = column.decode(column.encode(sample), random())
    assert (back == np.round(back)).all()
    assert abs(back.mean() - sample.mean()) < 2
    assert (column.encode(back) == column.encode(sample)).mean() > 0.999


def test_few_different_numbers_are_kept_exactly() -> None:
    column = Numeric.from_sample("stars", [1, 2, 2, 5], bins=4)
    assert column.atoms == (1, 2, 5)
    assert column.encode([1, 2, 5, 4, -3, 3]).tolist() == [0, 1, 2, 2, 0, 1]
    assert column.decode(np.array([2, 0], np.uint8), random()).tolist() == [5, 1]


def test_missing_numbers() -> None:
    column = Numeric.from_sample("x", [1.0, 2.0], missing_share=0.5)
    codes = column.encode([1.0, float("nan"), 2.0])
    assert codes.tolist() == [0, 2, 1]
    assert np.isnan(column.decode(codes, random())[1])
    with pytest.raises(InvalidArgumentError, match="row 1: expected a value"):
        Numeric.from_sample("x", [1.0, 2.0]).encode([1.0, float("nan")])


def test_numbers_beyond_the_logged_ones_go_into_the_next_bin() -> None:
    column = Numeric.from_sample("x", random().uniform(0, 1, 1000), bins=4)
    assert column.encode([-5.0, 7.0]).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1.0, float("inf")], r"'x', row 1: expected a finite number, got inf"),
        (np.array([1.0, "two"], object), r"'x', row 1: expected a number, got 'two'"),
        (np.zeros((2, 2)), r"one dimension, got shape \(2, 2\)"),
        (np.array(["2020-01-01"], "M8[D]"), "texts, numbers or truth values"),
    ],
)
def test_numbers_that_are_none(values: object, match: str) -> None:
    with pytest.raises(InvalidArgumentError, match=match):
        Numeric.from_sample("x", [1.0, 2.0, 3.0]).encode(values)


@pytest.mark.parametrize(
    ("sample", "bins"), [([], 4), ([1.0, np.nan], 4), ([1.0], 1), ([1.0], 256)]
)
def test_samples_that_make_no_column(sample: list, bins: int) -> None:
    with pytest.raises(InvalidArgumentError, match="column 'x'"):
        Numeric.from_sample("x", sample, bins=bins)


DATA = {
    "city": np.array(["a", "b", "a", None] * 50, object),
    "age": np.arange(200) * 0.7,
    "grade": np.array([3, 1, 2, 3] * 50),
    "member": np.array([True, False] * 100),
}


def test_tables_choose_kinds_and_come_back() -> None:
    table = Table.of(DATA, bins=16)
    assert [one.kind for one in table.columns] == [
        "categorical",
        "numeric",
        "categorical",
        "categorical",
    ]
    assert [(one.name, one.size) for one in table.fields] == [
        ("city", 3),
        ("age", 16),
        ("grade", 3),
        ("member", 2),
    ]
    codes = table.encode(DATA)
    assert codes.shape == (200, 4)
    back = table.decode(codes, seed=5)
    for name in ("city", "grade", "member"):
        assert back[name].tolist() == DATA[name].tolist()
    assert abs(back["age"] - DATA["age"]).max() < 10
    again = Table.from_json(table.to_json())
    assert again == table
    assert again.decode(codes, seed=5)["age"].tolist() == back["age"].tolist()
    assert table.decode(codes, seed=6)["age"].tolist() != back["age"].tolist()
    forced = Table.of(DATA, numeric=["grade"], categorical=["age"])
    assert [one.kind for one in forced.columns][1:3] == ["categorical", "numeric"]


def test_tables_of_other_forms_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="one length"):
        Table.of({"a": [1, 2], "b": [1]})
    with pytest.raises(InvalidArgumentError, match="one length"):
        Table.of({})
    with pytest.raises(InvalidArgumentError, match="all are missing"):
        Table.of({"a": [float("nan")] * 3})
    with pytest.raises(InvalidArgumentError, match=r"got \['c'\]"):
        Table.of({"a": [1, 2]}, numeric=["c"])
    table = Table.of(DATA)
    with pytest.raises(InvalidArgumentError, match=r"expected columns \['age'\]"):
        table.encode({name: DATA[name] for name in ("city", "grade", "member")})
    with pytest.raises(InvalidArgumentError, match="codes"):
        table.decode(np.full((3, 4), 250, np.uint8))
    for text in ("", "[]x", "[1]", '[{"kind": "numeric"}]', '[{"kind": "other", "name": "x"}]'):
        with pytest.raises(InvalidArgumentError, match=r"table: expected .* got"):
            Table.from_json(text)


def test_an_arrow_table_is_refused_and_its_columns_are_taken() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"city": ["ash", "elm", "ash"]}
    arrow = pyarrow.table(columns)
    table = Table.of(columns)
    for call in (Table.of, table.encode):
        with pytest.raises(InvalidArgumentError, match="or a DataFrame, got a Table"):
            call(arrow)
    assert Table.of(arrow.to_pydict()) == table
