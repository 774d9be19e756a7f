"""The workflows do what CONTRIBUTING says, and the tools that guard a release refuse bad ones."""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: path.read_text("utf-8") for path in ROOT.glob(".github/workflows/*.yml")}
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text("utf-8"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOWEST = PYPROJECT["project"]["requires-python"].removeprefix(">=")

# There is no parser of YAML among the tests' packages: our own workflows are regular enough.
ELSEWHERE = re.compile(
    r"\b[Ss]pec(?:ification)?s?[ ,(]+(?:section )?T?\d|\([Ss]pec[ ,:]|\b[Tt]he spec\b"
    r"|\b(?:in|of) the specification\b|\bT\d+\.\d"
)
"""Words that refer to a document which is not in this repository."""

USES = re.compile(r"uses: (\S+)(.*)")
ROW = re.compile(r"- \{name: (?P<name>[\w-]+), runner: (?P<runner>[\w.-]+)(?P<more>.*)\}")


def jobs(workflow: str) -> dict[str, str]:
    """The text of each job."""
    text = workflow[workflow.index("\njobs:\n") :]
    parts = re.split(r"^  ([\w-]+):\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def needs(job: str) -> set[str]:
    """The jobs that one names as done before it."""
    found = re.search(r"^    needs: \[?([\w, ]+)\]?$", job, re.MULTILINE)
    return set(found[1].split(", ")) if found else set()


def before(workflow: str, job: str) -> set[str]:
    """All jobs that are done before one."""
    found, new = set[str](), {job}
    while new:
        new = set().union(*(needs(jobs(workflow)[name]) for name in new)) - found
        found |= new
    return found


def unpinned(workflow: str) -> list[str]:
    """Actions that are not named by commit with the version beside it."""
    return [
        action
        for action, comment in USES.findall(workflow)
        if not action.startswith("./")
        and not (re.search(r"@[0-9a-f]{40}$", action) and re.match(r" # v\d+\.\d+\.\d+$", comment))
    ]


def tool(name: str) -> ModuleType:
    """A script of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sdist(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.delitem(sys.modules, "check_wheel", raising=False)
    return tool("check_sdist")


def texts() -> Iterator[Path]:
    """Everything that people read: sources, tests, tools, workflows and what stands beside them."""
    kinds = {".py", ".pyi", ".rs", ".md", ".toml", ".yml", ".html"}
    for folder in ("rust", "python", "tests", "benches", "tools", ".github"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in kinds)
    yield from (path for path in ROOT.iterdir() if path.suffix in kinds or path.name == "Makefile")


def versions(text: str) -> list[str]:
    return re.findall(r"3\.\d+t?", text)


def test_every_platform_that_is_promised_is_built_and_used() -> None:
    releases = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("\n## Releases\n")[1]
    promised = re.findall(r"^\| [^|]+ \| `([\w-]+)` \|", releases, re.MULTILINE)
    assert len(promised) >= 5
    parts = jobs(WORKFLOWS["release"])
    built = {row["name"]: row for row in ROW.finditer(parts["wheel"])}
    used = {row["name"]: row for row in ROW.finditer(parts["install"])}
    assert set(promised) == set(built) == set(used)
    for name in promised:
        assert built[name]["runner"] == used[name]["runner"]
    changed = {row["name"] for row in ROW.finditer(jobs(WORKFLOWS["ci"])["platform"])}
    assert {name.split("-")[0] for name in changed} == {"linux", "macos", "windows"}
    assert changed <= set(promised)


def test_crates_are_audited_for_the_platforms_that_are_built() -> None:
    deny = tomllib.loads((ROOT / "deny.toml").read_text("utf-8"))
    targets = re.findall(r"target: ([\w-]+)[,}]", jobs(WORKFLOWS["release"])["wheel"])
    assert sorted(targets) == sorted(deny["graph"]["targets"])
    assert len(set(targets)) == len(targets) >= 5


def test_python_versions_agree() -> None:
    parts = jobs(WORKFLOWS["release"])
    built = versions(next(line for line in parts["wheel"].splitlines() if "python: [" in line))
    used = versions(next(line for line in parts["install"].splitlines() if "python: [" in line))
    plain = [version for version in used if not version.endswith("t")]
    assert built[0] == LOWEST
    assert f"abi3-py{LOWEST.replace('.', '')}" in CARGO["dependencies"]["pyo3"]["features"]
    first, last = int(LOWEST.split(".")[1]), int(plain[-1].split(".")[1])
    assert plain == [f"3.{minor}" for minor in range(first, last + 1)]
    assert [version for version in used if version.endswith("t")] == built[1:]
    assert f"'{built[1]}' || '{LOWEST}'" in parts["install"]
    assert f'python-version: "{LOWEST}"' in jobs(WORKFLOWS["ci"])["test"]
    assert PYPROJECT["tool"]["pyright"]["pythonVersion"] == LOWEST


def test_tools_have_one_version_each_that_we_build_with() -> None:
    release = WORKFLOWS["release"]
    rust = set(re.findall(r"(?:rust-toolchain: \"|toolchain install |default )([\d.]+)", release))
    assert len(rust) == 1
    ours = tuple(map(int, CARGO["package"]["rust-version"].split(".")))
    assert tuple(map(int, rust.pop().split("."))) >= ours
    maturin = set(re.findall(r"maturin(?:-version: v|==)([\d.]+)", release))
    assert len(maturin) == 1
    assert PYPROJECT["build-system"]["requires"] == ["maturin>=1.9,<2"]
    assert (1, 9) <= tuple(map(int, maturin.pop().split("."))) < (2,)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_make_targets_and_tools_exist(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert {"test", "stubs", "audit"} <= targets
    assert {"lint", "stubs", "test-rust"} <= set(
        re.search(r"^test:(.*?)##", makefile, re.MULTILINE)[1].split()
    )
    assert set(re.findall(r"\bmake ([a-z-]+)", WORKFLOWS[name])) <= targets
    scripts = set(re.findall(r"python (tools/\w+\.py)", WORKFLOWS[name]))
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned(name: str) -> None:
    text = WORKFLOWS[name]
    assert unpinned(text) == []
    assert unpinned(re.sub(r"@[0-9a-f]{40} #", "@v7 #", text, count=1)) != []
    assert text.count("actions/checkout@") == text.count("persist-credentials: false") > 0


def test_nobody_may_more_than_needed() -> None:
    assert set(WORKFLOWS) == {"ci", "release"}
    for text in WORKFLOWS.values():
        assert "\npermissions:\n  contents: read\n\n" in text
        assert "secrets" not in text
    allowed = {
        "attest": ["id-token: write", "attestations: write"],
        "publish": ["id-token: write"],
        "announce": ["contents: write"],
    }
    for name, text in WORKFLOWS.items():
        for job, part in jobs(text).items():
            granted = allowed.get(job, []) if name == "release" else []
            assert re.findall(r"[\w-]+: write\b", part) == granted, job


def test_nothing_is_published_before_all_was_used() -> None:
    text = WORKFLOWS["release"]
    all_others = set(jobs(text)) - {"publish", "announce"}
    assert before(text, "publish") == all_others
    assert {"version", "ci", "wheel", "install", "sdist", "sbom", "attest"} == all_others
    assert before(text, "announce") == all_others | {"publish"}
    hasty = text.replace("needs: [version, ci, install, sdist, sbom]", "needs: [version, sbom]")
    assert "install" not in before(hasty, "publish")
    for job in ("version", "attest", "publish", "announce"):
        assert "    if: startsWith(github.ref, 'refs/tags/v')\n" in jobs(text)[job]


def test_the_wheels_tests_need_nothing_but_the_wheel() -> None:
    """What `check_wheel` runs may skip for want of a package, not fail."""
    paths = [ROOT / name for name in tool("check_wheel").TESTS]
    files = [
        file for path in paths for file in (path.glob("test_*.py") if path.is_dir() else [path])
    ]
    assert len(files) >= 20
    for file in files:
        text = file.read_text("utf-8")
        assert not re.search(r"^(import|from) (torch|scipy|pyarrow|sklearn)\b", text, re.M), file


def test_an_incomplete_wheel_is_seen() -> None:
    wheel = tool("check_wheel")
    names = [pattern.replace("*", "x-1") for pattern in wheel.INSIDE]
    assert wheel.missing(names, wheel.INSIDE) == []
    for name, pattern in zip(names, wheel.INSIDE, strict=True):
        if pattern != "virtualtb_fast/_core.*":  # Its stub is alike.
            assert wheel.missing([other for other in names if other != name], [pattern]) == [
                pattern
            ]


def test_a_bad_source_distribution_is_seen(sdist: ModuleType) -> None:
    good = sdist.expected(ROOT)
    assert {"rust/lib.rs", "rust/kernels/neon.rs", "python/virtualtb_fast/fit.py"} < good
    assert sdist.problems(good, ROOT) == []
    simulator = "python/virtualtb_fast/data/virtualtb-v0-refit.safetensors"
    for name in (simulator, "LICENSE-MIT", "Cargo.lock", "rust/rng.rs"):
        assert sdist.problems(good - {name}, ROOT) == [f"expected, but not there: {name}"]
    for name in ("logs.parquet", "python/virtualtb_fast/data/other.safetensors"):
        assert sdist.problems({*good, name}, ROOT) == [f"there, but not expected: {name}"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "Cargo.toml").write_text('[package]\nversion = "1.2.3"\n')
    lock = '[[package]]\nname = "virtualtb-fast"\nversion = "1.2.3"\n'
    (tmp_path / "Cargo.lock").write_text(lock)
    changes = "# Changelog\n\n## 1.2.3, 2030-01-31\n\n- New.\n\n## 1.2.2, 2029-12-31\n\n- Old.\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    return tmp_path


def test_a_release_is_what_its_tag_says(tree: Path) -> None:
    assert tool("check_release").section("v1.2.3", tree) == "- New."


@pytest.mark.parametrize(
    ("file", "old", "new", "expected", "got"),
    [
        ("Cargo.toml", "1.2.3", "1.2.4", "the tag v1.2.4", "v1.2.3"),
        ("Cargo.lock", "1.2.3", "1.2.2", "1.2.3 in Cargo.lock", "1.2.2"),
        ("CHANGELOG.md", "## 1.2.3, 2030-01-31\n", "", "1.2.3 as the newest", "1.2.2"),
        ("CHANGELOG.md", "## ", "### ", "1.2.3 as the newest", "none"),
        ("CHANGELOG.md", "2030-01-31", "unreleased", "a date", "'unreleased'"),
    ],
)
def test_a_release_that_disagrees_is_refused(
    tree: Path, file: str, old: str, new: str, expected: str, got: str
) -> None:
    path = tree / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=re.escape(f"expected {expected}")) as raised:
        tool("check_release").section("v1.2.3", tree)
    assert f"got {got}" in str(raised.value)


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {said[0]}"
        for path in texts()
        if path != Path(__file__) and (said := ELSEWHERE.search(path.read_text("utf-8")))
    ]
    assert found == []
    for words in (
        "the guards of spec 3.6",
        "(spec T6.2)",
        "T2.1, a sanity check",
        "linear in the scaled action (spec, section 0)",
        "section 0 of the specification",
        "numbered as in the specification (7.3)",
        "bounds are the spec's",
    ):
        assert ELSEWHERE.search(words), words
    for words in ("env.spec.id", "(spec)", "docstrings are the specification: `help`"):
        assert not ELSEWHERE.search(words), words


def test_readme_says_which_rust_is_needed() -> None:
    lowest = CARGO["package"]["rust-version"]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"it needs [Rust](https://rustup.rs) {lowest} or later" in readme


def test_another_tag_is_refused(tree: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("expected the tag v1.2.3")):
        tool("check_release").section("1.2.3", tree)
