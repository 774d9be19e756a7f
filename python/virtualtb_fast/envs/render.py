"""What a person sees of a session: one small text for each environment."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _core
from virtualtb_fast.schema import Schema
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import GroundTruthStore

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
        page: The last page's ``action`` (A,), ``clicks`` and ``deals``, with a hazard ``outcome``;
            whether it was the last of the session (``over``), and whether another customer is then
            shown (``replaced``, in VirtualTB-v0); None before the first page.
    """
    schema, config = simulator.schema, simulator.config
    pages, clicks = int(session["page"]), int(session["total_clicks"])
    over = pages > 0 and page is not None and bool(page["over"])
    lines = _head(f"{title} · {simulator.name}", session, over)
    label = "next" if over and page is not None and page["replaced"] else "customer"
    lines += _customer(label, schema, observation)
    if pages == 0 or page is None:
        return "\n".join([*lines, *_line("page", "none shown yet")])
    lines += _line("action", _action(np.asarray(page["action"], np.float64)))
    if config.leave.kind == "hazard":
        lines += _line("answer", _core.OUTCOMES[int(page["outcome"])])
    if config.response.heads == "outcome":
        lines += _line("R2P", f"{clicks / pages:.4f}  ({clicks} purchases on {pages} pages)")
        return "\n".join(lines)
    lines += _line("clicks", _bar(int(page["clicks"]), config.response.items))
    lines += _line("deals", _bar(int(page["deals"]), config.heads["second"] - 1))
    slots = pages * config.response.items
    lines += _line("CTR", f"{clicks / slots:.4f}  ({clicks} clicks on {slots} items shown)")
    return "\n".join(lines)


def store_frame(
    title: str,
    store: GroundTruthStore,
    observation: NDArray[Any],
    session: Mapping[str, Any],
    page: Mapping[str, Any] | None,
) -> str:
    """One session in a store as text.

    Args:
        title: What to call the environment.
        store: The store that it plays in.
        observation: Its current observation, shape (D,).
        session: The ``session``'s number, ``page`` and ``buys`` so far.
        page: The last page's ``action`` (27,), ``items`` (10,), ``slot``, ``outcome``, ``value``,
            and whether it was the last of the session (``over``); None before the first page.
    """
    pages, buys = int(session["page"]), int(session["buys"])
    over = pages > 0 and page is not None and bool(page["over"])
    lines = _head(f"{title} · {store.digest[:8]}", session, over)
    lines += _customer("customer", store.schema, observation)
    if pages == 0 or page is None:
        return "\n".join([*lines, *_line("page", "none shown yet")])
    lines += _line("action", _action(np.asarray(page["action"], np.float64)))
    slot, outcome = int(page["slot"]), _core.OUTCOMES[int(page["outcome"])]
    bought = outcome == "buy"
    items = (
        f"[{row}]" if bought and place == slot else str(row)
        for place, row in enumerate(page["items"])
    )
    lines += _line("items", "  ".join(items))
    price = f" of item {page['items'][slot]} for {float(page['value']):,.2f}" if bought else ""
    lines += _line("answer", outcome + price)
    lines += _line("R2P", f"{buys / pages:.4f}  ({buys} purchases on {pages} pages)")
    return "\n".join(lines)


def _head(title: str, session: Mapping[str, Any], over: bool) -> list[str]:
    where = f"session {session['session']}, page {int(session['page'])}{', over' if over else ''}"
    return [title + where.rjust(max(len(where) + 2, _WIDTH - len(title)))]


def _customer(label: str, schema: Schema, observation: NDArray[Any]) -> list[str]:
    pairs = zip(schema.customer, schema.codes(observation).tolist(), strict=True)
    return _line(label, "  ".join(f"{field.name}={code}" for field, code in pairs))


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
