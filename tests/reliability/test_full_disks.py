"""Catalogues and fits where the system refuses to write: what was there stays, what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import virtualtb_fast as vtb

pytest.importorskip("resource", reason="limits of files' sizes are Unix's")

LIMITED = """
import json, resource, signal, sys
import virtualtb_fast as vtb

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def limited(most, work):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        work()
        said = ""
    except vtb.OutputError as error:
        said = str(error)
        assert isinstance(error, OSError)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return said
"""


def child(code: str, *words: str) -> Any:
    """What the code printed, in a process of its own: a limit holds for all of one."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED + code, *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


CATALOG = """
import os
import numpy as np

path = sys.argv[1]
items = np.random.default_rng(1).standard_normal((20_000, 16)).astype(np.float32)
ids = [f"item {number}" for number in range(20_000)]
def build(target=path):
    vtb.Catalog.build(items, target, ids=ids, price=np.arange(20_000), overwrite=True)
build(path + ".whole")
size = os.path.getsize(path + ".whole")
os.unlink(path + ".whole")
old, folder = open(path, "rb").read(), os.listdir(os.path.dirname(path))
found = []
for most in (0, 1, 4096, 100_000, size // 4, size // 2, size - 4097, size - 1):
    said = limited(most, build)
    same = open(path, "rb").read() == old and os.listdir(os.path.dirname(path)) == folder
    found.append([most, said, same])
# The void guard: where there is room, the old file is gone.
said = limited(4 * size, build)
print(json.dumps([found, said, open(path, "rb").read() == old]))
"""


def test_a_catalogue_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "items.catalog"
    vtb.Catalog.build([[1.0, 2.0], [3.0, 4.0]], path).close()
    found, said, same = child(CATALOG, str(path))
    for most, message, kept in found:
        assert "File too large" in message, (most, message)
        assert "items.catalog" in message, message
        assert kept, most
    assert said == ""
    assert not same
    assert os.listdir(tmp_path) == ["items.catalog"]


FIT = """
import os
from pathlib import Path
from virtualtb_fast import _training

_training._EVERY = 0.0
log, out, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
work = Path(out + ".work")
saved, kept, stage, failing = {}, {}, "", sys.argv[4]

before = _training.Checkpoint.save
def save(self, state):
    # Only this stage's second or later save meets the limit, at a part of what it would write.
    if self.path.stem != failing or not self.path.exists():
        return before(self, state)
    kept[self.path.name] = self.path.read_bytes()
    most = int(float(sys.argv[5]) * len(kept[self.path.name]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    return before(self, state)

_training.Checkpoint.save = save
said = limited(resource.RLIM_INFINITY, lambda: vtb.fit(log, out=out, **settings))
print(json.dumps({
    "said": said,
    "failed": list(kept),
    "intact": all((work / name).read_bytes() == data for name, data in kept.items()),
    "left": sorted(one.name for one in work.iterdir()) if work.exists() else [],
    "out": os.path.exists(out),
}))
"""
SETTINGS: dict[str, Any] = {"customers": "ar", "responses": "bc", "effort": 0.02, "seed": 3}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("torch")
    pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("logs") / "clicks.parquet"
    vtb.rollout("virtualtb-v0-refit", "gaussian:0.1", sessions=300, seed=1, out=path)
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(log: str) -> dict[str, bytes]:
    tensors = vtb.fit(log, **SETTINGS).tensors()
    return {name: value.tobytes() for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("stage", "share"),
    [("customers", 0.0), ("responses", 0.3), ("engine", 0.97)],
)
def test_a_fit_whose_checkpoint_does_not_fit_goes_on_from_the_last_one(
    log: str, undisturbed: dict[str, bytes], tmp_path: Path, stage: str, share: float
) -> None:
    out = tmp_path / "fit.safetensors"
    found = child(FIT, log, str(out), json.dumps(SETTINGS), stage, str(share))
    assert found["failed"] == [f"{stage}.checkpoint"], found
    assert f"{stage}.checkpoint" in found["said"], found
    assert found["intact"]
    assert not [name for name in found["left"] if name.endswith(".new")]
    assert not found["out"]
    took: dict[str, Any] = {}
    fitted = vtb.fit(log, out=out, costs=took.update, **SETTINGS)
    assert took["stages"][stage]["resumed"]
    assert {name: value.tobytes() for name, value in fitted.tensors().items()} == undisturbed
    assert os.listdir(tmp_path) == ["fit.safetensors"]
    if share == 0.97:
        # The void guard: another seed gives another one.
        other = vtb.fit(log, **{**SETTINGS, "seed": 4}).tensors()
        assert {name: value.tobytes() for name, value in other.items()} != undisturbed
