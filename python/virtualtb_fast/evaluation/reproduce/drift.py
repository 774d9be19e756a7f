"""Policies trained in yesterday's simulator, judged in those of later days: the paper's Table 2.

For each world and method a simulator is fitted to the logs of each day; a policy is trained in that
of day 0 and played in all of them, and, which the paper could not do, in the true store of each
day. What is reported is its R2P over that of the random engine which logged, less 1.

Rows that no method may do without: ``zero`` shows what an engine gains that merely stops being
random; ``logger`` is the random engine on other sessions, which gains nothing; ``blind`` is a
policy trained alike in a simulator that knows neither customer nor action: what it gains over
``zero`` was not learned.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from virtualtb_fast._arguments import effort as checked_effort
from virtualtb_fast._arguments import integer
from virtualtb_fast._fit_settings import fewer
from virtualtb_fast.errors import InvalidArgumentError, OutputError
from virtualtb_fast.evaluation import figures
from virtualtb_fast.evaluation.cells import Cell, run_cells
from virtualtb_fast.evaluation.reproduce.parts import (
    WORLDS,
    Told,
    about,
    finish,
    learning,
    markdown,
    row,
)
from virtualtb_fast.policies import Policy
from virtualtb_fast.rollout import rollout
from virtualtb_fast.simulator import Simulator
from virtualtb_fast.store import LOGGED_SD, GroundTruthStore

if TYPE_CHECKING:
    from virtualtb_fast.imitation.data import Pages

__all__ = ["DAYS", "TABLE2", "table2"]

DAYS: Final = (0, 1, 7, 30)
TABLE2: Final = ("bc", "mail", "bc+mail")
_GUARDS: Final = ("zero", "logger", "blind")
_LOG, _FIT, _TRAIN, _PLAYED, _AGAIN, _TRUE = range(16, 22)
"""Purposes of draws: run r of purpose p has the base seed ``(r << 32) | (p << 24)``; its days are
streams of it."""


def fit_cell(
    world: int, day: int, methods: Sequence[str], sessions: int, effort: float, folder: str
) -> dict[str, Any]:
    """Simulators of a day's log, into ``folder``; ``bc`` and ``bc+mail`` share their cloning."""
    from virtualtb_fast.imitation import cloning, mail
    from virtualtb_fast.imitation.simulate import logged_customers, simulator_of
    from virtualtb_fast.policies.anc import usual_norm

    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, folder) from error
    pages, seed = _pages(world, day, sessions), _seed(world, _FIT, day)
    source, base = logged_customers(pages), cloning.CloningConfig()
    copying = replace(
        base,
        fit=fewer(base.fit, "epochs", effort),
        engine_fit=fewer(base.engine_fit, "epochs", effort),
    )
    config = fewer(mail.MailConfig(cloning=copying, num_threads=1), "iterations", effort)
    fits: dict[str, Any] = {}
    clock = [time.process_time()]

    def keep(name: str, fitted: Any, report: Mapping[str, Any]) -> None:
        clock.append(time.process_time())
        simulator = simulator_of(fitted, source, pages.schema)
        simulator.save(_file(folder, world, day, simulator.digest))
        took = {"cpu_seconds": clock[-1] - clock[-2]}
        fits[name] = {"digest": simulator.digest, **took, "report": dict(report)}

    if "bc" in methods or "bc+mail" in methods:
        response = cloning.clone_response(pages, seed=seed, config=copying)
        keep("bc", response, response.report)
        if "bc+mail" in methods:
            start = response, cloning.clone_engine(pages, seed=seed, config=copying)
            result = mail.fit_mail(pages, seed=seed, config=config, start=start)
            keep("bc+mail", result.response, result.report)
    if "mail" in methods:
        result = mail.fit_mail(pages, seed=seed, config=replace(config, init="random"))
        keep("mail", result.response, result.report)
    return {"world": world, "day": day, "mu": usual_norm(pages.action), "fits": fits}


def policy_cell(
    world: int,
    policy: str,
    digests: Sequence[str],
    mu: float,
    sessions: int,
    effort: float,
    folder: str,
) -> dict[str, Any]:
    """A policy of day 0 in the simulators and the true stores of all days: lifts of R2P.

    Args:
        world: Run number of the store.
        policy: ``trpo-anc``, trained in the first simulator; or a guard.
        digests: Of the simulators of `DAYS`.
        mu: The norm that most logged actions do not exceed.
        sessions: Logged a day, and played in each place.
        effort: Multiplies the iterations of training.
        folder: Where the simulators are.
    """
    simulators = [
        Simulator.load(_file(folder, world, day, digest))
        for day, digest in zip(DAYS, digests, strict=True)
    ]
    began, training = time.process_time(), {}
    played: Policy | str = policy
    if policy in ("trpo-anc", "blind"):
        from virtualtb_fast.policies.trpo import TrainConfig, train

        config = fewer(TrainConfig(num_threads=1), "iterations", effort)
        place = simulators[0] if policy == "trpo-anc" else _blind(_pages(world, 0, sessions))
        trained = train(place, mu=mu, seed=_seed(world, _TRAIN), config=config)
        played, training = trained.policy, trained.report
    training_seconds = time.process_time() - began
    lifts: dict[str, list[float]] = {"simulator": [], "truth": []}
    for day, simulator in zip(DAYS, simulators, strict=True):
        base = _r2p(simulator, "logger", sessions, _seed(world, _PLAYED, day))
        ours = _r2p(simulator, played, sessions, _seed(world, _AGAIN, day))
        lifts["simulator"].append(ours / base - 1.0)
        store = _store(world, day)
        # A store knows the engine's R2P and that of constant actions exactly.
        if played == "zero":
            true = store.expected("zero").r2p
        else:
            true = _r2p(store, played, 4 * sessions, _seed(world, _TRUE, day))
        lifts["truth"].append(true / store.expected("logger").r2p - 1.0)
    return {
        "world": world,
        "policy": policy,
        **lifts,
        "training": training,
        "training_cpu_seconds": training_seconds,
        "cpu_seconds": time.process_time() - began,
    }


def table2(
    out: str | os.PathLike[str],
    *,
    worlds: Sequence[int] = WORLDS,
    methods: Sequence[str] = TABLE2,
    sessions: int = 200_000,
    effort: float = 1.0,
    workers: int = 1,
    progress: Told | None = None,
) -> dict[str, Any]:
    """R2P over the random engine's of policies that were trained in day 0's simulator.

    Args:
        out: Folder; what of it is there is not done again. ``simulators`` has those fitted.
        worlds: Run numbers of stores.
        methods: Out of `TABLE2`.
        sessions: Logged a day; as many are played in every simulator, four times as many in every
            true store.
        effort: Multiplies the steps of every training.
        workers: Processes.
        progress: Called with (cell, cells done, cells).

    Returns:
        What ``table2.json`` holds: ``rows`` by method and guard with (mean, half of its 95 %
        interval) in per cent, ``notes`` in words, ``fits`` and ``cells``.

    Raises:
        InvalidArgumentError: an unknown method, or too few sessions.
        OutputError: the system refused.
        VirtualTBError: what a fit or a training raised.
    """
    methods = tuple(dict.fromkeys(methods))
    if not methods or any(name not in TABLE2 for name in methods):
        raise InvalidArgumentError(f"methods: expected {', '.join(TABLE2)}, got {methods}")
    integer("sessions", sessions, 200, 10**7)
    checked_effort(effort)
    settings: dict[str, Any] = {"sessions": sessions, "effort": effort}
    run: dict[str, Any] = {"workers": workers, "progress": progress}
    fits = _fits(Path(out), worlds, methods, settings, run)
    cells = _policies(Path(out), worlds, methods, fits, settings, run)
    rows = {
        name: _row([cells[world, name] for world in worlds], [cells[w, "zero"] for w in worlds])
        for name in (*methods, *_GUARDS)
    }
    found: dict[str, Any] = {"format": "virtualtb_fast.table2", **about(worlds, **settings)}
    found |= {"days": list(DAYS), "rows": rows, "notes": _notes(fits, methods)}
    shared = {id(cells[w, name]): cells[w, name]["training"] for w in worlds for name in methods}
    trained = list(shared.values())
    settled = sum(training["plateau"] for training in trained)
    found["notes"].append(f"{settled} of {len(trained)} policies were trained to a plateau.")
    found |= {"fits": fits, "cells": [_short(name, cell) for (_, name), cell in cells.items()]}
    text = "R2P over the random engine's, %; policies of day 0's simulator\n"
    for side, title in (("simulator", "in each day's simulator"), ("truth", "in the true store")):
        titles = {f"{side}_{day}": f"day {day}" for day in DAYS} | {f"{side}_drop": "drop"}
        if side == "truth":
            titles["truth_over_zero"] = f"day {DAYS[-1]}, over zero"
        text += f"\n{title}\n\n{markdown(rows, titles, 2)}"
    text += "".join(f"\n{note}\n" for note in found["notes"])
    return finish(Path(out), "table2", found, text, figures.drift)


def _fits(
    out: Path, worlds: Sequence[int], methods: Sequence[str], settings: Any, run: Any
) -> list[dict[str, Any]]:
    """Simulators of all worlds and days: of cloning with what starts from it, and of MAIL."""
    groups = [[name for name in methods if name != "mail"], [n for n in methods if n == "mail"]]
    folder = out / "simulators"
    cells = [
        Cell(
            f"fit-{world}-{day}-{group[0]}",
            fit_cell,
            {"world": world, "day": day, "methods": group, **settings},
            learning(),
            {"folder": str(folder)},
        )
        for world in worlds
        for day in DAYS
        for group in groups
        if group
    ]
    found = run_cells(out / "cells", cells, **run)
    lost = [
        cell
        for cell, result in zip(cells, found, strict=True)
        for fit in result["fits"].values()
        if not _file(folder, result["world"], result["day"], fit["digest"]).exists()
    ]
    if lost:
        # Their figures are there, but not what they are of.
        for cell in lost:
            (out / "cells" / f"{cell.name}.json").unlink(missing_ok=True)
        found = run_cells(out / "cells", cells, **run)
    return found


def _policies(
    out: Path,
    worlds: Sequence[int],
    methods: Sequence[str],
    fits: Sequence[Mapping[str, Any]],
    settings: Any,
    run: Any,
) -> dict[tuple[int, str], dict[str, Any]]:
    """The cell of each world and row; methods with the same simulators share one."""
    from virtualtb_fast.policies.trpo import TrainConfig

    asked: dict[tuple[int, str], Cell] = {}
    known: dict[tuple[Any, ...], Cell] = {}
    for world in worlds:
        own = [fit for fit in fits if fit["world"] == world]
        for name in (*methods, *_GUARDS):
            # Guards are played in the simulators of the first method.
            method = methods[0] if name in _GUARDS else name
            policy = name if name in _GUARDS else "trpo-anc"
            digests = [
                next(fit["fits"][method]["digest"] for fit in own
                     if fit["day"] == day and method in fit["fits"])
                for day in DAYS
            ]  # fmt: skip
            arguments = {"world": world, "policy": policy, "digests": digests, "mu": own[0]["mu"]}
            cell = Cell(
                f"policy-{world}-{name}",
                policy_cell,
                arguments | settings,
                repr(TrainConfig()),
                {"folder": str(out / "simulators")},
            )
            asked[world, name] = known.setdefault((world, policy, *digests), cell)
    cells = list({cell.name: cell for cell in asked.values()}.values())
    results = run_cells(out / "cells", cells, **run)
    done = {cell.name: result for cell, result in zip(cells, results, strict=True)}
    return {key: done[cell.name] for key, cell in asked.items()}


def _row(
    cells: Sequence[Mapping[str, Any]], zeros: Sequence[Mapping[str, Any]]
) -> dict[str, tuple[float, float | None]]:
    """Per cent: each day's lift, what is lost from the first day to the last, what zero lacks."""
    flat: list[dict[str, float]] = []
    for cell, zero in zip(cells, zeros, strict=True):
        one: dict[str, float] = {}
        for side in ("simulator", "truth"):
            lifts = [100.0 * lift for lift in cell[side]]
            one |= {f"{side}_{day}": lift for day, lift in zip(DAYS, lifts, strict=True)}
            one[f"{side}_drop"] = lifts[0] - lifts[-1]
        one["truth_over_zero"] = 100.0 * (cell["truth"][-1] - zero["truth"][-1])
        flat.append(one)
    return row(flat, list(flat[0]))


def _short(name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell without the course of its training, which its own file has."""
    training = {key: value for key, value in cell["training"].items() if key != "history"}
    return {"row": name, **cell, "training": training}


def _notes(fits: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> list[str]:
    """How often MAIL took a step, and kept one; what a row is if it never did."""
    without = {
        "mail": "its customers are the random ones that it began with",
        "bc+mail": "its simulators, and so its row, are those of bc",
    }
    notes = []
    for name in (name for name in methods if name in without):
        reports = [fit["fits"][name]["report"] for fit in fits if name in fit["fits"]]
        steps = [report["steps"] for report in reports]
        moved = sum(many > 0 for many in steps)
        kept = sum(report["steps"] > 0 < report["best_iteration"] for report in reports)
        note = f"{name}: took steps in {moved} of {len(steps)} fits ({sum(steps):,} in all)"
        note += f", of which {kept} kept any"
        notes.append(f"{note}." if kept else f"{note}: {without[name]}.")
    return notes


# ------------------------------------------------------------------ logs, simulators, rollouts


def _seed(world: int, purpose: int, day: int = 0) -> int:
    return (world << 32) | (purpose << 24) | day


def _file(folder: str | Path, world: int, day: int, digest: str) -> Path:
    """Simulators are known by their content, so that equal ones are one file."""
    return Path(folder) / f"{world}-{day}-{digest[:16]}.safetensors"


def _pages(world: int, day: int, sessions: int) -> Pages:
    """A day's log under the random engine."""
    from virtualtb_fast.imitation.data import Pages

    seed = _seed(world, _LOG, day)
    return Pages.from_log(rollout(_store(world, day), "logger", sessions=sessions, seed=seed).log)


@functools.cache
def _store(world: int, day: int) -> GroundTruthStore:
    return GroundTruthStore(world << 32, day=day)


def _blind(pages: Pages) -> Simulator:
    """Customers who answer as the log does on average, whoever they are and whatever they see."""
    from virtualtb_fast._torch import torch
    from virtualtb_fast.imitation.cloning import start_at_shares
    from virtualtb_fast.imitation.response import FittedResponse, ResponseConfig, ResponseNetwork
    from virtualtb_fast.imitation.simulate import logged_customers, simulator_of

    network = ResponseNetwork(pages.schema, ResponseConfig(hidden=(8,)), pages.action_units(), 0)
    start_at_shares(network, pages)
    with torch.no_grad():
        network.network.layers[-1].weight.zero_()
    return simulator_of(FittedResponse(network), logged_customers(pages), pages.schema, "blind")


def _r2p(
    place: Simulator | GroundTruthStore, policy: Policy | str, sessions: int, seed: int
) -> float:
    if policy == "logger" and isinstance(place, Simulator):
        policy = f"gaussian:{LOGGED_SD}"
    return float(rollout(place, policy, sessions=sessions, seed=seed, keep=False).r2p)
