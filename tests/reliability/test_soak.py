"""The short form of ``make soak``: every configuration gives one digest, and memory is steady."""

import json
import subprocess
import sys
from pathlib import Path

from virtualtb_fast import _core

ROOT = Path(__file__).parents[2]


def test_every_configuration_gives_one_digest(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    words = ["--pages", "90000", "--round", "4096", "--json", str(out)]
    command = [sys.executable, "-m", "tests.reliability.soak", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    # The harness asserts that digests are equal and that memory does not grow.
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["pages"] >= 90_000
    assert set(result["rounds"]) == set(_core.cpu_info()["available"])
    assert set(result["guards"].values()) == {
        "found to differ",
        "found to grow",
        "found to fall",
    }
