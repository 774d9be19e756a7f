"""Runs the Rust tests and mutated files under a sanitizer, and writes down what it found.

``python tools/sanitizers.py address`` (memory errors, leaks) or ``thread`` (data races), as ``make
asan`` and ``make tsan`` do. The stable toolchain does it; nothing is suppressed but what
``SUPPRESSIONS`` gives a reason for. Each has a folder of its own under ``target``. The result goes
to ``benches/results/reliability/sanitizers.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benches" / "results" / "reliability" / "sanitizers.json"
TARGET = "x86_64-unknown-linux-gnu"
FLAGS = {"address": "-Zsanitizer=address", "thread": "-Zsanitizer=thread"}
BUILD = {
    "address": [],
    # Locks and channels of a standard library that comes built are unknown to ThreadSanitizer: all
    # that they guard would be reported. So it is built too (`rustup component add rust-src`).
    "thread": ["-Zbuild-std"],
}
FINDING = re.compile(r"(?:ERROR|WARNING): (?:Address|Thread|Leak)Sanitizer: .*")
SUPPRESSIONS: dict[str, dict[str, str]] = {"address": {}, "thread": {}}
"""By sanitizer: what is not reported, and why."""

SKIPPED: dict[str, dict[str, str]] = {
    "address": {},
    "thread": {
        "store::tests::ten_worlds_without_repetition_are_calibrated": (
            "takes an hour there; other tests calibrate a world too"
        )
    },
}
"""By sanitizer: tests that are not run, and why."""


def run(which: str, files: int) -> dict[str, Any]:
    """Runs all tests; what was found."""
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("".join(f"{line}\n" for line in SUPPRESSIONS[which]))
        listed.flush()
        options = f"suppressions={listed.name}" if SUPPRESSIONS[which] else ""
        environment = os.environ | {
            "RUSTC_BOOTSTRAP": "1",
            "RUSTFLAGS": FLAGS[which],
            "TSAN_OPTIONS" if which == "thread" else "ASAN_OPTIONS": options,
            "VIRTUALTB_FUZZ_FILES": str(files),
        }
        folder = f"target/{'a' if which == 'address' else 't'}san"
        command = ["cargo", "test", "--release", "--target", TARGET, "--target-dir", folder]
        skip = [word for name in SKIPPED[which] for word in ("--skip", name)]
        process = subprocess.Popen(
            [*command, *BUILD[which], "--lib", "--test", "files", "--no-fail-fast", "--", *skip],
            cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        code = process.wait()
    text = "".join(lines)
    results = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text)
    read = re.findall(r"^\w+: (\d+) files", text, re.MULTILINE)
    return {
        "exit_status": code,
        "tests_passed": sum(int(passed) for passed, _, _ in results),
        "tests_failed": sum(int(failed) for _, failed, _ in results),
        "tests_ignored": sum(int(ignored) for _, _, ignored in results),
        "mutated_files": sum(map(int, read)),
        "findings": sorted(set(FINDING.findall(text))),
        "suppressions": SUPPRESSIONS[which],
        "skipped": SKIPPED[which],
        "flags": " ".join([FLAGS[which], *BUILD[which]]),
        "seconds": round(time.perf_counter() - began),
    }


def main() -> None:
    """Runs one, and puts its result beside the other's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=sorted(FLAGS))
    parser.add_argument("--files", type=int, default=20_000, help="mutated files to read")
    given = parser.parse_args()
    outcome = run(given.which, given.files)
    from virtualtb_fast.evaluation.machine import machine

    held = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    version = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    outcome |= {"rustc": version.stdout.strip(), "machine": machine()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(held | {given.which: outcome}, indent=2, sort_keys=True) + "\n")
    print(json.dumps(outcome, indent=2))
    good = not outcome["exit_status"] and not outcome["findings"] and outcome["tests_passed"]
    if not good or outcome["mutated_files"] != given.files:
        sys.exit(1)


if __name__ == "__main__":
    main()
