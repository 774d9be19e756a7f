"""What people are told when a file is another than they thought, and what commands call options."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli
from virtualtb_fast._sniff import not_parquet
from virtualtb_fast.catalog import Catalog
from virtualtb_fast.cli import common
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError
from virtualtb_fast.policies import Policy
from virtualtb_fast.schema import V0_SCHEMA

Own = Callable[..., dict[str, Any]]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    out, error = capsys.readouterr()
    return code, out, error


# --- files that are something else ----------------------------------------------------------------


OTHERS = {
    "comma.csv": (b"a,b\n1,2\n", "text, CSV; in Python, from pyarrow import csv"),
    "semicolon.csv": (b"a;b\n1;2\n", "text, CSV with semicolons; in Python"),
    "tabs.tsv": ("ä\tb\n1\t2\n".encode() * 900, "text, CSV with tabs; in Python"),
    "lines.json": (b'{"a": 1, "b": 2}\n', "text, JSON; in Python, from pyarrow import json"),
    "list.json": (b'[{"a": 1},\n{"a": 2}]\n', "text, JSON"),
    "notes.txt": (b"hello\n", "text"),
    "shop.xlsx": (b"PK\3\4\0\0", "a ZIP archive, perhaps of Excel"),
    "log.feather": (b"ARROW1\0\0\xff\xff", "a Feather (Arrow) file; in Python"),
    "log.gz": (b"\x1f\x8b\x08\0", "a gzip archive"),
    "empty.parquet": (b"", "an empty file"),
    "cut.parquet": (b"PAR1\x15\x04\x15", "a Parquet file that was cut short"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_are_no_parquet_are_named(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from virtualtb_fast.records import draft_schema

    content, said = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (draft_schema, Catalog.build):
        with pytest.raises(FileFormatError) as caught:
            read(str(path))
        assert f"{path}: expected a Parquet file, got {said}" in str(caught.value)


@pytest.mark.parametrize("kind", ["comma", "tab", "semicolon", "json", "feather", "orc"])
@pytest.mark.parametrize("ending", ["", ".data", ".parquet"])
def test_what_is_said_to_make_parquet_does(kind: str, ending: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import feather, orc, parquet

    path = tmp_path / f"visits '{{0}}'{ending}"
    table = pyarrow.table({"a": [1, 2], "b": ["x", "y"]})
    rows = "a b\n1 x\n2 y\n"
    match kind:
        case "feather":
            feather.write_feather(table, path)
        case "orc":
            orc.write_table(table, path)
        case "json":
            path.write_text('{"a": 1, "b": "x"}\n{"a": 2, "b": "y"}\n')
        case _:
            mark = {"comma": ",", "tab": "\t", "semicolon": ";"}[kind]
            path.write_text(rows.replace(" ", mark))
    said = not_parquet(str(path))
    assert said is not None
    exec(said.partition("; in Python, ")[2].removesuffix(" makes Parquet of it"), {})
    made = [one for one in tmp_path.iterdir() if one != path]
    assert [one.suffix for one in made] == [".parquet"]
    assert parquet.read_table(made[0]).to_pydict() == table.to_pydict()


def test_what_is_whole_or_unknown_is_left_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"PAR1 and so on PAR1", os.urandom(64) + b"\0\xff", b"\0\1\2"):
        path.write_bytes(content)
        assert not_parquet(str(path)) is None
    assert not_parquet(str(tmp_path)) is None


def test_missing_files_and_directories_are_told_with_what_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    folder, missing, held = tmp_path / "d.safetensors", tmp_path / "m.safetensors", tmp_path / "f"
    folder.mkdir()
    held.write_text("x")
    nothing = "got no file of this name"
    cases = [
        (["logs", "check", missing], "expected a log, a Parquet file", nothing),
        (["logs", "check", folder], "expected a log, a Parquet file", "got a directory"),
        (["logs", "check", held, "--schema", missing], "Parquet file", "got text"),
        (["rollout", "--simulator", folder], "expected a simulator's file", "got a directory"),
        (["rollout", "--policy", missing], "expected a policy's file", nothing),
        (["rollout", "--policy", folder], "expected a policy's file", "got a directory"),
        (["rollout", "--policy", f"constant:{held}x"], "expected an action", nothing),
        (["catalog", "info", missing], "expected a catalogue", nothing),
        (["catalog", "build", missing, tmp_path / "o"], "expected a Parquet file", nothing),
        (["rollout", "--out", missing / "x"], f"expected a folder {missing}", "got none"),
        (["rollout", "--out", held / "x"], f"expected a folder {held}", "got a file"),
    ]
    for words, expected, got in cases:
        code, _, error = run(capsys, *words)
        assert code == 2, words
        assert expected in error, words
        assert got in error, words
        assert "Errno" not in error, words
    # No folder was made on the way.
    assert not missing.exists()


def test_schema_files_that_are_not_there(
    own: Own, parquet_file: Callable[..., str], tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    from virtualtb_fast.records import check_log

    for path, got in ((tmp_path / "x.toml", "no file of this name"), (tmp_path, "a directory")):
        with pytest.raises(OutputError, match=r"expected a schema file \(TOML\), got " + got):
            check_log(parquet_file(own()), path)


def test_errors_of_the_system_keep_what_programs_ask_for(tmp_path: Path) -> None:
    error = OutputError(errno.ENOENT, "No such file", "x").naming("a log")
    assert (error.errno, error.filename, error.strerror) == (errno.ENOENT, "x", "No such file")
    assert str(error) == str(pickle.loads(pickle.dumps(error)))
    assert str(error) == "x: expected a log, got no file of this name"
    assert str(OutputError(errno.EEXIST, "File exists", "x")).endswith("or a new name, got a file")
    # It says how it was when it was raised, wherever it is read.
    error = OutputError(errno.ENOENT, "No such file", str(tmp_path / "none" / "x"))
    (tmp_path / "none").mkdir()
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one).endswith(f"expected a folder {tmp_path / 'none'}, got none")
    assert str(OutputError(errno.ENOSPC, "No space left", "x")) == "x: No space left"
    assert "Errno 28" in str(OutputError(errno.ENOSPC, "No space left"))


# --- the command's own words ----------------------------------------------------------------------


def test_arguments_of_python_become_options() -> None:
    said = "expected resume=True (to go on with it) or overwrite=True"
    assert common.in_words(said) == "expected --resume (to go on with it) or --overwrite"
    assert common.in_words("got one (overwrite=True?)") == "got one (--overwrite?)"
    said = "kept, and resume=True (--resume) goes on"
    assert common.in_words(said) == "kept, and --resume goes on"


def test_a_report_that_is_there_names_the_option(
    simulator: vtb.Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pyarrow", "matplotlib", "sklearn"):
        pytest.importorskip(name)
    simulator.save(tmp_path / "s.safetensors")
    vtb.rollout(simulator, sessions=50, out=tmp_path / "log.parquet")
    (tmp_path / "fidelity.json").write_text("{}")
    words = ["report", "fidelity", "--real", tmp_path / "log.parquet"]
    words += ["--simulator", tmp_path / "s.safetensors", "--out"]
    code, _, error = run(capsys, *words, tmp_path)
    assert code == 2
    assert "(--overwrite?)" in error
    code, _, error = run(capsys, *words, tmp_path / "log.parquet")
    assert code == 2
    assert "expected a folder or a new name, got a file" in error


@pytest.mark.parametrize("ending", ["csv", "json", "feather", "XLSX"])
def test_names_of_other_formats_are_refused(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"x.{ending}"
    code, _, error = run(capsys, "rollout", "--sessions", "2", "--out", path)
    assert code == 2
    assert f"(did you mean '{tmp_path / 'x.parquet'}'?)" in error
    assert not path.exists()
    # Void guard: names that promise nothing else are taken.
    for good in ("x", "x.parquet", "x.pq", "v1.2"):
        assert run(capsys, "rollout", "--sessions", "2", "--out", tmp_path / good)[0] == 0


def test_sizes_and_counts_are_in_units_that_fit() -> None:
    assert [common.size(one) for one in (1, 999, 18_377, 4.1e6)] == [
        *("1 byte", "999 bytes", "18.4 kB", "4.1 MB")
    ]
    assert common.plural(1, "session") == "1 session"
    assert common.plural(6_000, "session") == "6,000 sessions"
    assert common.plural(2, "category", "categories") == "2 categories"


# --- pictures that fail ---------------------------------------------------------------------------


def test_a_picture_that_fails_takes_no_summary_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    def full(figure: Figure, file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    words = ["rollout", "--sessions", "20", "--plot", tmp_path / "p.png"]
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", full)
        code, out, error = run(capsys, *words)
    assert code == 2
    assert "No space left on device" in error
    assert "CTR" in out
    assert "picture in" not in out
    assert list(tmp_path.iterdir()) == []
    # Void guard: on a disk with room the picture is there, and said to be.
    code, out, _ = run(capsys, *words)
    assert code == 0
    lines = [line for line in out.splitlines() if "pages " in line or "picture in" in line]
    assert lines[-1].startswith("    picture in  ")
    assert (tmp_path / "p.png").exists()


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0, 1])
def test_layers_of_other_numbers_are_told_with_shape_and_type(part: int) -> None:
    layer = [
        np.zeros((V0_SCHEMA.action, V0_SCHEMA.observation_width), np.float32),
        np.zeros(V0_SCHEMA.action, np.float32),
    ]
    assert Policy.from_tensors([(layer[0], layer[1])], schema=V0_SCHEMA)
    layer[part] = layer[part].astype(np.float64)
    name = ("weight", "bias")[part]
    with pytest.raises(InvalidArgumentError) as caught:
        Policy.from_tensors([(layer[0], layer[1])], schema=V0_SCHEMA)
    got = f"float64 of shape {layer[part].shape}"
    assert str(caught.value) == f"layer 0: expected a {name} of float32, got {got}"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from virtualtb_fast._training import device

    counts = {0: "expected 'cpu', since PyTorch finds no GPU here", 2: "'cuda:0' to 'cuda:1'"}
    for count, said in counts.items():
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        with pytest.raises(InvalidArgumentError, match=f"device: .*{said}.*got 'cuda:2'"):
            device("cuda:2")
