"""How far a simulator is from the log that it stands for, as one JSON object.

The log's sessions are split in two by chance. One half is what everything is compared with
(``real``), the other stands in for it (``fresh``): no simulator can be closer than fresh real
sessions are, but for luck. At the other end are void guards, each trivially wrong in one respect:

| guard | what it is |
|---|---|
| ``independent`` | fields drawn independently of one another, and of how the session goes |
| ``uniform`` | all categories of a field alike |
| ``forgetful`` | customers who leave every page with one probability, and answer all pages alike |
| ``blind`` | customers of whatever features answer alike |

A figure of the simulator means something between these two: `verdict` says where it is. Simulated
sessions are played natively under the policy of the log, or, where that is not known, under a
linear one that is fitted to its actions. All of it is drawn from one seed.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from virtualtb_fast import __version__
from virtualtb_fast._arguments import as_path, function, instance, integer, names, one_of, threads
from virtualtb_fast._extras import sklearn_for
from virtualtb_fast.customers import FITS
from virtualtb_fast.customers.table import Table
from virtualtb_fast.errors import InvalidArgumentError, OutputError
from virtualtb_fast.evaluation.comparisons import (
    Told,
    compare_customers,
    compare_features,
    compare_hours,
    compare_lengths,
    compare_pages,
    stream,
)
from virtualtb_fast.evaluation.logged import linear_policy, logged_policy
from virtualtb_fast.evaluation.sides import SLICES, Side, blocks_of, halves
from virtualtb_fast.evaluation.truth import truth
from virtualtb_fast.evaluation.verdict import verdict
from virtualtb_fast.policies import Policy
from virtualtb_fast.records import LogSchema, Prepared, prepare
from virtualtb_fast.records.source import open_source
from virtualtb_fast.rollout import rollout
from virtualtb_fast.simulator import Simulator, load_simulator
from virtualtb_fast.store import GroundTruthStore

__all__ = ["BASELINES", "FORMAT", "VERSION", "fidelity", "play"]

FORMAT: Final = "virtualtb_fast.fidelity"
VERSION: Final = 2

BASELINES: Final = ("gmm",)
"""Further samplers beside the simulator unless others are asked for: they take seconds."""

_MOST: Final = 200_000
"""Sessions that are simulated, unless more are asked for."""
_CHUNK: Final = 20_000
"""Sessions that are simulated at once."""
_PLAY, _HOURS = range(1, 3)
"""Purposes of draws."""


def fidelity(
    real: Any,
    simulator: Simulator | str,
    *,
    schema: Any = None,
    policy: Policy | str | None = None,
    store: GroundTruthStore | None = None,
    hourly: Sequence[Simulator] = (),
    baselines: Sequence[str] | None = None,
    sessions: int | None = None,
    sample: int = 50_000,
    judged: int = 10_000,
    seed: int = 0,
    num_threads: int | None = None,
    work: Path | None = None,
    progress: Told | None = None,
) -> dict[str, Any]:
    """Compares simulated sessions with logged ones.

    Args:
        real: A Parquet file, one row a page; a `SessionLog`, a DataFrame or another Arrow table.
        simulator: What is judged: a `Simulator`, its name or its file.
        schema: A `LogSchema` or the path of one, for a log that is not of this package; unless
            given, the one that the simulator was fitted with. A log that a rollout of the simulator
            wrote is compared as it is.
        policy: What the log was made with, if the log does not say.
        store: The ground-truth store that the log comes from: adds what only it knows.
        hourly: Twelve simulators, one for each two hours of the day, for a log with hours.
        baselines: Further samplers of customers, names out of `virtualtb_fast.customers.FITS`,
            fitted to a sample of the real half; `BASELINES` unless given, without those that
            cannot be fitted, for which a note says so.
        sessions: Simulated ones; as many as the real half has unless given, at most 200,000. Of
            the fresh real ones beside them there are no more.
        sample: Most sessions a side for what needs whole customers: pairs of fields, novelty.
        judged: Most customers a side for classifiers.
        seed: Of the split, of everything drawn.
        num_threads: Threads; no effect on the result.
        work: Folder for the prepared log (about as large as the log); a temporary one unless given.
        progress: Called with (what is going on, how much of it is done, of how much).

    Returns:
        What JSON can hold; ``checks`` and ``verdict`` say what it means. Figures are drawn from it.

    Raises:
        LogError: the log is damaged or empty; the message names file, column and row.
        InvalidArgumentError: a simulator of other customers, actions or feedback than the log; a
            log of fewer than 40 sessions; a store that the log is not from.
        FileFormatError: no Parquet file, no schema, no simulator.
        OutputError: ``work`` is no folder, or the system refused.
        MissingExtraError: pyarrow or scikit-learn is not installed.
    """
    told: Told = (lambda *_: None) if progress is None else progress
    seed = integer("seed", seed, 0, 2**64 - 1)
    sample, judged = integer("sample", sample, 20, 10**7), integer("judged", judged, 20, 10**7)
    num_threads = threads(num_threads)
    function("progress", progress)
    if sessions is not None:
        sessions = integer("sessions", sessions, 1)
    if store is not None:
        instance("store", store, GroundTruthStore)
    if not isinstance(hourly, list | tuple) or len(hourly) not in (0, SLICES):
        got = len(hourly) if isinstance(hourly, list | tuple) else repr(hourly)
        raise InvalidArgumentError(f"hourly: expected {SLICES} simulators, got {got}")
    for one in hourly:
        instance("hourly", one, Simulator)
    if baselines is not None:
        baselines = [one_of("baselines", one, tuple(FITS)) for one in names("baselines", baselines)]
    if policy is not None:
        policy = (
            Policy.parse(policy) if isinstance(policy, str) else instance("policy", policy, Policy)
        )
    if work is not None and not Path(work := Path(as_path(work))).is_dir():
        raise OutputError(f"{work}: expected a folder, got none")
    player = load_simulator(simulator)
    sklearn_for("a fidelity report", "ensemble")
    with tempfile.TemporaryDirectory(prefix="virtualtb-fidelity-", dir=work) as spare:
        log = _prepared(real, player, schema, Path(spare) / "log", told)
        for one in (player, *hourly):
            _check(log, one)
        half, fresh = halves(log, sample, seed, told, _MOST if sessions is None else sessions)
        policy, how = _policy(log, player, policy, told)
        many = min(half.sessions, _MOST) if sessions is None else sessions
        played = play(player, policy, many, sample, seed, num_threads, told)
        sides = {"real": half, "fresh": fresh, "simulator": played}
        table = _table_of(player) if log.table is None else log.table
        labels = [_labels(log, table, number) for number in range(len(log.schema.customer))]
        items = 1 if log.heads == "outcome" else player.page_items
        found: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "about": _about(log, player, policy, how, seed, sides, judged),
            "rate": _RATES[log.heads] | {"items": items},
            "sides": {name: _totals(side, items) for name, side in sides.items()},
            **compare_customers(
                sides,
                log.schema,
                labels,
                BASELINES if baselines is None else baselines,
                judged,
                seed,
                told,
                optional=baselines is None,
            ),
            "lengths": compare_lengths(sides),
            "pages": compare_pages(sides, items),
            "features": compare_features(sides, log.schema, items, labels),
            "hours": _hours(sides, items, hourly, policy, many, seed, num_threads),
        }
    told("the truth", 0, 0)
    found["truth"] = None if store is None else truth(store, player, log.meta["metadata"], seed)
    found |= verdict(found)
    return found


_RATES: Final = {
    "outcome": {"name": "R2P", "what": "pages on which something was bought / pages"},
    "clicks": {"name": "CTR", "what": "clicks / (items on a page x pages)"},
}


# --- the two sides ------------------------------------------------------------------------------


def _prepared(real: Any, simulator: Simulator, schema: Any, folder: Path, told: Told) -> Prepared:
    about, table = simulator.provenance.get("fit") or {}, _table_of(simulator)
    source = open_source(real, "a fidelity report")
    if schema is None and table is not None:
        # A log of this package holds codes already, and says itself what they are of.
        if source.ours:
            table = None
        elif about.get("log_schema"):
            origin = "the simulator's log schema"
            schema = LogSchema.from_dict(json.loads(about["log_schema"]), origin)
    return prepare(source, folder, schema, told, table=table)


def _table_of(simulator: Simulator) -> Table | None:
    """How the columns of the log that it was fitted to became codes."""
    columns = (simulator.provenance.get("fit") or {}).get("table")
    return None if columns is None else Table.from_json(columns)


def _check(log: Prepared, simulator: Simulator) -> None:
    pairs = (
        ("customers", log.schema.customer, simulator.schema.customer),
        ("actions", log.schema.action, simulator.schema.action),
        ("feedback", log.heads, simulator.config.response.heads),
    )
    for what, logged, held in pairs:
        if logged != held:
            message = f"expected the log's {what}, {logged}, got {held}"
            raise InvalidArgumentError(f"simulator {simulator.name!r}: {message}")
    if log.sessions < 40:
        raise InvalidArgumentError(f"log: expected 40 sessions or more, got {log.sessions}")


def _policy(
    log: Prepared, simulator: Simulator, given: Policy | None, told: Told
) -> tuple[Policy, str]:
    if given is not None:
        return given, "given"
    known = logged_policy(log.meta["metadata"], log.schema)
    if known is not None:
        return known, "that of the log"
    return linear_policy(log, simulator.schema, told), "linear, fitted to the log's actions"


def play(
    simulator: Simulator,
    policy: Policy,
    sessions: int,
    sample: int,
    seed: int,
    num_threads: int | None = None,
    told: Told | None = None,
) -> Side:
    """Simulated sessions, played in pieces, so that memory does not grow with them.

    Args:
        simulator: Who comes and answers.
        policy: What is shown.
        sessions: How many.
        sample: Most that are kept whole.
        seed: Of all draws.
        num_threads: Threads; no effect on the result.
        told: Progress.
    """
    side = Side(simulator.schema, sample, (seed, _PLAY))
    for first in range(0, sessions, _CHUNK):
        many = min(_CHUNK, sessions - first)
        piece = stream(seed, _PLAY, first // _CHUNK)
        log = rollout(simulator, policy, sessions=many, seed=piece, num_threads=num_threads).log
        for block in blocks_of(log):
            side.add(block)
        if told is not None:
            told("simulating", first + many, sessions)
    return side


def _hours(
    sides: dict[str, Side],
    items: int,
    hourly: Sequence[Simulator],
    policy: Policy,
    sessions: int,
    seed: int,
    num_threads: int | None,
) -> dict[str, Any] | None:
    if not sides["real"].by_slice[0].all():
        return None
    simulated = np.full(SLICES, sides["simulator"].answers / sides["simulator"].pages)
    for number, one in enumerate(hourly):
        many = -(-sessions // SLICES)
        side = play(one, policy, many, 20, stream(seed, _HOURS, number), num_threads)
        simulated[number] = side.answers / side.pages
    counts = [sides[name].by_slice for name in ("real", "fresh")]
    return compare_hours(counts[0], counts[1], simulated / items, items) | {
        "by_slice": bool(hourly)
    }


# --- small parts ---------------------------------------------------------------------------------


def _labels(log: Prepared, table: Table | None, number: int) -> list[str]:
    """What the categories of a field are called."""
    size = log.schema.customer[number].size
    labels = [str(code) for code in range(size)]
    if table is None:
        return labels
    column: Any = table.columns[number]
    if column.kind == "categorical":
        known = [str(value) for value in column.values] + ["others"] * bool(column.pooled)
    else:
        known = [f"{value:g}" for value in column.atoms]
        known += [f"from {edge[0]:.4g}" for edge in column.edges]
    known += ["missing"] * column.missing
    return [*known, *labels[len(known) :]]


def _totals(side: Side, items: int) -> dict[str, Any]:
    return {
        "sessions": side.sessions,
        "pages": side.pages,
        "mean_length": side.pages / side.sessions,
        "rate": side.answers / (items * side.pages),
        "ends": side.ends.tolist(),
        "actions": side.actions,
    }


def _about(
    log: Prepared,
    simulator: Simulator,
    policy: Policy,
    how: str,
    seed: int,
    sides: dict[str, Side],
    judged: int,
) -> dict[str, Any]:
    fitted = simulator.provenance.get("fit") or {}
    same = (fitted.get("log") or {}).get("digest") == log.digest
    return {
        "log": {
            "name": Path(str(log.meta["report"]["source"])).name,
            "digest": log.digest,
            "sessions": log.sessions,
            "pages": log.rows,
            "fitted_to": bool(same),
        },
        "simulator": {
            "name": simulator.name,
            "digest": simulator.digest,
            "customers": simulator.config.customers.kind,
            "response": simulator.config.response.kind,
            "leave": simulator.config.leave.kind,
        },
        "policy": {"name": policy.name, "how": how},
        "seed": seed,
        "sizes": {"sample": min(len(side.sample) for side in sides.values()), "judged": judged},
        "versions": {
            "virtualtb_fast": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
