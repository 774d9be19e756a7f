"""The short form of ``make soak-kills``: rollouts under kills, failed writes and Ctrl-C."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.reliability.cases import Child

ROOT = Path(__file__).parents[2]


forks = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="the harness forks, which this system cannot"
)


@forks
def test_nothing_is_lost_and_no_byte_differs(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="where row groups end is read with pyarrow")
    out = tmp_path / "result.json"
    words = ["--kills", "25", "--failures", "20", "--interrupts", "30", "--json", str(out)]
    command = [sys.executable, "-m", "tests.reliability.rollouts", *words]
    # A process that forks should have no other thread.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    # The harness asserts that every file and count is that of an undisturbed run.
    result = json.loads(out.read_text())
    kills, failed = result["kills"], result["failed_writes"]
    assert (kills["kills"], failed["failed_writes"]) == (25, 20)
    assert kills["equal"] == kills["rollouts"] > 0
    assert failed["equal"] == 20
    # How fast Ctrl-C is answered is measured by the long form: no timed tests.
    assert result["ctrl_c"]["count"] == 30
    # Kills came in the middle, and what is trivially wrong was seen to be.
    assert kills["left"]["some blocks"] > 0
    assert kills["guards"]["refused"] == kills["guards"]["tampered"] > 0
    assert kills["guards"]["unlike"] == kills["guards"]["compared"] > 0


@forks
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_hangs_is_ended_and_named() -> None:
    """Void guard of the harness."""
    hangs = Child(lambda: {"how": repr(time.sleep(600))})
    with pytest.raises(AssertionError, match="a process hangs"):
        hangs.result(grace=0.2)
    with pytest.raises(ChildProcessError):
        os.waitpid(hangs.pid, os.WNOHANG)
    assert Child(lambda: {"how": "played"}).result() == {"how": "played"}
