"""From a session log to a simulator, in stages, each of which goes on after a kill.

1. The log is checked and prepared (`virtualtb_fast.records`): encoded columns in a work folder
   beside the output, from which everything else reads.
2. Customers: a sampler of who comes (`virtualtb_fast.customers`; GAN-SD unless told otherwise).
3. Responses: how customers answer a page, and how the shop chose it
   (`virtualtb_fast.imitation`): cloning of customers and engine, then MAIL, unless told otherwise.
4. Leave: a head of the response (a hazard that depends on the page and the action), or a
   network of its own (the published once-a-session form).
5. The simulator is put together, played against the log, and written under its name.

A stage's checkpoint has a key, the digest of all that its result depends on: the content of the
log, settings, seed. A stage whose checkpoint is finished returns at once, one that was interrupted
goes on to the same bits, one whose key has changed starts anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._arguments import as_path, flag, function
from virtualtb_fast._extras import torch_for
from virtualtb_fast._fit_settings import (
    CUSTOMERS,
    MOST_MEMBERS,
    ON_DEVICE,
    RESPONSES,
    Settings,
)
from virtualtb_fast._training import Progress
from virtualtb_fast._work import Costs, StageCheckpoint, Watch, WorkFolder, stage_key, versions
from virtualtb_fast.errors import InvalidArgumentError, OutputError, TrainingDivergedError
from virtualtb_fast.logs import OUTCOMES
from virtualtb_fast.records import Prepared, prepare
from virtualtb_fast.schema import Config
from virtualtb_fast.simulator import Simulator, load_simulator

__all__ = ["CUSTOMERS", "RESPONSES", "fit"]

_HELD_OUT: Final = 0.1
_PLAYED: Final = 20_000
"""Sessions in which the finished simulator is compared with the log."""
_FACTOR: Final = 2.0
"""A figure that is further than this from the log's is called out."""


def fit(
    logs: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    customers: str = "gan-sd",
    responses: str = "bc+mail",
    leave: Literal["hazard", "once"] = "hazard",
    schema: Any = None,
    seed: int = 0,
    device: str = "cpu",
    effort: float = 1.0,
    ensemble: int = 1,
    resume: bool = True,
    overwrite: bool = False,
    keep_work: bool = False,
    warm_start: str | os.PathLike[str] | Simulator | None = None,
    engine: str | os.PathLike[str] | None = None,
    tensorboard: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    costs: Callable[[dict[str, Any]], None] | None = None,
    customers_config: Any = None,
    responses_config: Any = None,
) -> Simulator:
    """Learns a simulator from a session log.

    Args:
        logs: A Parquet file, one row a page; a `SessionLog`, a DataFrame or another Arrow table.
        out: The simulator's file. Its work folder is ``OUT.work``, which is removed when the file
            is there; after an interruption the same call goes on from it. Ctrl-C in a training
            is answered when the step that is under way is finished and kept, at once if it is
            pressed again. Without ``out`` nothing is kept on disk.
        customers: One of `CUSTOMERS`.
        responses: One of `RESPONSES`.
        leave: ``"hazard"``: customers may leave after every page, depending on it and on the
            action; ``"once"``: a session's length is drawn at its start, as in the published
            simulator (with ``responses="bc"`` and clicks only).
        schema: A `LogSchema` or the path of a schema file, for a log that is not of this package.
        seed: Of everything that is drawn, 0 to 2**64 - 1.
        device: Where networks of customers are trained: ``"cpu"``, ``"cuda"``, ``"cuda:1"``. The
            networks of responses are small, and are trained on the CPU.
        effort: Multiplies the steps of every training: 0.1 for a first look.
        ensemble: With K above 1, and ``responses`` ``"bc"`` or ``"linear"``, K responses are
            fitted with seeds of their own. The simulator is the first; the others are written
            beside it, ``NAME.2.safetensors`` to ``NAME.K.safetensors``, and the report of the fit
            holds how far all disagree, under logged actions and further away
            (`virtualtb_fast.imitation.ensemble.disagreement_report`).
        resume: With False, what an earlier fit left in the work folder is thrown away.
        overwrite: Whether ``out`` and ``engine`` may be replaced.
        keep_work: Keep the work folder: another fit of the same log need not prepare it again.
        warm_start: An earlier simulator, its file or its name, whose responses are where cloning
            starts, in place of random weights; with ``responses`` ``"bc+mail"``, ``"bc"`` or
            ``"linear"``, and no ensemble. Customers, networks and answers must be of the same
            form. Customers, engine and a network of session lengths are learned from the log alone.
            ``provenance["fit"]["warm_start"]`` is its digest.
        engine: Write the learned logging policy here, a policy's ``.safetensors``.
        tensorboard: Write scalars of every stage to this folder.
        progress: Called with (stage, steps done, steps in all or 0, live figures).
        costs: Called at the end with what this run took: ``seconds`` of wall time, the
            ``simulating_share`` of it, ``peak_memory_bytes``, and by name the ``stages``, each with
            its ``seconds`` and whether it was ``resumed``. The simulator's file holds none of it.
        customers_config: Settings of the sampler, in place of its defaults.
        responses_config: A `CloningConfig` or `MailConfig` in place of the defaults.

    Returns:
        The simulator; ``simulator.provenance["fit"]`` holds the report of the fit, in it the
        ``warnings`` of the log's check, and in ``check`` figures of the log beside simulated ones,
        those ``off`` that are more than twofold from the log's. The same log under the same name,
        schema, settings, warm start and seed give the same file to the last byte, interrupted or
        not.

    Raises:
        LogError: the log cannot be learned from; the message names file, column and row.
        TrainingDivergedError: a figure was not finite; it says which and when. The checkpoint
            on disk is the last good one.
        InvalidArgumentError: arguments that do not fit, or not together.
        FileFormatError: no Parquet file, no schema, or a damaged one.
        OutputError: ``out`` exists, another fit is at work on it, or the system refused.
        MissingExtraError: PyTorch or pyarrow is not installed.
    """
    torch_for("fit")
    settings = Settings(
        customers,
        responses,
        leave,
        seed,
        device,
        effort,
        ensemble,
        customers_config,
        responses_config,
        None if warm_start is None else load_simulator(warm_start),
    )
    told = function("costs", costs)
    paths = [None if path is None else Path(as_path(path)) for path in (out, engine)]
    progress = function("progress", progress)
    tensorboard = None if tensorboard is None else as_path(tensorboard)
    resume, keep_work = flag("resume", resume), flag("keep_work", keep_work)
    _refuse_existing(paths, settings.ensemble, flag("overwrite", overwrite))
    with tempfile.TemporaryDirectory(prefix="virtualtb-fit-") as spare:
        target = paths[0] or Path(spare) / "simulator.safetensors"
        with WorkFolder(target) as work, Watch(progress, tensorboard) as watch:
            if not resume:
                work.clear()
            try:
                run = _Fit(logs, schema, settings, work.path, watch)
                simulators, policy = run.run()
                spent = run.costs
                # Not every system removes files that are open.
                del run
            except TrainingDivergedError as error:
                raise TrainingDivergedError(
                    f"{error}. The last good checkpoint is kept in {work.path}; "
                    "another seed may do better",
                    quantity=error.quantity,
                    step=error.step,
                    state=error.state,
                ) from error
            if paths[1] is not None:
                policy.save(paths[1])
            if paths[0] is not None:
                # The first goes first and comes last: where it is, all others are.
                others = _members(paths[0], settings.ensemble)
                if others:
                    paths[0].unlink(missing_ok=True)
                for path, member in zip(others, simulators[1:], strict=True):
                    member.save(path)
                simulators[0].save(paths[0])
            if not keep_work:
                work.remove()
            if told is not None:
                watch.meter.look()
                told(spent.to_dict(watch.meter.peak))
    return simulators[0]


def _members(out: Path | None, members: int) -> list[Path]:
    """Where the simulators of an ensemble are written, but for the first."""
    if out is None:
        return []
    return [out.with_name(f"{out.stem}.{member}{out.suffix}") for member in range(2, members + 1)]


def _refuse_existing(paths: Sequence[Path | None], ensemble: int, overwrite: bool) -> None:
    """Refuses to lose a file, to write one twice, and to leave another ensemble's members."""
    out = paths[0]
    wanted = [path for path in (*paths, *_members(out, ensemble)) if path is not None]
    if len(set(wanted)) < len(wanted):
        raise InvalidArgumentError(f"out, engine: expected different files, got {paths[1]} twice")
    for path in wanted:
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: expected a new file, got one that exists (overwrite=True?)")
    if ensemble > 1:
        for path in _members(out, MOST_MEMBERS)[ensemble - 1 :]:
            if path.exists():
                expected = f"expected an ensemble of {ensemble} beside it, got one more"
                raise OutputError(f"{path}: {expected}, of a larger one? Remove it")


class _Fit:
    """One fit: `run` is its stages in order."""

    def __init__(
        self, logs: Any, schema: Any, settings: Settings, work: Path, watch: Watch
    ) -> None:
        self._logs, self._log_schema, self._settings = logs, schema, settings
        self._work, self._watch = work, watch
        self._stages: dict[str, dict[str, Any]] = {}
        start = settings.warm_start
        self._warm = {} if start is None else {"warm_start": start.digest}
        self.costs = Costs()

    def run(self) -> tuple[list[Simulator], Any]:
        """The simulator and those of an ensemble's other members, and the policy that logged."""
        self._log = self._prepare()
        sampler = self._customers()
        self._pages = self._make_pages()
        fitted, engine = self._responses(sampler)
        members = [fitted, *self._further()]
        policy = engine.to_policy(of="fit", seed=self._settings.seed)
        report = self._report(self._play(self._assemble(sampler, fitted, {}), policy))
        if len(members) > 1:
            from virtualtb_fast.imitation.ensemble import Ensemble, disagreement_report

            apart = disagreement_report(Ensemble(tuple(members)), self._pages)
            report["ensemble"] = {"members": len(members), "disagreement": apart}
        simulators = [
            self._assemble(sampler, member, {**report, "member": number})
            for number, member in enumerate(members, 1)
        ]
        return simulators, policy

    # --- stages -----------------------------------------------------------------------------

    def _prepare(self) -> Prepared:
        began = time.perf_counter()

        def progress(stage: str, done: int, total: int) -> None:
            self._watch.stage(stage)
            self._watch(stage, done, total, {})

        log = prepare(self._logs, self._work / "log", self._log_schema, progress)
        self.costs.done("log", time.perf_counter() - began)
        self._done("log", pages=log.rows, sessions=log.sessions)
        self._settings.check(log)
        return log

    def _customers(self) -> Any:
        from virtualtb_fast.customers import FITS

        settings = self._settings
        codes, held = self._split()
        given = settings.sampler_config()
        arguments: dict[str, Any] = {} if given is None else {"config": given}
        if settings.device != "cpu" and settings.customers in ON_DEVICE:
            arguments["device"] = settings.device
        asked: dict[str, Any] = {"sampler": settings.customers, "config": repr(given)}
        with self._checkpoint("customers", **asked) as checkpoint:
            sampler = FITS[settings.customers](
                codes,
                self._log.schema.customer,
                seed=settings.seed,
                progress=self._watch,
                checkpoint=checkpoint,
                **arguments,
            )
        figures = _customer_figures(sampler, held)
        self.costs.done("customers", checkpoint.seconds, checkpoint.resumed)
        self._done("customers", **figures)
        return sampler

    def _split(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Customers of sessions to learn from, and of those held out: one row a session."""
        every = self._log["session_customer"]
        draws = np.random.default_rng(_hashed(f"{self._settings.seed} held-out customers"))
        held = draws.random(len(every)) < _HELD_OUT
        # Of a log of 20 sessions, too, there are some on either side.
        held[0], held[1] = True, False
        return np.ascontiguousarray(every[~held]), np.ascontiguousarray(every[held])

    def _make_pages(self) -> Any:
        from virtualtb_fast.imitation.data import Pages

        names = ("customer", "action", "page", "outcome", "clicks", "second", "offsets")
        return Pages(schema=self._log.schema, **{name: self._log[name] for name in names})

    def _responses(self, sampler: Any) -> tuple[Any, Any]:
        from virtualtb_fast.imitation.cloning import clone_engine, clone_limit

        settings = self._settings
        cloning, mail = settings.response_configs(self._log)
        if settings.responses in ("mail", "mail-paper"):
            return self._mail(mail, sampler, None)
        response = self._clone("responses", self._family, cloning, start=settings.warm_start)
        engine = self._clone("engine", clone_engine, cloning)
        if settings.leave == "once":
            limit = self._clone("leave", clone_limit, cloning)
            response = dataclasses.replace(response, limit=limit)
        if settings.responses == "bc+mail":
            return self._mail(mail, sampler, (response, engine))
        return response, engine

    @property
    def _family(self) -> Any:
        """What fits responses, if it is not MAIL."""
        from virtualtb_fast.imitation.cloning import clone_response
        from virtualtb_fast.imitation.linear import fit_linear

        return fit_linear if self._settings.responses == "linear" else clone_response

    def _further(self) -> list[Any]:
        """The responses of an ensemble's members after the first."""
        seed, (cloning, _) = self._settings.seed, self._settings.response_configs(self._log)
        members = range(2, self._settings.ensemble + 1)
        return [
            self._clone(f"responses {one}", self._family, cloning, _hashed(f"{seed} member {one}"))
            for one in members
        ]

    def _clone(
        self,
        name: str,
        function: Any,
        config: Any,
        seed: int | None = None,
        start: Simulator | None = None,
    ) -> Any:
        asked: dict[str, Any] = {"config": repr(config), "method": function.__name__}
        more = {} if start is None else {"warm_start": start}
        with self._checkpoint(name, **asked, **(self._warm if more else {})) as checkpoint:
            fitted = function(
                self._pages,
                seed=self._settings.seed if seed is None else seed,
                config=config,
                progress=self._watch,
                checkpoint=checkpoint,
                **more,
            )
        self.costs.done(name, checkpoint.seconds, checkpoint.resumed)
        self._done(name, **getattr(fitted, "report", {}))
        return fitted

    def _mail(self, config: Any, sampler: Any, start: tuple[Any, Any] | None) -> tuple[Any, Any]:
        from virtualtb_fast.imitation.mail import fit_mail

        asked = {"customers": self._key_customers, "cloned": start is not None, **self._warm}
        with self._checkpoint("mail", config=repr(config), **asked) as checkpoint:
            result = fit_mail(
                self._pages,
                seed=self._settings.seed,
                config=config,
                customers=sampler,
                start=start,
                progress=self._watch,
                checkpoint=checkpoint,
            )
        figures = dict(result.report)
        share, _ = figures.pop("simulating_share"), figures.pop("seconds")
        self.costs.simulating += share * checkpoint.seconds
        self.costs.done("mail", checkpoint.seconds, checkpoint.resumed, simulating_share=share)
        self._done("mail", **figures)
        return result.response, result.engine

    @property
    def _key_customers(self) -> str:
        return stage_key(
            sampler=self._settings.customers,
            config=repr(self._settings.customers_config),
            effort=self._settings.effort,
        )

    # --- putting it together ----------------------------------------------------------------

    def _assemble(self, sampler: Any, fitted: Any, report: Mapping[str, Any]) -> Simulator:
        response, leave, tensors = fitted.export()
        slope = fitted.network.config.slope
        if sampler.slope != slope:
            raise InvalidArgumentError(
                f"customers: expected a slope of {slope}, that of responses, got {sampler.slope}"
            )
        settings, meta = self._settings, self._log.meta
        table = self._log.table
        provenance = {
            "fit": {
                "log": {
                    "name": os.path.basename(str(meta["report"]["source"])),
                    "sha256": meta["source"],
                    "digest": self._log.digest,
                    "pages": self._log.rows,
                    "sessions": self._log.sessions,
                    "metadata": {
                        key: value for key, value in meta["metadata"].items() if len(value) < 200
                    },
                },
                "log_schema": meta["log_schema"],
                "table": None if table is None else table.to_json(),
                "customers": settings.customers,
                "responses": settings.responses,
                "leave": settings.leave,
                "seed": settings.seed,
                "device": settings.device,
                "effort": settings.effort,
                **self._warm,
                "versions": versions(),
                "report": report,
            }
        }
        return Simulator.from_tensors(
            {**sampler.tensors, **tensors},
            name=f"fit of {os.path.basename(str(meta['report']['source']))}",
            schema=self._log.schema,
            config=Config(sampler.config, response, leave, slope),
            provenance=provenance,
        )

    def _play(self, simulator: Simulator, policy: Any) -> dict[str, Any]:
        """Figures of the log beside those of as many sessions of the simulator, if not too many."""
        from virtualtb_fast.rollout import rollout

        sessions = min(self._log.sessions, _PLAYED)
        self._watch.stage("check")
        self._watch("check", 0, sessions, {})
        began = time.perf_counter()
        seed = _hashed(f"{self._settings.seed} check")
        counts = rollout(simulator, policy, sessions=sessions, seed=seed, keep=False).summary
        seconds = time.perf_counter() - began
        self.costs.simulating += seconds
        self.costs.done("check", seconds)
        outcomes = self._log.meta["report"]["outcomes"]
        clicks = np.array(self._log.meta["report"]["clicks"])
        logged = {"mean_session_length": self._log.rows / self._log.sessions}
        played = {"mean_session_length": counts.mean_session_length}
        if self._log.heads == "outcome":
            logged["r2p"] = outcomes[OUTCOMES[1]] / self._log.rows
            played["r2p"] = counts.clicks / counts.pages
        else:
            total = float((clicks * np.arange(len(clicks))).sum())
            logged["ctr"] = total / (simulator.page_items * self._log.rows)
            played["ctr"] = counts.ctr
        off = [name for name in logged if _is_off(logged[name], played[name])]
        return {"sessions": sessions, "logged": logged, "simulated": played, "off": off}

    def _report(self, played: dict[str, Any]) -> dict[str, Any]:
        warnings = [one.to_dict() for one in self._log.report.warnings]
        return {"warnings": warnings, "stages": self._stages, "check": played}

    def _checkpoint(self, stage: str, **parts: Any) -> StageCheckpoint:
        self._watch.stage(stage)
        key = stage_key(
            stage=stage,
            log=self._log.digest,
            seed=self._settings.seed,
            device=self._settings.device,
            effort=self._settings.effort,
            **parts,
        )
        return StageCheckpoint(self._work / f"{stage}.checkpoint", key)

    def _done(self, stage: str, **figures: Any) -> None:
        """What a stage came to, and nothing of what it took: the same whenever it is done again."""
        self._stages[stage] = {
            key: value for key, value in figures.items() if isinstance(value, int | float | str)
        }


def _is_off(logged: float, simulated: float) -> bool:
    """Whether one is more than twice the other."""
    return max(logged, simulated) > _FACTOR * min(logged, simulated)


def _hashed(text: str) -> int:
    """A seed of its own for what the text names."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _customer_figures(sampler: Any, held: NDArray[np.uint8]) -> dict[str, float]:
    """How the sampler's customers compare with held-out ones, field by field."""
    drawn = sampler.sample(min(100_000, 10 * len(held) + 1_000), seed=1)
    worst = 0.0
    for index, one in enumerate(sampler.fields):
        counts = [np.bincount(codes[:, index], minlength=one.size) for codes in (held, drawn)]
        shares = [count / count.sum() for count in counts]
        worst = max(worst, float(np.abs(shares[0] - shares[1]).sum()) / 2)
    figures = {"worst_field_distance": round(worst, 5)}
    if sampler.config.kind in ("mixture", "autoregressive") and len(held) > 1:
        density = sampler.log_density(held)
        if np.isfinite(density).all():
            figures["held_out"] = round(float(-density.mean()), 5)
    return figures
