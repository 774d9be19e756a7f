"""Catalogues from Python: what is built, found, filtered and refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtualtb_fast as vtb
from virtualtb_fast.catalog import Catalog

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ITEMS, WIDTH = 3000, 9
BRANDS = np.array(["ash", "birch", "cedar", None], object)


class Shop:
    """Random items, and what should be found among them, in NumPy."""

    def __init__(self, seed: int = 0, items: int = ITEMS, width: int = WIDTH) -> None:
        draw = np.random.default_rng(seed)
        self.attributes = draw.standard_normal((items, width), dtype=np.float32)
        self.ids = draw.permutation(items).astype(np.int64) * 3 + 5
        self.price = np.round(draw.lognormal(3, 1, items), 2).astype(np.float32)
        self.price[::11] = np.nan
        self.brand = BRANDS[np.minimum(draw.geometric(0.5, items), 4) - 1]
        self.year = draw.integers(1990, 2020, items)
        self.rating = draw.random(items, dtype=np.float32)

    def build(self, path: Any = None, **changes: Any) -> Catalog:
        columns: dict[str, Any] = {
            "ids": self.ids,
            "price": self.price,
            "category": {"brand": self.brand, "year": self.year},
            "numbers": {"rating": self.rating},
        }
        return Catalog.build(self.attributes, path, **{**columns, **changes})

    def table(self) -> Any:
        flat = pyarrow.array(self.attributes.ravel())
        price = pyarrow.array([None if np.isnan(p) else float(p) for p in self.price])
        return pyarrow.table(
            {
                "x": pyarrow.FixedSizeListArray.from_arrays(flat, self.attributes.shape[1]),
                "item": self.ids,
                "cost": price,
                "brand": pyarrow.array(self.brand.tolist()).dictionary_encode(),
                "year": self.year.astype(np.int16),
                "rating": self.rating,
            }
        )

    NAMES: Any = {  # noqa: RUF012
        "ids": "item",
        "price": "cost",
        "category": ["brand", "year"],
        "numbers": "rating",
    }

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """In the order of the definition; the doubles hold products of floats exactly."""
        wide = self.attributes.astype(np.float64)
        total = np.zeros((len(weights), len(wide)), np.float32)
        for d in range(wide.shape[1]):
            # Rounds twice where the kernel rounds once, which matters almost never.
            exact = weights[:, d : d + 1].astype(np.float64) * wide[:, d] + total
            total = exact.astype(np.float32)
        return total

    def best(self, weights: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
        """Ids of the best allowed items, -1 where there are no more."""
        scores = np.where(allowed, self.scores(weights), -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = np.where(np.isfinite(np.take_along_axis(scores, order, 1)), self.ids[order], -1)
        return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def catalog(shop: Shop) -> Catalog:
    return shop.build()


WEIGHTS = np.random.default_rng(7).standard_normal((6, WIDTH)).astype(np.float32)


def test_searches_find_the_best(shop: Shop, catalog: Catalog) -> None:
    allowed = np.ones(ITEMS, bool)
    ids, scores = catalog.search(WEIGHTS, 20)
    assert (ids.dtype, scores.dtype, ids.shape) == (np.int64, np.float32, (6, 20))
    np.testing.assert_array_equal(ids, shop.best(WEIGHTS, 20, allowed))
    np.testing.assert_allclose(
        scores, np.take_along_axis(shop.scores(WEIGHTS), catalog.rows(ids), 1), rtol=1e-5
    )
    assert not np.array_equal(ids, shop.best(-WEIGHTS, 20, allowed))
    one, best = catalog.search(WEIGHTS[2], 20, num_threads=1)
    np.testing.assert_array_equal(one, ids[2])
    np.testing.assert_array_equal(best, scores[2])
    for weights in (WEIGHTS.tolist(), WEIGHTS.astype(np.float64), np.asfortranarray(WEIGHTS)):
        np.testing.assert_array_equal(catalog.search(weights, 20)[0], ids)


def test_results_are_padded(catalog: Catalog) -> None:
    ids, scores = catalog.search(WEIGHTS, 10, rows=[1, 2, 3])
    assert (ids[:, 3:] == -1).all()
    assert (scores[:, 3:] == -np.inf).all()
    assert np.isfinite(scores[:, :3]).all()
    for nothing in ({"category": {"brand": []}}, {"category": {"brand": "oak"}}, {"rows": []}):
        ids, scores = catalog.search(WEIGHTS[0], 4, **nothing)
        assert ids.tolist() == [-1] * 4
        assert scores.tolist() == [-np.inf] * 4
    small = Catalog.build(np.eye(2), ids=["a", "b"])
    assert small.search([1.0, 2.0], 3)[0].tolist() == ["b", "a", ""]
    large = Catalog.build(np.eye(2), ids=np.array([2**63, 4], np.uint64))
    assert large.search([1.0, 2.0], 3)[0].tolist() == [4, 2**63, 2**64 - 1]


RANGES = st.tuples(
    st.one_of(st.none(), st.floats(-5, 120)), st.one_of(st.none(), st.floats(0, 60))
).map(lambda pair: pair if None in pair else (pair[0], pair[0] + pair[1]))


@settings(max_examples=150, deadline=None)
@given(
    brand=st.none() | st.lists(st.sampled_from(["ash", "birch", "cedar", "oak"]), max_size=3),
    year=st.none() | st.integers(1985, 2025) | st.lists(st.integers(1985, 2025), max_size=20),
    price=st.none() | RANGES,
    rating=st.none() | RANGES.map(lambda pair: tuple(b if b is None else b / 60 for b in pair)),
    rows=st.none() | st.lists(st.integers(0, ITEMS - 1), max_size=300),
    k=st.sampled_from([1, 10, 200]),
)
def test_filters_are_those_of_numpy(
    shop: Shop, catalog: Catalog, brand: Any, year: Any, price: Any, rating: Any, rows: Any, k: int
) -> None:
    allowed = np.ones(ITEMS, bool)
    category: dict[str, Any] = {}
    if brand is not None:
        category["brand"] = brand
        allowed &= np.isin(shop.brand.astype(str), brand)
    if year is not None:
        category["year"] = year
        allowed &= np.isin(shop.year, year)
    for bounds, column in ((price, shop.price), (rating, shop.rating)):
        low, high = (None, None) if bounds is None else bounds
        if bounds is not None:
            allowed &= ~np.isnan(column)
        allowed &= True if low is None else column >= np.float32(low)
        allowed &= True if high is None else column <= np.float32(high)
    filters: dict[str, Any] = {
        "category": category,
        "price": price,
        "numbers": None if rating is None else {"rating": rating},
    }
    assert catalog.count(**filters) == allowed.sum()
    if rows is not None:
        inside = np.zeros(ITEMS, bool)
        inside[rows] = True
        allowed &= inside
    ids, _ = catalog.search(WEIGHTS[:2], k, rows=rows, **filters)
    np.testing.assert_array_equal(ids, shop.best(WEIGHTS[:2], k, allowed))


def test_candidates_are_ids_for_all_or_for_each(shop: Shop, catalog: Catalog) -> None:
    draw = np.random.default_rng(3)
    rows = np.stack([draw.choice(ITEMS, 40, replace=False) for _ in WEIGHTS])
    alike = np.zeros((1, ITEMS), bool)
    alike[0, rows[0]] = True
    expected = shop.best(WEIGHTS, 5, alike)
    for chosen in ({"rows": rows[0]}, {"candidates": shop.ids[rows[0]].tolist()}):
        np.testing.assert_array_equal(catalog.search(WEIGHTS, 5, **chosen)[0], expected)
    each = np.zeros((len(WEIGHTS), ITEMS), bool)
    np.put_along_axis(each, rows, True, 1)
    expected = shop.best(WEIGHTS, 5, each)
    padded = np.pad(shop.ids[rows], ((0, 0), (0, 3)), constant_values=-1)
    for chosen in ({"rows": rows}, {"candidates": padded}, {"rows": rows.tolist()}):
        np.testing.assert_array_equal(catalog.search(WEIGHTS, 5, **chosen)[0], expected)
    both = each & np.isin(shop.year, [2000, 2001, 2002])
    found = catalog.search(WEIGHTS, 5, rows=rows, category={"year": [2000, 2001, 2002]})[0]
    np.testing.assert_array_equal(found, shop.best(WEIGHTS, 5, both))
    ragged = [rows[index, : index + 1] for index in range(len(WEIGHTS))]
    assert ((catalog.search(WEIGHTS, 9, rows=ragged)[0] >= 0).sum(1) == np.arange(1, 7)).all()


def test_everything_comes_back(shop: Shop, catalog: Catalog) -> None:
    assert (len(catalog), catalog.dimensions) == (ITEMS, WIDTH)
    np.testing.assert_array_equal(catalog.attributes(), shop.attributes)
    np.testing.assert_array_equal(catalog.ids(), shop.ids)
    some = np.array([[7, 3], [0, 2999]])
    np.testing.assert_array_equal(catalog.ids(some), shop.ids[some])
    np.testing.assert_array_equal(catalog.rows(shop.ids[some]), some)
    np.testing.assert_array_equal(
        catalog.attributes(shop.ids[some.ravel()]), shop.attributes[some.ravel()]
    )
    np.testing.assert_array_equal(catalog.column("price"), shop.price)
    assert catalog.column("brand", rows=range(50)).tolist() == shop.brand[:50].tolist()
    assert catalog.column("year", shop.ids[:50]).tolist() == shop.year[:50].tolist()
    columns = {column["name"]: column for column in catalog.info()["columns"]}
    assert columns["brand"]["categories"] == 3
    assert columns["price"]["items"] == (~np.isnan(shop.price)).sum()
    catalog.verify()


def test_arrays_tables_and_files_give_the_same_bytes(shop: Shop, tmp_path: Path) -> None:
    whole = shop.build(tmp_path / "arrays.vtbcat")
    names = shop.NAMES
    table = shop.table()
    parquet.write_table(table, tmp_path / "items.parquet", compression="zstd", row_group_size=700)
    parquet.write_table(table, tmp_path / "snappy.parquet")
    seen: list[tuple[str, int, int]] = []
    for source in (table, tmp_path / "items.parquet", str(tmp_path / "snappy.parquet")):
        built = Catalog.build(source, **names, progress=lambda *told: seen.append(told))
        assert built.digest == whole.digest
        assert built == whole
    stages = {stage for stage, _, _ in seen}
    assert "reading rows" in stages
    reader = pyarrow.RecordBatchReader.from_batches(table.schema, table.to_batches(331))
    streamed = Catalog.build(reader, tmp_path / "stream", **names)
    assert (tmp_path / "stream").read_bytes() == (tmp_path / "arrays.vtbcat").read_bytes()
    assert streamed.path == str(tmp_path / "stream")
    assert sorted(os.listdir(tmp_path)) == [
        "arrays.vtbcat", "items.parquet", "snappy.parquet", "stream",
    ]  # fmt: skip
    wide = pyarrow.table({f"a{d}": shop.attributes[:, d] for d in range(WIDTH)})
    assert Catalog.build(wide) == Catalog.build(shop.attributes)
    some = Catalog.build(wide, columns=["a3", "a1"])
    np.testing.assert_array_equal(some.attributes(), shop.attributes[:, [3, 1]])


def test_other_forms_of_arrays_are_taken(shop: Shop) -> None:
    plain = Catalog.build(shop.attributes)
    for other in (shop.attributes.astype(np.float64), np.asfortranarray(shop.attributes)):
        assert Catalog.build(other) == plain
    texts = [f"item {number}" for number in shop.ids]
    named = Catalog.build(shop.attributes, ids=texts, category=["x", None] * (ITEMS // 2))
    assert (
        named.search(WEIGHTS[0], 3, category="x")[0].tolist()
        == [
            texts[row]
            for row in np.argsort(-shop.scores(WEIGHTS[:1])[0], kind="stable")
            if row % 2 == 0
        ][:3]
    )
    assert named.rows(texts[:5]).tolist() == [0, 1, 2, 3, 4]
    assert named == Catalog.build(
        shop.attributes, ids=np.array(texts), category=np.array(["x", None] * (ITEMS // 2))
    )
    flags = Catalog.build(np.eye(4), category=[1, None, 0, 1])
    assert flags.column("category").tolist() == [1, None, 0, 1]
    assert flags.count(category=1) == 2


def test_large_ids_in_lists_stay_what_they_are() -> None:
    ids = [2**63 + 1, 5, 2**64 - 2]
    for form in (ids, tuple(ids), np.array(ids, object), np.array(ids, np.uint64)):
        catalog = Catalog.build(np.eye(3), ids=form)
        assert catalog.ids().tolist() == ids
        assert catalog.rows([ids[0], 5]).tolist() == [0, 1]
        found = catalog.search([1.0, 2.0, 3.0], 2, candidates=[ids[0], 5])[0]
        assert found.tolist() == [5, ids[0]]
        each = catalog.search(np.eye(3)[:2], 1, candidates=[[ids[0]], [5, ids[2]]])[0]
        assert each.tolist() == [[ids[0]], [5]]
    with pytest.raises(vtb.InvalidArgumentError, match="got 'a' in row 1"):
        catalog.rows([5, "a"])
    small = Catalog.build(np.eye(2), ids=np.array([1, 2], object))
    assert small.rows(np.array([2, 1], object)).tolist() == [1, 0]


X = np.eye(3, dtype=np.float32)
NAN = np.array([[0, 1], [2, np.nan]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attributes": NAN}, "finite numbers, got NaN in row 1, column 1"),
        ({"attributes": np.array([[1e300]])}, "got inf in row 0, column 0"),
        ({"attributes": [[1.0, 2.0], [3.0]]}, "attributes: expected numbers"),
        ({"attributes": np.zeros((2, 513))}, "1 to 512 an item, got 513"),
        ({"attributes": np.zeros((0, 4))}, "at least one item"),
        ({"attributes": np.zeros((4, 0))}, "1 to 512 an item, got 0"),
        ({"attributes": np.zeros(4)}, "2 dimension"),
        ({"attributes": "no-such-file.parquet"}, "no-such-file"),
        ({"attributes": X, "ids": [1, 2, 1]}, "1 in rows 0 and 2"),
        ({"attributes": X, "ids": ["a", "b", "b"]}, '"b" in rows 1 and 2'),
        ({"attributes": X, "ids": ["a", "b", ""]}, "none in row 2"),
        ({"attributes": X, "ids": [0, 1, -4]}, "from 0 up, got -4 in row 2"),
        ({"attributes": X, "ids": [0.5, 1, 2]}, "whole numbers or texts"),
        ({"attributes": X, "ids": [1, "a", 2]}, "got 'a' in row 1"),
        ({"attributes": X, "ids": ["a", 1, "b"]}, "ids: expected texts, got 1 in row 1"),
        ({"attributes": X, "ids": [1, True, 2]}, "got True in row 1"),
        ({"attributes": X, "ids": [1, 2, 2**64]}, "below 2**64, got 18446744073709551616 in row 2"),
        ({"attributes": X, "ids": [1, 2]}, "3 values, one an item"),
        ({"attributes": X, "ids": np.array([1, 2, 2**64 - 1], np.uint64)}, "below"),
        ({"attributes": X, "price": [1, 2, np.inf]}, "price: expected finite numbers, or NaN"),
        ({"attributes": X, "price": [1, 2]}, "price: expected"),
        ({"attributes": X, "price": ["a", "b", "c"]}, "price: expected numbers"),
        ({"attributes": X, "category": ["a", 2, "c"]}, "got 2 in row 1"),
        ({"attributes": X, "category": [1, "b", 2]}, "got 'b' in row 1"),
        ({"attributes": X, "category": [0.5, 1, 2]}, "whole numbers"),
        ({"attributes": X, "category": ["a"]}, "category: expected 3"),
        ({"attributes": X, "category": ["a", "b", "\ud800"]}, "UTF-8"),
        ({"attributes": X, "category": {"": [1, 2, 3]}}, "column names of 1 to 256"),
        ({"attributes": X, "category": {"price": [1, 2, 3]}, "price": [1, 2, 3]}, "twice"),
        ({"attributes": X, "numbers": [1, 2, 3]}, "numbers: expected a mapping"),
        ({"attributes": X, "columns": "x"}, "columns: expected a table"),
        ({"attributes": X, "num_threads": 0}, "num_threads"),
        ({"attributes": X, "progress": 4}, "progress"),
        ({"attributes": X, "path": 4}, "path"),
        ({"attributes": pyarrow.table({"x": ["a"]})}, "one column of lists"),
        ({"attributes": pyarrow.table({"x": [0.5]}), "ids": "y"}, 'one of x, got "y"'),
        ({"attributes": pyarrow.table({"x": [0.5, None]})}, "no nulls, got one in row 1"),
        ({"attributes": pyarrow.table({"x": [[0.5], [1.0, 2.0]]})}, "2 in row 1"),
        ({"attributes": pyarrow.table({"x": [0.5], "p": ["a"]}), "price": "p"}, "column p"),
        ({"attributes": pyarrow.table({"x": [0.5]}), "ids": [1]}, "the name of a column"),
    ],
)
def test_bad_items_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((vtb.InvalidArgumentError, vtb.OutputError)) as caught:
        Catalog.build(**arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1.0, 2.0]}, f"expected shape ({WIDTH},) or (q, {WIDTH}), got (2,)"),
        ({"weights": np.zeros((1, 2, WIDTH))}, "got (1, 2, 9)"),
        ({"weights": ["a"] * WIDTH}, "weights: expected numbers"),
        ({"weights": [np.nan] * WIDTH}, "got NaN in row 0, column 0"),
        ({"weights": [3e38] * WIDTH}, ""),
        ({"k": 0}, "k: expected an integer, 1 to 65536, got 0"),
        ({"k": 65_537}, "got 65537"),
        ({"k": 2.0}, "got 2.0"),
        ({"num_threads": 2000}, "num_threads"),
        ({"category": "ash"}, "a mapping from columns of categories (brand, year)"),
        ({"category": {"colour": "red"}}, 'a column of categories (brand, year), got "colour"'),
        ({"category": {"price": "red"}}, "a column of categories"),
        ({"category": {"brand": 4}}, "brand: expected texts, got 4"),
        ({"category": {"year": "old"}}, "year: expected whole numbers"),
        ({"category": {"year": 1.5}}, "got a float"),
        ({"price": (5, 1)}, "low <= high, got (5, 1)"),
        ({"price": (np.nan, 1)}, "low <= high"),
        ({"price": 5}, "(low, high)"),
        ({"price": ("a", "b")}, "(low, high)"),
        ({"numbers": {"brand": (1, 2)}}, 'a column of numbers (price, rating), got "brand"'),
        ({"numbers": [1]}, "a mapping of ranges"),
        ({"candidates": [5, 4]}, "got 4 at place"),
        ({"candidates": ["a"]}, "whole numbers"),
        ({"candidates": [-1]}, "from 0 up"),
        ({"candidates": [[5]]}, "one list for one customer"),
        ({"rows": [ITEMS]}, f"rows from 0 to {ITEMS - 1}, got {ITEMS}"),
        ({"rows": [-1]}, "got -1"),
        ({"rows": [0.5]}, "whole numbers"),
        ({"rows": [1], "candidates": [5]}, "one of the two, got both"),
        ({"weights": WEIGHTS, "rows": [[1], [2]]}, "expected 6 lists, got 2"),
    ],
)
def test_bad_searches_are_refused(
    catalog: Catalog, arguments: dict[str, Any], message: str
) -> None:
    arguments = {"weights": WEIGHTS[0], **arguments}
    with pytest.raises(vtb.InvalidArgumentError) as caught:
        catalog.search(**arguments)
    assert message in str(caught.value)
    assert catalog.search(WEIGHTS[0], 1)[0].shape == (1,)
