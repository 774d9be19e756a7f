"""Rollouts that are stopped, killed, or run out of space: nothing is lost, nothing is half."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.logs import read_log
from virtualtb_fast.rollout import rollout

Start = Callable[..., subprocess.Popen[str]]
"""Runs code in another process, with ``sim`` and ``rollout`` at hand."""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_leaves_a_readable_partial_file(
    simulator: vtb.Simulator, start: Start, tmp_path: Path, threads: int
) -> None:
    code = f"rollout(sim, sessions=10**8, seed=3, num_threads={threads}, out='log.parquet')"
    partial = tmp_path / "log.parquet.partial"
    with start(simulator, tmp_path, code) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 20)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in error
    assert not (tmp_path / "log.parquet").exists()
    log = read_log(partial)
    assert not log.complete
    sessions = int(log.metadata["sessions"])
    assert sessions > 0
    assert sessions % _core.BLOCK == 0
    assert log.digest() == rollout(simulator, sessions=sessions, seed=3).digest()


def test_ctrl_c_is_answered_in_memory_and_in_functions(simulator: vtb.Simulator) -> None:
    def stop(*_: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return np.zeros((len(_[1]), 27))

    for policy, progress in (("zero", stop), (stop, None)):
        arguments: dict[str, Any] = {"sessions": 10**8, "keep": False}
        with pytest.raises(KeyboardInterrupt), contextlib.suppress(TypeError):
            rollout(simulator, policy, progress=progress, **arguments)


def test_a_killed_run_leaves_no_file_of_the_final_name(
    simulator: vtb.Simulator, start: Start, tmp_path: Path
) -> None:
    code = "rollout(sim, sessions=10**8, out='log.parquet')"
    partial = tmp_path / "log.parquet.partial"
    with start(simulator, tmp_path, code) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 20)
        process.kill()
    assert not (tmp_path / "log.parquet").exists()
    with pytest.raises(vtb.FileFormatError, match=r"killed, or is still at work.*--resume"):
        read_log(partial)
    # The next run neither wipes what is left without being told to, nor is disturbed by it.
    left = partial.stat().st_size
    with pytest.raises(vtb.OutputError, match=r"partial.*resume=True"):
        rollout(simulator, sessions=100, out=tmp_path / "log.parquet")
    assert partial.stat().st_size == left
    played = rollout(simulator, sessions=100, out=tmp_path / "log.parquet", overwrite=True)
    assert played.digest() == rollout(simulator, sessions=100).digest()
    assert list(tmp_path.glob("log.parquet*")) == [tmp_path / "log.parquet"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(
    simulator: vtb.Simulator, start: Start, tmp_path: Path, threads: int
) -> None:
    arguments: dict[str, Any] = {"sessions": 6 * _core.BLOCK + 5, "seed": 3}
    whole = rollout(simulator, **arguments, out=tmp_path / "whole.parquet")
    code = f"rollout(sim, **{arguments}, num_threads={threads}, out='log.parquet')"
    out, partial = tmp_path / "log.parquet", tmp_path / "log.parquet.partial"
    with start(simulator, tmp_path, code) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 24)
        process.kill()
    played = rollout(simulator, **arguments, num_threads=threads, out=out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert 0 < played.resumed <= played.pages
    assert played.summary == whole.summary
    assert list(tmp_path.glob("log.parquet*")) == [out]
    # It is complete: the same call once more only looks.
    stamp = out.stat().st_mtime_ns
    again = rollout(simulator, **arguments, out=out, resume=True)
    assert (again.resumed, again.summary) == (whole.pages, whole.summary)
    assert out.stat().st_mtime_ns == stamp
    with pytest.raises(vtb.InvalidArgumentError, match="sessions of a resumed rollout"):
        rollout(simulator, sessions=5, seed=3, out=out, resume=True)
    other = rollout(simulator, sessions=5, seed=3, out=out, resume=True, overwrite=True)
    assert (other.resumed, other.sessions) == (0, 5)


def test_something_else_is_not_resumed(
    simulator: vtb.Simulator, shop: vtb.Simulator, tmp_path: Path
) -> None:
    out = tmp_path / "log.parquet"

    def stop(pages: int, sessions: int) -> None:
        raise ZeroDivisionError

    arguments: dict[str, Any] = {"sessions": _core.BLOCK, "seed": 3, "out": out, "resume": True}
    with pytest.raises(ZeroDivisionError):
        rollout(simulator, "random", **arguments, progress=stop)
    left = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(path.suffix for path in left) == [".journal", ".partial"]
    for field, other in (
        ("seed", {"seed": 4}),
        ("sessions", {"sessions": 7}),
        ("policy", {"policy": "zero"}),
        ("schema", {"simulator": shop}),
    ):
        expected = rf"{field} of a resumed rollout: expected .* as in .*journal, got "
        with pytest.raises(vtb.InvalidArgumentError, match=expected):
            rollout(**({"simulator": simulator, "policy": "random"} | arguments | other))
    assert left == {path: path.read_bytes() for path in tmp_path.iterdir()}
    # Overwriting is for what is complete: what is resumed has to be the same.
    with pytest.raises(vtb.InvalidArgumentError, match="seed"):
        rollout(simulator, **(arguments | {"seed": 4}), overwrite=True)
    assert rollout(simulator, "random", **arguments).sessions == _core.BLOCK


def test_what_is_no_rollouts_rest_is_not_resumed(simulator: vtb.Simulator, tmp_path: Path) -> None:
    out, partial = tmp_path / "log.parquet", tmp_path / "log.parquet.partial"
    with pytest.raises(vtb.InvalidArgumentError, match="expected out=FILE"):
        rollout(simulator, sessions=5, resume=True)
    partial.write_text("mine, I think")
    with pytest.raises(vtb.FileFormatError, match="journal"):
        rollout(simulator, sessions=5, out=out, resume=True)
    assert partial.read_text() == "mine, I think"
    partial.unlink()
    out.write_text("mine as well")
    with pytest.raises(vtb.FileFormatError, match="Parquet"):
        rollout(simulator, sessions=5, out=out, resume=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine as well"]


def test_two_processes_on_one_output_are_refused(
    simulator: vtb.Simulator, start: Start, tmp_path: Path
) -> None:
    out, partial = tmp_path / "log.parquet", tmp_path / "log.parquet.partial"
    code = "rollout(sim, sessions=10**8, seed=3, out='log.parquet')"
    with start(simulator, tmp_path, code) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 1 << 20)
        for more in (
            {},
            {"overwrite": True},
            {"resume": True},
            {"overwrite": True, "resume": True},
        ):
            arguments: dict[str, Any] = {"sessions": 10**8, "seed": 3, "out": out, **more}
            with pytest.raises(vtb.OutputError, match="expected an output that nobody writes"):
                rollout(simulator, **arguments)
        with pytest.raises(vtb.OutputError, match="expected an output that nobody writes"):
            rollout(simulator, sessions=5).log.write(out, overwrite=True)
        assert process.poll() is None
        process.kill()
    # The lock goes with the process.
    assert rollout(simulator, sessions=5, out=out, overwrite=True).sessions == 5


def test_a_full_disk_is_named_and_loses_no_whole_block(
    simulator: vtb.Simulator, start: Start, tmp_path: Path
) -> None:
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (15_000_000, 15_000_000))\n"
        "try:\n"
        "    rollout(sim, sessions=10**8, seed=3, out='log.parquet')\n"
        "except vtb.OutputError as error:\n"
        "    assert isinstance(error, OSError)\n"
        "    print(error)\n"
    )
    with start(simulator, tmp_path, code) as process:
        out, error = process.communicate(timeout=120)
    assert "log.parquet" in out, (out, error)
    assert "File too large; what was played is kept, and resume=True (--resume)" in out
    assert not (tmp_path / "log.parquet").exists()
    log = read_log(tmp_path / "log.parquet.partial")
    sessions = int(log.metadata["sessions"])
    assert sessions >= _core.BLOCK
    assert not log.complete
    assert log.digest() == rollout(simulator, sessions=sessions, seed=3).digest()


def test_a_file_that_exists_is_refused_and_stays(simulator: vtb.Simulator, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_text("mine")
    with pytest.raises(vtb.OutputError, match="got a file that exists"):
        rollout(simulator, sessions=10, out=path)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
    rollout(simulator, sessions=10, out=path, overwrite=True)
    assert len(read_log(path)) > 0


def test_a_failing_function_leaves_a_partial_file(simulator: vtb.Simulator, tmp_path: Path) -> None:
    def policy(observation: np.ndarray, session: np.ndarray, page: np.ndarray) -> np.ndarray:
        if session.max() >= _core.BLOCK:
            raise ValueError("mine")
        return np.zeros((len(page), 27))

    with pytest.raises(vtb.PolicyError, match="ValueError: mine") as caught:
        rollout(simulator, policy, sessions=3 * _core.BLOCK, out=tmp_path / "log.parquet")
    assert isinstance(caught.value.__cause__, ValueError)
    assert read_log(tmp_path / "log.parquet.partial").metadata["sessions"] == str(_core.BLOCK)


@pytest.mark.parametrize("out", ["no/such/folder.parquet", ".", "/"])
def test_bad_outputs_are_refused(
    simulator: vtb.Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(vtb.OutputError, match=out.replace(".", r"\.")):
        rollout(simulator, sessions=10, out=out, overwrite=True)
    assert not list(tmp_path.iterdir())
