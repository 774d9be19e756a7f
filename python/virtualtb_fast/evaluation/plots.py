"""Pictures of rollouts and benches. They need matplotlib, the extra ``[report]``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._training import write_atomically
from virtualtb_fast.errors import InvalidArgumentError, MissingExtraError, OutputError

if TYPE_CHECKING:
    from virtualtb_fast.rollout import Summary

__all__ = ["environments", "require", "retrieval", "sessions"]

_FORMATS: Final = (".png", ".svg", ".pdf")
_INK, _FAINT, _BLUE, _ORANGE = "#22303c", "#d9dee3", "#2f6db5", "#d9772b"
_LINES: Final = (_BLUE, _ORANGE, "#3a9a68", "#8a63b0", "#c04a5e", "#7a8894")
_CONTENDERS: Final = {
    "rollout, counts only": ("#63a7dd", "o"),
    "vector env": (_BLUE, "o"),
    "env.step": (_INK, "D"),
    "vector env, reduced": ("#c2187a", "h"),
    "rollout, counts only, reduced": ("#00857c", "h"),
    "PyTorch": ("#c04a5e", "s"),
    "PyTorch, tuned draws": (_ORANGE, "s"),
    "SyncVectorEnv": ("#3a9a68", "^"),
    "AsyncVectorEnv": ("#8a63b0", "^"),
}
"""Colour and marker of each contender that is drawn."""
_OURS: Final = ("env.step", "vector env", "rollout, counts only")
_REDUCED: Final = ("vector env, reduced", "rollout, counts only, reduced")
"""Lone points, hollow and above all others, since they may fall on those of more threads."""
_ENOUGH = 30
"""Pages of a page number that a mean over them needs to be worth drawing."""
_SHARE = 0.98
"""The share of sessions that the pictures' axes take in."""


def require(path: str | os.PathLike[str]) -> None:
    """Refuses a picture that could not be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InvalidArgumentError: the file's name has another ending than .png, .svg or .pdf.
        OutputError: the folder is not there.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = 'pictures need matplotlib: pip install "virtualtb-fast[report]"'
        raise MissingExtraError(message) from error
    name = os.fspath(path)
    if not name.endswith(_FORMATS):
        expected = ", ".join(_FORMATS)
        raise InvalidArgumentError(f"picture: expected a name in {expected}, got {name!r}")
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise OutputError(f"{name}: expected a folder {folder}, got none")


def sessions(summary: Summary, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draws clicks (in a store purchases) by page number, and how long sessions are.

    Args:
        summary: The counts of a rollout.
        path: A .png, .svg or .pdf file; replaced if it exists.
        title: A line above the picture.

    Raises:
        MissingExtraError, InvalidArgumentError, OutputError: see `require`; and `OutputError` if
            the system refused to write.
    """
    require(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4.4), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    heading = f"{summary.pages:,} pages, {summary.sessions:,} sessions"
    figure.suptitle(f"{title}\n{heading}" if title else heading, color=_INK, fontsize=11)
    _clicks(left, summary)
    _lengths(right, summary)
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _dress(axes)
    _save(figure, path)


def retrieval(runs: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draws queries a second against the number of items, for each contender of a bench.

    Args:
        runs: Results of `virtualtb_fast.evaluation.retrieval.measure`, any sizes.
        path: A .png, .svg or .pdf file; replaced if it exists.

    Raises:
        MissingExtraError, InvalidArgumentError, OutputError: see `require`; and `OutputError` if
            the system refused to write.
    """
    require(path)
    from matplotlib.figure import Figure

    runs = sorted(runs, key=lambda result: result["items"])
    names = list(dict.fromkeys(name for result in runs for name in result["contenders"]))
    figure = Figure(figsize=(10, 4.8), layout="constrained", facecolor="white")
    threads = ", ".join(sorted({str(result["threads"]) for result in runs}))
    figure.suptitle(
        f"Top {runs[0]['k']} by inner product, {runs[0]['dimensions']} attributes, threads: "
        f"{threads}",
        color=_INK,
        fontsize=11,
    )
    panels = figure.subplots(1, 2, sharey=True)
    for axes, what, title in zip(
        panels, ("batch", "single"), ("A batch of 256 queries", "One query at a time"), strict=True
    ):
        for number, name in enumerate(names):
            points = [
                (result["items"], result["contenders"][name][f"{what}_per_second"])
                for result in runs
                if name in result["contenders"]
            ]
            recalls = [
                result["contenders"][name]["recall"]
                for result in runs
                if name in result["contenders"]
            ]
            exact = min(recalls) == 1
            axes.plot(
                *zip(*points, strict=True),
                color=_LINES[number % len(_LINES)],
                linewidth=2.4 if number == 0 else 1.4,
                linestyle="-" if exact else (0, (4, 2)),
                marker="o",
                markersize=4 if number == 0 else 3,
                label=name if exact else f"{name}: recall {min(recalls):.2f} to {max(recalls):.2f}",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(title, loc="left", color=_INK, fontsize=11)
        axes.set_xlabel("items", color=_INK)
        _dress(axes)
    panels[0].set_ylabel("queries a second", color=_INK)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    _save(figure, path)


def environments(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draws pages a second against customers a step, for each contender of a bench.

    Args:
        result: What `virtualtb_fast.evaluation.speed.measure` gave.
        path: A .png, .svg or .pdf file; replaced if it exists.

    Raises:
        MissingExtraError, InvalidArgumentError, OutputError: see `require`; and `OutputError` if
            the system refused to write.
    """
    require(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    flop = result["flop_a_page"]

    def gflops(pages: Any) -> Any:
        return pages * flop / 1e9

    def pages(gflops: Any) -> Any:
        return gflops * 1e9 / flop

    figure = Figure(figsize=(10, 6.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    lines: dict[tuple[str, int], list[tuple[float, float]]] = {}
    sizes = sorted({row["batch"] for row in result["contenders"] if row["batch"] is not None})
    left, right = sizes[0] / 1.5, sizes[-1] * 1.7
    for row in result["contenders"]:
        if row["batch"] is not None or row["what"] in _REDUCED:
            # A rollout that chooses its own batches is at none of the sizes: beside the last.
            at = row["batch"] if row["batch"] is not None else sizes[-1] * 1.3
            point = at, row["pages_per_second"]
            lines.setdefault((row["what"], row["threads"]), []).append(point)
    # Ours first in the legend, each beside itself with more threads.
    order = list(_CONTENDERS)
    places = {what: order.index(what) if what in order else len(order) for what, _ in lines}
    for (what, count), points in sorted(lines.items(), key=lambda one: (places[one[0][0]], one[0])):
        color, marker = _CONTENDERS.get(what, (_INK, "o"))
        ours, ring = what in _OURS, what in _REDUCED
        axes.plot(
            *zip(*sorted(points), strict=True),
            color=color,
            linewidth=2.4 if ours else 1.5,
            linestyle="none" if ring else "-" if count == 1 else (0, (4, 2)),
            marker=marker,
            markersize=12 if ring else 6 if ours else 5,
            markerfacecolor="none" if ring else color if count == 1 else "white",
            markeredgewidth=2 if ring else 1,
            zorder=3 if ring else 2,
            label=what if count == 1 else f"{what}, {count} threads",
        )
    for count, rate in result["sgemm_gflops"].items():
        limit = pages(rate)
        axes.axhline(limit, color=_INK, linewidth=1, linestyle=(0, (1, 2)))
        many = "one thread" if count == "1" else f"{count} threads"
        axes.annotate(
            f"as fast as numpy's own matrix products, {many}",
            xy=(left * 1.05, limit),
            xytext=(0, 3),
            textcoords="offset points",
            color=_INK,
            fontsize=8,
        )
    axes.set_xlim(left, right)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("customers a step", color=_INK)
    axes.set_ylabel("pages a second", color=_INK)
    other = axes.secondary_yaxis("right", functions=(gflops, pages))
    other.set_ylabel(f"GFLOP a second ({flop / 1e3:,.0f} kFLOP a page)", color=_INK)
    other.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    other.minorticks_off()
    other.tick_params(colors=_INK, labelsize=9)
    other.spines["right"].set_visible(False)
    _dress(axes)
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    title = f"Customers of {result['simulator']['name']}: ours (thick lines, hexagons) and rivals"
    figure.suptitle(f"{title}\n{result['machine']}", color=_INK, fontsize=11)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        handlelength=3,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    _save(figure, path)


def _dress(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes beside the name, then renames; the name's ending says in which format."""
    with write_atomically(Path(path)) as file:
        figure.savefig(file, dpi=150, format=os.path.splitext(path)[1][1:])


def _horizon(summary: Summary) -> int:
    """Session length that all but a few sessions stay within."""
    share = np.cumsum(summary.sessions_by_length) / summary.sessions
    return int(np.searchsorted(share, _SHARE)) + 1


def _clicks(axes: Any, summary: Summary) -> None:
    last = max(1, min(int((summary.pages_by_page >= _ENOUGH).sum()), _horizon(summary)))
    pages = np.arange(1, last + 1)
    mean = summary.clicks_by_page[:last] / summary.pages_by_page[:last]
    axes.plot(pages, mean, color=_BLUE, linewidth=2, marker="o", markersize=3.5)
    overall = summary.clicks / summary.pages
    axes.axhline(overall, color=_ORANGE, linewidth=1.2, linestyle=(0, (5, 3)))
    rate = "" if summary.sells else f" (CTR {summary.ctr:.4f})"
    axes.annotate(
        f"dashed: all pages, {overall:.3f}{rate}",
        # Below the line, near the axis: clicks are seldom so few that the curve comes here.
        xy=(0.99, 0.03),
        xycoords="axes fraction",
        ha="right",
        color=_ORANGE,
        fontsize=9,
    )
    axes.set_ylim(0, max(float(mean.max()), overall) * 1.15 or 1)
    what = "purchases" if summary.sells else "clicks"
    axes.set_title(f"{what.capitalize()} by page", loc="left", color=_INK, fontsize=11)
    axes.set_xlabel("page of the session", color=_INK)
    axes.set_ylabel(f"mean {what} on the page", color=_INK)


def _lengths(axes: Any, summary: Summary) -> None:
    from matplotlib.ticker import MaxNLocator

    last = min(_horizon(summary), len(summary.sessions_by_length) - 1)
    share: NDArray[np.float64] = summary.sessions_by_length / summary.sessions
    axes.bar(np.arange(1, last + 1), share[1 : last + 1], width=0.8, color=_BLUE)
    mean = summary.mean_session_length
    axes.axvline(mean, color=_ORANGE, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.annotate(
        f"mean {mean:.2f}",
        xy=(mean, 1),
        xycoords=("data", "axes fraction"),
        xytext=(5, -12),
        textcoords="offset points",
        color=_ORANGE,
        fontsize=9,
    )
    beyond = float(share[last + 1 :].sum())
    if beyond > 0:
        axes.text(
            0.99,
            0.5,
            f"{beyond:.1%} longer,\nup to {len(share) - 1} pages",
            transform=axes.transAxes,
            ha="right",
            color=_INK,
            fontsize=9,
        )
    axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.set_title("Session lengths", loc="left", color=_INK, fontsize=11)
    axes.set_xlabel("pages of the session", color=_INK)
    axes.set_ylabel("share of sessions", color=_INK)
