"""What several unit tests share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import virtualtb_fast as vtb


def _start(
    simulator: vtb.Simulator, folder: Path, code: str, **variables: str
) -> subprocess.Popen[str]:
    """Runs code in another process, with ``sim`` and ``rollout`` at hand."""
    path = folder / "simulator.safetensors"
    if not path.exists():
        simulator.save(path)
    head = (
        "import sys, virtualtb_fast as vtb\n"
        "from virtualtb_fast.rollout import rollout\n"
        f"sim = vtb.load_simulator({str(path)!r})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """``start(simulator, folder, code, **variables)``: a process of its own."""
    return _start
