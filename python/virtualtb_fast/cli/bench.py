"""Measure ours against other libraries that are installed, in one run.

virtualtb-fast bench catalog --items 1e6
virtualtb-fast bench catalog --array items.npy --plot speed.png

Exact search over a catalogue of N items against faiss (IndexFlatIP, IVF,
HNSW), usearch and numpy: queries a second (a batch of 256, and one at a time),
recall against double precision, build time and memory. Answers are compared
before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from virtualtb_fast.cli import common
from virtualtb_fast.errors import InvalidArgumentError, OutputError, StateError

SUMMARY = "measure ours against other libraries"

_BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("what", choices=["catalog"], help="what to measure")
    items = parser.add_mutually_exclusive_group()
    items.add_argument(
        "--items",
        type=common.whole(100, 100_000_000),
        action="append",
        metavar="N",
        help="uniform items (default: 1,000,000); repeatable",
    )
    items.add_argument("--array", metavar="FILE", help="the items (N, D) of a .npy file instead")
    parser.add_argument(
        "--dimensions",
        type=common.whole(1, 512),
        default=27,
        metavar="D",
        help="attributes of a uniform item (default: 27)",
    )
    parser.add_argument(
        "-k",
        type=common.whole(1, 1_000),
        default=10,
        metavar="K",
        help="items to find (default: 10)",
    )
    parser.add_argument(
        "--rounds",
        type=common.whole(1, 1_000),
        default=5,
        metavar="R",
        help="rounds of which figures are medians (default: 5)",
    )
    parser.add_argument(
        "--exact-only", action="store_true", help="leave out IVF and HNSW, which build slowly"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw queries a second against N")
    common.add_seed(parser)
    parser.add_argument(
        "--threads",
        type=common.whole(1, 1024),
        default=1,
        metavar="N",
        help="threads of every contender (default: 1)",
    )
    common.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Measures in a process of its own, because BLAS counts its threads when it is loaded."""
    if options.plot is not None:
        from virtualtb_fast.evaluation import plots

        plots.require(options.plot)
    command = [sys.executable, "-c", "from virtualtb_fast.cli import bench; bench.child()"]
    environment = {**os.environ, **dict.fromkeys(_BLAS, str(options.threads))}
    child = subprocess.run(
        command,
        env=environment,
        input=json.dumps(vars(options)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    answer: dict[str, Any] = json.loads(child.stdout or "{}")
    if child.returncode != 0 or "runs" not in answer:
        raise StateError(answer.get("error", f"the measuring process ended ({child.returncode})"))
    if options.plot is not None:
        from virtualtb_fast.evaluation import plots

        plots.retrieval(answer["runs"], options.plot)
    if options.json:
        common.print_json({"command": "bench catalog", **answer})
    else:
        for result in answer["runs"]:
            _show(result)
    return 0


def child() -> None:
    """Reads options from standard input, writes one JSON object to standard output."""
    options = json.load(sys.stdin)
    try:
        answer = _measure(options)
    except (InvalidArgumentError, OutputError, StateError) as error:
        print(json.dumps({"error": str(error)}))
        raise SystemExit(1) from None
    print(json.dumps(answer, allow_nan=False))


def _measure(options: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from virtualtb_fast import _columns
    from virtualtb_fast.evaluation import retrieval

    def progress(text: str) -> None:
        if sys.stderr.isatty():
            print(text, file=sys.stderr)

    def of(items: Any) -> dict[str, Any]:
        return retrieval.measure(
            items,
            k=options["k"],
            threads=options["threads"],
            rounds=options["rounds"],
            seed=options["seed"],
            approximate=not options["exact_only"],
            progress=progress,
        )

    sizes = options["items"] or [1_000_000]
    if options["array"] is None and min(sizes) < options["k"]:
        raise InvalidArgumentError(
            f"-k: expected at most {min(sizes)} (--items), got {options['k']}"
        )
    if options["array"] is not None:
        try:
            items = np.load(options["array"], allow_pickle=False)
        except OSError as error:
            raise OutputError(error.errno, error.strerror, options["array"]) from None
        except ValueError as error:
            raise InvalidArgumentError(f"--array: expected an array (.npy), got {error}") from None
        if not isinstance(items, np.ndarray):
            raise InvalidArgumentError(
                "--array: expected an array (.npy), got an archive of several"
            )
        if items.ndim != 2 or len(items) < 100 or items.shape[1] < 1:
            expected = "an array (N, D) of at least 100 items"
            raise InvalidArgumentError(f"--array: expected {expected}, got {items.shape}")
        runs = [of(_columns.float32("--array", items, 2))]
    else:
        generator = np.random.default_rng(options["seed"])
        shape = options["dimensions"]
        runs = [of(generator.random((size, shape), np.float32)) for size in sizes]
    return {"versions": retrieval.versions(), "runs": runs}


def _show(result: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    threads = "one thread" if result["threads"] == 1 else f"{result['threads']} threads"
    title = f"{result['items']:,} items x {result['dimensions']}, k = {result['k']}, {threads}"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    # Long names go on in a second line; none is cut.
    table.add_column("contender", min_width=16, overflow="fold")
    for name in ("batch q/s", "ours", "single q/s", "ours", "recall", "build s", "MB"):
        table.add_column(name, justify="right")
    for name, row in result["contenders"].items():
        table.add_row(
            name,
            f"{row['batch_per_second']:,.0f}",
            f"{row['ours_over_it_batch']:.1f}x",
            f"{row['single_per_second']:,.0f}",
            f"{row['ours_over_it_single']:.1f}x",
            f"{row['recall']:.3f}",
            f"{row['build_seconds']:.2f}",
            f"{row['memory_mb']:,.0f}",
        )
    Console().print(table)
