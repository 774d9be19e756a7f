"""Memory of contenders: each steps many customers in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from virtualtb_fast.errors import StateError
from virtualtb_fast.evaluation.machine import peak, resident
from virtualtb_fast.evaluation.speed.players import Rollouts, Stepped, Vector, sync_envs
from virtualtb_fast.simulator import Simulator, load_simulator

__all__ = ["FORMS", "measure_memory"]

_PAGES: Final = 1_000_000


def _vector(simulator: Simulator, sessions: int) -> Stepped:
    return Vector.ours(simulator, sessions, 1)


def _torch(simulator: Simulator, sessions: int) -> Stepped:
    from virtualtb_fast.evaluation.speed import torch_rival as rival

    return rival.BatchedTorch(simulator, sessions, rival.inverse_cdf)


FORMS: Final[dict[str, tuple[Callable[[Simulator, int], Stepped] | None, int]]] = {
    "vector env": (_vector, 65_536),
    "rollout, counts only": (None, 0),
    "SyncVectorEnv": (sync_envs, 4_096),
    "PyTorch, tuned draws": (_torch, 65_536),
}
"""What makes it, and for how many customers at once."""


def measure_memory(
    simulator: str, whats: set[str], progress: Callable[[str, int, int], None]
) -> list[dict[str, Any]]:
    """Peak memory (MB) of a process, and by how many bytes a session it grew.

    Args:
        simulator: A name or a file, since other processes load it.
        whats: Those of `FORMS` that took part.
        progress: Called as work goes on.

    Raises:
        StateError: a process failed.
    """
    rows = []
    chosen = [what for what in FORMS if what in whats]
    for number, what in enumerate(chosen):
        progress(f"memory of {what}", number, len(chosen))
        code = "from virtualtb_fast.evaluation.speed import memory; memory.child()"
        words = [sys.executable, "-c", code, what, simulator]
        ran = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if ran.returncode != 0:
            last = ran.stderr.strip().splitlines()[-1:] or ["nothing said"]
            raise StateError(f"memory of {what}: expected exit code 0, got {last[0]}")
        rows.append(json.loads(ran.stdout))
    return rows


def child() -> None:
    """Measures in this process, which has done nothing else; prints one JSON object."""
    what, simulator = sys.argv[1], load_simulator(sys.argv[2])
    make, sessions = FORMS[what]
    if what.startswith("PyTorch"):
        # Not counted as a session's: what the library itself takes.
        _torch(simulator, 16).step()
    before = resident()
    if make is None:
        Rollouts(simulator, keep=False).work(_PAGES)
    else:
        player = make(simulator, sessions)
        player.prepare()
        player.start([number << 32 for number in range(sessions)])
        for _ in range(3):
            player.step()
    after, most = resident(), peak()
    grown = None
    if make is not None and before is not None and after is not None:
        grown = max(0.0, after - before) * 1e6 / sessions
    print(
        json.dumps(
            {
                "what": what,
                "sessions": sessions or None,
                "before_mb": before,
                "peak_mb": most,
                "bytes_a_session": grown,
            }
        )
    )
