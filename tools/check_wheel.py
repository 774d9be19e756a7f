"""Installs a wheel into a fresh environment without Rust on the path, and exercises it.

``python tools/check_wheel.py DIST [--tests] [--pythons PYTHON ...]``: DIST holds one wheel, for the
Python that runs this, and for other interpreters that are named. With ``--tests`` the tests that
need nothing but the wheel run on it too. Exits with 1 if anything is amiss.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
LARGEST = 6_000_000
"""Bytes a wheel may have."""
INSIDE = (
    "virtualtb_fast/_core.pyi",
    "virtualtb_fast/py.typed",
    "virtualtb_fast/evaluation/page.html",
    "virtualtb_fast/data/virtualtb-v0-refit.safetensors",
    "*.dist-info/licenses/LICENSE-APACHE",
    "*.dist-info/licenses/LICENSE-MIT",
    "*.dist-info/licenses/NOTICE",
    "*.dist-info/sboms/*.cyclonedx.json",
)
"""What a wheel must hold; without the native module nothing could be exercised."""

EXERCISE = """
import sys, sysconfig, gymnasium, numpy as np, virtualtb_fast as vtb
heavy = {"torch", "pyarrow", "matplotlib", "rich"} & set(sys.modules)
assert not heavy, f"imported: {heavy}"
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    assert not sys._is_gil_enabled(), "importing the package has switched the GIL on"
sim = vtb.load_simulator()
envs = gymnasium.make_vec("virtualtb_fast:VirtualTB-v1", num_envs=64, autoreset_mode="SameStep")
envs.reset(seed=1)
for _ in range(20):
    envs.step(np.zeros((64, 27), np.float32))
out = vtb.rollout(sim, policy="random", sessions=1_000, seed=1)
assert out.summary.sessions == 1_000 and 0.005 < out.summary.ctr < 0.04, out.summary
print("exercised", vtb.__version__, "with", sim.name, sim.digest[:12])
"""

TESTS = (
    "tests/parity",
    "tests/reliability/test_threads.py",
    "tests/unit/test_arguments.py",
    "tests/unit/test_catalog.py",
    "tests/unit/test_catalog_candidates.py",
    "tests/unit/test_envs.py",
    "tests/unit/test_envs_async.py",
    "tests/unit/test_envs_calls.py",
    "tests/unit/test_envs_store.py",
    "tests/unit/test_envs_vector.py",
    "tests/unit/test_envs_vector_calls.py",
    "tests/unit/test_errors.py",
    "tests/unit/test_logs.py",
    "tests/unit/test_policy.py",
    "tests/unit/test_rollout.py",
    "tests/unit/test_schema.py",
    "tests/unit/test_store.py",
)
"""Tests of the native core through its Python names: neither PyTorch nor POSIX is needed."""


def missing(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The patterns that no name matches."""
    paths = [Path(name) for name in names]
    return [pattern for pattern in patterns if not any(path.match(pattern) for path in paths)]


class Fresh:
    """A virtual environment of its own."""

    def __init__(self, folder: str, path: str, python: str | None = None) -> None:
        if python is None:
            # Links, as `python -m venv` makes them: a copied interpreter may not find its library.
            venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        else:
            subprocess.run([python, "-m", "venv", folder], check=True)
        self.folder = folder
        self.programs = Path(folder) / ("Scripts" if os.name == "nt" else "bin")
        self.environment = {**os.environ, "PATH": path}
        self.environment.pop("PYTHONPATH", None)

    def run(self, program: str, *arguments: str, cwd: str | Path | None = None) -> None:
        """Runs one of its programs; raises if that fails."""
        command = [str(self.programs / program), *arguments]
        subprocess.run(command, check=True, env=self.environment, cwd=cwd or self.folder)

    def exercise(self, package: Path) -> None:
        """Installs the package and uses it from Python and from the command line."""
        self.run("python", "-m", "pip", "install", "--quiet", str(package.resolve()))
        self.run("python", "-c", EXERCISE)
        self.run("virtualtb-fast", "info")
        self.run("virtualtb-fast", "rollout", "--sessions", "2000", "--out", "logs.parquet")

    def test(self) -> None:
        """Runs the tests that need nothing but the wheel."""
        self.run("python", "-m", "pip", "install", "--quiet", "--upgrade", "pip")
        install = ("-m", "pip", "install", "--quiet", "--group", "test-wheel")
        self.run("python", *install, cwd=ROOT)
        self.environment["PYTHONUTF8"] = "1"  # Tests read files as if all were Linux.
        self.run("python", "-m", "pytest", "-q", *TESTS, cwd=ROOT)


@contextmanager
def fresh(path: str, python: str | None = None) -> Iterator[Fresh]:
    """A fresh environment that finds programs on this path, for as long as it is needed.

    Of the Python that runs this, or of another interpreter.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Fresh(folder, path, python)


def bare_path() -> str:
    """Neither cargo nor anything else of the developer's: only the system's own programs."""
    if os.name == "nt":
        return str(Path(os.environ["SYSTEMROOT"]) / "System32")
    return "/usr/bin:/bin"


def main() -> None:
    """Checks size, contents, installation and use."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dist", type=Path)
    parser.add_argument("--tests", action="store_true")
    parser.add_argument("--pythons", nargs="*", default=[], metavar="PYTHON")
    arguments = parser.parse_args()
    (wheel,) = arguments.dist.glob("*.whl")
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.2f} MB", flush=True)
    if size > LARGEST:
        raise SystemExit(f"expected a wheel of at most {LARGEST} bytes, got {size}")
    with zipfile.ZipFile(wheel) as file:
        if absent := missing(file.namelist(), INSIDE):
            raise SystemExit(f"expected in the wheel, but not there: {', '.join(absent)}")
    for python in (None, *arguments.pythons):
        with fresh(bare_path(), python) as environment:
            environment.run("python", "-VV")
            environment.exercise(wheel)
            if arguments.tests:
                environment.test()


if __name__ == "__main__":
    main()
