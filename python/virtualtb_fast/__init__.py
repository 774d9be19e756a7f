"""A fast, reproducible simulator of an online shop's customers (Virtual-Taobao).

``load_simulator`` and ``import_published`` give a `Simulator`; ``rollout`` plays sessions with it;
``Catalog`` holds millions of items and finds the best ones exactly; ``GroundTruthStore`` is a shop
whose customers' true behaviour is known. Importing this package registers the Gymnasium
environments ``VirtualTB-v0`` (as published), ``VirtualTB-v1`` (clean semantics) and
``GroundTruthStore-v0``.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from virtualtb_fast import envs as _envs
from virtualtb_fast.errors import (
    CustomerModelError,
    DegenerateWorldError,
    FileFormatError,
    InvalidActionError,
    InvalidArgumentError,
    LogError,
    MissingExtraError,
    OutputError,
    PolicyError,
    RareConditionError,
    StateError,
    TrainingDivergedError,
    VirtualTBError,
)

if TYPE_CHECKING:
    from virtualtb_fast._core import __version__
    from virtualtb_fast.catalog import Catalog
    from virtualtb_fast.fit import fit
    from virtualtb_fast.published import import_published
    from virtualtb_fast.rollout import rollout
    from virtualtb_fast.simulator import Simulator, load_simulator
    from virtualtb_fast.store import ConstantCustomer, GroundTruthStore

__all__ = [
    "Catalog",
    "ConstantCustomer",
    "CustomerModelError",
    "DegenerateWorldError",
    "FileFormatError",
    "GroundTruthStore",
    "InvalidActionError",
    "InvalidArgumentError",
    "LogError",
    "MissingExtraError",
    "OutputError",
    "PolicyError",
    "RareConditionError",
    "Simulator",
    "StateError",
    "TrainingDivergedError",
    "VirtualTBError",
    "__version__",
    "fit",
    "import_published",
    "load_simulator",
    "rollout",
]

_LAZY = {
    "ConstantCustomer": "virtualtb_fast.store",
    "GroundTruthStore": "virtualtb_fast.store",
    "Catalog": "virtualtb_fast.catalog",
    "Simulator": "virtualtb_fast.simulator",
    "__version__": "virtualtb_fast._core",
    "fit": "virtualtb_fast.fit",
    "import_published": "virtualtb_fast.published",
    "load_simulator": "virtualtb_fast.simulator",
    "rollout": "virtualtb_fast.rollout",
}
"""Names whose module is imported when they are first asked for: the import stays cheap."""

_envs.register()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """This package: ``rollout`` and ``fit`` stay functions when their modules are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("rollout", "fit") or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
