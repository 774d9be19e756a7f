"""Bad calls of everything public: a good call of each, and for its arguments what is no good.

`CALLS` says how each public function is called well, on the objects of a `Kit`; `Call.bad` lists
by argument the values that have to be refused, one call each. `tests/unit` has more bad calls,
beside what they are about.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from tests.reliability.bad_customers import customer_calls
from tests.reliability.bad_envs import environment_calls
from tests.reliability.bad_imitation import imitation_calls
from tests.reliability.bad_kit import (
    CODES,
    FILES,
    INF,
    NAN,
    NO_COUNT,
    NO_FLAG,
    NO_NAME,
    NO_PATH,
    NO_REAL,
    NO_SEED,
    NO_TEXT,
    NO_THREADS,
    NUMBER_IDS,
    RANGES,
    ROWS,
    TEXT_IDS,
    WEIGHTS,
    Bad,
    Call,
    Kit,
    Made,
    actions,
    in_folder,
)
from tests.reliability.bad_records import record_calls
from tests.reliability.bad_schema import schema_calls
from tests.reliability.bad_training import training_calls
from tests.reliability.cases import CONFIG, SCHEMA

import virtualtb_fast as vtb
from virtualtb_fast.logs import read_log
from virtualtb_fast.policies import Policy
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA, Config


def calls() -> Iterator[Call]:
    """All of them."""
    yield Call(
        "load_simulator",
        lambda kit: vtb.load_simulator,
        lambda kit: {"name_or_path": kit.folder / "simulator.safetensors"},
        {"name_or_path": [*NO_PATH, "virtualtb-v9", *FILES, in_folder("policy.safetensors")]},
    )
    yield Call(
        "import_published",
        lambda kit: vtb.import_published,
        published,
        {"directory": [*NO_PATH, *FILES]},
        needs="torch",
    )
    yield Call(
        "Simulator.load",
        lambda kit: vtb.Simulator.load,
        lambda kit: {"path": kit.folder / "simulator.safetensors"},
        {"path": [*NO_PATH, *FILES, in_folder("items.vtbcat"), in_folder("log.parquet")]},
    )
    yield Call(
        "Simulator",
        lambda kit: vtb.Simulator,
        lambda kit: {"native": kit.simulator._native},
        {"native": [None, 3, "simulator", Made(lambda kit: kit.simulator, "<itself>"), Bad()]},
    )
    yield Call(
        "Simulator.from_tensors",
        lambda kit: vtb.Simulator.from_tensors,
        lambda kit: {
            "tensors": kit.simulator.tensors(), "name": "it", "schema": SCHEMA, "config": CONFIG,
        },
        {
            "tensors": [
                None, 3, [], "tensors", {}, {1: np.zeros(2)}, {"a": None}, Bad(),
                Made(lambda kit: dict(list(kit.simulator.tensors().items())[1:]), "<one less>"),
                Made(lambda kit: kit.simulator.tensors() | {"b": np.zeros(1)}, "<one more>"),
                *[
                    Made(lambda kit, f=f: {k: f(v) for k, v in kit.simulator.tensors().items()}, s)
                    for s, f in {
                        "<doubles>": lambda v: v.astype(float), "<flat>": np.ravel,
                        "<NaN>": lambda v: v * NAN, "<huge>": lambda v: v * 0 + np.float32(3e38),
                        "<transposed>": lambda v: v.T if v.ndim > 1 else v[None],
                        "<lists>": lambda v: v.tolist(), "<bytes>": lambda v: v.tobytes(),
                        "<halves>": lambda v: v.astype(np.float16),
                        "<other endian>": lambda v: v.astype(">f4"),
                    }.items()
                ],
            ],
            "name": [*NO_TEXT, "", "\ud800", "a\0b"],
            "schema": [None, "v0", {}, Made(lambda kit: vtb.load_simulator().schema, "<v0>")],
            "config": [None, "v0", {}, Made(lambda kit: Config(), "<v0>")],
            "provenance": [3, "text", [1], {"a": NAN}, {"a": object()}, {"a": np.zeros(2)}, Bad()],
        },
    )  # fmt: skip
    yield Call(
        "Simulator.save",
        lambda kit: kit.simulator.save,
        lambda kit: {"path": kit.folder / "saved.new"},
        {"path": [*NO_PATH, in_folder(""), in_folder("no/folder")]},
    )
    yield Call(
        "Simulator.customers",
        lambda kit: kit.simulator.customers,
        lambda kit: {"count": 3, "seed": 1},
        {
            "count": [2**62, *NO_COUNT],
            "seed": [*NO_SEED, None],
            "first": NO_COUNT,
            "num_threads": NO_THREADS,
        },
    )
    yield Call(
        "Simulator.response",
        lambda kit: kit.simulator.response,
        lambda kit: {
            "codes": CODES, "pages": np.arange(2), "actions": np.zeros((2, 6), np.float32),
        },
        {
            "codes": [None, 3, "codes", CODES[0], CODES[:1], CODES.astype(np.int64), CODES + 9,
                      CODES.tolist(), CODES[:, :1], CODES.astype(float), Bad()],
            "pages": [None, 3, "pages", [0.5, 1], [[0, 1]], [-1, 0], [0, 2**24 + 1], [0], [0, 1, 2],
                      [True, False], [NAN, 1], ["a", "b"], Bad()],
            # Arrays that are not contiguous are copied.
            "actions": [v for v in actions(2, 6) if getattr(v, "strides", None) != (48, 8)],
            "logits": NO_FLAG,
            "num_threads": NO_THREADS,
        },
    )  # fmt: skip
    yield Call(
        "Simulator.forward",
        lambda kit: kit.simulator.forward,
        lambda kit: {"model": "generator", "inputs": np.zeros((2, 4), np.float32)},
        {"model": NO_NAME, "inputs": [*actions(2, 4)[:17], Bad()]},
    )
    yield Call(
        "Simulator.with_page_base",
        lambda kit: kit.simulator.with_page_base,
        lambda kit: {"base": 1},
        {"base": [2, -1, None, True, "1", 0.5, NAN, [0], [0, 1], np.arange(2), Bad()]},
    )
    yield Call("Simulator.reduced", lambda kit: vtb.load_simulator().reduced)
    yield Call(
        "rollout",
        lambda kit: vtb.rollout,
        lambda kit: {"simulator": kit.simulator, "sessions": 5, "keep": False},
        {
            "simulator": [*NO_PATH, "none", *FILES],
            "policy": [None, 3, b"zero", "best", "gaussian:", "gaussian:-1", "gaussian:nan", "",
                       "gaussian:a", "constant:", "constant:/none", "none.safetensors", [],
                       Made(lambda kit: Policy.constant(np.zeros(5)), "<another size>"), "\ud800",
                       "logger", Made(lambda kit: kit.layer[1], "<an array>"), Bad()],
            "sessions": [0, 2**63, None, *NO_COUNT],
            "pages": [0, 5, *NO_COUNT[:3]],
            "seed": [*NO_SEED, None],
            "num_threads": NO_THREADS,
            "out": [*NO_PATH[1:], in_folder(""), in_folder("log.parquet"), in_folder("no/folder")],
            "resume": [True, *NO_FLAG], "keep": NO_FLAG, "overwrite": NO_FLAG,
            "batch_size": [0, -1, 1.5, "1", True, 2**70],
            "progress": [3, "print", [], Bad()],
        },
    )  # fmt: skip
    yield Call(
        "Catalog.build",
        lambda kit: vtb.Catalog.build,
        lambda kit: {"attributes": kit.attributes},
        {
            "attributes": [None, 3, "none.parquet", b"x", [], [[]], [1.0], [["a"]], [[NAN]],
                           [[INF]], [[1e300]], [[1.0], [1.0, 2.0]], [[None]], np.zeros((2, 513)),
                           [[1j]],
                           np.zeros((0, 4)), np.zeros((4, 0)), np.ones((3, 2), bool), Bad(),
                           *FILES],
            "path": [*NO_PATH[1:], in_folder(""), in_folder("items.vtbcat"), in_folder("no/f")],
            "columns": ["x", ["x"], 3],
            "ids": [3, [1], [1] * 60, ["a"] * 60, [0.5] * 60, [True] * 60, [-1, *range(59)],
                    [None] * 60, [2**64, *range(59)], [1, "a"] * 30, [[1]] * 60, b"a" * 59, Bad()],
            "price": [3, [1], ["a"] * 60, [INF] * 60, [1j] * 60, [[1]] * 60, [True] * 60, Bad()],
            "category": [3, ["a"], [0.5] * 60, [1, "a"] * 30, ["\ud800"] * 60, {"": [1] * 60},
                         {3: [1] * 60}, {"a": 3}, [2**63] * 60, [[1]] * 60, [b"a"] * 60, Bad()],
            "numbers": [3, [1] * 60, {"a": 3}, {3: [1] * 60}, {"": [1] * 60}, {"a": ["x"] * 60}],
            "overwrite": NO_FLAG,
            "num_threads": NO_THREADS,
            "progress": [3, "print", []],
        },
    )  # fmt: skip
    yield Call(
        "Catalog.open",
        lambda kit: vtb.Catalog.open,
        lambda kit: {"path": kit.path},
        {"path": [*NO_PATH, *FILES, in_folder("log.parquet"), in_folder("simulator.safetensors")]},
    )
    yield Call(
        "Catalog",
        lambda kit: vtb.Catalog,
        lambda kit: {"native": kit.catalog._native},
        {"native": [None, 3, "catalogue", Bad()]},
    )
    yield Call(
        "Catalog.search",
        lambda kit: kit.catalog.search,
        lambda kit: {"weights": kit.attributes[0]},
        {
            "weights": WEIGHTS,
            "k": [0, 65_537, *NO_COUNT],
            "category": ["ash", {"colour": "red"}, {"price": "red"}, {"brand": 4}, {"brand": 2.5},
                         {"year": "old"}, {"year": 1.5}, {"year": 2**63}, {"brand": None}, 3.5,
                         {"brand": ["ash", 3]}, {"brand": "\ud800"}, {3: "ash"}, Bad()],
            "price": RANGES,
            "numbers": [3, [1], "price", {"brand": (1, 2)}, {"none": (1, 2)}, {3: (1, 2)},
                        *[{"price": value} for value in RANGES]],
            "candidates": [*TEXT_IDS, Bad(), [["item 1"]]],
            "rows": [*ROWS, [[1], [2]]],
            "num_threads": NO_THREADS,
        },
    )  # fmt: skip
    yield Call(
        "Catalog.count",
        lambda kit: kit.catalog.count,
        lambda kit: {},
        {
            "category": ["ash", {"none": 1}, {"brand": 4}, {"year": "x"}, {"brand": Bad()}, 2.5],
            "price": RANGES,
            "numbers": [3, {"none": (1, 2)}, {"price": 3}],
        },
    )
    yield Call(
        "Catalog.rows", lambda kit: kit.catalog.rows, lambda kit: {"ids": ["item 3"]},
        {"ids": [*TEXT_IDS, None, Bad()]},
    )  # fmt: skip
    yield Call(
        "Catalog.rows of numbers", lambda kit: kit.numbered.rows, lambda kit: {"ids": [100]},
        {"ids": NUMBER_IDS},
    )  # fmt: skip
    yield Call("Catalog.ids", lambda kit: kit.catalog.ids, lambda kit: {}, {"rows": ROWS})
    yield Call(
        "Catalog.attributes", lambda kit: kit.catalog.attributes, lambda kit: {},
        {"ids": TEXT_IDS, "rows": ROWS},
    )  # fmt: skip
    yield Call(
        "Catalog.column", lambda kit: kit.catalog.column, lambda kit: {"name": "brand"},
        {"name": [*NO_NAME, "\ud800"], "ids": TEXT_IDS, "rows": ROWS},
    )  # fmt: skip
    yield Call(
        "Catalog.verify", lambda kit: kit.catalog.verify, lambda kit: {},
        {"progress": [3, "print", [], Bad()]},
    )  # fmt: skip
    yield Call("Catalog.info", lambda kit: kit.catalog.info)
    yield Call(
        "GroundTruthStore",
        lambda kit: vtb.GroundTruthStore,
        lambda kit: {"seed": 7, "calibrate": False, "tau": 1.0, "b0": -4.0, "items": 400},
        {
            "seed": [*NO_SEED, None],
            "items": [0, 179, 2**32, *NO_COUNT],
            "candidates": [0, 9, 1 << 20, *NO_COUNT],
            "categories": ["odd", *NO_TEXT],
            "day": [31, *NO_COUNT],
            "hour": [24.0, -0.1, NAN, INF, "noon", [], True, b"uniform", Bad()],
            "memory": [0, 65, *NO_COUNT],
            "max_index": [40_000, *NO_COUNT],
            "repeat": NO_FLAG, "continuing": NO_FLAG, "observe_page": NO_FLAG,
            "observe_feedback": NO_FLAG, "calibrate": [*NO_FLAG, True],
            "leave": ["stay", *NO_TEXT],
            "new_request": [1.5, -0.1, NAN, INF, None, *NO_REAL],
            "tau": [-1.0, INF, NAN, None, *NO_REAL],
            "b0": [NAN, INF, 1e9, None, *NO_REAL],
            "customers": [3, "true", vtb.ConstantCustomer, [], vtb.ConstantCustomer(0.7, 0.7),
                          vtb.ConstantCustomer(-0.1, 0.5), vtb.ConstantCustomer(NAN, 0.1),
                          vtb.ConstantCustomer("a", 0.1), vtb.ConstantCustomer(True, 0.1), Bad()],
            "num_threads": NO_THREADS,
        },
    )  # fmt: skip
    yield Call(
        "GroundTruthStore.items", lambda kit: kit.store.items, lambda kit: {"count": 3},
        {"first": [401, *NO_COUNT], "count": [401, *[v for v in NO_COUNT if v is not None]]},
    )  # fmt: skip
    yield Call(
        "GroundTruthStore.candidates", lambda kit: kit.store.candidates, lambda kit: {"query": 3},
        {"query": [18, *NO_COUNT]},
    )  # fmt: skip
    yield Call(
        "GroundTruthStore.pages",
        lambda kit: kit.store.pages,
        lambda kit: {"actions": np.zeros((2, 27), np.float32), "queries": np.zeros(2, np.uint8)},
        {
            "actions": actions(2, 27),
            "queries": [None, 3, [0, 1], "ab", np.zeros(1, np.uint8), np.zeros(2, np.int64),
                        np.full(2, 18, np.uint8), np.zeros((2, 1), np.uint8),
                        np.zeros(4, np.uint8)[::2], np.zeros(2, bool), Bad()],
        },
    )  # fmt: skip
    yield Call(
        "GroundTruthStore.expected", lambda kit: kit.store.expected, lambda kit: {"policy": "zero"},
        {"policy": ["best", "", "Zero", *actions(None, 27)]},
    )  # fmt: skip
    yield Call("GroundTruthStore.reveal", lambda kit: kit.store.reveal)
    yield Call(
        "Hidden.log_density", lambda kit: kit.hidden.log_density, lambda kit: {"codes": [[0] * 11]},
        {"codes": [None, 3, "codes", [0] * 11, [[0] * 10], [[9] * 11], [[-1] * 11], [[0.5] * 11],
                   [[2**70] * 11], [["a"] * 11], [[0] * 11, [0]], [[300] * 11], [[True] * 11],
                   Bad()]},
    )  # fmt: skip
    yield Call(
        "Hidden.best_responses", lambda kit: kit.hidden.best_responses,
        lambda kit: {"archetypes": [3]},
        {"archetypes": [None, "a", [-1], [16], [0.5], [NAN], [2**70], [True], [[0], [0, 1]],
                        Bad()]},
    )  # fmt: skip
    yield Call(
        "Policy.parse", lambda kit: Policy.parse, lambda kit: {"text": "zero"},
        {"text": ["", "best", "ZERO", "gaussian", "gaussian:", "gaussian:x", "gaussian:-1",
                  "gaussian:inf", "constant:", "constant:none", "none.safetensors", "\ud800", "a\0",
                  *NO_TEXT]},
    )  # fmt: skip
    yield Call(
        "Policy.constant", lambda kit: Policy.constant, lambda kit: {"action": [0.0] * 6},
        {"action": [None, 3.0, "action", [], [[0.0] * 6], ["a"] * 6, [NAN] * 6, [INF] * 6,
                    [1e300] * 6, [1j] * 6, [0.0, [1.0]], b"\0\0", {}, Bad()]},
    )  # fmt: skip
    yield Call(
        "Policy.load", lambda kit: Policy.load,
        lambda kit: {"path": kit.folder / "policy.safetensors"},
        {"path": [*NO_PATH, *FILES, in_folder("simulator.safetensors"), in_folder("items.vtbcat")]},
    )  # fmt: skip
    yield Call(
        "Policy.from_tensors",
        lambda kit: Policy.from_tensors,
        lambda kit: {"layers": [kit.layer], "schema": SCHEMA},
        {
            "layers": [None, 3, "layers", [], [None], [3], [()], [(1, 2)], ["ab"], [("a", "b")],
                       *[
                           Made(lambda kit, f=f: [tuple(f(part) for part in kit.layer)], s)
                           for s, f in {
                               "<doubles>": lambda v: v.astype(float), "<NaN>": lambda v: v + NAN,
                               "<short>": lambda v: v[:-1], "<scalars>": lambda v: v.flat[0],
                               "<lists>": lambda v: v.tolist(), "<texts>": lambda v: str(v),
                               "<empty>": lambda v: v[:0], "<deep>": lambda v: v[None],
                           }.items()
                       ], Bad()],
            "schema": [None, 3, "v0", {}, Bad()],
            "activation": ["swish", None, 3, ("leaky_relu",), ("leaky_relu", -1.0), [], Bad(),
                           ("leaky_relu", NAN), ("leaky_relu", "a"), ("leaky_relu", True)],
            "output": ["softmax", None, 3, ("leaky_relu", 2.0)],
            "observation_mean": [3.0, "a", [0.0], [NAN] * 12, ["a"] * 12, [1e300] * 12, Bad()],
            "observation_sd": [0.0, [0.0] * 12, [-1.0] * 12, [NAN] * 12, [None] * 12, Bad()],
            "observation_clip": [-1.0, 0.0, NAN, INF, "a", [1.0], True, b"1", Bad()],
            "log_sd": [1.0, [0.0], [NAN] * 6, [50.0] * 6, ["a"] * 6, Bad()],
            "action_clip": [(1.0, 0.0), (1.0,), 3.0, "ab", (NAN, 1.0), (0.0, 1.0, 2.0), ("a", "b"),
                            (None, 1.0), Bad()],
            "provenance": [3, "text", [1], {"a": NAN}, {"a": object()}, Bad()],
        },
    )  # fmt: skip
    yield Call(
        "Policy.save", lambda kit: kit.network.save, lambda kit: {"path": kit.folder / "p.new"},
        {"path": [*NO_PATH, in_folder(""), in_folder("no/folder")]},
    )  # fmt: skip
    yield Call(
        "Policy.save of a constant", lambda kit: kit.policy.save, lambda kit: {},
        {"path": [in_folder("constant.new")]},
    )  # fmt: skip
    yield Call(
        "read_log", lambda kit: read_log, lambda kit: {"path": kit.log_path},
        {"path": [*NO_PATH, *FILES, in_folder("items.vtbcat"), in_folder("policy.safetensors")]},
    )  # fmt: skip
    yield Call(
        "SessionLog.__getitem__", lambda kit: kit.log.__getitem__,
        lambda kit: {"column": "clicks"},
        {"column": ["click", "", None, 3, b"clicks", ["clicks"], slice(3), {}, "items", Bad()]},
    )  # fmt: skip
    yield Call(
        "Rollout.__getitem__", lambda kit: kit.rollout.__getitem__,
        lambda kit: {"column": "clicks"},
        {"column": ["click", "", None, 3, b"clicks", ["clicks"], slice(3), {}, "items", Bad()]},
    )  # fmt: skip
    yield Call(
        "SessionLog.observations", lambda kit: kit.log.observations, lambda kit: {},
        {"rows": [None, 3, "rows", 2.5, slice("a"), slice(0.5), b"x", Bad()]},
    )  # fmt: skip
    yield Call(
        "SessionLog.write", lambda kit: kit.log.write,
        lambda kit: {"path": kit.folder / "log.new", "overwrite": True},
        {"path": [*NO_PATH, in_folder(""), in_folder("no/folder")],
         "overwrite": [None, 3, "yes", Bad()]},
    )  # fmt: skip
    yield from environment_calls()


def published(kit: Kit) -> dict[str, Any]:
    """Files of the published kind, of random weights."""
    torch = importlib.import_module("torch")
    folder, random = kit.folder / "published.new", np.random.default_rng(5)
    folder.mkdir(exist_ok=True)
    for model in ("generator", "action", "leave"):
        held = {
            name.removeprefix(f"{model}."): torch.from_numpy(
                random.normal(0, 0.1, shape).astype(np.float32)
            )
            for name, shape in V0_CONFIG.shapes(V0_SCHEMA).items()
            if name.startswith(f"{model}.")
        }
        torch.save(held, folder / f"{model}_model.pt")
    return {"directory": folder}


CALLS = [
    *calls(), *schema_calls(), *record_calls(), *customer_calls(), *training_calls(),
    *imitation_calls(),
]  # fmt: skip
BAD = [
    (call, name, value) for call in CALLS for name, values in call.bad.items() for value in values
]
