"""Ctrl-C in the middle of every long native call: it is answered there, and nothing is lost.

How fast it is answered is measured by ``make soak-kills``. Here a first signal is only noted; a
second one, sent when the first has been noted and the call goes on, ends it. A call that does not
look up notes the first one at its end, so that there is nothing left to end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reliability.cases import small_simulator

import virtualtb_fast as vtb
from virtualtb_fast.logs import read_log

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="a timer of the system presses Ctrl-C"
)

SLOW = 400_000
"""Rows of what takes long enough to be interrupted."""


class Kit:
    """What long calls are made on."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        self.small = small_simulator()
        self.default = vtb.load_simulator()
        self.store = vtb.GroundTruthStore(7, calibrate=False, tau=1.0, b0=-4.0, items=1 << 25)
        self.attributes = rng.normal(size=(SLOW, 27)).astype(np.float32)
        self.ids = [f"item {number}" for number in range(SLOW)]
        brands = [f"brand {number % 90}" for number in range(SLOW)]
        self.catalog = vtb.Catalog.build(
            self.attributes, folder / "items.vtbcat", ids=self.ids, category={"brand": brands}
        )
        self.many_ids = self.ids * 5
        self.many_rows = rng.integers(0, SLOW, 8_000_000).astype(np.uint32)
        self.candidates = rng.integers(0, SLOW, (20_000, 150)).astype(np.uint32)
        self.logits = np.zeros((SLOW, 116), np.float32)
        self.codes = self.default.customers(3 * SLOW, 1)
        self.pages = np.zeros(3 * SLOW, np.int64)
        self.actions = np.zeros((3 * SLOW, 27), np.float32)
        self.queries = np.zeros(3 * SLOW, np.uint8)
        self.hidden = self.store.reveal()
        self.log = vtb.rollout(self.default, "random", pages=3 * SLOW).log
        self.log.write(folder / "log.parquet")

    def close(self) -> None:
        self.catalog.close()


TRIES = 5

Long = Callable[[Kit], Any]

LONG: dict[str, tuple[Long, Long]] = {
    "customers": (
        lambda kit: kit.default.customers(10**8, 1),
        lambda kit: kit.default.customers(3, 1),
    ),
    "response": (
        lambda kit: kit.default.response(kit.codes, kit.pages, kit.actions, num_threads=1),
        lambda kit: kit.default.response(kit.codes[:2], kit.pages[:2], kit.actions[:2]),
    ),
    "forward": (
        lambda kit: kit.default.forward("action", kit.logits),
        lambda kit: kit.default.forward("action", kit.logits[:2]),
    ),
    "reduced": (
        lambda kit: kit.default._native.reduced(),
        lambda kit: kit.default.forward("action", kit.logits[:2]),
    ),
    "rollout": (
        lambda kit: vtb.rollout(kit.default, sessions=10**8, keep=False),
        lambda kit: vtb.rollout(kit.default, sessions=3, keep=False),
    ),
    "rollout with a function": (
        lambda kit: vtb.rollout(
            kit.small, lambda o, s, p: np.zeros((len(s), 6)), sessions=10**8, keep=False
        ),
        lambda kit: vtb.rollout(kit.small, sessions=3, keep=False),
    ),
    "store, calibrated": (
        lambda kit: vtb.GroundTruthStore(100 << 32, num_threads=1),
        lambda kit: kit.store.items(0, 3),
    ),
    "store of many items": (
        lambda kit: vtb.GroundTruthStore(
            7, calibrate=False, tau=1.0, b0=-4.0, items=1 << 30, num_threads=2
        ),
        lambda kit: kit.store.items(0, 3),
    ),
    "items": (lambda kit: kit.store.items(0, 1 << 24), lambda kit: kit.store.items(0, 3)),
    "pages": (
        lambda kit: kit.store.pages(kit.actions, kit.queries),
        lambda kit: kit.store.pages(kit.actions[:2], kit.queries[:2]),
    ),
    "log_density": (
        lambda kit: kit.hidden.log_density(kit.codes),
        lambda kit: kit.hidden.log_density(kit.codes[:2]),
    ),
    "build": (
        lambda kit: vtb.Catalog.build(kit.attributes, kit.folder / "new.vtbcat", num_threads=1),
        lambda kit: kit.catalog.search(kit.attributes[0], 3),
    ),
    "search": (
        lambda kit: kit.catalog.search(kit.attributes[:50_000], 10, num_threads=1),
        lambda kit: kit.catalog.search(kit.attributes[0], 3),
    ),
    "search with candidates": (
        lambda kit: kit.catalog.search(
            kit.attributes[:20_000], 10, rows=kit.candidates, num_threads=1
        ),
        lambda kit: kit.catalog.search(kit.attributes[0], 3),
    ),
    "verify": (lambda kit: kit.catalog.verify(), lambda kit: kit.catalog.verify()),
    "rows": (
        lambda kit: kit.catalog._native.find("ids", kit.many_ids),  # type: ignore[union-attr]
        lambda kit: kit.catalog.rows(["item 3"]),
    ),
    "ids": (
        lambda kit: kit.catalog._native.ids(kit.many_rows),  # type: ignore[union-attr]
        lambda kit: kit.catalog.ids([3]),
    ),
    "attributes": (
        lambda kit: kit.catalog._native.attributes(kit.many_rows[:2_000_000]),  # type: ignore[union-attr]
        lambda kit: kit.catalog.attributes(["item 3"]),
    ),
    "digest of a log": (lambda kit: kit.log.digest(), lambda kit: kit.log["clicks"]),
    "write": (
        lambda kit: kit.log.write(kit.folder / "new.parquet"),
        lambda kit: read_log(kit.folder / "log.parquet"),
    ),
    "read": (
        lambda kit: read_log(kit.folder / "log.parquet"),
        lambda kit: kit.log.digest(),
    ),
    "column": (
        lambda kit: kit.catalog._native.column("brand", kit.many_rows),  # type: ignore[union-attr]
        lambda kit: kit.catalog.column("brand", ["item 3"]),
    ),
}


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    made = Kit(tmp_path_factory.mktemp("signals"))
    yield made
    made.close()


def pressed(work: Callable[[], Any]) -> bool:
    """Does it under a Ctrl-C every 10 ms of work; whether the second was answered in the middle.

    A timer of the system presses: a thread would have to wait for the interpreter. Signals that
    come before one is answered are one signal.
    """
    noted, over = 0, False

    def answer(number: int, frame: Any) -> None:
        nonlocal noted, over
        noted += 1
        if noted > 1 and not over:
            over = True
            signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGPROF, answer)
    signal.setitimer(signal.ITIMER_PROF, 0.02, 0.01)
    try:
        work()
        over = True
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return False


@pytest.mark.parametrize("name", LONG)
def test_ctrl_c_ends_the_call_and_what_it_was_made_on_still_works(kit: Kit, name: str) -> None:
    long, short = LONG[name]
    # On a busy machine the call may be over before it is Ctrl-C's turn.
    answered = any(pressed(lambda: long(kit)) for _ in range(TRIES))
    assert answered, "Ctrl-C did not end the call before its end"
    short(kit)
    # Nothing half done is left.
    assert sorted(path.name for path in kit.folder.iterdir()) == ["items.vtbcat", "log.parquet"]


def test_a_call_that_does_not_look_up_is_found() -> None:
    """Void guard: NumPy sorts to the end, whatever is pressed."""
    numbers = np.random.default_rng(0).random(2_000_000)
    for _ in range(TRIES):
        np.random.default_rng(0).shuffle(numbers)
        assert not pressed(numbers.sort)
