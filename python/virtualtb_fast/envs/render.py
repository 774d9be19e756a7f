"""What a person sees of a session: one small text for each environment."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.simulator import Simulator

_WIDTH = 78
_LABEL = 10
_BAR = 40
_WEIGHTS = 4
"""So many of an action's weights are named, the largest first."""


def frame(
    title: str,
    simulator: Simulator,
    observation: NDArray[Any],
    session: Mapping[str, Any],
    page: Mapping[str, Any] | None,
) -> str:
    """One session as text.

    Args:
        title: What to call the environment.
        simulator: The simulator that it plays in.
        observation: Its current observation, shape (D,).
        session: The ``session``'s number, ``page`` and ``total_clicks`` so far.
        page: The last page's ``action`` (A,), ``clicks`` and ``deals``; whether it was the last of
            the session (``over``), and whether another customer is then shown (``replaced``, in
            VirtualTB-v0); None before the first page.
    """
    schema, response = simulator.schema, simulator.config.response
    pages, clicks = int(session["page"]), int(session["total_clicks"])
    over = pages > 0 and page is not None and bool(page["over"])
    head = f"{title} · {simulator.name}"
    where = f"session {session['session']}, page {pages}{', over' if over else ''}"
    lines = [head + where.rjust(max(len(where) + 2, _WIDTH - len(head)))]
    pairs = zip(schema.customer, schema.codes(observation).tolist(), strict=True)
    label = "next" if over and page is not None and page["replaced"] else "customer"
    lines += _line(label, "  ".join(f"{field.name}={code}" for field, code in pairs))
    if pages == 0 or page is None:
        return "\n".join([*lines, *_line("page", "none shown yet")])
    lines += _line("action", _action(np.asarray(page["action"], np.float64)))
    lines += _line("clicks", _bar(int(page["clicks"]), response.items))
    lines += _line("deals", _bar(int(page["deals"]), response.second - 1))
    slots = pages * response.items
    lines += _line("CTR", f"{clicks / slots:.4f}  ({clicks} clicks on {slots} items shown)")
    return "\n".join(lines)


def _line(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        drop_whitespace=True,
        break_on_hyphens=False,
    )


def _action(action: NDArray[np.float64]) -> str:
    largest = np.argsort(-np.abs(action), kind="stable")[:_WEIGHTS]
    named = "  ".join(f"w{index}={action[index]:+.3f}" for index in largest)
    return f"norm {np.linalg.norm(action):.3f}, largest {named}"


def _bar(value: int, most: int) -> str:
    cells = min(most, _BAR)
    filled = -(-value * cells // most)
    return f"{'█' * filled}{'·' * (cells - filled)}  {value} of {most}"
