"""Play whole sessions of simulated customers under a ranking policy.

Sessions 0, 1, 2, ... of the seed's stream are played to their ends. The same
seed gives the same bytes, whatever the number of threads and the CPU.

With --store the customers are those of a ground-truth store, whose true
behaviour is known; WORLD is its seed, and the log has items and prices.

With --out and --resume a rollout that was stopped, by Ctrl-C, a kill or a full
disk, goes on where it stopped, and ends with the file that it would have had.

policies:
  random          uniform on the action box
  zero            no preference
  gaussian:SIGMA  normal with standard deviation SIGMA
  constant:FILE   one action for every page, from a .npy or text file
  logger          what a store's logs are made with (also logger:query)
  FILE            a policy network, .safetensors
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from typing import Any

from virtualtb_fast.cli import common
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.rollout import Rollout, Summary, rollout
from virtualtb_fast.simulator import DEFAULT, Simulator, load_simulator
from virtualtb_fast.store import GroundTruthStore

_SESSIONS = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``rollout``."""
    play = parser.add_argument_group("what is played")
    place = play.add_mutually_exclusive_group()
    place.add_argument(
        "--simulator",
        default=DEFAULT,
        metavar="NAME|FILE",
        help=f"a simulator (default: {DEFAULT})",
    )
    place.add_argument(
        "--store",
        type=common.whole(0, 2**64 - 1),
        metavar="WORLD",
        help="or the ground-truth store of this seed",
    )
    play.add_argument(
        "--items",
        type=common.whole(1, 2**32 - 2),
        metavar="N",
        help="items of the store (default: 5,000)",
    )
    play.add_argument(
        "--policy", default="random", metavar="POLICY", help="see above (default: random)"
    )
    amount = play.add_mutually_exclusive_group()
    amount.add_argument(
        "--sessions",
        type=common.whole(1, 2**40),
        metavar="N",
        help=f"sessions to play (default: {_SESSIONS:,})",
    )
    amount.add_argument(
        "--pages",
        type=common.whole(1, 2**40),
        metavar="N",
        help="or the fewest sessions that have at least N pages",
    )
    play.add_argument(
        "--reduced",
        action="store_true",
        help="a simulator's layers of eight bits: other answers, but seldom, and more speed on "
        "CPUs with AVX-512 VNNI",
    )
    common.add_seed(play)
    common.add_threads(play)
    output = parser.add_argument_group("what comes out")
    output.add_argument(
        "--out",
        metavar="FILE",
        help="write every page to this Parquet file, in a folder that is there",
    )
    output.add_argument(
        "--plot", metavar="FILE", help="draw clicks by page and session lengths (.png, .svg, .pdf)"
    )
    output.add_argument("--overwrite", action="store_true", help="replace files that exist")
    output.add_argument(
        "--resume",
        action="store_true",
        help="go on with what the same command, stopped, left of --out; start if there is nothing",
    )
    common.add_json(output)


def run(options: argparse.Namespace) -> int:
    """Plays, writes, draws, and says what came of it."""
    _refuse_existing(options)
    if options.plot is not None:
        # A picture that cannot be drawn is better refused before an hour of simulation.
        from virtualtb_fast.evaluation import plots

        plots.require(options.plot)
    place = _place(options)
    sessions, pages = options.sessions, options.pages
    if sessions is None and pages is None:
        sessions = _SESSIONS
    total: int = options.pages if sessions is None else sessions
    unit = "pages" if sessions is None else "sessions"
    try:
        with common.Progress(total, unit, quiet=options.json) as progress:
            played = rollout(
                place,
                options.policy,
                sessions=sessions,
                pages=pages,
                seed=options.seed,
                num_threads=options.threads,
                out=options.out,
                overwrite=options.overwrite,
                resume=options.resume,
                keep=False,
                progress=progress,
            )
    except KeyboardInterrupt:
        _say_what_is_left(options.out)
        raise
    rows = _table(place, played, options)
    if options.json:
        common.print_json(_report(place, played, options))
    else:
        common.print_table(rows)
    if options.plot is not None:
        # Last: a picture that fails to be drawn takes no figure with it.
        from virtualtb_fast.evaluation import plots

        plots.sessions(played.summary, options.plot, title=_title(place, options))
        if not options.json:
            least = max(len(name) for name, _ in rows)
            common.print_table([("picture in", options.plot)], least)
    return 0


def _place(options: argparse.Namespace) -> Simulator | GroundTruthStore:
    if options.store is not None:
        if options.reduced:
            raise InvalidArgumentError("--reduced: expected a simulator with it, got --store")
        items = {} if options.items is None else {"items": options.items}
        return GroundTruthStore(seed=options.store, **items)
    if options.items is not None:
        raise InvalidArgumentError("--items: expected --store with it, got a simulator")
    simulator = load_simulator(options.simulator)
    return simulator.reduced() if options.reduced else simulator


def _refuse_existing(options: argparse.Namespace) -> None:
    if options.resume and options.out is None:
        raise InvalidArgumentError("--resume: expected --out with it, got none")
    if options.out is not None:
        common.refuse_ending("--out", options.out)
    # What the same command has finished is its own to look at, and to draw again.
    names = [] if options.out is None else [options.out, f"{options.out}.partial"]
    began = options.resume and any(os.path.exists(name) for name in names)
    common.refuse_existing(options.out, options.plot, overwrite=options.overwrite or began)
    if options.out is not None and options.out == options.plot:
        raise InvalidArgumentError("--out, --plot: expected two files, got the same")


def _say_what_is_left(path: str | None) -> None:
    if path is not None and os.path.exists(f"{path}.partial"):
        print(f"the pages so far are in {path}.partial (--resume goes on)", file=sys.stderr)


def _title(place: Simulator | GroundTruthStore, options: argparse.Namespace) -> str:
    world = "" if options.store is None else f" {options.store}"
    return f"{place.name}{world}, policy {options.policy}, seed {options.seed}"


def _report(
    place: Simulator | GroundTruthStore, played: Rollout, options: argparse.Namespace
) -> dict[str, Any]:
    kind = "simulator" if isinstance(place, Simulator) else "store"
    return {
        "command": "rollout",
        kind: place.name,
        f"{kind}_digest": place.digest,
        "reduced": options.reduced,
        "policy": options.policy,
        "seed": options.seed,
        "threads": options.threads,
        "out": options.out,
        "plot": options.plot,
        **played.summary.to_dict(),
    }


def _table(
    place: Simulator | GroundTruthStore, played: Rollout, options: argparse.Namespace
) -> list[tuple[str, str]]:
    summary = played.summary
    kind = "store" if summary.priced else "simulator"
    reduced = ", reduced" if options.reduced else ""
    rows = [
        (kind, f"{place.name}{reduced} ({place.digest[:12]})"),
        ("policy", f"{options.policy}, seed {options.seed}"),
        ("pages", f"{summary.pages:,}"),
        ("sessions", f"{summary.sessions:,}"),
        *(_sold(summary) if summary.sells else _clicked(summary)),
        (
            "session length",
            f"{summary.mean_session_length:.3f} pages"
            f"{_interval(summary.mean_session_length_interval, 3)}",
        ),
        ("rate", f"{summary.pages_per_second:,.0f} pages a second, {summary.seconds:.2f} s"),
    ]
    if summary.resumed:
        rows.append(("resumed", f"{summary.resumed:,} of the pages were there"))
    if options.out is not None:
        rows.append(("pages in", f"{options.out} ({common.size(os.path.getsize(options.out))})"))
    return rows


def _clicked(summary: Summary) -> list[tuple[str, str]]:
    return [
        ("CTR", f"{summary.ctr:.5f}{_interval(summary.ctr_interval, 5)}"),
        ("", f"clicks / ({summary.page_items} x pages); interval by whole sessions"),
        ("clicked pages", f"{summary.click_rate:.2%}"),
    ]


def _sold(summary: Summary) -> list[tuple[str, str]]:
    rows = [
        ("R2P", f"{summary.r2p:.5f}{_interval(summary.r2p_interval, 5)}"),
        ("", "pages with a purchase / pages; interval by whole sessions"),
        ("CTR", f"{summary.ctr:.5f}, purchases / ({summary.page_items} x pages)"),
        ("TV", f"{summary.tv:,} units sold"),
    ]
    return rows + ([("TT", f"{summary.tt:,.2f} of money taken")] if summary.priced else [])


def _interval(bounds: tuple[float, float], digits: int) -> str:
    low, high = bounds
    return "" if math.isnan(low) else f"   (95 %: {low:.{digits}f} to {high:.{digits}f})"
