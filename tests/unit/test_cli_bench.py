import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from virtualtb_fast.cli import main

QUICK = ["--rounds", "1", "--exact-only", "--json"]
ENVIRONMENTS = ["bench", "--rounds", "1", "--seconds", "0.01", "--seed", "3"]


@pytest.fixture
def saved(simulator, tmp_path):
    path = tmp_path / "simulator.safetensors"
    simulator.save(path)
    return str(path)


def test_environments_are_measured_and_drawn(saved, tmp_path, capfd):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    picture, file = tmp_path / "speed.png", tmp_path / "speed.json"
    words = [*ENVIRONMENTS, "--simulator", saved, "--batch", "2", "--threads", "2", "--json"]
    assert main([*words, "--plot", str(picture), "--out", str(file)]) == 0
    out, error = capfd.readouterr()
    assert error == ""
    answer = json.loads(out)
    assert answer == json.loads(file.read_text())
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = {(row["what"], row["batch"], row["threads"]): row for row in answer["contenders"]}
    assert set(rows) == {
        # So few customers gain nothing from threads in PyTorch.
        ("PyTorch", 2, 1),
        ("PyTorch, tuned draws", 2, 1),
        ("AsyncVectorEnv", 2, 1),
        ("SyncVectorEnv", 2, 1),
        ("env.step", 1, 1),
        *(("vector env", 2, t) for t in (1, 2)),
        *(("rollout, counts only", n, t) for n in (2, None) for t in (1, 2)),
        ("vector env, reduced", 2, 1),
        ("rollout, counts only, reduced", None, 1),
        *((f"rollout {where}", None, t) for where in ("in memory", "to Parquet") for t in (1, 2)),
    }
    shared = answer["reference"]["outcome"]
    for (what, _, _), row in rows.items():
        own_answers = what.startswith("PyTorch") or what.endswith("reduced")
        assert row["outcome"] == (None if own_answers else shared)
        assert row["ours"] == (not what.startswith("PyTorch") and "VectorEnv" not in what)
        assert row["pages_per_second"] > 0
        gflops = row["pages_per_second"] * answer["flop_a_page"] / 1e9
        assert row["gflops"] == pytest.approx(gflops)
        assert row["share_of_sgemm"] > 0
        for part in ("checked", "timed"):
            close = abs(row[part]["ctr"] - answer["reference"]["ctr"]) <= row[part]["ctr_band"]
            assert close, (what, part)
        if not what.startswith("rollout"):
            assert 0 < row["latency_us"]["p50"] <= row["latency_us"]["p99"]
    assert set(answer["sgemm_gflops"]) == {"1", "2"}
    assert answer["left_out"] == []
    (beside,) = answer["overhead"]
    assert beside["batch"] == 2
    assert beside["step_us"] == pytest.approx(2e6 / rows["vector env", 2, 1]["pages_per_second"])
    assert 0 < beside["copy_us"] < beside["rollout_us"]
    memory = {row["what"]: row for row in answer["memory"]}
    whats = {"vector env", "rollout, counts only", "SyncVectorEnv", "PyTorch, tuned draws"}
    assert set(memory) == whats
    assert 91 * 4 < memory["vector env"]["bytes_a_session"] < 100_000
    assert all(row["peak_mb"] > row["before_mb"] > 0 for row in memory.values())
    for name in ("vector env / batched PyTorch", "rollout in memory: all threads / one"):
        assert answer["ratios"][name]["ratio"] > 0


def test_without_torch_its_rivals_are_left_out_and_named(saved, tmp_path, monkeypatch, capfd):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "torch.py").write_text("raise ImportError('not here')\n")
    paths = [str(tmp_path / "none"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("COLUMNS", "80")
    words = [*ENVIRONMENTS, "--simulator", saved, "--batch", "1", "--threads", "1"]
    assert main(words) == 0
    out, error = capfd.readouterr()
    assert error == ""
    assert "Left out: PyTorch: not installed (pip install 'virtualtb-fast[train]')." in out
    assert "env.step" in out
    assert "one-at-a-time PyTorch" not in out.split("Ratios")[1].split("Memory")[0]
    assert max(map(len, out.splitlines())) <= 80


def test_options_of_the_other_bench_are_refused(tmp_path, capfd):
    for words, message in (
        (["--items", "500"], "--items: expected the bench of catalog with it, got environments"),
        (["-k", "3"], "-k: expected the bench of catalog with it"),
        (["catalog", "--batch", "3"], "--batch: expected the bench of environments with it"),
        (["--seconds", "0"], "expected a number, 0.001 to 60, got '0'"),
        (["nothing"], "invalid choice"),
        (["--simulator", str(tmp_path / "none.safetensors")], "none.safetensors"),
        (["--plot", str(tmp_path / "speed.gif")], "expected a name in .png"),
    ):
        assert main(["bench", *words]) == 2
        out, error = capfd.readouterr()
        assert out == ""
        assert message in error
        assert "Traceback" not in error


def test_what_is_there_is_refused_before_anything_is_measured(tmp_path, capfd):
    for option, name in (("--out", "speed.json"), ("--plot", "speed.png")):
        path = tmp_path / name
        path.write_text("mine")
        assert main(["bench", option, str(path)]) == 2
        out, error = capfd.readouterr()
        assert out == ""
        assert f"{path}: expected a new file, got one that exists (--overwrite?)" in error
        assert path.read_text() == "mine"
        assert main(["bench", option, str(tmp_path / "none" / name)]) == 2
        assert f"expected a folder {tmp_path / 'none'}, got none" in capfd.readouterr().err
    # Void guard: with the option it goes on, here until the next thing that is wrong.
    words = ["--overwrite", "--simulator", str(tmp_path / "none.safetensors")]
    assert main(["bench", "--out", str(tmp_path / "speed.json"), *words]) == 2
    assert "none.safetensors" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX's")
def test_ctrl_c_ends_all_that_was_started(saved):
    code = "import sys; from virtualtb_fast.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "bench", "--simulator", saved, "--batch", "2"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (children := _children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, error.splitlines()) == ("", ["virtualtb-fast bench: interrupted"])
    assert children or not os.path.isdir("/proc")
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def _children(process):
    """Numbers of a process's children, where the system lists them."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return []


def test_a_small_bench_measures_and_draws(tmp_path, capfd):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "speed.png"
    words = ["bench", "catalog", "--items", "2000", "--items", "5000", "-k", "7", *QUICK]
    assert main([*words, "--plot", str(picture)]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert [result["items"] for result in answer["runs"]] == [2000, 5000]
    for result in answer["runs"]:
        assert result["k"] == 7
        assert {"virtualtb-fast", "numpy"} <= set(result["contenders"])
        for row in result["contenders"].values():
            assert row["recall"] == 1
            assert row["batch_per_second"] > 0
            assert row["single_per_second"] > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_array_is_taken_and_a_bad_one_refused(tmp_path, capfd):
    items = np.random.default_rng(0).standard_normal((500, 5))
    np.save(tmp_path / "items.npy", items)
    assert main(["bench", "catalog", "--array", str(tmp_path / "items.npy"), *QUICK]) == 0
    assert json.loads(capfd.readouterr().out)["runs"][0]["dimensions"] == 5
    np.save(tmp_path / "flat.npy", items[0])
    assert main(["bench", "catalog", "--array", str(tmp_path / "flat.npy"), *QUICK]) == 2
    assert "expected an array (N, D) of at least 100 items" in capfd.readouterr().err
    assert main(["bench", "catalog", "--array", str(tmp_path / "none.npy"), *QUICK]) == 2
    assert "none.npy" in capfd.readouterr().err


def test_more_rounds_than_queries_are_measured(capfd):
    words = ["bench", "catalog", "--items", "200", "--dimensions", "3", "--rounds", "200"]
    assert main([*words, "--exact-only", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["runs"][0]["rounds"] == 200


def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path, capfd):
    np.savez(tmp_path / "z.npz", a=np.eye(200))
    np.save(tmp_path / "texts.npy", np.full((200, 2), "a"))
    np.save(tmp_path / "complex.npy", np.full((200, 2), 1j))
    for words, message in (
        (["--items", "100", "-k", "1000"], "expected at most 100"),
        (["--array", str(tmp_path / "z.npz")], "got an archive"),
        (["--array", str(tmp_path / "texts.npy")], "--array: expected numbers"),
        (["--array", str(tmp_path / "complex.npy")], "--array: expected numbers"),
    ):
        assert main(["bench", "catalog", *words, *QUICK]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert "Traceback" not in error
