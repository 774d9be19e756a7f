"""Learn a simulator from a session log.

The log is checked and prepared, then customers, responses and leaving are
learned in stages. What is under way is kept in OUT.work: after Ctrl-C or a kill
the same command goes on where it was, with the same result.

Logs that rollouts wrote need no schema; for others, virtualtb-fast logs schema
drafts one.

customers:
  gan-sd                      GAN-SD on single fields and pairs of them
  gan-sd-fields, gan-sd-paper its other presets
  lca, ar                     latent classes; autoregressive: exact likelihoods
  independent, rows           marginals; a bootstrap of logged customers
  gan, wgan, wgan-gp, gmm     baselines

responses:
  bc+mail                     behaviour cloning, then adversarial steps where
                              held-out answers become likelier
  bc                          behaviour cloning alone
  mail, mail-paper            adversarial from random weights; the paper's form
  linear                      buying linear in the action: fits in seconds
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final

from virtualtb_fast._fit_settings import MOST_MEMBERS
from virtualtb_fast._work import Kept
from virtualtb_fast.cli import common
from virtualtb_fast.fit import CUSTOMERS, RESPONSES, fit
from virtualtb_fast.records import Finding
from virtualtb_fast.simulator import Simulator

_LABELS: Final = {
    "engine": "engine policy",
    "leave": "session lengths",
    "mail": "MAIL",
    "check": "comparing",
}
"""What stages are called, where their name does not do."""

_ORDER: Final = ("log", "customers", "responses", "engine", "leave", "mail", "check")
"""Stages in the order in which they are told of; those of an ensemble's members follow."""

_SHOWN: Final = {
    "held_out_loss": "held out",
    "held_out": "held out",
    "loss": "loss",
    "negative_log_likelihood": "loss",
    "pair_kl": "pair KL",
    "marginal_kl": "field KL",
    "accuracy": "D accuracy",
    "length": "pages",
    "generator_loss": "G loss",
    "log_likelihood": "log-likelihood",
}
"""Live figures that are shown, the first two of them that there are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fit``."""
    parser.usage = "%(prog)s LOGS --out SIM [options]"
    parser.add_argument("logs", metavar="LOGS", help="a Parquet file, one row a page")
    learn = parser.add_argument_group("what is learned, and from what")
    learn.add_argument("--schema", metavar="FILE", help="what the log's columns are (.toml)")
    learn.add_argument(
        "--customers",
        choices=CUSTOMERS,
        default="gan-sd",
        metavar="NAME",
        help="see above (default: gan-sd)",
    )
    learn.add_argument(
        "--responses",
        choices=RESPONSES,
        default="bc+mail",
        metavar="NAME",
        help="see above (default: bc+mail)",
    )
    learn.add_argument(
        "--leave",
        choices=("hazard", "once"),
        default="hazard",
        metavar="KIND",
        help="hazard: after every page (default); once: a length drawn at the start, with "
        "--responses bc",
    )
    learn.add_argument(
        "--effort",
        type=common.effort,
        default=1.0,
        metavar="X",
        help="multiplies the steps of every training (default: 1)",
    )
    learn.add_argument(
        "--ensemble",
        type=common.whole(1, MOST_MEMBERS),
        default=1,
        metavar="K",
        help="with bc or linear: learn K responses, say how far they disagree, and write the "
        "others to SIM's name with .2 to .K in it (default: 1)",
    )
    learn.add_argument(
        "--warm-start",
        metavar="NAME|FILE",
        help="with bc+mail, bc or linear: start from the responses of this simulator, not from "
        "random weights",
    )
    learn.add_argument(
        "--seed",
        type=common.whole(0, 2**64 - 1),
        default=0,
        metavar="S",
        help="of everything that is drawn (default: 0); same seed, same bytes",
    )
    learn.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="where customers are trained: cpu (default), cuda",
    )
    output = parser.add_argument_group("what comes out")
    output.add_argument("--out", required=True, metavar="SIM", help="the simulator (.safetensors)")
    output.add_argument("--engine", metavar="FILE", help="and the policy that logged")
    output.add_argument("--tensorboard", metavar="DIR", help="write scalars for TensorBoard")
    output.add_argument("--overwrite", action="store_true", help="replace files that exist")
    output.add_argument(
        "--restart", action="store_true", help="throw away what an earlier fit left"
    )
    output.add_argument("--keep-work", action="store_true", help="keep OUT.work when done")
    common.add_json(output)


def run(options: argparse.Namespace) -> int:
    """Learns, and says what came of it."""
    common.refuse_existing(options.out, options.engine, overwrite=options.overwrite)
    bar = FitProgress(quiet=options.json)
    costs: dict[str, Any] = {}
    try:
        with bar:
            simulator = fit(
                options.logs,
                out=options.out,
                customers=options.customers,
                responses=options.responses,
                leave=options.leave,
                schema=options.schema,
                seed=options.seed,
                device=options.device,
                effort=options.effort,
                ensemble=options.ensemble,
                resume=not options.restart,
                overwrite=options.overwrite,
                keep_work=options.keep_work,
                warm_start=options.warm_start,
                engine=options.engine,
                tensorboard=options.tensorboard,
                progress=bar,
                costs=costs.update,
            )
    except KeyboardInterrupt as stop:
        if os.path.isdir(f"{options.out}.work"):
            where = "there" if isinstance(stop, Kept) else "the last checkpoint before that"
            print(f"{bar.place}; the same command goes on from {where}", file=sys.stderr)
        raise
    found = simulator.provenance["fit"]["report"]
    common.print_warnings([*_of_the_log(found["warnings"]), *_off(found["check"])])
    if options.json:
        report = {**simulator.provenance["fit"], "report": _with_costs(simulator, costs)}
        report.pop("table")
        common.print_json(
            {"command": "fit", "out": options.out, "digest": simulator.digest, **report}
        )
    else:
        common.print_table(_table(simulator, _with_costs(simulator, costs), options))
    return 0


_FIGURES: Final = {
    "mean_session_length": "simulated sessions have {} pages each, {} those of the log ({})",
    "ctr": "the simulated CTR is {}, {} that of the log ({})",
    "r2p": "the simulated R2P is {}, {} that of the log ({})",
}


def _of_the_log(findings: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for held in findings:
        finding = Finding(**{**held, "rows": tuple(held["rows"])})
        yield f"the log: {finding}" + (f"; {finding.hint}" if finding.hint else "")


def _off(check: Mapping[str, Any]) -> Iterator[str]:
    """In words, what is far from the log."""
    for name in check["off"]:
        logged, simulated = check["logged"][name], check["simulated"][name]
        digits = 2 if name == "mean_session_length" else 4
        if not logged or not simulated:
            times = "unlike"
        elif simulated > logged:
            times = f"{simulated / logged:.1f} times"
        else:
            times = f"{simulated / logged:.2g} times"
        figures = f"{simulated:.{digits}f}", times, f"{logged:.{digits}f}"
        yield _FIGURES[name].format(*figures) + ": do not rely on this simulator"


def _with_costs(simulator: Simulator, costs: Mapping[str, Any]) -> dict[str, Any]:
    """The report of the fit, with what this run of it took."""
    report = dict(simulator.provenance["fit"]["report"])
    stages = {
        name: {**took, **report["stages"].get(name, {})} for name, took in costs["stages"].items()
    }
    return {**costs, **report, "stages": stages}


def _table(
    simulator: Simulator, report: Mapping[str, Any], options: argparse.Namespace
) -> list[tuple[str, str]]:
    about = simulator.provenance["fit"]
    stages = report["stages"]
    log = about["log"]
    rows = [
        ("simulator", f"{options.out} ({simulator.digest[:12]})"),
        ("log", f"{log['name']}: {log['pages']:,} pages, {log['sessions']:,} sessions"),
        ("customers", about["customers"]),
        *(("", text) for text in _customers(stages["customers"])),
        ("responses", about["responses"]),
        *(("", text) for text in _responses(stages, about.get("warm_start"))),
        ("leaving", _leaving(about["leave"])),
    ]
    if "ensemble" in report:
        rows += _ensemble(report["ensemble"])
    logged, simulated = report["check"]["logged"], report["check"]["simulated"]
    for name, key in (("pages a session", "mean_session_length"), ("CTR", "ctr"), ("R2P", "r2p")):
        if key in logged:
            digits = 2 if key == "mean_session_length" else 4
            values = f"{logged[key]:.{digits}f} in the log, {simulated[key]:.{digits}f} simulated"
            rows.append((name, values))
            if key in report["check"]["off"]:
                rows.append(("", "MORE THAN TWOFOLD OFF: do not rely on this simulator"))
    times = [
        f"{_LABELS.get(name, name)} {_time(stages[name]['seconds'])}"
        for name in _ordered(stages)
        if stages[name]["seconds"] >= 0.1
    ]
    rows.append(("time", _time(report["seconds"])))
    rows += [("", text) for text in textwrap.wrap(", ".join(times), 62)]
    simulating = f"{report['simulating_share']:.1%} of it spent simulating"
    rows.append(("", f"{simulating}; {report['peak_memory_bytes'] / 1e6:,.0f} MB of memory"))
    resumed = [name for name, stage in stages.items() if stage["resumed"]]
    if resumed:
        names = ", ".join(_LABELS.get(name, name) for name in _ordered(resumed))
        rows.append(("", f"went on from an earlier run: {names}"))
    if options.engine is not None:
        rows.append(("engine", options.engine))
    return rows


def _ordered(names: Iterable[str]) -> list[str]:
    names = list(names)
    further = [name for name in names if name not in _ORDER]
    return [name for name in _ORDER if name in names] + further


def _customers(stage: Mapping[str, Any]) -> Iterator[str]:
    yield f"fields at most {stage['worst_field_distance']:.3f} from held-out customers"
    if "held_out" in stage:
        yield f"{stage['held_out']:.3f} nat a held-out customer"


def _responses(stages: Mapping[str, Any], warm: str | None) -> Iterator[str]:
    cloned, mail = stages.get("responses"), stages.get("mail")
    if warm is not None:
        yield f"started from those of simulator {warm[:12]}"
    if cloned is not None and "held_out" in cloned:
        untrained = f"{cloned['start']:.4f} {'untrained' if warm is None else 'at the start'}"
        yield f"{cloned['held_out']:.4f} nat a held-out page, cloned ({untrained})"
    if mail is not None:
        best = mail["best_iteration"]
        kept = f"iteration {best} is the best" if best else "the start is the best"
        yield f"{mail['iterations']} iterations of MAIL, {kept}"


def _ensemble(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    apart = {name: f"{value:.2g}" for name, value in found["disagreement"].items()}
    yield "ensemble", f"{found['members']} members disagree by {apart['logged']} nat a page,"
    yield (
        "",
        f"{apart['double']} twice, {apart['fivefold']} five times as far from the mean action,",
    )
    yield "", f"{apart['random']} under random actions"


def _leaving(kind: str) -> str:
    return {
        "hazard": "after every page, depending on page and action",
        "once": "at a length drawn at the start of the session",
    }[kind]


def _time(seconds: float) -> str:
    """Seconds as people write them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


class FitProgress:
    """A bar a stage on standard error, with live figures and the time left, on a terminal only."""

    def __init__(self, *, quiet: bool = False) -> None:
        """With ``quiet`` nothing is shown."""
        self._quiet = quiet or not sys.stderr.isatty()
        self._shown: Any = None
        self._task: Any = None
        self._stage, self._share = "", 0.0
        self._began = time.perf_counter()

    @property
    def place(self) -> str:
        """Where it is."""
        if not self._stage:
            return "interrupted at the start"
        return f"interrupted in {_LABELS.get(self._stage, self._stage)!r} at {self._share:.0%}"

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """What is going on, how much of it is done, and its live figures."""
        new, self._stage = stage != self._stage, stage
        self._share = done / total if total else 0.0
        if self._quiet:
            return
        if self._shown is None:
            self._shown = self._bar()
            self._shown.start()
        if new:
            if self._task is not None:
                self._shown.remove_task(self._task)
            self._task = self._shown.add_task(_LABELS.get(stage, stage), total=None, figures="")
        pairs = [(label, figures[key]) for key, label in _SHOWN.items() if key in figures]
        text = "  ".join(f"{label} {value:.3g}" for label, value in pairs[:2])
        self._shown.update(self._task, completed=done, total=total or None, figures=text)

    def _bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        return Bar(
            TextColumn("{task.description:18}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> FitProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown is not None:
            self._shown.stop()
