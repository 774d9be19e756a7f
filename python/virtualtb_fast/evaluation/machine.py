"""What a bench runs on, and how much memory its process has."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

from virtualtb_fast.info import system_info

__all__ = ["load", "machine", "peak", "resident"]


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
