"""Writes the whole files that mutations start from: ``python tests/fuzz/make_corpus.py``.

Small files of every kind that the package reads, from fixed seeds and nothing else; the same
versions of the libraries give the same bytes. Simulators, policies, logs and catalogues are read by
``files.rs``, the rest by ``readers.py``. To be run again when a format changes.
"""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import virtualtb_fast as vtb
from virtualtb_fast._training import Checkpoint
from virtualtb_fast.customers.table import Table
from virtualtb_fast.policies import Policy
from virtualtb_fast.schema import Config, Customers, Field, Leave, Response, Schema

CORPUS = Path(__file__).parent / "corpus"

SCHEMA = Schema((Field("region", 5), Field("member", 2), Field("age", 4)), 6, (-2.0, 3.0))
CLICKS = Response(page_scale=0.25, clicks=5, second=3, hidden=(12,))
OUTCOME = Response(page_scale=0.25, hidden=(12,), heads="outcome", items=4)
LINEAR = Response(page_scale=0.25, hidden=(12,), heads="outcome", items=4, kind="linear")
ONCE, HAZARD = Leave(classes=13, hidden=(6,)), Leave(kind="hazard", longest=3)
CONFIGS = {
    "a-mlp": Config(Customers(latent=7, hidden=(9, 5)), CLICKS, ONCE, 0.2),
    "mixture": Config(Customers(kind="mixture", components=6), CLICKS, HAZARD, 0.2),
    "rows": Config(Customers(kind="rows", rows=23), LINEAR, HAZARD, 0.2),
    "autoregressive": Config(Customers(kind="autoregressive", hidden=(8,)), OUTCOME, HAZARD, 0.2),
}
"""One of every kind; the first by name is the place in which policies play."""

SCHEMAS = {
    "clicks": """\
format = "virtualtb_fast.log_schema"
version = 1
[rows]
session = "visit"
page = "page_no"
first_page = 1
day = "day"
hour = "hour"
value = "price"
[customer]
categorical = ["gender", "city"]
numeric = ["age"]
[customer.categories]
gender = ["f", "m"]
[action]
columns = ["w0", "w1"]
low = -1.0
high = 1.0
[feedback]
clicks = "clicks"
second = "orders"
leave = "left"
page_items = 10
""",
    "outcome": """\
format = "virtualtb_fast.log_schema"
version = 1
[rows]
session = "visit"
[customer]
categorical = ["city"]  # whole numbers
[customer.categories]
city = [1, 2, 3]
[action]
columns = ["weights"]
[feedback]
outcome = "result"
buy = ["order", "reorder"]
turn = ["next"]
leave = ["exit"]
max_pages = ["cut"]
""",
    "bought": """\
format = "virtualtb_fast.log_schema"
version = 1
rows = { session = "s" }
customer = { numeric = ["age"] }
action = { columns = ["w"] }
[feedback]
bought = "order"
leave = "left"
""",
}


def simulator(name: str, config: Config) -> vtb.Simulator:
    """Random weights."""
    draw = np.random.default_rng(4)
    tensors: dict[str, np.ndarray] = {}
    for key, shape in config.shapes(SCHEMA).items():
        tensors[key] = draw.normal(0, 1 / np.sqrt(shape[-1]), shape).astype(np.float32)
    sizes = [field.size for field in SCHEMA.customer]
    if config.customers.kind == "mixture":
        count = config.customers.components
        blocks = [draw.dirichlet(np.full(size, 0.5), count) for size in sizes]
        tensors["customers.fields"] = np.concatenate(blocks, axis=1).astype(np.float32)
        tensors["customers.shares"] = draw.dirichlet(np.ones(count)).astype(np.float32)
    elif config.customers.kind == "rows":
        codes = draw.integers(0, sizes, (config.customers.rows, len(sizes)))
        tensors["customers.rows"] = codes.astype(np.uint8)
    return vtb.Simulator.from_tensors(tensors, name=name, schema=SCHEMA, config=config)


def policy(**changes: Any) -> Policy:
    """Random weights of two layers."""
    draw = np.random.default_rng(5)
    sizes = (SCHEMA.observation_width, 9, SCHEMA.action)
    layers = [
        (draw.normal(0, 0.3, (out, into)).astype(np.float32), np.zeros(out, np.float32))
        for into, out in pairwise(sizes)
    ]
    return Policy.from_tensors(layers, schema=SCHEMA, **changes)


def catalogs(folder: Path) -> None:
    """Two catalogues: with every kind of column and texts for ids, and with whole numbers."""
    draw = np.random.default_rng(6)
    attributes = draw.standard_normal((40, 3), dtype=np.float32)
    vtb.Catalog.build(
        attributes,
        folder / "texts",
        ids=[f"item {row}" for row in range(40)],
        price=draw.lognormal(3, 1, 40),
        category={
            "brand": [f"brand {row % 5}" if row % 5 else None for row in range(40)],
            "year": draw.integers(0, 3, 40),
        },
        overwrite=True,
    )
    ids = draw.permutation(40) * 3 + 5
    vtb.Catalog.build(attributes, folder / "numbers", ids=ids, overwrite=True)


def logs(folder: Path, shop: vtb.Simulator) -> None:
    """Logs of a simulator under drawn and constant actions, and of a store."""
    for name, place, how, sessions in (
        ("drawn", shop, "gaussian:0.5", 12),
        ("constant", shop, "zero", 40),
        ("store", vtb.GroundTruthStore(seed=0), "logger", 8),
    ):
        path = folder / f"{name}.parquet"
        vtb.rollout(place, how, sessions=sessions, seed=3, num_threads=1).log.write(
            path, overwrite=True
        )


def texts() -> None:
    """Schema files of logs, and the JSON of schemas, configurations and tables."""
    folder = fresh("schema")
    for name, text in SCHEMAS.items():
        (folder / f"{name}.toml").write_text(text)
    folder = fresh("json")
    (folder / "schema.json").write_text(SCHEMA.to_json())
    for name, config in CONFIGS.items():
        (folder / f"config-{name}.json").write_text(config.to_json())
    draw = np.random.default_rng(7)
    cities = ["a", "b", None, "c"] * 25
    own = Table.of({"city": cities, "age": draw.normal(40, 10, 100)}, numeric=["age"])
    (folder / "table.json").write_text(own.to_json())


def checkpoints(folder: Path) -> None:
    """What a training keeps."""
    draw = np.random.default_rng(8)
    state = {
        "step": 7,
        "rate": 0.1,
        "name": "stage",
        "none": None,
        "losses": [0.5, 0.25],
        "weights": {"0.weight": draw.normal(size=(4, 3)).astype(np.float32)},
        "generator": draw.bit_generator.state,
    }
    Checkpoint(folder / "training.checkpoint", "key").save(state)


def fresh(kind: str) -> Path:
    """The folder of a kind, without the files that another version wrote."""
    folder = CORPUS / kind
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """Writes all of it."""
    places = {name: simulator(name, config) for name, config in CONFIGS.items()}
    folder = fresh("simulator")
    for name, place in places.items():
        place.save(folder / f"{name}.safetensors")
    folder = fresh("policy")
    clipped = policy(activation=("leaky_relu", 0.1), observation_clip=3.0, action_clip=(-1, 1))
    clipped.save(folder / "clipped.safetensors")
    drawn = policy(log_sd=np.full(SCHEMA.action, -1.0), observation_mean=np.full(14, 0.1))
    drawn.save(folder / "drawn.safetensors")
    catalogs(fresh("catalog"))
    logs(fresh("log"), places["a-mlp"])
    texts()
    checkpoints(fresh("checkpoint"))
    for path in sorted(CORPUS.glob("*/*")):
        print(f"{path.stat().st_size:8,} {path.relative_to(CORPUS)}", file=sys.stderr)


if __name__ == "__main__":
    main()
