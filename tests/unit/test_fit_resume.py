"""A fit that is killed, interrupted or met by another one; what the command line shows."""

from __future__ import annotations

import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli

torch = pytest.importorskip("torch")
pyarrow = pytest.importorskip("pyarrow")

from virtualtb_fast.imitation.mail import MailConfig  # noqa: E402

PLAIN: dict[str, Any] = {"customers": "ar", "responses": "bc+mail", "effort": 0.02, "seed": 3}
# Six iterations, each with a step and a look.
SETTINGS = PLAIN | {
    "responses_config": MailConfig(sessions=200, iterations=300, step_margin=-1.0, look_every=1)
}

KILLED = """
import os, pickle, signal, sys
from virtualtb_fast import _training, fit as function
import virtualtb_fast as vtb

_training._EVERY = 0.0
stage, after, how = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
seen = 0

def progress(now, done, total, figures):
    global seen
    seen += now == stage
    if seen > after:
        print(done, total, flush=True)
        os.kill(os.getpid(), how)

vtb.fit(sys.argv[1], out=sys.argv[2], progress=progress, **pickle.loads(bytes.fromhex(sys.argv[6])))
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, shop: vtb.Simulator) -> str:
    path = tmp_path_factory.mktemp("logs") / "clicks.parquet"
    vtb.rollout(shop, "gaussian:0.5", sessions=500, seed=1, out=path)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(log: str) -> vtb.Simulator:
    return vtb.fit(log, **SETTINGS)


def killed(
    log: str,
    out: Path,
    stage: str,
    after: int,
    how: int = signal.SIGKILL,
    settings: dict[str, Any] = SETTINGS,
) -> subprocess.CompletedProcess[str]:
    words = [log, str(out), stage, str(after), str(int(how)), pickle.dumps(settings).hex()]
    return subprocess.run(
        [sys.executable, "-c", KILLED, *words], check=False, capture_output=True, text=True
    )


def assert_same(one: vtb.Simulator, other: vtb.Simulator) -> None:
    left, right = one.tensors(), other.tensors()
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def stages(simulator: vtb.Simulator) -> dict[str, Any]:
    return dict(simulator.provenance["fit"]["report"]["stages"])


@pytest.mark.parametrize(
    ("stage", "after"),
    [
        ("reading the log", 0),
        ("customers", 1),
        ("responses", 0),
        ("engine", 0),
        ("mail", 2),
        ("check", 0),
    ],
)
def test_a_kill_at_any_stage_changes_nothing(
    log: str, tmp_path: Path, undisturbed: vtb.Simulator, stage: str, after: int
) -> None:
    out = tmp_path / "fit.safetensors"
    done = killed(log, out, stage, after)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert (tmp_path / "fit.safetensors.work").is_dir()
    fitted = vtb.fit(log, out=out, **SETTINGS)
    assert_same(fitted, undisturbed)
    assert vtb.load_simulator(out) == fitted
    assert os.listdir(tmp_path) == ["fit.safetensors"]
    order = ["customers", "responses", "engine", "mail"]
    resumed = [name for name in order if stages(fitted)[name]["resumed"]]
    reached = order.index(stage) if stage in order else (0 if stage != "check" else 4)
    # Stages before the one that was killed were finished; it had a checkpoint, or not yet.
    assert resumed[:reached] == order[:reached]
    assert len(resumed) <= reached + 1
    # The void guard: another seed gives another simulator.
    if stage == "check":
        other = vtb.fit(log, **{**SETTINGS, "seed": 4})
        assert not np.array_equal(
            other.tensors()["action.0.weight"], fitted.tensors()["action.0.weight"]
        )


# Forms of a fit that have stages of their own, with the training that is killed half way.
FORMS: dict[str, tuple[str, list[str], str, dict[str, Any]]] = {
    "customers by GAN-SD": (
        "customers",
        [],
        "generator.0.weight",
        {"customers": "gan-sd", "responses": "bc", "effort": 0.01, "seed": 3},
    ),
    "length at the start": (
        "leave",
        ["customers", "responses", "engine"],
        "leave.0.weight",
        {"customers": "ar", "responses": "bc", "leave": "once", "effort": 0.3, "seed": 3},
    ),
    "another member": (
        "responses 2",
        ["customers", "responses", "engine"],
        "action.0.weight",
        {"customers": "ar", "responses": "bc", "ensemble": 2, "effort": 0.3, "seed": 3},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_kill_half_way_changes_nothing_in_other_forms(
    log: str, tmp_path: Path, form: str
) -> None:
    stage, before, tensor, settings = FORMS[form]
    names = ["fit.safetensors"]
    if "ensemble" in settings:
        names.append("fit.2.safetensors")
    out, whole = tmp_path / "killed" / names[0], tmp_path / "whole" / names[0]
    for path in (out, whole):
        path.parent.mkdir()
    done = killed(log, out, stage, 1, settings=settings)
    assert done.returncode == -signal.SIGKILL, done.stderr
    step, steps = map(int, done.stdout.split())
    assert 0 < step < steps
    assert not out.exists()
    vtb.fit(log, out=whole, **settings)
    fitted = vtb.fit(log, out=out, **settings)
    assert sorted(os.listdir(out.parent)) == sorted(names)
    for name in names:
        one, other = (vtb.load_simulator(path.with_name(name)) for path in (out, whole))
        assert_same(one, other)
    resumed = [name for name, held in stages(fitted).items() if held["resumed"]]
    assert sorted(resumed) == sorted([*before, stage])
    # The void guard: what the stage learned is another with another seed.
    vtb.fit(log, out=whole, overwrite=True, **{**settings, "seed": 4})
    here, there = (vtb.load_simulator(path.with_name(names[-1])) for path in (out, whole))
    assert not np.array_equal(here.tensors()[tensor], there.tensors()[tensor])


def test_kill_after_kill(log: str, tmp_path: Path, undisturbed: vtb.Simulator) -> None:
    out = tmp_path / "fit.safetensors"
    for stage, after in (("customers", 0), ("customers", 1), ("mail", 0)):
        assert killed(log, out, stage, after).returncode == -signal.SIGKILL
    fitted = vtb.fit(log, out=out, **SETTINGS)
    assert_same(fitted, undisturbed)


def test_another_log_or_other_settings_start_anew(
    log: str, tmp_path: Path, shop: vtb.Simulator, undisturbed: vtb.Simulator
) -> None:
    mine, out = tmp_path / "log.parquet", tmp_path / "fit.safetensors"
    mine.write_bytes(Path(log).read_bytes())
    assert killed(str(mine), out, "mail", 2).returncode == -signal.SIGKILL
    # Only what follows from the change is done again.
    fitted = vtb.fit(mine, out=out, keep_work=True, **{**SETTINGS, "responses": "bc"})
    assert [name for name, stage in stages(fitted).items() if stage["resumed"]] == [
        *("customers", "engine", "responses"),
    ]
    vtb.rollout(shop, "gaussian:0.5", sessions=500, seed=2, out=mine, overwrite=True)
    fitted = vtb.fit(mine, out=out, overwrite=True, keep_work=True, **SETTINGS)
    assert not any(stage["resumed"] for stage in stages(fitted).values())
    assert_same(fitted, vtb.fit(mine, **SETTINGS))
    assert not np.array_equal(
        fitted.tensors()["action.0.weight"], undisturbed.tensors()["action.0.weight"]
    )
    fitted = vtb.fit(mine, out=out, overwrite=True, resume=False, **SETTINGS)
    assert not any(stage["resumed"] for stage in stages(fitted).values())


def test_two_fits_of_one_output_are_refused(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fit.safetensors"
    program = (
        "import sys, time, pathlib\n"
        "from virtualtb_fast._work import WorkFolder\n"
        "with WorkFolder(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", program, str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            message = rf"expected no other run at work on it, got one \(process {holder.pid}\)"
            with pytest.raises(vtb.OutputError, match=message):
                vtb.fit(log, out=out, **SETTINGS)
            assert cli.main(["fit", log, "--out", str(out)]) == 2
            assert "no other run at work" in capsys.readouterr().err
        finally:
            holder.kill()
    # The lock goes with the process, however it ended.
    vtb.fit(log, out=out, customers="independent", responses="bc", effort=0.01)


def test_a_damaged_checkpoint_is_said(log: str, tmp_path: Path) -> None:
    out = tmp_path / "fit.safetensors"
    assert killed(log, out, "mail", 0).returncode == -signal.SIGKILL
    kept = tmp_path / "fit.safetensors.work" / "customers.checkpoint"
    kept.write_bytes(kept.read_bytes()[:500])
    with pytest.raises(vtb.FileFormatError, match=r"customers\.checkpoint: expected a checkpoint"):
        vtb.fit(log, out=out, **SETTINGS)


# --- the command ------------------------------------------------------------------------------

WORDS = ["--customers", "ar", "--responses", "bc+mail", "--effort", "0.02", "--seed", "3"]


def test_the_command_prints_a_table_or_an_object(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "fit.safetensors")
    assert cli.main(["fit", log, "--out", out, *WORDS]) == 0
    text, error = capsys.readouterr()
    assert error == ""
    for part in ("clicks.parquet: ", "500 sessions", "nat a held-out page", "simulated", "MAIL"):
        assert part in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert_same(vtb.load_simulator(out), vtb.fit(log, **PLAIN))
    assert cli.main(["fit", log, "--out", out, *WORDS]) == 2
    assert "expected a new file, got one that exists (--overwrite?)" in capsys.readouterr().err
    assert cli.main(["fit", log, "--out", out, *WORDS, "--overwrite", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "fit"
    assert report["report"]["stages"]["mail"]["iterations"] > 0


def test_help_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fit", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_bad_options_are_one_line(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--out", "x", "--effort", "0"], "expected a number above 0, up to 100, got '0'"),
        (["--out", "x", "--customers", "gann"], "invalid choice: 'gann'"),
        (["--out", "x", "--schema", "no.toml"], "no.toml"),
        ([], "the following arguments are required: --out"),
    ):
        assert cli.main(["fit", log, *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_a_terminal_shows_live_figures_and_ctrl_c_says_how_to_go_on(
    log: str, tmp_path: Path, undisturbed: vtb.Simulator
) -> None:
    out = str(tmp_path / "fit.safetensors")
    program = (
        "import sys\nfrom virtualtb_fast import _training, cli\n"
        "_training._EVERY = 0.0\nsys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", program, "fit", log, "--out", out, *WORDS, "--effort", "0.3"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        words, stdout=slave, stderr=slave, env=os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    )
    os.close(slave)
    screen, sent = b"", False
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        screen += piece
        if not sent and b"MAIL" in screen and b"pages" in screen:
            process.send_signal(signal.SIGINT)
            sent = True
    assert process.wait(60) == 130
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode(errors="replace"))
    for part in ("customers", "responses", "held out", "loss", "D accuracy"):
        assert part in text, text
    assert re.search(r"interrupted in 'MAIL' at \d+%; the same command goes on from there", text)
    assert "Traceback" not in text
    assert not os.path.exists(out)
    began = time.monotonic()
    assert cli.main(["fit", log, "--out", out, *WORDS, "--effort", "0.3", "--json"]) == 0
    assert time.monotonic() > began
    assert stages(vtb.load_simulator(out))["mail"]["resumed"]


def test_scalars_for_tensorboard(log: str, tmp_path: Path) -> None:
    folder = tmp_path / "scalars"
    arguments: dict[str, Any] = {"customers": "ar", "responses": "bc", "effort": 0.02}
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(vtb.MissingExtraError, match=r"virtualtb-fast\[train\]"):
            vtb.fit(log, tensorboard=folder, **arguments)
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    vtb.fit(log, tensorboard=folder, **arguments)
    events = EventAccumulator(str(folder))
    events.Reload()
    names = set(events.Tags()["scalars"])
    assert {"responses/loss", "responses/held_out_loss", "engine/loss"} <= names
    assert any(name.startswith("customers/") for name in names)
    steps = [event.step for event in events.Scalars("responses/loss")]
    assert steps == sorted(steps)


def test_a_progress_that_raises_is_passed_on(log: str, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise RuntimeError("enough")

    call: Callable[..., Any] = vtb.fit
    with pytest.raises(RuntimeError, match="enough"):
        call(log, out=tmp_path / "fit.safetensors", progress=stop, **SETTINGS)
