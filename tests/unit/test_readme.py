"""README's snippets run, and its tables are those of the committed results."""

import contextlib
import importlib
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


def test_the_catalogue_is_built_again_where_one_is(tmp_path: Path) -> None:
    (snippet,) = (one for one in SNIPPETS if "Catalog.build" in one)
    (tmp_path / "items.vtbcat").write_text("an older one")
    test_snippets_run(snippet, tmp_path)


def test_a_network_of_ones_own_travels_in_a_file(tmp_path: Path) -> None:
    from virtualtb_fast.policies import Policy

    (snippet,) = (one for one in SNIPPETS if "Policy.from_tensors" in one)
    test_snippets_run(snippet, tmp_path)
    held = Policy.load(tmp_path / "network.safetensors").config
    assert held is not None
    assert (held["layers"], held["activation"]["kind"]) == ([91, 64, 27], "tanh")


def test_tables_are_up_to_date() -> None:
    tool = ROOT / "tools" / "readme_tables.py"
    checked = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


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
