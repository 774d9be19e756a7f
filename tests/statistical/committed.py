"""The committed results that README quotes, and what reads of them share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benches" / "results" / "learned"
WORLDS = (100, 101, 102, 103, 104)
"""Ground-truth stores that nothing was tuned on."""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def cell(found: Mapping[str, Any], key: str, name: str, world: int) -> dict[str, Any]:
    """The one cell of a row in a world."""
    (only,) = (one for one in found["cells"] if one[key] == name and one["world"] == world)
    return dict(only)
