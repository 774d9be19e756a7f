"""Whole fits: what they cost on long logs, and how close they come to the published simulator.

    python -m benches.fits scale --pages 1000000 10000000 --work FOLDER --json FILE
    python -m benches.fits published --published FOLDER --work FOLDER --json FILE

``scale`` writes logs of a ground-truth store with that many pages and fits each with the command's
defaults, in a process of its own: wall time, the share of it spent simulating, peak memory.

``published`` logs sessions of the published VirtualTB-v0 networks under policies of several scales,
from uniform actions to none, fits simulators to them, and compares their click-through rates with
the published networks' under four policies. One of the fits has seen uniform actions alone: in 27
dimensions they are never near zero, and what customers do there cannot be learned from them. At the
end `virtualtb-fast report fidelity` compares the first of the fits with a log of its own: the page
is WORK/report/fidelity.html; beside the JSON come ``fidelity-published.json``, without what is only
drawn, and ``fidelity-published.png``.

Fits go on after an interruption, as `virtualtb-fast fit` does. Everything is added to the JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import virtualtb_fast as vtb
from virtualtb_fast._training import write_atomically
from virtualtb_fast.evaluation.report import read_report
from virtualtb_fast.evaluation.reproduce.parts import origin

COMMAND = [sys.executable, "-c", "import sys, virtualtb_fast.cli as c; sys.exit(c.main())"]
SCALES = ("random", "gaussian:0.3", "gaussian:0.1", "gaussian:0.03", "zero")
SESSIONS = 130_000
NORM = 0.03
JUDGED, JUDGED_PURPOSE = "gaussian:0.1", 40
"""What the log of the page of fidelity was shown: other sessions than those that fits have seen."""
LANES, STEPS = 4096, 500


def base(run: int, purpose: int) -> int:
    """The base seed of a purpose."""
    return (run << 32) | (purpose << 24)


def fit(log: Path, out: Path, *options: str) -> dict[str, Any]:
    """One fit by the command, and what it cost."""
    words = [*COMMAND, "fit", str(log), "--out", str(out), "--overwrite", "--json", *options]
    # What a fit took is said by the command, and is not in the simulator's file.
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    return {"options": list(options), **json.loads(done.stdout)["report"]}


def scale(pages: int, work: Path, run: int) -> dict[str, Any]:
    """A fit of a store's log of so many pages."""
    log = work / f"store-{pages}.parquet"
    if not log.exists():
        words = ["rollout", "--store", str(base(run, 0)), "--policy", "logger", "--json"]
        words += ["--pages", str(pages), "--seed", str(base(run, 1)), "--out", str(log)]
        subprocess.run([*COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    found = fit(log, work / f"store-{pages}.safetensors", "--seed", str(base(run, 2)))
    return {"log_bytes": log.stat().st_size, **found}


def mixed_log(
    simulator: vtb.Simulator, path: Path, policies: tuple[str, ...], run: int, purpose: int = 3
) -> None:
    """As many sessions under each policy, in one log."""
    each, writer = SESSIONS // len(policies), None
    for number, policy in enumerate(policies):
        log = vtb.rollout(simulator, policy, sessions=each, seed=base(run, purpose + number)).log
        table = pa.table(log)
        place = table.schema.get_field_index("session")
        sessions = pa.array(log["session"] + number * each)
        table = table.set_column(place, table.schema.field(place), sessions)
        if writer is None:
            named = {b"policy": b"mixed"} if len(policies) > 1 else {}
            schema = table.schema.with_metadata({**table.schema.metadata, **named})
            writer = pq.ParquetWriter(path, schema)
        writer.write_table(table.cast(schema))
    assert writer is not None
    writer.close()


def click_through(simulator: vtb.Simulator, run: int) -> dict[str, float]:
    """Click-through rates under the four policies."""
    found = {}
    for name in ("random", "zero", "gaussian:0.1"):
        counts = vtb.rollout(simulator, name, sessions=400_000, seed=base(run, 20), keep=False)
        found[name] = counts.summary.ctr
    envs = gymnasium.make_vec(
        "virtualtb_fast:VirtualTB-v1",
        num_envs=LANES,
        simulator=simulator,
        autoreset_mode="SameStep",
    )
    envs.reset(seed=base(run, 21))
    draws, clicks = np.random.default_rng(base(run, 22)), 0.0
    for _ in range(STEPS):
        action = draws.standard_normal((LANES, 27), np.float32)
        action *= NORM / np.linalg.norm(action, axis=1, keepdims=True)
        clicks += float(envs.step(action)[1].sum())
    found[f"norm {NORM}"] = clicks / (LANES * STEPS * simulator.page_items)
    return found


def published(folder: Path, work: Path, run: int) -> dict[str, Any]:
    """Fits to logs of the published networks, and their click-through rates."""
    truth = vtb.import_published(folder)
    rates = {"published": click_through(truth, run)}
    logs = {"mixed": SCALES, "uniform": SCALES[:1]}
    for name, policies in logs.items():
        mixed_log(truth, work / f"{name}.parquet", policies, run)
    fits = {}
    asked = [
        ("mixed", "gan-sd", "bc+mail"),
        ("mixed", "lca", "bc"),
        ("mixed", "lca", "mail"),
        ("uniform", "lca", "bc"),
    ]
    for name, customers, method in asked:
        label = f"{customers}, {method}, {name} actions"
        out = work / f"{method}-{name}.safetensors"
        options = ("--customers", customers, "--responses", method, "--seed", str(base(run, 2)))
        fits[label] = fit(work / f"{name}.parquet", out, *options)
        rates[label] = click_through(vtb.load_simulator(out), run)
        worst = max(abs(rates[label][key] / rate - 1) for key, rate in rates["published"].items())
        fits[label]["largest_difference"] = worst
        print(f"{label}: {worst:.1%} off at most, {rates[label]}", flush=True)
    judged = work / "judged.parquet"
    mixed_log(truth, judged, (JUDGED,), run, purpose=JUDGED_PURPOSE)
    page(judged, work / "bc+mail-mixed.safetensors", work / "report", run)
    return {"sessions": SESSIONS, "policies": list(SCALES), "click_through": rates, "fits": fits}


def page(log: Path, simulator: Path, out: Path, run: int) -> None:
    """A report of fidelity on sessions that the simulator has not seen."""
    words = [*COMMAND, "report", "fidelity", "--real", str(log), "--simulator", str(simulator)]
    words += ["--out", str(out), "--overwrite", "--json", "--seed", str(base(run, 41))]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    found = read_report(out / "fidelity.json")
    print(f"{out / 'fidelity.html'}: {found['verdict']['headline']}", flush=True)


def compact(found: dict[str, Any]) -> dict[str, Any]:
    """A report of fidelity without what is only drawn: shares, rates by page and by category."""
    drawn = {"shares", "rate", "half_width", "pages", "second", "ending", "cells", "pair_kls"}
    short = {key: value for key, value in found.items() if key not in ("fields", "pages")}
    short["fields"] = [field["name"] for field in found["fields"]]
    for key in ("lengths", "features", "hours"):
        if found[key] is not None:
            short[key] = {one: value for one, value in found[key].items() if one not in drawn}
    short["pages"] = {key: value for key, value in found["pages"].items() if key not in drawn}
    short["customers"] = {
        name: {key: value for key, value in row.items() if key not in drawn}
        if isinstance(row, dict)
        else row
        for name, row in found["customers"].items()
    }
    return short


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("scale", "published"):
        sub = kinds.add_parser(kind)
        sub.add_argument("--work", type=Path, required=True, help="folder of logs and simulators")
        sub.add_argument("--json", type=Path, help="file that the result is added to")
        sub.add_argument("--run", type=int, default=100, help="number of the run")
    kinds.choices["scale"].add_argument("--pages", type=int, nargs="+", default=[1_000_000])
    kinds.choices["published"].add_argument("--published", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    held: dict[str, Any] = {}
    if options.json and options.json.exists():
        held = json.loads(options.json.read_text())
    made = origin()
    held |= made
    if options.kind == "published":
        found = published(options.published, options.work, options.run)
        held["published"] = {**found, "commit": made["commit"]}
        if options.json:
            keep_page(options.work / "report", options.json.parent)
    else:
        for pages in options.pages:
            found = scale(pages, options.work, options.run)
            held.setdefault("scale", {})[str(pages)] = {**found, "commit": made["commit"]}
            print(f"{pages:,} pages: {found['seconds']:.0f} s", flush=True)
            keep(options.json, held)
    keep(options.json, held)


def keep_page(report: Path, folder: Path) -> None:
    """What of the page is kept beside the results."""
    keep(folder / "fidelity-published.json", compact(read_report(report / "fidelity.json")))
    with write_atomically(folder / "fidelity-published.png") as file:
        file.write((report / "overview.png").read_bytes())


def keep(path: Path | None, held: dict[str, Any]) -> None:
    """Writes what there is so far."""
    if path is not None:
        with write_atomically(path) as file:
            file.write((json.dumps(held, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
