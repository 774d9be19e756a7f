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

from virtualtb_fast.imitation.cloning import CloningConfig  # noqa: E402
from virtualtb_fast.imitation.fitting import FitConfig  # noqa: E402
from virtualtb_fast.imitation.mail import MailConfig  # noqa: E402
from virtualtb_fast.imitation.mail_step import _NUMBERS  # noqa: E402

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
def undisturbed(log: str, tmp_path_factory: pytest.TempPathFactory) -> vtb.Simulator:
    return vtb.fit(log, out=tmp_path_factory.mktemp("fits") / "undisturbed", **SETTINGS)


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


def resumed(took: dict[str, Any]) -> list[str]:
    return [name for name, stage in took["stages"].items() if stage["resumed"]]


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
    took: dict[str, Any] = {}
    fitted = vtb.fit(log, out=out, costs=took.update, **SETTINGS)
    assert_same(fitted, undisturbed)
    # Not its weights alone: the whole file, with the report in it.
    assert out.read_bytes() == undisturbed.to_bytes()
    assert vtb.load_simulator(out) == fitted
    assert os.listdir(tmp_path) == ["fit.safetensors"]
    order = ["customers", "responses", "engine", "mail"]
    again = resumed(took)
    reached = order.index(stage) if stage in order else (0 if stage != "check" else 4)
    # Stages before the one that was killed were finished; it had a checkpoint, or not yet.
    assert again[:reached] == order[:reached]
    assert len(again) <= reached + 1
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
    took: dict[str, Any] = {}
    vtb.fit(log, out=out, costs=took.update, **settings)
    assert sorted(os.listdir(out.parent)) == sorted(names)
    for name in names:
        one, other = (vtb.load_simulator(path.with_name(name)) for path in (out, whole))
        assert_same(one, other)
        assert out.with_name(name).read_bytes() == whole.with_name(name).read_bytes()
    assert sorted(resumed(took)) == sorted([*before, stage])
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
    took: dict[str, Any] = {}
    more: dict[str, Any] = {"out": out, "costs": took.update}
    vtb.fit(mine, keep_work=True, **more, **{**SETTINGS, "responses": "bc"})
    assert sorted(resumed(took)) == ["customers", "engine", "responses"]
    vtb.rollout(shop, "gaussian:0.5", sessions=500, seed=2, out=mine, overwrite=True)
    fitted = vtb.fit(mine, overwrite=True, keep_work=True, **more, **SETTINGS)
    assert not resumed(took)
    assert_same(fitted, vtb.fit(mine, **SETTINGS))
    assert not np.array_equal(
        fitted.tensors()["action.0.weight"], undisturbed.tensors()["action.0.weight"]
    )
    took.clear()
    vtb.fit(mine, overwrite=True, resume=False, **more, **SETTINGS)
    assert took
    assert not resumed(took)


# A checkpoint is due but once, and Ctrl-C comes in the middle of a step.
INTERRUPTED = """
import os, pickle, signal, sys
from virtualtb_fast import _work
import virtualtb_fast as vtb

stage, after = sys.argv[3], int(sys.argv[4])
seen, saves = 0, []
whole = _work.StageCheckpoint.save

def save(self, state):
    saves.append(self.path.name)
    whole(self, state)

def progress(now, done, total, figures):
    global seen
    seen += now == stage
    if seen > after:
        seen = -1000
        print(done, total, saves.count(f"{stage}.checkpoint"), flush=True)
        os.kill(os.getpid(), signal.SIGINT)

_work.StageCheckpoint.save = save
try:
    vtb.fit(
        sys.argv[1], out=sys.argv[2], progress=progress, **pickle.loads(bytes.fromhex(sys.argv[5]))
    )
except KeyboardInterrupt as stop:
    print(type(stop).__name__, saves.count(f"{stage}.checkpoint"), flush=True)
"""


@pytest.mark.parametrize(
    ("stage", "after", "customers"),
    [
        ("customers", 0, "ar"),
        ("customers", 0, "gan-sd"),
        ("responses", 0, "ar"),
        ("engine", 0, "ar"),
        ("mail", 1, "ar"),
    ],
)
def test_ctrl_c_keeps_the_last_whole_step(
    log: str, tmp_path: Path, stage: str, after: int, customers: str
) -> None:
    # Some passes of many steps each, with two looks a pass.
    passes = FitConfig(batch=64, epochs=200)
    config = MailConfig(
        sessions=200,
        iterations=300,
        step_margin=-1.0,
        cloning=CloningConfig(fit=passes, engine_fit=passes),
    )
    asked = {**SETTINGS, "customers": customers, "responses_config": config}
    out = tmp_path / "fit.safetensors"
    words = [log, str(out), stage, str(after), pickle.dumps(asked).hex()]
    words = [sys.executable, "-c", INTERRUPTED, *words]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    (step, total, before), (how, kept) = (line.split() for line in done.stdout.splitlines())
    # Nothing of this stage was on disk, it was under way, and then it was kept.
    assert (before, how, kept) == ("0", "Kept", "1")
    held = torch.load(tmp_path / f"fit.safetensors.work/{stage}.checkpoint", weights_only=True)
    state = held["state"]
    if stage == "mail":
        reached = state["mail"]["numbers"]["__array__"][_NUMBERS.index("iteration")]
        assert 0 < int(step) < int(reached) <= int(total)
    else:
        reached = state["step"] if stage == "customers" else state["step"]["__array__"]
        assert 0 < int(step) < int(reached) <= int(total)
    took: dict[str, Any] = {}
    vtb.fit(log, out=out, costs=took.update, **asked)
    assert resumed(took)[-1] == stage
    assert out.read_bytes() == vtb.fit(log, **asked).to_bytes()


def test_a_second_ctrl_c_waits_for_no_step(tmp_path: Path) -> None:
    from virtualtb_fast._work import Kept, StageCheckpoint

    before = signal.getsignal(signal.SIGINT)
    path = tmp_path / "one"
    with pytest.raises(KeyboardInterrupt) as caught, StageCheckpoint(path, "") as checkpoint:  # noqa: PT012
        assert not checkpoint.due()
        signal.raise_signal(signal.SIGINT)
        assert checkpoint.due()
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")
    assert not isinstance(caught.value, Kept)
    assert signal.getsignal(signal.SIGINT) is before
    # One that keeps nothing ends with the stage, and one that does when that is done.
    with pytest.raises(KeyboardInterrupt) as caught, StageCheckpoint(path, ""):
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(caught.value, Kept)
    with pytest.raises(Kept), StageCheckpoint(path, "") as checkpoint:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        checkpoint.save({"step": 3})
    assert StageCheckpoint(path, "").load() == {"step": 3}


def test_an_iteration_that_is_torn_is_done_again(
    log: str, tmp_path: Path, undisturbed: vtb.Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtualtb_fast.imitation.mail_step import Mail

    whole, out = Mail.look, tmp_path / "fit.safetensors"

    def torn(self: Mail) -> float:
        if self.iteration == 3:
            raise KeyboardInterrupt
        return whole(self)

    monkeypatch.setattr(Mail, "look", torn)
    with pytest.raises(KeyboardInterrupt):
        vtb.fit(log, out=out, **SETTINGS)
    monkeypatch.undo()
    held = torch.load(tmp_path / "fit.safetensors.work/mail.checkpoint", weights_only=True)
    numbers = held["state"]["mail"]["numbers"]["__array__"]
    assert int(numbers[_NUMBERS.index("iteration")]) == 2
    took: dict[str, Any] = {}
    vtb.fit(log, out=out, costs=took.update, **SETTINGS)
    assert resumed(took)[-1] == "mail"
    assert out.read_bytes() == undisturbed.to_bytes()


def test_a_step_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virtualtb_fast import _work

    monkeypatch.setattr(_work, "_PATIENCE", 0.05)
    with pytest.raises(KeyboardInterrupt), _work.StageCheckpoint(tmp_path / "one", ""):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        for _ in range(1000):
            time.sleep(0.05)
        raise AssertionError("it was waited for")


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
    few = "expected some thousands of sessions, got 500 sessions ("
    assert error.startswith(f"warning: the log: {few}")
    assert error.count("\n") == 1
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
    # What it took is said, and is not in the file.
    assert report["report"]["seconds"] > 0
    assert 0 < report["report"]["simulating_share"] < 1
    assert report["report"]["peak_memory_bytes"] > 50e6
    assert not report["report"]["stages"]["check"]["resumed"]
    for part in ("time", "spent simulating", "MB of memory"):
        assert part in text
    saved = json.dumps(vtb.load_simulator(out).provenance)
    for part in ("seconds", "simulating_share", "peak_memory", "resumed"):
        assert part not in saved


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
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    assert json.loads(capsys.readouterr().out)["report"]["stages"]["mail"]["resumed"]


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
