"""What the benches ran on."""

from __future__ import annotations

import platform
from pathlib import Path

from virtualtb_fast.info import system_info


def machine() -> str:
    """Processor, cores, instruction set."""
    info = system_info()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {info['threads']} cores, {platform.system()}, {info['instruction_set']}"
