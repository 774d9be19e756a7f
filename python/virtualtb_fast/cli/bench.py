"""Measure ours against other libraries that are installed, in one run.

virtualtb-fast bench
virtualtb-fast bench --rounds 7 --seconds 1 --out speed.json --plot speed.png
virtualtb-fast bench catalog --items 1e6
virtualtb-fast bench catalog --array items.npy --plot speed.png

Environments (the default, about a minute): pages a second of environments and
rollouts against PyTorch, Gymnasium's vector environments and numpy's matrix
product. Catalog: exact search over N items against faiss (IndexFlatIP, IVF,
HNSW), usearch and numpy: queries a second, recall, build time and memory.
Outcomes are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from virtualtb_fast._training import write_atomically
from virtualtb_fast.cli import common
from virtualtb_fast.errors import InvalidArgumentError, OutputError, StateError, VirtualTBError

SUMMARY = "measure ours against other libraries"

_BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_INTERRUPTED = 130
_ALONE = {
    "environments": ("simulator", "batch", "seconds", "out"),
    "catalog": ("items", "array", "dimensions", "k", "exact_only"),
}
"""Options that one of the two has alone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "what",
        nargs="?",
        choices=["environments", "catalog"],
        default="environments",
        help="what to measure (default: environments)",
    )
    parser.add_argument(
        "--rounds",
        type=common.whole(1, 1_000),
        default=5,
        metavar="R",
        help="rounds of which figures are medians (default: 5)",
    )
    parser.add_argument(
        "--threads",
        type=common.whole(1, 1024),
        metavar="N",
        help='what "all threads" means (default: one a core); in the catalog threads of '
        "every contender (default: 1)",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw a picture of it")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    common.add_seed(parser)
    common.add_json(parser)
    _environments(parser.add_argument_group("environments"))
    _catalog(parser.add_argument_group("catalog"))


def _environments(group: argparse._ActionsContainer) -> None:
    group.add_argument("--simulator", metavar="S", help="a name or a file of yours to measure")
    group.add_argument(
        "--batch",
        type=common.whole(1, 1_000_000),
        action="append",
        metavar="N",
        help="customers a step (default: 1, 16, 256 and 4,096); repeatable",
    )
    group.add_argument(
        "--seconds",
        type=_seconds,
        metavar="T",
        help="how long a contender's turn lasts (default: 0.15)",
    )
    group.add_argument("--out", metavar="FILE", help="write the JSON object to a file as well")


def _catalog(group: argparse._ActionsContainer) -> None:
    items = group.add_mutually_exclusive_group()
    items.add_argument(
        "--items",
        type=common.whole(100, 100_000_000),
        action="append",
        metavar="N",
        help="uniform items (default: 1,000,000); repeatable",
    )
    items.add_argument("--array", metavar="FILE", help="the items (N, D) of a .npy file instead")
    group.add_argument(
        "--dimensions",
        type=common.whole(1, 512),
        metavar="D",
        help="attributes of a uniform item (default: 27)",
    )
    group.add_argument(
        "-k", type=common.whole(1, 1_000), metavar="K", help="items to find (default: 10)"
    )
    group.add_argument(
        "--exact-only",
        action="store_true",
        default=None,
        help="leave out IVF and HNSW, which build slowly",
    )


def _seconds(text: str) -> float:
    """A type for options: some seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 60:
        raise argparse.ArgumentTypeError(f"expected a number, 0.001 to 60, got {text!r}")
    return value


def run(options: argparse.Namespace) -> int:
    """Measures in a process of its own, because BLAS counts its threads when it is loaded."""
    for what, names in _ALONE.items():
        for name in names:
            if what != options.what and getattr(options, name) is not None:
                word = f"-{'' if name == 'k' else '-'}{name.replace('_', '-')}"
                expected = f"the bench of {what} with it"
                raise InvalidArgumentError(f"{word}: expected {expected}, got {options.what}")
    common.refuse_existing(options.out, options.plot, overwrite=options.overwrite)
    if options.out is not None and not os.path.isdir(os.path.dirname(options.out) or "."):
        raise OutputError(errno.ENOENT, os.strerror(errno.ENOENT), options.out)
    if options.plot is not None:
        from virtualtb_fast.evaluation import plots

        plots.require(options.plot)
    catalog = options.what == "catalog"
    if options.threads is None:
        options.threads = 1 if catalog else _cores()
    answer = _in_child(vars(options), threads=options.threads if catalog else 1)
    answer = {"command": f"bench {options.what}", **answer}
    if options.json:
        common.print_json(answer)
    elif catalog:
        for result in answer["runs"]:
            _show_catalog(result)
    else:
        from virtualtb_fast.cli import _bench_table

        _bench_table.show(answer)
    # Last: what fails to be written or drawn takes no figure with it.
    if options.out is not None:
        with write_atomically(Path(options.out)) as file:
            file.write((json.dumps(answer, indent=2, allow_nan=False) + "\n").encode())
    if options.plot is not None:
        _draw(answer, options.plot)
    return 0


def _draw(answer: dict[str, Any], path: str) -> None:
    from virtualtb_fast.evaluation import plots

    if answer["command"] == "bench catalog":
        plots.retrieval(answer["runs"], path)
    else:
        plots.environments(answer, path)


def _cores() -> int:
    from virtualtb_fast.info import system_info

    return int(system_info()["threads"])


def _in_child(options: dict[str, Any], threads: int) -> dict[str, Any]:
    """What `child` answers, run where BLAS has so many threads.

    It is out of reach of a terminal's Ctrl-C, which this process gets: its workers would answer it
    with a traceback each. It ends when its input does, so also when this process is killed.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", "from virtualtb_fast.cli import bench; bench.child()"],
        env={**os.environ, **dict.fromkeys(_BLAS, str(threads))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(options) + "\n")
        child.stdin.flush()
        text = child.stdout.read()
        code = child.wait()
    except BaseException:
        child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        child.stdout.close()
    child.stdin.close()
    answer: dict[str, Any] = json.loads(text or "{}")
    if code != 0 or "error" in answer:
        raise StateError(answer.get("error", f"the measuring process ended ({code})"))
    return answer


def child() -> None:
    """Reads options, a line of standard input; writes one JSON object to standard output."""
    options = json.loads(sys.stdin.readline() or "{}")
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        with common.Stages(still=True) as stages:
            what = _measure_catalog if options["what"] == "catalog" else _measure_environments
            answer = what(options, stages)
    except VirtualTBError as error:
        print(json.dumps({"error": str(error)}))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    print(json.dumps(answer, allow_nan=False))


def _end_with_input() -> None:
    """Interrupts the main thread when whoever asked no longer waits for the answer."""
    # Past Python's own buffer, whose lock this thread would hold when the process ends.
    while os.read(0, 1):
        pass
    if hasattr(signal, "pthread_kill"):
        # To the main thread itself, so that it does not wait for a pipe any longer.
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


def _measure_environments(options: dict[str, Any], stages: common.Stages) -> dict[str, Any]:
    from virtualtb_fast.evaluation import speed
    from virtualtb_fast.evaluation.speed.memory import measure_memory
    from virtualtb_fast.simulator import DEFAULT, load_simulator

    name = options["simulator"] or DEFAULT
    given = {key: options[key] for key in ("threads", "rounds", "seed")}
    if options["batch"]:
        given["batches"] = options["batch"]
    if options["seconds"]:
        given["seconds"] = options["seconds"]
    answer = speed.measure(load_simulator(name), **given, progress=stages)
    took_part = {row["what"] for row in answer["contenders"]}
    return {**answer, "memory": measure_memory(name, took_part, stages)}


def _measure_catalog(options: dict[str, Any], stages: common.Stages) -> dict[str, Any]:
    import numpy as np

    from virtualtb_fast import _columns
    from virtualtb_fast.evaluation import retrieval

    k = options["k"] or 10

    def of(items: Any) -> dict[str, Any]:
        return retrieval.measure(
            items,
            k=k,
            threads=options["threads"],
            rounds=options["rounds"],
            seed=options["seed"],
            approximate=not options["exact_only"],
            progress=lambda text: stages(text, 0, 0),
        )

    sizes = options["items"] or [1_000_000]
    if options["array"] is None and min(sizes) < k:
        raise InvalidArgumentError(f"-k: expected at most {min(sizes)} (--items), got {k}")
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
        shape = options["dimensions"] or 27
        runs = [of(generator.random((size, shape), np.float32)) for size in sizes]
    return {"versions": retrieval.versions(), "runs": runs}


def _show_catalog(result: dict[str, Any]) -> None:
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
