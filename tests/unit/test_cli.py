"""The command line: what it prints, what it refuses, how it ends."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.processes import Started

import virtualtb_fast as vtb
from virtualtb_fast import cli
from virtualtb_fast.logs import read_log
from virtualtb_fast.rollout import rollout
from virtualtb_fast.store import GroundTruthStore


@pytest.fixture
def saved(simulator: vtb.Simulator, tmp_path: Path) -> str:
    path = tmp_path / "simulator.safetensors"
    simulator.save(path)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, error = capsys.readouterr()
    return code, out, error


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    pages = [run(capsys, "--help"), *(run(capsys, name, "--help") for name in cli.COMMANDS)]
    for code, out, error in pages:
        assert (code, error) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
    assert all(name in pages[0][1] for name in cli.COMMANDS)
    code, out, error = run(capsys)
    assert (code, out) == (2, "")
    assert "commands:" in error


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[1] == f"virtualtb-fast {vtb.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from virtualtb_fast import cli\n"
        "cli.main(['--help'])\n"
        "heavy = {'rich', 'torch', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_rollout_does_what_it_says(
    simulator: vtb.Simulator, saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "log.parquet")
    words = ["--simulator", saved, "--policy", "gaussian:0.1", "--sessions", "2_000", "--seed", "3"]
    code, text, error = run(capsys, "rollout", *words, "--out", out, "--threads", "2")
    assert (code, error) == (0, "")
    want = rollout(simulator, "gaussian:0.1", sessions=2_000, seed=3)
    assert read_log(out).digest() == want.digest()
    for part in (f"{want.pages:,}", "2,000", f"{want.ctr:.5f}", "clicks / (10 x pages)", out):
        assert part in text
    code, text, _ = run(capsys, "rollout", *words, "--json")
    report = json.loads(text)
    assert report["clicks"] == want.clicks
    assert report["ctr_interval"] == list(want.ctr_interval)
    assert report["simulator_digest"] == simulator.digest


def test_rollout_takes_pages(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rollout", "--simulator", saved, "--policy", "zero", "--json"]
    report = json.loads(run(capsys, *words, "--pages", "1e4")[1])
    assert 10_000 <= report["pages"] < 10_100
    assert json.loads(run(capsys, *words)[1])["sessions"] == 10_000


def test_rollout_plays_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed, out = 3 << 32, str(tmp_path / "store.parquet")
    words = ["rollout", "--store", str(seed), "--policy", "logger", "--sessions", "500"]
    code, text, error = run(capsys, *words, "--out", out)
    assert (code, error) == (0, "")
    want = rollout(GroundTruthStore(seed), "logger", sessions=500)
    assert read_log(out).digest() == want.digest()
    for part in (f"{want.r2p:.5f}", f"{want.tv:,} units", f"{want.tt:,.2f} of money"):
        assert part in text
    report = json.loads(run(capsys, *words, "--json", "--items", "4000")[1])
    assert report["store"] == "ground-truth-store"
    assert report["store_digest"] != GroundTruthStore(seed).digest
    code, _, error = run(capsys, "rollout", "--items", "4000")
    assert code == 2
    assert "expected --store with it" in error


def test_rollout_draws_a_picture(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    words = ["rollout", "--simulator", saved, "--sessions", "500", "--plot"]
    for ending, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"picture{ending}"
        assert run(capsys, *words, str(path))[0] == 0
        assert path.read_bytes().startswith(magic)
    for sessions in ("1", "2"):
        words[4] = sessions
        assert run(capsys, *words, str(path), "--overwrite")[0] == 0
    code, _, error = run(capsys, *words, str(tmp_path / "picture.txt"))
    assert code == 2
    assert "expected a name in .png, .svg, .pdf" in error
    assert not (tmp_path / "picture.txt").exists()


def test_a_picture_without_matplotlib_is_refused_first(
    saved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "log.parquet"
    words = ["--simulator", saved, "--out", str(out), "--plot", str(tmp_path / "a.png")]
    code, _, error = run(capsys, "rollout", *words)
    assert code == 2
    assert 'pip install "virtualtb-fast[report]"' in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "expected a command"),
        (["rollout", "--sessions", "0"], "expected a whole number, at least 1, got '0'"),
        (["rollout", "--sessions", "ten"], "got 'ten'"),
        (["rollout", "--sessions", "nan"], "got 'nan'"),
        (["rollout", "--sessions", "5", "--pages", "5"], "not allowed with"),
        (["rollout", "--threads", "0"], "expected a whole number, 1 to 1,024"),
        (["rollout", "--seed", "-1"], "at least 0"),
        (["rollout", "--policy", "best"], "expected random, zero"),
        (["rollout", "--policy", "gaussian:x"], "got x"),
        (["rollout", "--policy", "constant:no-such-file"], "no-such-file"),
        (["rollout", "--out", "no/such/folder.parquet"], "no/such/folder.parquet"),
        (["rollout", "--plot", "no/such/folder.png"], "no/such"),
        (["rollout", "--out", "a.png", "--plot", "a.png"], "expected two files"),
        (["rollout", "--simulator", "nobody"], "nobody"),
        (["rollout", "--quickly"], "unrecognized arguments"),
        (["rollout", "--sess", "5"], "unrecognized arguments"),
        (["info", "--simulator", "nobody"], "nobody"),
        (["import-published", "nowhere"], "--out"),
        (["import-published", "nowhere", "--out", "x.safetensors"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_code_2(
    words: list[str],
    message: str,
    saved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "rollout" and "--simulator" not in words:
        words = [*words, "--simulator", saved]
    before = sorted(os.listdir(tmp_path))
    code, out, error = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in error
    assert "Traceback" not in error
    assert sorted(os.listdir(tmp_path)) == before


def test_files_that_exist_stay(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.png"
    mine.write_text("mine")
    for option in ("--out", "--plot"):
        code, _, error = run(capsys, "rollout", "--simulator", saved, option, str(mine))
        assert code == 2
        assert "got one that exists (--overwrite?)" in error
    code, _, error = run(capsys, "import-published", str(tmp_path), "--out", str(mine))
    assert code == 2
    assert mine.read_text() == "mine"


def test_info_tells_what_there_is(
    simulator: vtb.Simulator, saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, _ = run(capsys, "info", "--simulator", saved)
    assert code == 0
    for part in (vtb.__version__, simulator.digest, np.__version__, "scalar", "in use"):
        assert part in text
    report = json.loads(run(capsys, "info", "--simulator", saved, "--json")[1])
    assert report["simulator"]["digest"] == simulator.digest
    assert report["instruction_set"] in report["instruction_sets_available"]
    assert run(capsys, "info")[0] == 0


def test_info_calls_a_refit_a_refit(
    simulator: vtb.Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provenance = {"published_sha256": {}, "method": "maximum likelihood"}
    refit = vtb.Simulator.from_tensors(simulator.tensors(), name="mine", provenance=provenance)
    refit.save(tmp_path / "refit.safetensors")
    text = run(capsys, "info", "--simulator", str(tmp_path / "refit.safetensors"))[1]
    assert "a refit, not the published networks\n" in text
    assert "maximum likelihood\n" in text


def test_import_published_writes_a_simulator(
    published_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "v0.safetensors")
    code, text, _ = run(capsys, "import-published", str(published_folder), "--out", out)
    assert code == 0
    assert "as published" in text
    simulator = vtb.load_simulator(out)
    assert simulator.digest in text
    words = ["import-published", str(published_folder), "--out", out, "--overwrite", "--json"]
    assert json.loads(run(capsys, *words)[1])["digest"] == simulator.digest


def start(*words: str, **arguments: Any) -> Started:
    code = "import sys; from virtualtb_fast.cli import main; sys.exit(main())"
    return Started([sys.executable, "-c", code, *words], **arguments)


def test_ctrl_c_ends_with_130(saved: str, tmp_path: Path) -> None:
    out = tmp_path / "log.parquet"
    partial = Path(f"{out}.partial")
    words = ["rollout", "--simulator", saved, "--sessions", "100_000_000", "--out", str(out)]
    with start(*words, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > 1 << 20):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert error.splitlines() == [
        f"the pages so far are in {partial} (--resume goes on)",
        "virtualtb-fast rollout: interrupted",
    ]
    assert not read_log(partial).complete


def test_a_stopped_rollout_goes_on(
    saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, whole = str(tmp_path / "log.parquet"), str(tmp_path / "whole.parquet")
    words = ["rollout", "--simulator", saved, "--sessions", "120_000", "--seed", "3"]
    with start(*words, "--out", out) as process:
        deadline = time.monotonic() + 60
        while not os.path.exists(f"{out}.partial") or os.path.getsize(f"{out}.partial") < 1 << 22:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    code, _, error = run(capsys, *words, "--out", out)
    assert code != 0
    # Options are called what they are called here, and not as in Python.
    assert "--resume (to go on with it) or --overwrite" in error
    assert "=True" not in error
    code, _, error = run(capsys, *words[:-1], "4", "--out", out, "--resume")
    assert code != 0
    assert "seed of a resumed rollout: expected 3 as in" in error
    code, text, _ = run(capsys, *words, "--out", out, "--resume")
    assert code == 0
    assert "of the pages were there" in text
    assert run(capsys, *words, "--out", whole)[0] == 0
    assert Path(out).read_bytes() == Path(whole).read_bytes()
    pages = read_log(whole).metadata["rows"]
    again = json.loads(run(capsys, *words, "--out", out, "--resume", "--json")[1])
    assert (str(again["resumed"]), str(again["pages"])) == (pages, pages)
    code, _, error = run(capsys, *words, "--resume")
    assert code != 0
    assert "--resume: expected --out" in error


def test_a_terminal_gets_a_progress_bar(saved: str) -> None:
    main, other = pty.openpty()
    words = ["rollout", "--simulator", saved, "--sessions", "100_000_000"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    seen = b""
    with start(*words, stderr=other, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(other)
        deadline = time.monotonic() + 60
        while b"left" not in seen and time.monotonic() < deadline:
            seen += os.read(main, 1 << 16)
        process.send_signal(signal.SIGINT)
        # A terminal that nobody reads fills up, and the process would wait for it.
        with contextlib.suppress(OSError):  # Its other end is closed.
            while os.read(main, 1 << 16):
                pass
        process.wait(30)
    os.close(main)
    assert process.returncode == 130
    assert b"pages" in seen
    assert b"/s" in seen


def test_a_reader_that_stops_is_no_error(saved: str) -> None:
    with start("info", "--simulator", saved, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(60)
    assert process.returncode == 0
