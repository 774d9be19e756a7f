"""Reports: how far to trust a simulator; the published tables and figures again.

reports:
  fidelity      a simulator beside the log that it stands for: one HTML page
  responses     ways to learn customers' answers, against true ones
  table1        samplers of customers: GAN-SD, baselines, alternatives
  table2        policies trained in a simulator, on the days after
  figure3       shares of every category: truth, GAN-SD and its baselines
  figure4       R2P by customer feature, real against simulated
  figure5       R2P over twelve parts of a day, a simulator a part

virtualtb-fast report REPORT --help says more about a report.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from virtualtb_fast._fit_settings import CUSTOMERS, RESPONSES
from virtualtb_fast.cli import common

_FIDELITY = """\
Compare simulated sessions with logged ones: customers, how fields hang
together, session lengths, answers by page and by feature, and what a classifier
can tell. Beside every figure stands what fresh real sessions get, and what a
simulator that is trivially wrong would.

DIR gets fidelity.html, which stands alone, a PNG a figure, and fidelity.json,
which all of them are made from. Logs that rollouts wrote need no schema, and
neither does the log that the simulator was fitted to."""

_TABLES = {
    "responses": "Ways to learn customers' answers, against stores whose answers are known.",
    "table1": "Samplers of customers side by side, in stores whose density is known.",
    "table2": "R2P on later days of policies trained in day 0's simulator, there and in truth.",
    "figure3": "Shares of every category: the truth, GAN-SD and its baselines.",
    "figure4": "R2P by customer feature: the true store against simulators of its logs.",
    "figure5": "R2P over twelve parts of a day, each with a simulator of its own.",
}

_CELLS = """

The work is done in cells, each a file in OUT/cells: after Ctrl-C or a kill the
same command does the rest. OUT gets NAME.json, NAME.md and NAME.png."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The reports and their options."""
    report = common.add_actions(parser, "report")
    _add_fidelity(report("fidelity", _FIDELITY))
    for name, text in _TABLES.items():
        _add_table(report(name, text + _CELLS), name)


def _add_fidelity(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s --real LOGS --simulator SIM --out DIR ..."
    parser.add_argument(
        "--real", required=True, metavar="LOGS", help="a Parquet file, a row a page"
    )
    parser.add_argument("--simulator", required=True, metavar="NAME|FILE", help="what is judged")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report")
    parser.add_argument("--schema", metavar="FILE", help="what the log's columns are (.toml)")
    parser.add_argument(
        "--policy", metavar="POLICY", help="what the log was made with, if it does not say"
    )
    parser.add_argument(
        "--store-seed",
        type=common.whole(0, 2**64 - 1),
        metavar="WORLD",
        help="the log is of the ground-truth store of this seed: add what it knows",
    )
    parser.add_argument(
        "--hourly",
        nargs=12,
        default=(),
        metavar="SIM",
        help="twelve simulators, one for each two hours of the day",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=CUSTOMERS,
        metavar="NAME",
        help="further samplers of customers to fit and to compare, as in fit (default: gmm;"
        " without a name: none)",
    )
    parser.add_argument(
        "--sessions",
        type=common.whole(40, 10**9),
        metavar="N",
        help="sessions to simulate (default: half of the log's, at most 200,000)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    common.add_seed(parser)
    common.add_threads(parser)
    common.add_json(parser)


def _add_table(parser: argparse.ArgumentParser, name: str) -> None:
    from virtualtb_fast.evaluation import reproduce

    customers = name in ("table1", "figure3")
    parser.usage = "%(prog)s --out DIR [options]"
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of cells and results")
    default = reproduce.WORLDS[:1] if name == "figure5" else reproduce.WORLDS
    parser.add_argument(
        "--worlds",
        type=common.whole(0, 2**32 - 1),
        nargs="+",
        default=default,
        metavar="N",
        help=f"stores, by run number (default: {' '.join(map(str, default))})",
    )
    if customers:
        samplers = reproduce.TABLE1 if name == "table1" else reproduce.FIGURE3
        parser.add_argument(
            "--samplers",
            nargs="+",
            choices=("fresh", *CUSTOMERS),
            default=samplers,
            metavar="NAME",
            help=f"default: {' '.join(samplers)}",
        )
        parser.add_argument(
            "--size",
            type=common.whole(200, 10**7),
            default=100_000,
            metavar="N",
            help="customers to fit to, and to generate (default: 100,000)",
        )
        if name == "table1":
            parser.add_argument(
                "--published",
                metavar="DIR",
                help="the published networks, another row (default: virtualtb_v0 in the"
                " folder that VIRTUALTB_DATA names, if it is there)",
            )
    elif name in ("table2", "responses"):
        methods = reproduce.TABLE2 if name == "table2" else reproduce.RESPONSES
        parser.add_argument(
            "--methods",
            nargs="+",
            choices=methods,
            default=methods,
            metavar="NAME",
            help=f"default: {' '.join(methods)}",
        )
        if name == "table2":
            _add_sizes(parser, 200_000, "a day")
        else:
            _add_sessions(parser, 200_000)
            parser.add_argument(
                "--iterations",
                type=common.whole(1, 10**6),
                metavar="N",
                help="most iterations of MAIL, if not its default",
            )
    else:
        parser.add_argument(
            "--customers", choices=CUSTOMERS, default="gan-sd", metavar="NAME", help="as in fit"
        )
        parser.add_argument(
            "--responses", choices=RESPONSES, default="bc+mail", metavar="NAME", help="as in fit"
        )
        if name == "figure4":
            _add_sizes(parser, 200_000)
        else:
            _add_sizes(parser, 100_000, "for each part")
            parser.add_argument(
                "--warm",
                action="store_true",
                help="start each part's responses from those of the part before; OUT gets"
                " figure5-warm.json, .md and .png",
            )
    parser.add_argument(
        "--workers",
        type=common.whole(1, 1024),
        default=os.cpu_count() or 1,
        metavar="N",
        help="cells side by side, each on one thread (default: one a core)",
    )
    common.add_json(parser)


def _add_sessions(parser: argparse.ArgumentParser, sessions: int, each: str = "") -> None:
    parser.add_argument(
        "--sessions",
        type=common.whole(200, 10**7),
        default=sessions,
        metavar="N",
        help=f"logged{' ' * bool(each)}{each} (default: {sessions:,})",
    )


def _add_sizes(parser: argparse.ArgumentParser, sessions: int, each: str = "") -> None:
    _add_sessions(parser, sessions, each)
    parser.add_argument(
        "--effort",
        type=common.effort,
        default=1.0,
        metavar="X",
        help="multiplies the steps of every training (default: 1)",
    )


def run(options: argparse.Namespace) -> int:
    """Makes the report, and says where it is and what it comes to."""
    if options.report == "fidelity":
        return _fidelity(options)
    return _table(options)


def _fidelity(options: argparse.Namespace) -> int:
    from virtualtb_fast._work import WorkFolder
    from virtualtb_fast.evaluation import figures
    from virtualtb_fast.evaluation.fidelity import fidelity
    from virtualtb_fast.evaluation.report import require_folder, write_report
    from virtualtb_fast.simulator import load_simulator
    from virtualtb_fast.store import GroundTruthStore

    # What would fail at the end fails at once.
    figures.needs_matplotlib()
    folder = require_folder(options.out, overwrite=options.overwrite)
    store = None if options.store_seed is None else GroundTruthStore(options.store_seed)
    with WorkFolder(folder / "fidelity") as work, common.Stages(quiet=options.json) as progress:
        # What a killed report left.
        work.clear()
        found = fidelity(
            options.real,
            options.simulator,
            schema=options.schema,
            policy=options.policy,
            store=store,
            hourly=[load_simulator(one) for one in options.hourly],
            baselines=options.baselines,
            sessions=options.sessions,
            seed=options.seed,
            num_threads=options.threads,
            work=work.path,
            progress=progress,
        )
        work.clear()
        written = write_report(found, folder, overwrite=options.overwrite, progress=progress)
    if options.json:
        common.print_json(
            {"command": "report fidelity", "files": [str(path) for path in written], **found}
        )
        return 0
    for line in _lines(found):
        print(line)
    page = next(path for path in written if path.suffix == ".html")
    print(f"\n{page}: {found['verdict']['headline']}")
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    checks = found["checks"]
    width = max(len(check["title"]) for check in checks)
    head = f"{'':{width}}  {'grade':12}  {'simulator':>9}  {'fresh':>7}  {'guard':>7}"
    lines = [head]
    for check in checks:
        digits = check["digits"]
        figures = f"{check['simulator']:>9.{digits}f}  {check['fresh']:>7.{digits}f}"
        figures += f"  {check['guard']:>7.{digits}f}"
        lines.append(f"{check['title']:{width}}  {check['grade']:12}  {figures}")
    return lines


def _published() -> str | None:
    """Where tests look for the published networks, if they are there."""
    folder = os.environ.get("VIRTUALTB_DATA")
    path = os.path.join(folder, "virtualtb_v0") if folder else ""
    return path if os.path.isdir(path) else None


def _table(options: argparse.Namespace) -> int:
    from virtualtb_fast.evaluation import figures, reproduce

    figures.needs_matplotlib()
    functions: dict[str, Callable[..., dict[str, Any]]] = {
        "responses": reproduce.responses,
        "table1": reproduce.table1,
        "table2": reproduce.table2,
        "figure3": reproduce.figure3,
        "figure4": reproduce.figure4,
        "figure5": reproduce.figure5,
    }
    names = (
        "worlds",
        "samplers",
        "size",
        "methods",
        "customers",
        "responses",
        "sessions",
        "iterations",
        "effort",
        "warm",
    )
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if options.report == "table1":
        given["published"] = options.published or _published()
    with common.Stages(quiet=options.json) as progress:
        found = functions[options.report](
            options.out, **given, workers=options.workers, progress=progress
        )
    if options.json:
        common.print_json({"command": f"report {options.report}", **found})
        return 0
    files = os.path.join(options.out, options.report + ("-warm" if given.get("warm") else ""))
    with open(f"{files}.md") as file:
        print(file.read(), end="")
    print(f"\n{files}.json, .md, .png")
    return 0
