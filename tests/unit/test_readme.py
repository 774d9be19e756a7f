"""README's snippets run, and its tables are those of the committed results."""

import contextlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 3


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippets_run(snippet: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_tables_are_up_to_date() -> None:
    tool = ROOT / "tools" / "readme_tables.py"
    checked = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_runs_that_failed_are_not_told_as_if_they_had_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    told = importlib.import_module("readme_runs").reliability
    runs = ROOT / "benches" / "results" / "reliability"
    found = {path.stem: json.loads(path.read_text()) for path in runs.glob("*.json")}
    files = found["kills"]["kills"]["rollouts"] + found["kills"]["failed_writes"]["failed_writes"]
    good = (f"all {files:,} files", ": no failures", ": no findings, no suppressions")
    assert [words for words in good if words not in told(found)] == []
    found["kills"]["kills"]["equal"] -= 1
    found["fuzz"]["failures"] = 3
    found["sanitizers"]["thread"]["findings"] = ["a race"]
    bad = (f"{files - 1:,} of {files:,} files", ": 3 failures", ": 1 findings, no suppressions")
    assert [words for words in bad if words not in told(found)] == []
    assert [words for words in good if words in told(found)] == []


def resolve(name: str) -> object:
    """What a dotted name stands for; modules need not be imported before."""
    first, *rest = name.split(".")
    value: object = importlib.import_module(first)
    for part in rest:
        if isinstance(value, ModuleType) and not hasattr(value, part):
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{value.__name__}.{part}")
        value = getattr(value, part)
    return value


def test_every_dotted_name_in_readme_exists() -> None:
    names = set(re.findall(r"\bvirtualtb_fast(?:\.\w+)+", (ROOT / "README.md").read_text()))
    assert names
    for name in names:
        assert resolve(name) is not None
    # Void guard: a name that README once had, and there was no such thing.
    with pytest.raises(AttributeError):
        resolve("virtualtb_fast.envs.VirtualTBv1")


def test_every_make_target_named_in_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
