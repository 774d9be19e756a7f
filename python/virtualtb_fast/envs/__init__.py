"""The Gymnasium environments; importing the package registers them."""

from __future__ import annotations

import warnings

from gymnasium.envs.registration import register as _register
from gymnasium.envs.registration import registry

__all__ = ["register"]

_MODULES = "virtualtb_fast.envs"

_ENTRY_POINTS = {
    "GroundTruthStore-v0": ("store:GroundTruthStoreEnv", "store:GroundTruthStoreVector"),
    "VirtualTB-v0": ("virtualtb:VirtualTBV0", "vector:VirtualTBV0Vector"),
    "VirtualTB-v1": ("virtualtb:VirtualTBV1", "vector:VirtualTBV1Vector"),
}


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
