"""The Gymnasium environments; importing the package registers them."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry

if TYPE_CHECKING:
    from virtualtb_fast.envs.store import GroundTruthStoreEnv, GroundTruthStoreVector
    from virtualtb_fast.envs.vector import VirtualTBV0Vector, VirtualTBV1Vector
    from virtualtb_fast.envs.virtualtb import VirtualTBV0, VirtualTBV1

__all__ = [
    "GroundTruthStoreEnv",
    "GroundTruthStoreVector",
    "VirtualTBV0",
    "VirtualTBV0Vector",
    "VirtualTBV1",
    "VirtualTBV1Vector",
    "register",
]

_MODULES = "virtualtb_fast.envs"

_ENTRY_POINTS = {
    "GroundTruthStore-v0": ("store:GroundTruthStoreEnv", "store:GroundTruthStoreVector"),
    "VirtualTB-v0": ("virtualtb:VirtualTBV0", "vector:VirtualTBV0Vector"),
    "VirtualTB-v1": ("virtualtb:VirtualTBV1", "vector:VirtualTBV1Vector"),
}

_HOMES = {
    name: module
    for both in _ENTRY_POINTS.values()
    for module, name in (one.split(":") for one in both)
}
"""The module of each class: it is imported when the class is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{_MODULES}.{_HOMES[name]}"), name)


def register() -> None:
    """Registers the environments with Gymnasium, as text: nothing is imported until one is made.

    Gymnasium's two checking wrappers are off. The native module itself refuses a step before a
    reset and a malformed action, at no cost a step, and ``check_env`` passes without them.
    """
    for name, (single, vector) in _ENTRY_POINTS.items():
        if name not in registry:
            _register(
                name,
                entry_point=f"{_MODULES}.{single}",
                vector_entry_point=f"{_MODULES}.{vector}",
                order_enforce=False,
                disable_env_checker=True,
            )
    # Gymnasium takes a lower version for an outdated one. Here it is another environment: who
    # asks for the published behaviour should not be told to upgrade.
    warnings.filterwarnings(
        "ignore", message=".*VirtualTB-v0 is out of date", category=DeprecationWarning
    )
