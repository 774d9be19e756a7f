"""Fits whose responses start from an earlier simulator's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError

torch = pytest.importorskip("torch")
pyarrow = pytest.importorskip("pyarrow")

from tests.unit.test_fit_resume import killed, resumed  # noqa: E402

from virtualtb_fast.imitation.cloning import CloningConfig  # noqa: E402
from virtualtb_fast.imitation.mail import MailConfig  # noqa: E402
from virtualtb_fast.imitation.response import ResponseConfig  # noqa: E402

FEW: dict[str, Any] = {"customers": "rows", "responses": "bc", "effort": 0.02}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Purchases of two days."""
    folder = tmp_path_factory.mktemp("logs")
    paths = folder / "first.parquet", folder / "second.parquet"
    for day, path in enumerate(paths):
        store = vtb.GroundTruthStore(seed=0, day=day)
        vtb.rollout(store, "logger", sessions=600, seed=day, out=path)
    return str(paths[0]), str(paths[1])


@pytest.fixture(scope="module")
def earlier(logs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulator of the first day."""
    path = tmp_path_factory.mktemp("fits") / "earlier.safetensors"
    vtb.fit(logs[0], out=path, **{**FEW, "effort": 1.0})
    return path


def answers(simulator: vtb.Simulator, log: str) -> np.ndarray:
    rows = vtb.logs.read_log(log)
    given = rows["customer"][:400], rows["page"][:400], rows["action"][:400]
    return simulator.response(*given)["outcome"]


def test_a_fit_starts_from_a_simulator(logs: tuple[str, str], earlier: Path) -> None:
    start = vtb.load_simulator(earlier)
    warm, cold = vtb.fit(logs[1], warm_start=earlier, **FEW), vtb.fit(logs[1], **FEW)
    # The file or what is in it, it is the same.
    assert vtb.fit(logs[1], warm_start=start, **FEW).to_bytes() == warm.to_bytes()
    about = warm.provenance["fit"]
    assert about["warm_start"] == start.digest
    assert str(earlier) not in json.dumps(warm.provenance)
    assert "warm_start" not in cold.provenance["fit"]
    there = answers(start, logs[1])
    near, far = (np.abs(answers(one, logs[1]) - there).sum(1).mean() for one in (warm, cold))
    assert near < far / 2
    assert near < 0.1
    stages = [one.provenance["fit"]["report"]["stages"]["responses"] for one in (warm, cold)]
    assert stages[0]["start"] != stages[1]["start"]
    assert stages[0]["held_out"] <= stages[0]["start"]


@pytest.mark.parametrize(("stage", "after"), [("responses", 0), ("mail", 2)])
def test_a_kill_changes_nothing(
    logs: tuple[str, str], earlier: Path, tmp_path: Path, stage: str, after: int
) -> None:
    config = MailConfig(sessions=200, iterations=300, step_margin=-1.0, look_every=1)
    settings = {**FEW, "responses": "bc+mail", "responses_config": config}
    settings["warm_start"] = str(earlier)
    out, whole = tmp_path / "killed" / "fit.safetensors", tmp_path / "whole" / "fit.safetensors"
    for path in (out, whole):
        path.parent.mkdir()
    done = killed(logs[1], out, stage, after, settings=settings)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    took: dict[str, Any] = {}
    vtb.fit(logs[1], out=out, costs=took.update, **settings)
    assert stage in resumed(took)
    vtb.fit(logs[1], out=whole, **settings)
    assert out.read_bytes() == whole.read_bytes()
    assert os.listdir(out.parent) == ["fit.safetensors"]


def test_another_start_is_another_stage(
    logs: tuple[str, str], earlier: Path, tmp_path: Path
) -> None:
    """What does not depend on it is taken up; answers, and MAIL after them, start anew."""
    other = tmp_path / "other.safetensors"
    vtb.fit(logs[0], out=other, **{**FEW, "effort": 0.5})
    out, took = tmp_path / "fit.safetensors", {}
    settings: dict[str, Any] = {**FEW, "responses": "bc+mail", "out": out, "overwrite": True}
    settings |= {"keep_work": True, "costs": took.update}
    found = []
    for start in (None, earlier, other):
        found.append(vtb.fit(logs[1], warm_start=start, **settings))
        assert resumed(took) == ([] if start is None else ["engine"])
    again = vtb.fit(logs[1], warm_start=other, **settings)
    assert sorted(resumed(took)) == ["engine", "mail", "responses"]
    assert again == found[2]
    assert len({one.digest for one in found}) == 3


def test_starts_that_do_not_fit_are_refused_before_anything_is_learned(
    logs: tuple[str, str], earlier: Path, tmp_path: Path, shop: vtb.Simulator
) -> None:
    linear = vtb.fit(logs[0], **{**FEW, "responses": "linear"})
    narrow = CloningConfig(response=ResponseConfig(hidden=(8,)))
    text = tmp_path / "text.safetensors"
    text.write_text("no simulator")
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"responses": "mail"}, InvalidArgumentError, "expected responses out of .*got 'mail'"),
        ({"responses": "mail-paper"}, InvalidArgumentError, "got 'mail-paper'"),
        ({"ensemble": 2}, InvalidArgumentError, "ensemble: expected 1, got 2 with a warm_start"),
        ({"responses": "linear"}, InvalidArgumentError, "of kind linear, got mlp"),
        ({"warm_start": linear}, InvalidArgumentError, "of kind mlp, got linear"),
        ({"responses_config": narrow}, InvalidArgumentError, r"\(8,\), got \(128, 256\)"),
        ({"warm_start": shop}, InvalidArgumentError, "customers of the fields"),
        ({"warm_start": "nobody"}, InvalidArgumentError, "expected a file or a name"),
        ({"warm_start": 3}, InvalidArgumentError, "expected a non-empty text or os.PathLike"),
        ({"warm_start": text}, FileFormatError, "text.safetensors"),
    ]
    learned: list[str] = []
    for change, error, message in cases:
        settings = {**FEW, "warm_start": earlier, **change}
        with pytest.raises(error, match=message):
            vtb.fit(logs[1], progress=lambda stage, *_: learned.append(stage), **settings)
    assert set(learned) <= {"reading the log", "checking the log", "encoding customers"}
    # Of its own kind it is taken.
    fitted = vtb.fit(logs[1], warm_start=linear, **{**FEW, "responses": "linear"})
    assert fitted.provenance["fit"]["warm_start"] == linear.digest


def test_codes_that_mean_other_categories_are_refused(
    own: Callable[..., dict[str, Any]], own_schema: Path
) -> None:
    log = pyarrow.table(own(400))
    given: dict[str, Any] = {"schema": own_schema, **FEW}
    start = vtb.fit(log, **given)
    assert vtb.fit(log, warm_start=start, **given).provenance["fit"]["warm_start"] == start.digest
    columns = own(400)
    columns["city"] = np.asarray(columns["city"]) + 10
    with pytest.raises(InvalidArgumentError, match="coded as the log's, got one of other"):
        vtb.fit(pyarrow.table(columns), warm_start=start, **given)
    silent = vtb.Simulator.from_tensors(
        start.tensors(), name="silent", schema=start.schema, config=start.config
    )
    with pytest.raises(InvalidArgumentError, match="got one that does not say"):
        vtb.fit(log, warm_start=silent, **given)


def test_the_command_starts_from_a_file(
    logs: tuple[str, str], earlier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fit.safetensors"
    words = ["fit", logs[1], "--out", str(out), "--customers", "rows", "--responses", "bc"]
    words += ["--effort", "0.02", "--warm-start", str(earlier)]
    assert cli.main(words) == 0
    start = vtb.load_simulator(earlier)
    shown = capsys.readouterr().out
    assert f"started from those of simulator {start.digest[:12]}" in shown
    assert "untrained" not in shown
    assert vtb.load_simulator(out) == vtb.fit(logs[1], warm_start=start, **FEW)
    assert cli.main([*words[:-1], "nobody", "--overwrite"]) == 2
    assert "nobody" in capsys.readouterr().err
