"""Bad calls of trainings, fits and fidelity reports, for `bad_calls`; good ones take seconds."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tests.reliability.bad_kit import (
    FILES,
    INF,
    NAN,
    NO_COUNT,
    NO_DEVICE,
    NO_FLAG,
    NO_FUNCTION,
    NO_KEEPER,
    NO_NAME,
    NO_PATH,
    NO_RATE,
    NO_SEED,
    NO_SHARE,
    NO_SIZE,
    NO_THREADS,
    NO_WEIGHT,
    NO_WIDTHS,
    Bad,
    Call,
    Kit,
    Made,
    in_folder,
)
from tests.reliability.bad_records import NO_LOG, NO_SCHEMA

import virtualtb_fast as vtb
from virtualtb_fast import _extras
from virtualtb_fast.policies.anc import norm_constraint, usual_norm


def training_calls() -> Iterator[Call]:
    """All of them."""
    yield from norms()
    yield from policies()
    yield from tensors()
    yield from fits()
    yield from reports()


def late(module: str, name: str) -> Callable[[Kit], Callable[..., Any]]:
    """A function of a module that needs what not everybody has."""
    return lambda kit: getattr(importlib.import_module(f"virtualtb_fast.{module}"), name)


def norms() -> Iterator[Call]:
    """The action norm constraint."""
    actions = np.ones((5, 6), np.float32)
    yield Call(
        "usual_norm", lambda kit: usual_norm, lambda kit: {"actions": actions},
        {"actions": [None, 3, "actions", [], actions[0], actions[None], actions * NAN,
                     actions * INF, actions * 0, actions.astype(bool), actions.astype(object),
                     actions.astype(complex), [[1.0], [1.0, 2.0]], [["a"]], Bad()],
         "quantile": [0.0, 1.0, *NO_SHARE]},
    )  # fmt: skip
    yield Call(
        "norm_constraint", lambda kit: norm_constraint, lambda kit: {"mu": 0.1},
        {"mu": NO_RATE, "rho": NO_WEIGHT, "form": [*NO_NAME, ["scaled"], {}]},
    )  # fmt: skip


# --- policies ----------------------------------------------------------------------------------


def policies() -> Iterator[Call]:
    """TRPO in environments."""
    yield Call(
        "TrpoConfig", late("rl.trpo", "TrpoConfig"), lambda kit: {},
        {"delta": NO_RATE, "shrink": [0.0, *NO_SHARE], "tolerance": NO_WEIGHT, "damping": NO_WEIGHT,
         **dict.fromkeys(("iterations", "backtracks"), NO_SIZE)},
        needs="torch",
    )  # fmt: skip
    counts = ("iterations", "least", "lanes", "steps", "value_epochs", "value_batch")
    yield Call(
        "TrainConfig", late("policies.trpo", "TrainConfig"), lambda kit: {},
        {
            **dict.fromkeys(counts, NO_SIZE),
            **dict.fromkeys(("noise", "value_rate"), NO_RATE),
            **dict.fromkeys(("gamma", "lam"), NO_SHARE),
            "fisher_share": [0.0, *NO_SHARE],
            "rho": NO_WEIGHT,
            "plateau": [value for value in NO_WEIGHT if value is not None],
            "constraint": ["", "both", 3, True, [], Bad()],
            "reward": ["", "money", 3, True, [], Bad()],
            "hidden": NO_WIDTHS,
            "step": [None, 3, 0.1, {}, Bad()],
            "num_threads": NO_THREADS,
        },
        needs="torch",
    )  # fmt: skip
    yield Call(
        "train", late("policies.trpo", "train"),
        lambda kit: {"place": kit.simulator, "mu": 0.1, "seed": 1, "config": tiny()},
        {
            "place": [None, 3, "virtualtb-v0-refit", {}, Made(lambda kit: kit.env, "<env>"), Bad()],
            "mu": NO_RATE,
            "seed": [None, *NO_SEED],
            "config": [None, 3, "tiny", {}, Bad(),
                       Made(lambda kit: tiny(reward="value"), "<prices>")],
            "progress": NO_FUNCTION,
            "checkpoint": NO_KEEPER,
        },
        needs="torch",
    )  # fmt: skip


def tiny(**more: Any) -> Any:
    """Settings of a training of two iterations."""
    module = importlib.import_module("virtualtb_fast.policies.trpo")
    return module.TrainConfig(iterations=2, lanes=8, steps=2, hidden=(4,), num_threads=1, **more)


def tensors() -> Iterator[Call]:
    """Returns and advantages."""

    def rows(kit: Kit) -> dict[str, Any]:
        torch = importlib.import_module("torch")
        ends = torch.tensor([False, True, False, True])
        return {"rewards": torch.ones(4), "ended": ends, "gamma": 0.5}

    def pages(kit: Kit) -> dict[str, Any]:
        held = rows(kit)
        ones, ends = held["rewards"], held["ended"]
        more = {"values": ones, "next_values": ones, "terminated": ends, "truncated": ~ends}
        return {"rewards": ones, **more, "gamma": 0.5, "lam": 0.5}

    def other(name: str, change: Callable[[Any], Any], says: str) -> Made:
        return Made(lambda kit: change(pages(kit)[name]), says)

    def wrong(name: str) -> list[Any]:
        return [
            None, 3, [1.0] * 4, np.ones(4, np.float32), Bad(),
            other(name, lambda value: value[:3], "<short>"),
            other(name, lambda value: value[None], "<deep>"),
        ]  # fmt: skip

    whole = other("rewards", lambda value: value.long(), "<integers>")
    floats = other("terminated", lambda value: value.float(), "<floats>")
    yield Call(
        "discounted", late("rl.returns", "discounted"), rows,
        {"rewards": [*wrong("rewards"), whole], "ended": [*wrong("terminated"), floats],
         "gamma": NO_SHARE},
        needs="torch",
    )  # fmt: skip
    yield Call(
        "advantages", late("rl.returns", "advantages"), pages,
        {"rewards": [*wrong("rewards"), whole], "values": wrong("values"),
         "next_values": wrong("next_values"), "terminated": [*wrong("terminated"), floats],
         "truncated": [*wrong("truncated"), floats], "gamma": NO_SHARE, "lam": NO_SHARE},
        needs="torch",
    )  # fmt: skip


# --- fits and reports ----------------------------------------------------------------------------


def fits() -> Iterator[Call]:
    """A log becomes a simulator."""
    yield Call(
        "fit", lambda kit: vtb.fit,
        lambda kit: {
            "logs": few(kit), "customers": "independent", "responses": "bc", "effort": 0.01,
        },
        {
            "logs": [*NO_LOG, []],
            "out": [*NO_PATH[1:], in_folder("text.txt"), in_folder("text.txt/below")],
            "customers": [*NO_NAME, ["lca"]],
            "responses": [*NO_NAME, ["bc"]],
            "leave": [*NO_NAME, "never", True],
            "schema": NO_SCHEMA,
            "seed": [None, *NO_SEED],
            "device": NO_DEVICE,
            "effort": [0, -1, 101, NAN, INF, "1", None, True, [1], 1j, Bad()],
            "ensemble": [0, 101, *NO_COUNT],
            "resume": NO_FLAG,
            "overwrite": NO_FLAG,
            "keep_work": NO_FLAG,
            "warm_start": [*NO_PATH[1:], in_folder("text.txt"), "no-simulator"],
            "engine": [*NO_PATH[1:], in_folder("text.txt"), in_folder("policy.safetensors")],
            "tensorboard": [*NO_PATH[1:], in_folder("text.txt")],
            "progress": NO_FUNCTION,
            "costs": NO_FUNCTION,
            "customers_config": [3, "default", {}, [], Bad()],
            "responses_config": [3, "bc", {}, [], Bad()],
        },
        needs="torch",
    )  # fmt: skip


@functools.cache
def _log() -> Any:
    return vtb.rollout("virtualtb-v0-refit", "gaussian:0.3", sessions=200, seed=4).log


def few(kit: Kit) -> Any:
    """A log that can be learned from."""
    return _log()


@functools.cache
def found() -> dict[str, Any]:
    """A report of few sessions."""
    _extras.sklearn_for("a fidelity report", "ensemble")
    module = importlib.import_module("virtualtb_fast.evaluation.fidelity")
    result: dict[str, Any] = module.fidelity(_log(), "virtualtb-v0-refit", sample=60, judged=40)
    return result


def reports() -> Iterator[Call]:
    """How far a simulator is from a log."""
    yield Call(
        "fidelity", late("evaluation.fidelity", "fidelity"),
        lambda kit: {
            "real": few(kit), "simulator": "virtualtb-v0-refit", "sessions": 100, "sample": 60,
            "judged": 40,
        },
        {
            "real": [*NO_LOG, Made(lambda kit: kit.log, "<another shop's>")],
            "simulator": [None, 3, "virtualtb-v9", [], *FILES,
                          Made(lambda kit: kit.simulator, "<another shop>"), Bad()],
            "schema": NO_SCHEMA,
            "policy": [3, "", "best", [], Made(lambda kit: kit.policy, "<of six weights>"), Bad()],
            "store": [3, "store", 7, {}, Made(lambda kit: kit.simulator, "<a simulator>"), Bad()],
            "hourly": [None, 3, "twelve", [1] * 12, Made(lambda kit: [kit.simulator], "<one>"),
                       Made(lambda kit: [kit.simulator] * 12, "<another shop's>"), Bad()],
            "baselines": [3, "lca", ["none such"], [3], {}, Bad()],
            "sessions": [0, *[value for value in NO_COUNT if value is not None]],
            "sample": [19, 10**8, *NO_COUNT],
            "judged": [19, 10**8, *NO_COUNT],
            "seed": [None, *NO_SEED],
            "num_threads": NO_THREADS,
            "work": [*NO_PATH[1:], in_folder("none"), in_folder("text.txt")],
            "progress": NO_FUNCTION,
        },
        needs="sklearn",
    )  # fmt: skip
    yield Call(
        "write_report", late("evaluation.report", "write_report"),
        lambda kit: {"found": found(), "out": kit.folder / "report.new", "overwrite": True},
        {
            "found": [None, 3, "found", [], {}, {"format": "another"},
                      {"format": "virtualtb_fast.fidelity"},
                      Made(lambda kit: found() | {"about": NAN}, "<NaN>"),
                      Made(lambda kit: found() | {"about": object()}, "<an object>"), Bad()],
            "out": [*NO_PATH, in_folder("text.txt"), in_folder("text.txt/below")],
            "overwrite": NO_FLAG,
            "progress": NO_FUNCTION,
        },
        needs="matplotlib",
    )  # fmt: skip
    yield Call(
        "read_report", late("evaluation.report", "read_report"), report,
        {"path": [*NO_PATH, *FILES, in_folder("items.vtbcat")]}, needs="matplotlib",
    )  # fmt: skip
    out = Made(lambda kit: kit.folder / "other.new", "<other.new>")
    yield Call(
        "require_folder", late("evaluation.report", "require_folder"),
        lambda kit: {"out": out.make(kit)},
        {"out": [*NO_PATH, in_folder("text.txt"), in_folder("text.txt/below")],
         "overwrite": NO_FLAG},
        needs="matplotlib",
    )  # fmt: skip


def report(kit: Kit) -> dict[str, Any]:
    """A report's file."""
    path = kit.folder / "held.new"
    if not path.exists():
        module = importlib.import_module("virtualtb_fast.evaluation.report")
        module.write_report(found(), path)
    return {"path": path / "fidelity.json"}
