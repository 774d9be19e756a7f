"""README's snippets run, and its tables are those of the committed results."""

import contextlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import readme_learned
import readme_runs

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


def committed_runs() -> dict[str, Any]:
    """The last long runs of the reliability tests, by name."""
    runs = ROOT / "benches" / "results" / "reliability"
    return {path.stem: json.loads(path.read_text()) for path in runs.glob("*.json")}


def test_runs_that_failed_are_not_told_as_if_they_had_passed() -> None:
    told, found = readme_runs.reliability, committed_runs()
    files = found["kills"]["kills"]["rollouts"] + found["kills"]["failed_writes"]["failed_writes"]
    good = (f"all {files:,} files", ": no failures", ": no findings, no suppressions")
    assert [words for words in good if words not in told(found)] == []
    found["kills"]["kills"]["equal"] -= 1
    found["fuzz"]["failures"] = 3
    found["sanitizers"]["thread"]["findings"] = ["a race"]
    bad = (f"{files - 1:,} of {files:,} files", ": 3 failures", ": 1 findings, no suppressions")
    assert [words for words in bad if words not in told(found)] == []
    assert [words for words in good if words in told(found)] == []


def test_what_waits_for_signals_is_told_where_it_was_measured() -> None:
    told, found = readme_runs.reliability, committed_runs()
    found.pop("signals", None)
    assert "signals" not in told(found)
    found["signals"] = {
        "most_ms": 50.0,
        "longest_ms": {"build": 31.26, "search": 4.0},
        "guard": {"numpy.sort": 130.4},
    }
    (line,) = [one for one in told(found).splitlines() if "reliability/signals.json" in one]
    assert line.startswith("- `make soak-kills` ")
    assert "2 long native calls: each at most 50 ms, the longest 31.3 ms (`build`)" in line
    assert line.endswith("took 130 ms.")
    found["signals"]["longest_ms"]["search"] = 61.0
    assert "1 of them longer than 50 ms, the longest 61.0 ms (`search`)" in told(found)
    found["signals"]["guard"]["numpy.sort"] = 20.0
    assert "took 20 ms, so that this run proves nothing." in told(found)


def test_the_table_of_fields_says_when_it_proves_nothing() -> None:
    def found(independent: float) -> dict[str, object]:
        worst = {"fresh": 0.0, "gan-sd": 0.002, "gmm": 0.03, "independent": independent}
        rows = {name: {"a": [kl, 0.0], "b": [kl / 2, 0.0]} for name, kl in worst.items()}
        back = {name: {"a": [9 * kl, 0.0], "b": [kl, 0.0]} for name, kl in worst.items()}
        names = [{"name": "a"}, {"name": "b"}]
        return {"worlds": [100, 101], "fields": names, "rows": rows, "rows_back": back}

    text = readme_learned.fields(found(0.001))
    assert "| `a` | 0.0000 / 0.0000 | 0.0020 / 0.0180 | 0.0300 / 0.2700 | 0.0010 / 0.0090 |" in text
    assert "would call them perfect" in text
    assert "would call them perfect" not in readme_learned.fields(found(0.003))


def test_a_mean_of_one_world_has_no_interval() -> None:
    mean = readme_learned._mean
    assert mean({"error": [0.5, 0.25]}, "error", 2) == "0.50 ± 0.25"
    # One run; and what is the same in all by construction, as a guard's share of itself.
    for half in (None, 0.0):
        assert mean({"error": [0.5, half]}, "error", 2) == "0.50"


def test_what_mail_misses_is_said_only_where_it_misses() -> None:
    def told(effect: float, best: int) -> str:
        row = {"effect": [effect, 0.1], "auc": [0.51, 0.0]}
        cells = [
            {"method": method, "fit": {"iterations": 7, "best_iteration": best}}
            for method in ("mail", "bc+mail")
        ]
        aims = {"effect": [0.3, 1.0], "auc": [0.0, 0.58]}
        return readme_learned._missed({"rows": {"mail": row}, "aims": aims, "cells": cells})

    assert told(0.2, 0) == (
        "MAIL from random weights misses the aims of effect after 7 iterations. Started from "
        "cloned weights its steps made held-out answers likelier in 0 of 1 worlds. "
    )
    assert "in 1 of 1 worlds" in told(0.2, 3)
    assert told(0.4, 0) == ""
    assert readme_learned._missed({"rows": {}}) == ""


def test_seeds_that_are_missing_are_named() -> None:
    row = {"seeds": [100, 101], "auc": [0.9, 0.01], "ratio_pair": [1.0, 0.0]}
    row["field_kl"] = [0.01, 0.0]
    tables = {
        name: {"fields": 3, "train": 4_000, "generated": {"fresh": 500}}
        | {"rows": {"fresh": row, "gan-sd": {**row, "seeds": seeds}}}
        for name, seeds in (("kuairand", [101]), ("virtualtb-counts", [100, 101]))
    }
    text = readme_learned.real({"tables": tables})
    assert "4,000 to fit to; seeds 100 to 101, but GAN-SD 101)" in text
    assert "(4,000; seeds 100 to 101)" in text
    assert "| *fresh real customers* | 0.900 ± 0.010 | 1.000 | 0.0100 |  |" in text


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
