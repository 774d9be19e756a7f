"""Writes README's tables from committed results, so that no figure is typed by hand.

``python tools/readme_tables.py [--check]``: speed from ``benches/results/environments.json``,
``catalog.json`` and ``store.json`` (`make bench` and so on; the first has a picture beside it),
what modes of playing gain from ``async.json`` and ``reduced.json``, what long runs found from
``reliability/`` (`make soak` and so on), what was learned from logs from ``learned/`` (`make
tables`), fidelity from the provenance of the embedded simulator. With ``--check`` nothing is
written and a README that is out of date exits with 1.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import readme_learned
import readme_runs
import virtualtb_fast as vtb

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benches" / "results"


RUNS = ("kills", "signals", "soak", "forks", "fuzz", "sanitizers")


def held(name: str) -> Any:
    """A committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def speed(result: dict[str, Any]) -> str:
    """The table on README's first screen; whoever did not take part has no row."""
    ratios = result["ratios"]
    rows = {(row["what"], row["batch"], row["threads"]): row for row in result["contenders"]}
    names = {
        ("PyTorch", 1, 1): "one-at-a-time PyTorch loop, same networks",
        ("AsyncVectorEnv", 16, 1): "`AsyncVectorEnv` over `env.step`, 16 processes",
        ("SyncVectorEnv", 256, 1): "`SyncVectorEnv` over `env.step`, 256 customers",
        ("env.step", 1, 1): "`env.step`, one customer",
        ("PyTorch", 4096, 1): "batched PyTorch, 4,096 customers",
        ("vector env", 4096, 1): "**vector environment, 4,096 customers, from Python**",
        ("rollout to Parquet", None, 1): "**native rollout to Parquet**",
        ("rollout, counts only", None, 1): "**native rollout, counts only**",
    }
    loop = rows["PyTorch", 1, 1]["pages_per_second"]
    table = ["| one thread | pages a second | |", "|---|--:|--:|"]
    for key, shown in names.items():
        if key in rows:
            rate = rows[key]["pages_per_second"]
            table.append(f"| {shown} | {rounded(rate)} | {rate / loop:,.0f}x |")
    share = 100 * ratios["native kernel: share of numpy's sgemm rate"]["ratio"]
    tuned = ratios["vector env / batched PyTorch with tuned draws"]["ratio"]
    threads = "Two" if result["threads"] == 2 else str(result["threads"])
    text = (
        f"Measured in one run on {result['machine']} (`make bench`; medians of "
        f"{result['rounds']} rounds; PyTorch {result['versions']['torch'].split('+')[0]}). "
        f"The native kernel does {share:.1f} % of numpy's own matrix-product rate. Against "
        f"batched PyTorch the vector environment is "
        f"{ratios['vector env / batched PyTorch']['ratio']:.1f}x as fast, "
        f"{tuned:.1f}x if PyTorch's draws are tuned. {threads} threads give "
        f"{ratios['rollout, counts only: all threads / one']['ratio']:.2f}x one in rollouts, "
        f"{ratios['vector env: all threads / one']['ratio']:.2f}x in the vector environment."
    )
    memory = {row["what"]: row["bytes_a_session"] for row in result.get("memory", [])}
    if memory.get("vector env") is not None:
        step = rows["vector env", 4096, 1]["latency_us"]
        text += (
            f" A step of 4,096 customers takes {step['p50'] / 1e3:.1f} ms (p99 "
            f"{step['p99'] / 1e3:.1f} ms), and a customer {memory['vector env'] / 1e3:.1f} kB."
        )
    beside = {row["batch"]: row for row in result.get("overhead", [])}.get(4096)
    if beside is not None and beside["rollout_us"] is not None:
        more = beside["step_us"] - beside["rollout_us"]
        text += (
            f" On average a step takes {more:,.0f} microseconds longer than the same pages in a "
            f"rollout; a copy of its observations alone takes {beside['copy_us']:,.0f}."
        )
    picture = RESULTS / "environments.png"
    if picture.exists():
        place = picture.relative_to(ROOT).as_posix()
        text += f"\n\n![Pages a second against customers a step]({place})"
    return "\n".join([*table, "", text])


def retrieval(result: dict[str, Any]) -> str:
    """Queries a second against other libraries, on two catalogues."""
    catalogues = {"uniform": "1,000,000 uniform", "real": "400,000 real (word vectors)"}
    table = [
        "| 27 attributes, top 10, one thread | queries a second, batch of 256 | one at a time "
        "| recall | built in |",
        "|---|--:|--:|--:|--:|",
    ]
    for key, name in catalogues.items():
        if key not in result:
            continue
        table.append(f"| *{name} items* | | | | |")
        for who, row in result[key]["contenders"].items():
            shown = "**virtualtb-fast**" if who == "virtualtb-fast" else who
            table.append(
                f"| {shown} | {rounded(row['batch_per_second'])} | "
                f"{rounded(row['single_per_second'])} | {row['recall']:.2f} | "
                f"{row['build_seconds']:.1f} s |"
            )
    ratios = {name: row["ratio"] for name, row in result["ratios"].items()}
    shared, own = (
        ratios[f"200 {kind} candidates of 5,000 / batched numpy"] for kind in ("shared", "own")
    )
    versions = result["versions"]
    opened = "".join(
        f" A fresh process opens a file of {row['items']:,} items ({row['catalogue_mb']:,.0f} MB) "
        f"in {row['open_ms']:.1f} ms and has its first answer "
        f"{row['first_answer_ms']:.1f} ms later."
        for row in result.get("opening", [])
    )
    if opened:
        rounds = result["opening"][0]["rounds"]
        opened += f" (Medians of {rounds} processes; the file is in the page cache.)"
    return "\n".join(
        [
            *table,
            "",
            f"Measured in one run on {result['machine']} (`make bench-catalog`; faiss "
            f"{versions['faiss']}, usearch {versions['usearch']}, numpy {versions['numpy']}), "
            "answers compared first. Two threads answer a batch "
            f"{ratios['two threads / one']:.2f}x as fast as one. With 200 candidates of 5,000 "
            f"items a query is {shared:.1f}x (one list for all) and {own:.1f}x (a list each) as "
            f"fast as batched numpy.{opened}",
        ]
    )


def store(result: dict[str, Any]) -> str:
    """Pages a second in stores of different sizes."""
    table = [
        "| items | pages a second | against NumPy, customers grouped by query | gathering "
        "candidates | made in |",
        "|--:|--:|--:|--:|--:|",
    ]
    for name, row in result["stores"].items():
        table.append(
            f"| {name.removesuffix(' items')} | {rounded(row['pages_per_second']['ours'])} | "
            f"{row['ratios']['numpy']['median']:.1f}x | "
            f"{row['ratios']['numpy, ungrouped']['median']:.1f}x | "
            f"{row['construction_seconds']:.1f} s |"
        )
    return "\n".join(
        [
            *table,
            "",
            f"The vector environment of {result['batch']:,} customers, one thread, on "
            f"{result['machine']} (`make bench-store`; medians of {result['rounds']} rounds): the "
            "same pages, page for page, as the two NumPy versions. 20x was the aim.",
        ]
    )


def rounded(rate: float) -> str:
    """Three digits."""
    return f"{float(f'{rate:.3g}'):,.0f}"


def percent(share: float) -> str:
    """A signed share in per cent, without a negative zero."""
    return f"{round(100 * share, 1) + 0.0:+.1f} %"


def fidelity(provenance: dict[str, Any]) -> str:
    """The table of the refit against the published networks."""
    result = provenance["fidelity"]
    clicks = result["click_through"]
    divergence = result["kl_nat_per_page"]
    names = {
        "uniform": "uniform on [-1, 1]",
        "zero": "zero",
        "gaussian:0.1": "N(0, 0.1^2)",
        "norm:0.03": "norm 0.03",
    }
    table = [
        "| actions | CTR published | CTR refit | difference | KL a page, clicks | second head |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for key, name in names.items():
        row, kl = clicks.get(key), divergence[key]
        ctr = ["", "", ""]
        if row is not None:
            difference = percent(row["relative_difference"])
            ctr = [f"{row['published']:.4f}", f"{row['refit']:.4f}", difference]
        table.append(f"| {name} | {' | '.join(ctr)} | {kl['clicks']:.3f} | {kl['second']:.3f} |")
    for key, name in (
        ("best constant of the published networks", "best constant of the published"),
        ("best constant of the refit", "best constant of the refit"),
    ):
        row = clicks[key]
        table.append(
            f"| {name} | {row['published']:.3f} | {row['refit']:.3f} | "
            f"{percent(row['relative_difference'])} | | |"
        )
    marginals = " ".join(f"{f['total_variation']:.4f}" for f in result["field_marginals"])
    ks = result["session_length"]["kolmogorov_smirnov"]
    aims = result["aims"]
    log = provenance["log"]
    return "\n".join(
        [
            *table,
            "",
            f"{result['sessions']:,} sessions a figure; KL in nat. Total variation "
            f"of the marginals of fields 0 to 10: {marginals}. Session lengths: Kolmogorov-Smirnov "
            f"distance {ks:.4f}. Fitted to {log['pages'] / 1e6:.0f} million logged pages. The aims "
            f"were {aims['kl_nat']} nat and {100 * aims['ctr_relative']:.0f} %: what misses them "
            "is shown as it is.",
        ]
    )


def fill(readme: str, name: str, table: str) -> str:
    """README with the text between the markers of ``name`` replaced."""
    marked = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    filled, count = marked.subn(lambda found: f"{found[1]}{table}\n{found[2]}", readme)
    if count != 1:
        raise SystemExit(f"README: expected one pair of {name} markers, got {count}")
    return filled


def main() -> None:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    path = ROOT / "README.md"
    old = path.read_text()
    new = old
    for block, of, name in (
        ("speed", speed, "environments"),
        ("retrieval", retrieval, "catalog"),
        ("store", store, "store"),
    ):
        new = fill(new, block, of(held(name)))
    for block, of, name in (
        ("customers", readme_learned.customers, "table1"),
        ("fields", readme_learned.fields, "figure3"),
        ("real", readme_learned.real, "real"),
        ("responses", readme_learned.responses, "responses"),
        ("paper", readme_learned.paper, "responses-paper"),
        ("drift", readme_learned.drift, "table2"),
        ("fits", readme_learned.fits, "fits"),
        ("features", readme_learned.features, "figure4"),
        ("hours", readme_learned.hours, "figure5"),
        ("warm", readme_learned.hours_warm, "figure5-warm"),
    ):
        result = RESULTS / "learned" / f"{name}.json"
        if result.exists():
            new = fill(new, block, of(json.loads(result.read_text())))
    measured = held("environments")
    new = fill(new, "yardstick", readme_runs.yardstick(measured))
    new = fill(new, "reduced", readme_runs.reduced(held("reduced"), measured))
    new = fill(new, "async", readme_runs.at_once(held("async")))
    there = [name for name in RUNS if (RESULTS / "reliability" / f"{name}.json").exists()]
    runs = {name: held(f"reliability/{name}") for name in there}
    new = fill(new, "reliability", readme_runs.reliability(runs))
    new = fill(new, "fidelity", fidelity(vtb.load_simulator().provenance))
    if check and new != old:
        raise SystemExit("README's tables are out of date: python tools/readme_tables.py")
    path.write_text(new)


if __name__ == "__main__":
    main()
