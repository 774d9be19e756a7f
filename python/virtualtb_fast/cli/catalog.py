"""Build, look at, search and check catalogues of items.

actions:
  build SOURCE OUT   make a catalogue of a Parquet file or a .npy array
  info FILE          what a catalogue holds
  search FILE        the best items for weights
  verify FILE        read everything and compare every checksum

virtualtb-fast catalog ACTION --help says more about an action.
"""

from __future__ import annotations

import argparse
import difflib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._npy import load_npy
from virtualtb_fast.catalog import Catalog
from virtualtb_fast.cli import common
from virtualtb_fast.errors import InvalidArgumentError

SIGNED = ("--weights", "--price")
"""Options whose values may start with a minus."""

_OPTIONS = {
    "columns": "--attributes",
    "ids": "--ids",
    "price": "--price",
    "category": "--category",
    "numbers": "--number",
}
"""Arguments of `Catalog.build` that name columns, and the options that give them."""

_ARRAY = ("an array (.npy)",) * 2
"""What messages call an array's file."""
_SHOWN_QUERIES = 10
"""Queries whose results are printed as text."""

_SAMPLE, _SHOWN = 20_000, 5
"""Items that are looked at for near categories, and categories that a message names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of ``catalog`` and their options."""
    action = common.add_actions(parser, "action")
    _add_build(action("build", _BUILD))
    _add_info(action("info", "Say what a catalogue holds. Opening takes milliseconds."))
    _add_search(action("search", _SEARCH))
    _add_verify(action("verify", "Read a whole catalogue and compare every checksum."))


_BUILD = """\
Make a catalogue of a Parquet file or a .npy array of shape (N, D).

Parquet is read in pieces: the catalogue may be larger than memory. It appears
under its name only when it is complete."""

_SEARCH = """\
Find the items of the highest score (inner product of weights and attributes).

The answer is exact. Filters are combined with "and"."""


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a Parquet file, or an array (.npy)")
    parser.add_argument("out", metavar="OUT", help="the catalogue's file, by custom .vtbcat")
    table = parser.add_argument_group("columns of a Parquet file")
    table.add_argument(
        "--attributes",
        metavar="NAMES",
        help="the column of lists, or columns of numbers with commas between (default: the only "
        "column of lists, or all columns of floats that are left)",
    )
    table.add_argument("--ids", metavar="NAME", help="whole numbers or texts, each once")
    table.add_argument("--price", metavar="NAME", help="numbers, for --price in searches")
    table.add_argument(
        "--category", metavar="NAME", action="append", help="texts or whole numbers; repeatable"
    )
    table.add_argument("--number", metavar="NAME", action="append", help="numbers; repeatable")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    common.add_threads(parser)
    common.add_json(parser)


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a catalogue")
    common.add_json(parser)


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a catalogue")
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument(
        "--weights", metavar="FILE|LIST", help="numbers with commas between, or an array (.npy)"
    )
    weights.add_argument(
        "--random", type=common.whole(1, 2**20), metavar="Q", help="Q standard normal weights"
    )
    parser.add_argument(
        "-k", type=common.whole(1, 65_536), default=10, metavar="K", help="items (default: 10)"
    )
    filters = parser.add_argument_group("filters")
    filters.add_argument(
        "--category",
        metavar="[NAME=]VALUE",
        action="append",
        help="a category, of the column NAME; more of one column: any of them",
    )
    filters.add_argument("--price", metavar="LOW:HIGH", help="prices; either end may be missing")
    filters.add_argument(
        "--number", metavar="NAME=LOW:HIGH", action="append", help="another column; repeatable"
    )
    filters.add_argument("--candidates", metavar="IDS", help="ids with commas between")
    common.add_seed(parser)
    common.add_threads(parser)
    common.add_json(parser)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a catalogue")
    common.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Does what the action says."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "build": _build,
        "info": _info,
        "search": _search,
        "verify": _verify,
    }
    return actions[options.action](options)


def _build(options: argparse.Namespace) -> int:
    common.refuse_existing(options.out, overwrite=options.overwrite)
    there = os.path.exists(options.out) and os.path.exists(options.source)
    if there and os.path.samefile(options.source, options.out):
        raise InvalidArgumentError(
            f"{options.out}: expected another file than the source, got the same"
        )
    named = [options.attributes, options.ids, options.price, options.category, options.number]
    arguments: dict[str, Any] = {"overwrite": options.overwrite, "num_threads": options.threads}
    source: Any = options.source
    if options.source.endswith(".npy"):
        if any(names is not None for names in named):
            raise InvalidArgumentError(
                f"{options.source}: expected a Parquet file if columns are named, got an array"
            )
        source = load_npy(options.source, *_ARRAY)
    else:
        columns = None if options.attributes is None else options.attributes.split(",")
        arguments |= {
            "columns": columns,
            "ids": options.ids,
            "price": options.price,
            "category": options.category,
            "numbers": options.number,
        }
    started = time.perf_counter()
    with common.Stages(quiet=options.json) as progress:
        try:
            catalog = Catalog.build(source, options.out, progress=progress, **arguments)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(_with_option(str(error))) from error
    seconds = time.perf_counter() - started
    if options.json:
        info = catalog.info()
        report = {"command": "catalog build", "seconds": seconds, "threads": options.threads}
        common.print_json({**report, **info})
        return 0
    rate = f"{len(catalog) / seconds:,.0f} items a second, {seconds:.2f} s"
    common.print_table([*_table(catalog), ("rate", rate)])
    return 0


def _with_option(message: str) -> str:
    """A message about an argument, about the option that gave it."""
    argument, separator, rest = message.partition(": expected a column")
    option = _OPTIONS.get(argument)
    return message if option is None or not separator else f"{option}{separator}{rest}"


def _info(options: argparse.Namespace) -> int:
    catalog = Catalog.open(options.file)
    if options.json:
        common.print_json({"command": "catalog info", **catalog.info()})
    else:
        common.print_table(_table(catalog))
    return 0


def _table(catalog: Catalog) -> list[tuple[str, str]]:
    info = catalog.info()
    items = info["items"]
    rows = [
        ("catalogue", str(info["path"])),
        ("items", f"{items:,} x {info['dimensions']} attributes"),
        ("ids", {"rows": "row numbers", "integers": "whole numbers"}.get(info["ids"], "texts")),
    ]
    for name, column in zip(_once("columns"), info["columns"], strict=False):
        what = "numbers"
        if column["categories"] is not None:
            of = "texts" if column["kind"] == "texts" else "whole numbers"
            what = f"{column['categories']:,} categories ({of})"
        left = "" if column["items"] == items else f", {items - column['items']:,} items have none"
        rows.append((name, f"{column['name']}: {what}{left}"))
    rows += [
        ("size", f"{common.size(info['bytes'])}, {info['bytes'] / items:.1f} bytes an item"),
        ("clusters", f"{info['clusters']:,}"),
        ("digest", info["digest"]),
    ]
    return rows


def _once(name: str) -> Any:
    yield name
    while True:
        yield ""


def _search(options: argparse.Namespace) -> int:
    catalog = Catalog.open(options.file)
    weights = _weights(options, catalog.dimensions)
    filters: dict[str, Any] = {"category": _categories(catalog, options.category)}
    if options.price is not None:
        filters["price"] = _range("--price", options.price)
    if options.number is not None:
        pairs = [_pair("--number", text) for text in options.number]
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidArgumentError(f"--number: expected each column once, got {twice!r} twice")
        filters["numbers"] = {name: _range("--number", bounds) for name, bounds in pairs}
    if options.candidates is not None:
        filters["candidates"] = _ids(catalog, options.candidates)
    started = time.perf_counter()
    ids, scores = catalog.search(weights, options.k, num_threads=options.threads, **filters)
    seconds = time.perf_counter() - started
    found = [_found(*query) for query in zip(ids, scores, strict=True)]
    if options.json:
        results = [
            {"ids": [one for one, _ in query], "scores": [score for _, score in query]}
            for query in found
        ]
        common.print_json(
            {"command": "catalog search", "k": options.k, "seconds": seconds, "results": results}
        )
        return 0
    for number, query in enumerate(found[:_SHOWN_QUERIES]):
        if len(found) > 1:
            print(f"{'' if number == 0 else chr(10)}query {number}")
        if not query:
            print("no item matches")
            continue
        width = max(len(str(one)) for one, _ in query)
        for one, score in query:
            print(f"{one!s:>{width}}  {score:.6g}")
    if len(found) > _SHOWN_QUERIES:
        print(f"\n{len(found) - _SHOWN_QUERIES:,} more queries: --json prints them all")
    print(f"\n{_queries(len(found))} over {len(catalog):,} items in {_time(seconds)}")
    return 0


def _queries(count: int) -> str:
    return "1 query" if count == 1 else f"{count:,} queries"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _found(ids: NDArray[Any], scores: NDArray[np.float32]) -> list[tuple[Any, float]]:
    """One customer's items, without padding."""
    there = np.isfinite(scores)
    return list(zip(ids[there].tolist(), scores[there].tolist(), strict=True))


def _verify(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    catalog = Catalog.open(options.file)
    with common.Stages(quiet=options.json) as progress:
        catalog.verify(progress)
    seconds = time.perf_counter() - started
    info = catalog.info()
    if options.json:
        report = {"command": "catalog verify", "path": info["path"], "bytes": info["bytes"]}
        common.print_json({**report, "digest": info["digest"], "seconds": seconds, "intact": True})
    else:
        rate = info["bytes"] / seconds / 1e6
        print(f"{options.file}: intact ({common.size(info['bytes'])}, {rate:,.0f} MB a second)")
    return 0


def _weights(options: argparse.Namespace, dimensions: int) -> NDArray[Any]:
    if options.random is not None:
        generator = np.random.default_rng(options.seed)
        return generator.standard_normal((options.random, dimensions), dtype=np.float32)
    if options.weights.endswith(".npy"):
        return np.atleast_2d(load_npy(options.weights, *_ARRAY))
    try:
        return np.array([[float(weight) for weight in options.weights.split(",")]])
    except ValueError:
        expected = "numbers with commas between, or an array (.npy)"
        message = f"--weights: expected {expected}, got {options.weights!r}"
        raise InvalidArgumentError(message) from None


def _pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InvalidArgumentError(f"{option}: expected NAME=..., got {text!r}")
    return name, value


def _range(option: str, text: str) -> tuple[float | None, float | None]:
    low, separator, high = text.partition(":")
    try:
        if not separator:
            raise ValueError
        return (float(low) if low else None, float(high) if high else None)
    except ValueError:
        raise InvalidArgumentError(f"{option}: expected LOW:HIGH, got {text!r}") from None


def _categories(catalog: Catalog, texts: Sequence[str] | None) -> dict[str, list[Any]] | None:
    """What ``--category`` asks for, by column."""
    if texts is None:
        return None
    columns = {
        column["name"]: column["kind"]
        for column in catalog.info()["columns"]
        if column["kind"] != "number"
    }
    wanted: dict[str, list[Any]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in columns:
            # With one column its name may be left out, unless this looks like another column's.
            if len(columns) != 1 or (separator and not _is_category(catalog, columns, text)):
                known = ", ".join(columns) or "none"
                raise InvalidArgumentError(
                    f"--category: expected NAME=VALUE with a column of categories ({known}), "
                    f"got {text!r}"
                )
            name, value = next(iter(columns)), text
        one = _whole(value) if columns[name] == "integers" else value
        _require_category(catalog, name, one)
        wanted.setdefault(name, []).append(one)
    return wanted


def _require_category(catalog: Catalog, name: str, value: Any) -> None:
    """Refuses a category that no item has: in a command it is a slip.

    The library answers it with no item, because programs ask for what they do not know.
    """
    if catalog.count(category={name: value}):
        return
    hint = ""
    if isinstance(value, str):
        bare = value.strip()
        others = dict.fromkeys((bare, bare.lower(), bare.upper(), bare.capitalize(), bare.title()))
        near = [one for one in others if one and catalog.count(category={name: one})]
        # A catalogue does not list its texts; those of some items are as good as all to guess by.
        rows = np.unique(np.linspace(0, len(catalog) - 1, _SAMPLE).astype(np.uint32))
        held = {one for one in catalog.column(name, rows=rows) if one is not None}
        near += [one for one in difflib.get_close_matches(bare, held, 2) if one not in near]
        some = [repr(one) for one in near] or [repr(one) for one in sorted(held)[:_SHOWN]]
        if some:
            said = "did you mean" if near else "there are"
            more = "" if near or len(held) <= _SHOWN else ", ..."
            hint = f" ({said} {', '.join(some)}{more}{'?' if near else ''})"
    message = f"--category: expected a category of {name!r} that some item has, got {value!r}"
    raise InvalidArgumentError(f"{message}{hint}")


def _is_category(catalog: Catalog, columns: dict[str, str], text: str) -> bool:
    """Whether the only column of categories has this one."""
    ((name, kind),) = columns.items()
    return kind == "texts" and catalog.count(category={name: text}) > 0


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgumentError(f"expected a whole number, got {text!r}") from None


def _ids(catalog: Catalog, text: str) -> list[Any]:
    parts = [part for part in text.split(",") if part]
    return parts if catalog.info()["ids"] == "texts" else [_whole(part) for part in parts]
