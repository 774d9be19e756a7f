"""The promise of the random streams, pinned: one digest a simulator and form, on every CPU.

If one of these digests changes although the simulator's did not, results that people published
change with it: that takes a new ``STREAM_VERSION`` and a line in the changelog.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import virtualtb_fast as vtb
from virtualtb_fast import _core
from virtualtb_fast.logs import read_log

PAGES = 200_000

# Digest of the simulator -> digest of its rollout of 200,000 pages under random actions, seed 7.
PINNED = {
    # virtualtb-v0-refit, the embedded default
    "c654452f59f66af5e631510200a88d6715efbf5e53bcca489c0ccad9d1a75a7d": (
        "a9e857623d31cdf13478b8b640f9a0f2e0e68fa33b73a11bc3f11db5ab36dea2"
    ),
    # virtualtb-v0, the published networks as imported
    "a16d1b2c46ffcc7aedcb3f1a206f5af52153c184b606b538d3f3f00cfc67124d": (
        "ec3971e55a684bce8b0ad8ce4912104f8722a8dcc5ba0f1c57fb8891fce70fc3"
    ),
    # virtualtb-v0-refit, reduced: what the layers were rounded to is pinned with it
    "c3c53400410998594f8b0871026f8eae41dbe4176b1aa4f4532d0a3a29504f4e": (
        "0f4271f4eab884d6bc3d93fbb7c298f66cb69c35cd04bee4f3692ef444998b25"
    ),
    # virtualtb-v0, reduced
    "642a66c48ac850adaa218ba1fa771af9f136cbf1fe1ef05ce755b8891f29205d": (
        "39c61d68cf84241f823a6362962155e919b9b5763eaed66df9744d12529327fc"
    ),
}


def played(simulator: vtb.Simulator, **arguments: object) -> str:
    return vtb.rollout(simulator, policy="random", pages=PAGES, seed=7, **arguments).digest()


def test_the_stream_version_is_the_pinned_one() -> None:
    assert _core.STREAM_VERSION == 1


@pytest.mark.parametrize(
    ("threads", "batch_size"), [(1, None), (2, 1024), (3, 7), (8, None), (2, 1)]
)
def test_the_embedded_simulator(threads: int, batch_size: int | None) -> None:
    simulator = vtb.load_simulator()
    digest = played(simulator, num_threads=threads, batch_size=batch_size)
    assert digest == PINNED[simulator.digest]


@pytest.mark.parametrize(("threads", "batch_size"), [(1, None), (3, 7)])
def test_the_embedded_simulator_reduced(threads: int, batch_size: int | None) -> None:
    simulator = vtb.load_simulator().reduced()
    digest = played(simulator, num_threads=threads, batch_size=batch_size)
    assert digest == PINNED[simulator.digest]


def test_the_published_networks(published: vtb.Simulator) -> None:
    for simulator in (published, published.reduced()):
        assert played(simulator) == PINNED[simulator.digest]


def test_on_disk(tmp_path: Path) -> None:
    simulator = vtb.load_simulator()
    path = tmp_path / "logs.parquet"
    assert played(simulator, out=path) == PINNED[simulator.digest]
    assert read_log(path).digest() == PINNED[simulator.digest]


@pytest.mark.parametrize("isa", _core.cpu_info()["available"])
@pytest.mark.parametrize("form", ["", ".reduced()"])
def test_every_instruction_set(isa: str, form: str) -> None:
    code = (
        f"import virtualtb_fast as vtb; sim = vtb.load_simulator(){form}; "
        f"print(sim.digest, vtb.rollout(sim, policy='random', pages={PAGES}, seed=7).digest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"VIRTUALTB_FAST_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    simulator, digest = run.stdout.split()
    assert digest == PINNED[simulator]
    assert (simulator == vtb.load_simulator().digest) == (not form)


def test_another_seed_is_another_digest() -> None:
    simulator = vtb.load_simulator()
    other = vtb.rollout(simulator, policy="random", pages=PAGES, seed=8).digest()
    assert other not in PINNED.values()
