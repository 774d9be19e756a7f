"""What is installed, in use and available."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from virtualtb_fast import _core
from virtualtb_fast.simulator import DEFAULT, Simulator, embedded_simulators, load_simulator

__all__ = ["system_info"]


def system_info(simulator: str | Simulator | None = None) -> dict[str, Any]:
    """Versions, CPU features, threads and the simulator, as JSON can hold them.

    Args:
        simulator: A simulator, its name or its file; the default one, if this build has it.
    """
    cpu = _core.cpu_info()
    if simulator is None and DEFAULT in embedded_simulators():
        simulator = DEFAULT
    return {
        "version": _core.__version__,
        "stream_version": _core.STREAM_VERSION,
        "debug_build": _core.DEBUG_BUILD,
        "instruction_set": cpu["isa"],
        "instruction_sets_available": list(cpu["available"]),
        "threads": cpu["cores"],
        "simulator": None if simulator is None else _about(load_simulator(simulator)),
        "embedded_simulators": list(embedded_simulators()),
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "gymnasium": importlib.metadata.version("gymnasium"),
        "platform": platform.platform(),
    }


def _about(simulator: Simulator) -> dict[str, Any]:
    schema, config, provenance = simulator.schema, simulator.config, simulator.provenance
    return {
        "name": simulator.name,
        "digest": simulator.digest,
        "kind": _kind(provenance),
        "customer_fields": len(schema.customer),
        "customers": config.customers.kind,
        "response": config.response.kind,
        "heads": list(config.heads),
        "leave": config.leave.kind,
        "action_dimensions": schema.action,
        "action_range": list(schema.action_range),
    }


def _kind(provenance: dict[str, Any]) -> str:
    """What the weights are, in words, as far as the file says."""
    if "published_sha256" in provenance:
        method = provenance.get("method", "fitted to sessions of the published networks")
        return f"a refit, not the published networks: {method}"
    if provenance.get("published") is True:
        return "the published networks of VirtualTB-v0"
    return "weights of its owner"
