"""What may use what, where import-linter cannot see it: Rust modules and the native module."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUST = sorted((ROOT / "rust").rglob("*.rs"))
PYTHON = sorted((ROOT / "python" / "virtualtb_fast").rglob("*.py"))

# What a file may not mention, and the files that may.
RULES = {
    r"\b(pyo3|numpy)\b": r"rust/python(\.rs|/.*)$",
    r"\brayon\b": r"rust/parallel\.rs$",
    r"\b_mm\d*_\w+|std::arch::(x86_64|aarch64)|\bv(ld1|st1|fma)q_f32": (
        r"rust/kernels/(\w+|(avx2|avx512|neon)/\w+)\.rs$"
    ),
}


def breaches(text: str, path: str) -> list[str]:
    code = re.sub(r"//.*", "", text)
    return [
        pattern
        for pattern, home in RULES.items()
        if re.search(pattern, code) and not re.search(home, path)
    ]


def test_there_are_sources_to_look_at() -> None:
    assert len(RUST) > 10
    assert len(PYTHON) > 5


@pytest.mark.parametrize("path", RUST, ids=lambda path: path.name)
def test_rust_modules_keep_to_their_own(path: Path) -> None:
    assert breaches(path.read_text(), path.relative_to(ROOT).as_posix()) == []


def test_a_breach_would_be_seen() -> None:
    assert breaches("use rayon::prelude::*;", "rust/session.rs")
    assert breaches("use pyo3::prelude::*;", "rust/rollout.rs")
    assert breaches("let x = _mm256_setzero_ps();", "rust/nn.rs")
    assert breaches("let x = _mm256_setzero_ps();", "rust/kernels/scan/avx2.rs")


def test_unsafe_blocks_are_few() -> None:
    blocks = sum(
        len(re.findall(r"unsafe\s*(\{|fn|impl)", re.sub(r"//.*", "", path.read_text())))
        for path in RUST
    )
    assert 0 < blocks <= 20


def native_users() -> set[str]:
    users = set()
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if any(name.split(".")[-1] == "_core" for name in names):
                users.add(path.relative_to(ROOT / "python" / "virtualtb_fast").parts[0])
    return users


def test_only_the_wrappers_use_the_native_module() -> None:
    allowed = {
        "__init__.py",
        "_world.py",
        "catalog.py",
        "customers",
        "envs",
        "info.py",
        "logs.py",
        "policies",
        "rollout.py",
        "simulator.py",
        "store.py",
    }
    assert native_users() <= allowed
    assert "envs" in native_users()


def checkers_of_integers() -> set[str]:
    """Modules that tell integers from what is none, as an argument's check begins."""
    return {path.name for path in PYTHON if "operator.index(" in path.read_text()}


def test_arguments_are_checked_in_one_place() -> None:
    assert checkers_of_integers() == {"_arguments.py"}


def test_no_star_imports() -> None:
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), path
