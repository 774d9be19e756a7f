"""What a bench runs on, which code it runs, and how much memory its process has."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from virtualtb_fast.info import system_info

__all__ = ["commit", "load", "machine", "peak", "resident"]


def commit() -> str | None:
    """The commit of the git checkout that this code is run from, for results to name.

    It ends in ``-dirty`` where tracked files differ from it; results themselves may (those in
    ``benches/results``), since one run writes several. None where the code is no part of a
    checkout: installed, or in a folder that git does not track.
    """
    file = Path(__file__).resolve()

    def git(*words: str) -> str | None:
        try:
            ran = subprocess.run(
                ["git", "-C", str(file.parent), *words], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return ran.stdout.strip() if ran.returncode == 0 else None

    # An environment within somebody else's checkout is not theirs.
    if git("ls-files", "--error-unmatch", file.name) is None:
        return None
    head = git("rev-parse", "HEAD")
    if head is None:
        return None
    others = ("--untracked-files=no", "--", ":/", ":(top,exclude)benches/results")
    return head if git("status", "--porcelain", *others) == "" else f"{head}-dirty"


def machine() -> str:
    """Processor, cores, system, instruction set."""
    info = system_info()
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {info['threads']} cores, {platform.system()}, {info['instruction_set']}"


def load() -> float | None:
    """Processes that ran or wanted to, on average of the last minute; None where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def resident() -> float | None:
    """Resident memory of this process in MB; its peak where the system tells no more."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return peak()


def peak() -> float | None:
    """Peak resident memory of this process in MB; None on Windows."""
    status = Path("/proc/self/status")
    if status.exists():
        # Elsewhere `ru_maxrss` will do; on Linux it begins with the peak of the parent process.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit / 1e6
