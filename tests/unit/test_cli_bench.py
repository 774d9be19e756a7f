import json

import numpy as np
import pytest

from virtualtb_fast.cli import main

QUICK = ["--rounds", "1", "--exact-only", "--json"]


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
