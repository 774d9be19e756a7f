"""Installs a wheel into a fresh environment without Rust on the path, and exercises it.

``python tools/check_wheel.py DIST``: DIST holds one wheel. Exits with 1 if anything is amiss.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

LARGEST = 6_000_000
"""Bytes a wheel may have."""

EXERCISE = """
import sys, gymnasium, numpy as np, virtualtb_fast as vtb
heavy = {"torch", "pyarrow", "matplotlib", "rich"} & set(sys.modules)
assert not heavy, f"imported: {heavy}"
sim = vtb.load_simulator()
envs = gymnasium.make_vec("virtualtb_fast:VirtualTB-v1", num_envs=64, autoreset_mode="SameStep")
envs.reset(seed=1)
for _ in range(20):
    envs.step(np.zeros((64, 27), np.float32))
out = vtb.rollout(sim, policy="random", sessions=1_000, seed=1)
assert out.summary.sessions == 1_000 and 0.005 < out.summary.ctr < 0.04, out.summary
print("exercised", vtb.__version__, "with", sim.name, sim.digest[:12])
"""


def main() -> None:
    """Checks size, installation and use."""
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.2f} MB")
    if size > LARGEST:
        raise SystemExit(f"expected a wheel of at most {LARGEST} bytes, got {size}")
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        # Neither cargo nor anything else of the developer's: only the system's own programs.
        environment = {**os.environ, "PATH": "/usr/bin:/bin"}
        environment.pop("PYTHONPATH", None)

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), *arguments]
            subprocess.run(command, check=True, env=environment, cwd=folder)

        run("python", "-m", "pip", "install", "--quiet", str(wheel.resolve()))
        run("python", "-c", EXERCISE)
        run("virtualtb-fast", "info")
        run("virtualtb-fast", "rollout", "--sessions", "2000", "--out", "logs.parquet")


if __name__ == "__main__":
    main()
