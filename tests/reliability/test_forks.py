"""The short form of ``make soak-forks``: forks while other threads are at work natively."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the harness forks, which this system cannot")
def test_no_forked_child_hangs_or_gives_another_result(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "tests.reliability.forks", "--forks", "40", "--json", str(out)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    # The harness asserts that every child does its work, and that hangs would be found.
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["forks"] >= 40
    assert sum(result["ways"].values()) == result["forks"]
    assert {"os.fork", "in a call", "fork in fork", "pool", "async"} <= set(result["ways"])
    assert sum(result["half_stepped"].values()) == result["ways"]["os.fork"]
    assert set(result["half_stepped"]) <= {"refused", "worked"}
    assert set(result["guards"].values()) == {"found to hang", "found to differ"}
