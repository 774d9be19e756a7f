"""Exact catalogue search against faiss, usearch and numpy: every figure the project promises.

``python -m benches.catalog [--json FILE] [--plot FILE] [--quick] [--rounds N] [--only-opening]``

One thread throughout, but where two are compared with one. The real catalogue is looked for in
the folder ``item_catalogues`` under the directory in ``VIRTUALTB_DATA``, and left out without it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import virtualtb_fast as vtb
from virtualtb_fast.evaluation import plots, retrieval
from virtualtb_fast.evaluation.machine import machine

MILLION = 1_000_000


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def real_items() -> np.ndarray | None:
    """The real catalogue (400,000, 27), if it is there."""
    folder = os.environ.get("VIRTUALTB_DATA")
    if not folder:
        return None
    path = Path(folder) / "item_catalogues" / "glove6b_pca27_400k.npz"
    return np.load(path)["items"].astype(np.float32) if path.exists() else None


def aims(result: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The promised ratios, each with what it aims for."""
    rows: dict[str, tuple[float, float | None]] = {}
    for name, aim_batch, aim_single in (
        ("uniform", 10, 4),
        ("normal", None, None),
        ("real", 20, None),
    ):
        rival = result.get(name, {}).get("contenders", {}).get("faiss IndexFlatIP")
        if rival is not None:
            rows[f"{name}: batch / faiss IndexFlatIP"] = (rival["ours_over_it_batch"], aim_batch)
            rows[f"{name}: single / faiss IndexFlatIP"] = (rival["ours_over_it_single"], aim_single)
    rows["two threads / one"] = (result["ours"]["two_threads_over_one"], 1.7)
    for name, value in result["ours"].items():
        if name.startswith("filtered"):
            rows[name.replace("_", " ")] = (value, 1.1)
    for kind in ("shared", "own"):
        name = f"200 {kind} candidates of 5,000 / batched numpy"
        rows[name] = (result["candidates"][f"{kind}_ours_over_numpy"], 20)
    return {name: {"ratio": ratio, "aim": aim} for name, (ratio, aim) in rows.items()}


def measure(*, quick: bool, rounds: int) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    size = 100_000 if quick else MILLION
    uniform = generator.random((size, 27), np.float32)
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": {"virtualtb_fast": vtb.__version__, **retrieval.versions()},
        "uniform": retrieval.measure(uniform, rounds=rounds, progress=_say),
        "ours": retrieval.ours_alone(uniform, rounds=rounds),
        "candidates": retrieval.candidates(),
        "builds": retrieval.builds(300_000 if quick else 10 * MILLION),
        "opening": opening(quick=quick),
    }
    normal = generator.standard_normal((size, 27), np.float32)
    result["normal"] = retrieval.measure(normal, rounds=rounds, approximate=False, progress=_say)
    del normal, uniform
    real = real_items()
    if real is not None:
        result["real"] = retrieval.measure(real, rounds=rounds, progress=_say)
    sizes = (10_000, 30_000, 100_000) if quick else (10_000, 100_000, MILLION, 10 * MILLION)
    result["growth"] = retrieval.growth(sizes, rounds=min(rounds, 2), progress=_say)
    return {**result, "ratios": aims(result)}


def opening(*, quick: bool) -> list[dict[str, float]]:
    """How long fresh processes take to open catalogues of two sizes, and to answer then."""
    sizes = (30_000, 100_000) if quick else (MILLION, 10 * MILLION)
    return [retrieval.opening(size) for size in sizes]


def only_opening(path: Path, *, quick: bool) -> dict[str, Any]:
    """An earlier result of this machine with its opening measured anew."""
    result = json.loads(path.read_text())
    if result["machine"] != machine():
        raise SystemExit(f"{path}: expected a result of {machine()}, got {result['machine']}")
    return {**result, "opening": opening(quick=quick)}


def main() -> None:
    """Runs the bench."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--plot", type=Path, help="draw queries a second against N")
    parser.add_argument("--quick", action="store_true", help="small catalogues, for a look")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a contest (default 5)")
    parser.add_argument(
        "--only-opening",
        action="store_true",
        help="measure how long opening takes, and put it into the result that --json names",
    )
    arguments = parser.parse_args()
    if arguments.only_opening and not (arguments.json and arguments.json.exists()):
        parser.error("--only-opening: expected --json with an earlier result")
    if arguments.plot:
        plots.require(arguments.plot)
    if arguments.only_opening:
        result = only_opening(arguments.json, quick=arguments.quick)
    else:
        result = measure(quick=arguments.quick, rounds=arguments.rounds)
    for name, row in result["ratios"].items():
        aim = "" if row["aim"] is None else f"(aim {row['aim']:g})"
        print(f"{name:60} {row['ratio']:8.2f} {aim}")
    for kind, row in result["builds"].items():
        rate = f"{row['items_per_second']:,.0f} items a second, peak {row['peak_mb']:,.0f} MB"
        print(f"build of {row['items']:,} items, {kind}: {rate}")
    for row in result["opening"]:
        waits = f"{row['open_ms']:.2f} ms, the first answer {row['first_answer_ms']:.2f} ms"
        print(f"opening {row['items']:,} items: {waits}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.plot:
        plots.retrieval(result["growth"], arguments.plot)


if __name__ == "__main__":
    main()
