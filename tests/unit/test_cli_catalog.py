"""``virtualtb-fast catalog``: what it prints, what it refuses."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from virtualtb_fast import cli
from virtualtb_fast.catalog import Catalog
from virtualtb_fast.errors import InvalidArgumentError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

ITEMS = 500


@pytest.fixture
def table(tmp_path: Path) -> str:
    draw = np.random.default_rng(0)
    x = draw.standard_normal((ITEMS, 4), dtype=np.float32)
    columns = {
        "x": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(x.ravel()), 4),
        "item": [f"item-{row}" for row in range(ITEMS)],
        "cost": draw.lognormal(3, 1, ITEMS),
        "brand": draw.choice(["ash", "birch", None], ITEMS),
        "year": draw.integers(2000, 2005, ITEMS),
    }
    path = str(tmp_path / "items.parquet")
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.fixture
def built(table: str, tmp_path: Path) -> str:
    path = str(tmp_path / "items.vtbcat")
    words = ["--ids", "item", "--price", "cost", "--category", "brand", "--category", "year"]
    assert cli.main(["catalog", "build", table, path, *words]) == 0
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["catalog", *words])
    out, error = capsys.readouterr()
    return code, out, error


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ([], ["build"], ["info"], ["search"], ["verify"]):
        code, out, error = run(capsys, *action, "--help")
        assert (code, error) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert out.startswith(f"usage: virtualtb-fast catalog {' '.join(action) or 'ACTION'} ")


def test_a_build_says_what_it_made(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    words = ["build", table, out, "--attributes", "x", "--ids", "item", "--category", "brand"]
    code, text, error = run(capsys, *words, "--threads", "2")
    assert (code, error) == (0, "")
    for part in ("500 x 4 attributes", "brand: 2 categories (texts), ", "items a second", out):
        assert part in text
    code, text, error = run(capsys, *words)
    assert code == 2
    assert "--overwrite" in error
    report = json.loads(run(capsys, *words, "--overwrite", "--json")[1])
    assert (report["items"], report["dimensions"], report["ids"]) == (ITEMS, 4, "texts")
    assert report["digest"] == Catalog.open(out).digest


def test_arrays_are_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array, out = str(tmp_path / "x.npy"), str(tmp_path / "out")
    np.save(array, np.eye(5, dtype=np.float32))
    assert run(capsys, "build", array, out)[0] == 0
    np.testing.assert_array_equal(Catalog.open(out).attributes(), np.eye(5))
    code, _, error = run(capsys, "build", array, out, "--overwrite", "--ids", "x")
    assert code == 2
    assert "expected a Parquet file" in error


def test_info_and_verify(built: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, error = run(capsys, "info", built)
    assert (code, error) == (0, "")
    for part in ("500 x 4", "price: numbers", "brand: 2 categories", "year: 5 categories"):
        assert part in text
    assert json.loads(run(capsys, "info", built, "--json")[1])["items"] == ITEMS
    code, text, error = run(capsys, "verify", built)
    assert (code, error) == (0, "")
    assert "intact" in text
    assert json.loads(run(capsys, "verify", built, "--json")[1])["intact"] is True
    with open(built, "r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 1]))
    code, _, error = run(capsys, "verify", built)
    assert code == 2
    assert "the file was altered" in error


def test_searches_are_those_of_python(
    built: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = Catalog.open(built)
    weights = np.array([[1.0, -0.5, 2.0, 0.25], [0.0, 1.0, 0.0, -1.0]])
    np.save(tmp_path / "w.npy", weights)
    filters = ["--category", "brand=ash", "--category", "year=2001", "--category", "year=2003"]
    words = ["search", built, "--weights", str(tmp_path / "w.npy"), "-k", "3", *filters]
    report = json.loads(run(capsys, *words, "--price", "5:30", "--json")[1])
    ids, scores = catalog.search(
        weights, 3, category={"brand": "ash", "year": [2001, 2003]}, price=(5, 30)
    )
    assert [query["ids"] for query in report["results"]] == ids.tolist()
    assert [query["scores"] for query in report["results"]] == scores.tolist()
    code, text, error = run(capsys, "search", built, "--weights", "1,-0.5,2,0.25", "-k", "2")
    assert (code, error) == (0, "")
    assert all(one in text for one in catalog.search(weights[0], 2)[0])
    assert "1 query over 500 items" in text
    words = ["search", built, "--random", "12", "--seed", "4", "--threads", "1"]
    code, text, _ = run(capsys, *words, "--number", "price=:20", "--candidates", "item-3,item-4")
    assert code == 0
    assert "2 more queries" in text
    code, text, _ = run(capsys, "search", built, "--random", "1", "--price", "1e9:")
    assert code == 0
    assert "no item matches" in text


def test_categories_that_no_item_has_are_slips(
    built: str, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ["search", built, "--random", "1", "--category"]
    for asked, said in (
        ("brand=oak", "got 'oak' (there are 'ash', 'birch')"),
        ("brand=ASH", "got 'ASH' (did you mean 'ash'?)"),
        ("brand=brich", "got 'brich' (did you mean 'birch'?)"),
        ("year=1999", "a category of 'year' that some item has, got 1999"),
    ):
        code, text, error = run(capsys, *search, asked)
        assert (code, text) == (2, "")
        assert said in error
        # Also beside one that is there.
        assert run(capsys, *search, asked, "--category", "brand=ash")[0] == 2
    assert run(capsys, *search, "year=2001")[0] == 0
    # Programs ask for what they do not know: there it matches nothing.
    ids, _ = Catalog.open(built).search(np.ones(4), 2, category={"brand": "oak"})
    assert list(ids) == ["", ""]


def test_columns_that_are_not_there_name_file_and_option(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("--attributes", "--ids", "--price", "--category", "--number"):
        code, _, error = run(capsys, "build", table, str(tmp_path / "o"), option, "itemm")
        assert code == 2
        known = "x, item, cost, brand, year"
        expected = f"{option}: expected a column of {table}, one of {known}"
        assert f"{expected}, got \"itemm\" (did you mean 'item'?)" in error
    with pytest.raises(InvalidArgumentError, match=r'^numbers: expected a column of .*"z"$'):
        Catalog.build(table, columns="x", price="cost", numbers=["z"])


def test_weights_may_start_with_a_minus(built: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--weights", "-1,2,3,-.5"], ["--weights=-1,2,3,-.5"]):
        code, out, error = run(capsys, "search", built, *words, "--price", "-3:30", "--json")
        assert (code, error) == (0, "")
        expected = Catalog.open(built).search([-1, 2, 3, -0.5], price=(-3, 30))[0]
        assert json.loads(out)["results"][0]["ids"] == expected.tolist()


def test_another_column_than_the_only_one_is_named(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "one.vtbcat")
    assert run(capsys, "build", table, out, "--attributes", "x", "--category", "brand")[0] == 0
    search = ["search", out, "--random", "1", "--category"]
    assert run(capsys, *search, "ash")[0] == 0
    code, _, error = run(capsys, *search, "nope=ash")
    assert code == 2
    assert "(brand), got 'nope=ash'" in error


def test_a_table_is_not_built_over(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(table).read_bytes()
    code, _, error = run(capsys, "build", table, table, "--overwrite")
    assert code == 2
    assert "another file than the source" in error
    assert Path(table).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: ACTION"),
        (["fly"], "invalid choice"),
        (["info", "nowhere"], "nowhere"),
        (["build", "nowhere.parquet", "out"], "nowhere.parquet"),
        (["build", "nowhere.npy", "out"], "nowhere.npy"),
        (["search", "FILE"], "--weights --random is required"),
        (["search", "FILE", "--weights", "a,b"], "numbers with commas"),
        (["search", "FILE", "--weights", "1,2"], "(4,)"),
        (["search", "FILE", "--random", "1", "-k", "0"], "1 to 65,536"),
        (["search", "FILE", "--random", "1", "--price", "5"], "--price: expected LOW:HIGH"),
        (["search", "FILE", "--random", "1", "--price", "9:5"], "low <= high"),
        (["search", "FILE", "--random", "1", "--number", "5:6"], "--number: expected NAME="),
        (
            ["search", "FILE", "--random", "1", "--number", "price=1:2", "--number", "price=3:4"],
            "'price' twice",
        ),
        (["search", "FILE", "--random", "1", "--category", "ash"], "(brand, year)"),
        (["search", "FILE", "--random", "1", "--category", "year=x"], "a whole number, got 'x'"),
        (["search", "FILE", "--random", "1", "--candidates", "x"], "which is unknown"),
    ],
)
def test_mistakes_are_one_line(
    built: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, error = run(capsys, *(built if word == "FILE" else word for word in words))
    assert (code, out) == (2, "")
    assert message in error
    assert "Traceback" not in error


def test_a_long_build_shows_how_far_it_is(tmp_path: Path) -> None:
    array = str(tmp_path / "x.npy")
    draw = np.random.default_rng(0)
    np.save(array, draw.standard_normal((600_000, 27), dtype=np.float32))
    main, other = pty.openpty()
    code = "import sys; from virtualtb_fast.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "catalog", "build", array, str(tmp_path / "out")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    # One second of patience comes first; a slow machine is on the safe side.
    seen, deadline = b"", time.monotonic() + 120
    with subprocess.Popen(
        [*words, "--threads", "1"], stderr=other, stdout=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(other)
        while time.monotonic() < deadline:
            try:
                part = os.read(main, 1 << 16)
            except OSError:
                break
            if not part:
                break
            seen += part
        process.wait(60)
    os.close(main)
    assert process.returncode == 0
    if seen:
        assert b"%" in seen
        assert b"Traceback" not in seen
