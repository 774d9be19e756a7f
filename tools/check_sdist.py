"""Checks that a source distribution holds what building needs, and nothing that must stay out.

``python tools/check_sdist.py DIST [--install]``: DIST holds one ``.tar.gz`` of this very tree. With
``--install`` it is also built, installed and exercised, which takes Rust and minutes. Exits with 1
if anything is amiss.
"""

from __future__ import annotations

import argparse
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from check_wheel import ROOT, fresh

NEEDED = (
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "NOTICE",
    "PKG-INFO",
    "README.md",
    "benches/kernels.rs",
    "pyproject.toml",
)
"""What it holds beside the sources."""
SOURCES = ("rust/**/*.rs", "python/virtualtb_fast/**/*.py", "python/virtualtb_fast/**/*.html")
"""Of these, every file of the tree."""
ALONE = (
    "python/virtualtb_fast/_core.pyi",
    "python/virtualtb_fast/py.typed",
    "python/virtualtb_fast/data/virtualtb-v0-refit.safetensors",
)
"""The embedded simulator is the only data."""


def expected(root: Path) -> set[str]:
    """Every path that a source distribution of this tree holds."""
    found = (path for pattern in SOURCES for path in root.glob(pattern))
    return {*NEEDED, *ALONE, *(path.relative_to(root).as_posix() for path in found)}


def problems(names: Iterable[str], root: Path) -> list[str]:
    """What is wrong with a distribution of these files; paths are inside its one folder."""
    there, wanted = set(names), expected(root)
    return [
        *(f"expected, but not there: {name}" for name in sorted(wanted - there)),
        *(f"there, but not expected: {name}" for name in sorted(there - wanted)),
    ]


def main() -> None:
    """Checks contents and, if asked, installation and use."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dist", type=Path)
    parser.add_argument("--install", action="store_true")
    arguments = parser.parse_args()
    (archive,) = arguments.dist.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        paths = [PurePosixPath(member.name) for member in file if member.isfile()]
    print(f"{archive.name}: {len(paths)} files, {archive.stat().st_size / 1e6:.2f} MB", flush=True)
    if wrong := problems((str(PurePosixPath(*path.parts[1:])) for path in paths), ROOT):
        raise SystemExit("\n".join(wrong))
    if arguments.install:
        with fresh(os.environ["PATH"]) as environment:
            environment.exercise(archive)


if __name__ == "__main__":
    main()
