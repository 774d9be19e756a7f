"""Bad calls of what learns customers and engines, for `bad_calls`; good ones are quick."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any

from tests.reliability.bad_kit import (
    INF,
    NAN,
    NO_COUNT,
    NO_FLAG,
    NO_FUNCTION,
    NO_KEEPER,
    NO_NAME,
    NO_RATE,
    NO_SEED,
    NO_SHARE,
    NO_SIZE,
    NO_THREADS,
    NO_WEIGHT,
    NO_WIDTHS,
    Bad,
    Call,
    Kit,
    Made,
)
from tests.reliability.bad_training import late

import virtualtb_fast as vtb

NO_PART: list[Any] = [None, 3, "default", {}, [], Bad()]
"""What is no settings of any part."""
NO_NUMBER: list[Any] = [NAN, INF, -INF, "1", None, True, [1.0], 1j, Bad()]


def imitation_calls() -> Iterator[Call]:
    """All of them."""
    yield from settings()
    yield from fits()


def settings() -> Iterator[Call]:
    """What fits are told: these are refused when they are made, not minutes later."""
    yield Call(
        "FitConfig", late("imitation.fitting", "FitConfig"), lambda kit: {},
        {
            **dict.fromkeys(("batch", "epochs", "checks", "patience"), NO_SIZE),
            "rate": NO_RATE, "weight_decay": NO_WEIGHT,
            "average": [1.0, *NO_SHARE], "held_out": [0.0, 1.0, *NO_SHARE],
        },
        needs="torch",
    )  # fmt: skip
    yield Call(
        "ResponseConfig", late("imitation.response", "ResponseConfig"), lambda kit: {},
        {
            **{key: [*NO_NAME, ["mlp"]] for key in ("heads", "kind", "leave")},
            **{key: [257, *NO_SIZE] for key in ("clicks", "second", "items")},
            "hidden": NO_WIDTHS, "slope": [1.0, *NO_SHARE], "longest": NO_SIZE,
            "page_scale": [1e7, *NO_NUMBER],
        },
        needs="torch",
    )  # fmt: skip
    yield Call(
        "CloningConfig", late("imitation.cloning", "CloningConfig"), lambda kit: {},
        {
            **dict.fromkeys(("response", "fit", "engine_fit"), NO_PART),
            **dict.fromkeys(("engine_hidden", "limit_hidden"), NO_WIDTHS),
        },
        needs="torch",
    )  # fmt: skip
    yield Call(
        "ItemConfig", late("imitation.items", "ItemConfig"), lambda kit: {},
        {"fit": NO_PART, "page_scale": NO_NUMBER}, needs="torch",
    )  # fmt: skip
    counts = ("sessions", "iterations", "value_epochs", "judge_epochs", "judge_batch")
    bad: dict[str, list[Any]] = {
        **dict.fromkeys(("cloning", "step"), NO_PART),
        **{key: [*NO_NAME, ["bc"]] for key in ("init", "reward")},
        "absorbing": NO_FLAG,
        **dict.fromkeys((*counts, "stop_after", "patience"), NO_SIZE),
        "look_every": NO_COUNT,
        **dict.fromkeys(("gamma", "lam", "average", "judge_average", "stop_accuracy"), NO_SHARE),
        "fisher_share": [0.0, *NO_SHARE],
        **dict.fromkeys(("clip", "value_rate", "judge_rate"), NO_RATE),
        **dict.fromkeys(("judge_decay", "penalty"), NO_WEIGHT),
        "step_margin": NO_NUMBER,
        **dict.fromkeys(("value_hidden", "judge_hidden"), NO_WIDTHS),
        "num_threads": NO_THREADS,
    }
    yield Call(
        "MailConfig", late("imitation.mail", "MailConfig"), lambda kit: {}, bad, needs="torch"
    )
    yield Call(
        "MailConfig.paper",
        lambda kit: late("imitation.mail", "MailConfig")(kit).paper,
        lambda kit: {},
        {name: bad[name] for name in ("reward", "cloning", "iterations", "look_every")},
        needs="torch",
    )


def fits() -> Iterator[Call]:
    """Pages become customers and engines."""
    common: dict[str, list[Any]] = {
        "pages": [None, 3, "pages", {}, Made(lambda kit: kit.log, "<a log>"), Bad()],
        "seed": [None, *NO_SEED],
        "progress": NO_FUNCTION,
        "checkpoint": NO_KEEPER,
    }
    clone = common | {"config": [*NO_PART, Made(lambda kit: mail(), "<of MAIL>")]}

    def good(kit: Kit) -> dict[str, Any]:
        return {"pages": pages(), "seed": 3, "config": cloning()}

    for name in ("clone_engine", "clone_limit"):
        yield Call(name, late("imitation.cloning", name), good, clone, needs="torch")
    # The published simulator draws lengths at the start of a session, where these have a hazard.
    warm = clone | {"warm_start": [3, "simulator", {}, vtb.load_simulator(), Bad()]}
    for module, name in (("cloning", "clone_response"), ("linear", "fit_linear")):
        yield Call(name, late(f"imitation.{module}", name), good, warm, needs="torch")
    yield Call(
        "fit_item_customers", late("imitation.items", "fit_item_customers"),
        lambda kit: {"pages": pages(), "items": shop().items(), "seed": 3, "config": itemwise()},
        common | {
            "items": [None, 3, "items", {}, Made(lambda kit: shop(), "<a store>"), Bad()],
            "config": [value for value in clone["config"] if value is not None],
        },
        needs="torch",
    )  # fmt: skip
    yield Call(
        "fit_mail", late("imitation.mail", "fit_mail"),
        lambda kit: {"pages": pages(), "seed": 3, "config": mail()},
        common | {
            "config": [*NO_PART, Made(lambda kit: cloning(), "<of cloning>")],
            "customers": [3, "lca", {}, [], Made(lambda kit: kit.simulator, "<all of it>"), Bad()],
            "start": [3, "bc", (), {}, (None, None), (1, 2, 3), Bad()],
        },
        needs="torch",
    )  # fmt: skip


@functools.cache
def shop() -> Any:
    return vtb.GroundTruthStore(7, calibrate=False, tau=1.0, b0=-4.0, items=400)


@functools.cache
def pages() -> Any:
    module = importlib.import_module("virtualtb_fast.imitation.data")
    return module.Pages.from_log(vtb.rollout(shop(), "logger", sessions=60, seed=4).log)


def brief() -> Any:
    """One pass."""
    return importlib.import_module("virtualtb_fast.imitation.fitting").FitConfig(epochs=1)


def cloning() -> Any:
    """Settings of a fit of one pass."""
    shape = importlib.import_module("virtualtb_fast.imitation.response").ResponseConfig(hidden=(4,))
    more = {"engine_hidden": (4,), "limit_hidden": (4,)}
    module = importlib.import_module("virtualtb_fast.imitation.cloning")
    return module.CloningConfig(response=shape, fit=brief(), engine_fit=brief(), **more)


def itemwise() -> Any:
    """The same for customers who see the page."""
    return importlib.import_module("virtualtb_fast.imitation.items").ItemConfig(fit=brief())


def mail() -> Any:
    """Settings of MAIL of one iteration."""
    module = importlib.import_module("virtualtb_fast.imitation.mail")
    small: dict[str, Any] = {"value_hidden": (4,), "judge_hidden": (4,), "num_threads": 1}
    return module.MailConfig(cloning=cloning(), sessions=20, iterations=1, look_every=0, **small)
