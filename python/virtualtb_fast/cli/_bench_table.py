"""What ``virtualtb-fast bench`` shows of environments, in 80 columns."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["show"]


def show(result: dict[str, Any]) -> None:
    """Prints a run of `virtualtb_fast.evaluation.speed.measure` as tables."""
    console = Console()
    console.print(result["machine"], highlight=False)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    console.print(versions, highlight=False)
    console.print(_speed(result), _outcomes(result), _ratios(result))
    console.print(_overhead(result), _memory(result))
    for line in _notes(result):
        console.print(line, highlight=False, markup=False)


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(first, min_width=20, overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def _speed(result: dict[str, Any]) -> Table:
    title = f"Pages a second (medians of {result['rounds']} rounds; p50, p99: a step in us)"
    columns = ("batch", "thr", "pages/s", "GFLOP/s", "sgemm", "p50", "p99")
    table = _table(title, "contender", *columns)
    for row in result["contenders"]:
        latency = row["latency_us"] or {}
        table.add_row(
            row["what"],
            "" if row["batch"] is None else f"{row['batch']:,}",
            str(row["threads"]),
            f"{row['pages_per_second']:,.0f}",
            _digits(row["gflops"]),
            f"{100 * row['share_of_sgemm']:.1f}%",
            *(_digits(latency[name]) if latency else "" for name in ("p50", "p99")),
            style="bold" if row["ours"] else None,
        )
    return table


def _outcomes(result: dict[str, Any]) -> Table:
    title = (
        f"Click-through rate, {result['reference']['ctr']:.4f} expected: of whole sessions checked "
        "before timing,\nof all that was timed, and by how much they may differ"
    )
    columns = ("batch", "thr", "checked", "+-", "timed", "+-", "outcome")
    table = _table(title, "contender", *columns)
    for row in result["contenders"]:
        rates = [row[part][name] for part in ("checked", "timed") for name in ("ctr", "ctr_band")]
        table.add_row(
            row["what"],
            "" if row["batch"] is None else f"{row['batch']:,}",
            str(row["threads"]),
            *(f"{rate:.4f}" for rate in rates),
            "own draws" if row["outcome"] is None else row["outcome"][:8],
            style="bold" if row["ours"] else None,
        )
    return table


def _ratios(result: dict[str, Any]) -> Table:
    table = _table("Ratios (medians of ratios within a round)", "figure", "measured", "aim")
    for name, row in result["ratios"].items():
        aim = "" if row["aim"] is None else f"{row['aim']:g}"
        table.add_row(name, f"{row['ratio']:.2f}", aim)
    return table


def _overhead(result: dict[str, Any]) -> Table:
    title = (
        "A step of the vector environment,\nthe same pages in a rollout, a copy\n"
        "of the observations; one thread, us"
    )
    table = _table(title, "customers", "step", "rollout", "copy")
    for row in result["overhead"]:
        cells = row["step_us"], row["rollout_us"], row["copy_us"]
        shown = ("" if cell is None else _digits(cell) for cell in cells)
        table.add_row(f"{row['batch']:,}", *shown)
    return table


def _memory(result: dict[str, Any]) -> Table:
    columns = ("sessions at once", "peak MB", "bytes a session")
    table = _table("Memory, each in a process of its own", "contender", *columns)
    for row in result["memory"]:
        cells = row["sessions"], row["peak_mb"], row["bytes_a_session"]
        table.add_row(row["what"], *("" if cell is None else f"{cell:,.0f}" for cell in cells))
    return table


def _notes(result: dict[str, Any]) -> list[str]:
    sgemm = ", ".join(
        f"{gflops:,.1f} GFLOP/s on {'one thread' if count == '1' else f'{count} threads'}"
        for count, gflops in result["sgemm_gflops"].items()
    )
    notes = [
        f"numpy's sgemm: {sgemm}; a page is {result['flop_a_page'] / 1e3:,.0f} kFLOP.",
        "PyTorch at batch 1 is the one-at-a-time loop of the same networks; AsyncVectorEnv has a "
        "process a customer.",
    ]
    notes += [f"Left out: {line}." for line in result["left_out"]]
    busy = result["load"]
    if busy is not None and busy > 0.5:
        notes.append(f"The machine was busy when this began (load {busy:.1f}): trust ratios alone.")
    return notes


def _digits(value: float) -> str:
    """Three digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
