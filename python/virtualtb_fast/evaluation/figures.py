"""The figures of a fidelity report, each drawn from the report's JSON and from nothing else.

`FIGURES` has them by name: functions of the object that `fidelity` returns (or that was read from
its file), which give a matplotlib figure. `image` turns one into PNG, or into SVG whose inks are
those of the page it stands on, so that one drawing does for light and dark. Nothing here computes
what is not in the JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from virtualtb_fast.evaluation.figures_customers import marginals, pair_map, pairs
from virtualtb_fast.evaluation.figures_parts import (
    COLORS,
    FAINT,
    INK,
    MORE,
    called,
    dress,
    image,
    legend,
    needs_matplotlib,
    new_figure,
)

__all__ = [
    "FIGURES",
    "INK",
    "drift",
    "image",
    "marginals",
    "needs_matplotlib",
    "overview",
    "table_bars",
]

Found = Mapping[str, Any]


_END: Final = {"marker": "|", "markersize": 7, "zorder": 2}
"""How a line's ends are marked."""


def positions(found: Found, where: Any = None) -> Any:
    """Every check on a line from fresh real sessions (0) to its void guard (1)."""
    checks = list(found["checks"])[::-1]
    figure = where or new_figure(7.2, 1.1 + 0.42 * len(checks))
    axes = figure.subplots()
    words = []
    for row, check in enumerate(checks):
        words.append("cannot be told" if check["position"] is None else check["grade"])
        axes.plot([0, 1], [row, row], color=FAINT, linewidth=2, zorder=1)
        axes.plot([1], [row], color=COLORS["guard"], linestyle="", **_END)
        axes.plot([0], [row], color=COLORS["fresh"], linestyle="", **_END)
        if check["position"] is None:
            continue
        # Bars differ: some are figures of their own, where fresh sessions cannot be had.
        close = check["close_at"]
        axes.plot([0, close], [row, row], color=COLORS["fresh"], linewidth=5, alpha=0.35,
                  solid_capstyle="butt", zorder=1.5, gid=f"close-{check['name']}")  # fmt: skip
        # A simulator may be worse than a guard: the figure goes on a little, and says how far.
        at = float(np.clip(check["position"], -0.08, 1.12))
        axes.scatter([at], [row], s=64, color=COLORS["simulator"], zorder=3, clip_on=False)
        if check["position"] > 1.12:
            words[-1] += f", {check['position']:.1f} x"
    axes.set_yticks(np.arange(len(checks)), [check["title"] for check in checks])
    axes.set_xticks([0, 1], ["fresh real\nsessions", "void\nguard"])
    axes.set_xlim(-0.12, 1.16)
    axes.set_ylim(-0.6, len(checks) - 0.4)
    dress(axes, "x")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    grades = axes.secondary_yaxis("right")
    grades.set_yticks(np.arange(len(checks)), words)
    grades.tick_params(length=0, colors=INK, labelsize=9)
    grades.spines[:].set_visible(False)
    axes.plot([], [], color=COLORS["fresh"], linewidth=5, alpha=0.35, label="graded close")
    axes.plot([], [], color=COLORS["simulator"], marker="o", linestyle="", markersize=8,
              label="simulator")  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    legend(figure, handles=handles, labels=labels, loc="outside lower center", ncols=2)
    return figure


def lengths(found: Found, where: Any = None) -> Any:
    """Shares of sessions by number of pages."""
    shares = found["lengths"]["shares"]
    real = np.array(shares["real"])
    last = int(np.searchsorted(np.cumsum(real), 0.99)) + 1
    at = np.arange(1, min(last + 1, len(real)))
    figure = where or new_figure(7.2, 3.2)
    axes = figure.subplots()
    axes.bar(at, real[at], 0.8, color=COLORS["real"], alpha=0.55, label="real")
    styles = {"simulator": ("simulator", "-", 2.0), "forgetful": ("guard", (0, (5, 3)), 1.4)}
    for name, (color, line, width) in styles.items():
        axes.plot(at, np.array(shares[name])[at], color=COLORS[color], linestyle=line,
                  linewidth=width, marker="o" if name == "simulator" else None, markersize=3,
                  label=called(name))  # fmt: skip
    axes.set_xlabel("pages of the session")
    axes.set_ylabel("share of sessions")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    dress(axes)
    legend(axes)
    return figure


def pages(found: Found, where: Any = None) -> Any:
    """Answers by number of the page, with the log's 95 % intervals."""
    held, rate = found["pages"], found["rate"]["name"]
    real = np.array(held["rate"]["real"])
    at = np.arange(1, len(real) + 1)
    figure = where or new_figure(7.2, 3.2)
    axes = figure.subplots()
    axes.errorbar(at, real, held["half_width"], color=COLORS["real"], linewidth=0, elinewidth=1.6,
                  marker="o", markersize=4, label="real, 95 %")  # fmt: skip
    axes.plot(at, held["rate"]["simulator"], color=COLORS["simulator"], linewidth=2,
              label=called("simulator"))  # fmt: skip
    axes.plot(at, held["rate"]["forgetful"], color=COLORS["guard"], linewidth=1.4,
              linestyle=(0, (5, 3)), label=called("forgetful"))  # fmt: skip
    axes.set_xlabel("page of the session")
    axes.set_ylabel(rate)
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    dress(axes)
    legend(axes, ncols=3, loc="lower left")
    return figure


def features(found: Found, where: Any = None) -> Any:
    """Answers by feature, simulated against real (the paper's Figure 4)."""
    held, rate = found["features"], found["rate"]["name"]
    figure = where or new_figure(7.2, 4.4)
    axes = figure.subplots()
    cells = held["cells"]
    if cells:
        real = np.array([cell["rate"]["real"] for cell in cells])
        ours = np.array([cell["rate"]["simulator"] for cell in cells])
        sizes = np.array([cell["pages"] for cell in cells], float)
        low, high = min(real.min(), ours.min()), max(real.max(), ours.max())
        edge = 0.06 * (high - low) or 0.01
        span = (low - edge, high + edge)
        axes.plot(span, span, color=COLORS["real"], linewidth=1.2, label="as in the log")
        axes.scatter(real, ours, s=10 + 90 * sizes / sizes.max(), color=COLORS["simulator"],
                     alpha=0.75, linewidth=0, label="simulator: one category of one field"
                     )  # fmt: skip
        axes.axhline(cells[0]["rate"]["blind"], color=COLORS["guard"], linewidth=1.4,
                     linestyle=(0, (5, 3)), label=called("blind"))  # fmt: skip
        for cell in _furthest(cells):
            text = f"{cell['field']} = {cell['label']}"
            # On the side where the diagonal, and so most of the others, is not; but on the axes.
            at = (cell["rate"]["real"] - span[0]) / (span[1] - span[0])
            left = at > 0.75 or (at > 0.25 and cell["rate"]["simulator"] > cell["rate"]["real"])
            axes.annotate(text, (cell["rate"]["real"], cell["rate"]["simulator"]),
                          (-6 if left else 6, -3), ha="right" if left else "left",
                          textcoords="offset points", color=INK, fontsize=8)  # fmt: skip
        axes.set_xlim(span)
        axes.set_ylim(span)
    axes.set_xlabel(f"{rate} in the log")
    axes.set_ylabel(f"{rate} simulated")
    dress(axes, "both")
    legend(axes, loc="upper left")
    return figure


def _furthest(cells: list[Any]) -> list[Any]:
    """The three categories that are furthest off; of those that nearly everybody has, none."""
    most = 0.8 * max(cell["pages"] for cell in cells)

    def gap(cell: Found) -> float:
        return float(abs(cell["rate"]["simulator"] - cell["rate"]["real"]))

    return sorted((cell for cell in cells if cell["pages"] < most), key=gap)[-3:]


def hours(found: Found) -> Any:
    """Answers over twelve parts of the day (the paper's Figure 5)."""
    held, rate = found["hours"], found["rate"]["name"]
    real = np.array(held["rate"]["real"])
    slices = len(real)
    at = (np.arange(slices) + 0.5) * 24 / slices
    figure = new_figure(7.2, 3.2)
    axes = figure.subplots()
    axes.errorbar(at, real, held["half_width"], color=COLORS["real"], linewidth=1.2,
                  elinewidth=1.6, marker="o", markersize=4, label="real, 95 %")  # fmt: skip
    label = "simulators, one a part" if held["by_slice"] else called("simulator")
    axes.plot(at, held["rate"]["simulator"], color=COLORS["simulator"], linewidth=2, marker="s",
              markersize=4, label=label)  # fmt: skip
    axes.plot(at, held["rate"]["pooled"], color=COLORS["guard"], linewidth=1.4,
              linestyle=(0, (5, 3)), label="one rate for all hours (guard)")  # fmt: skip
    axes.set_xticks(range(0, 25, 4), [f"{hour}:00" for hour in range(0, 25, 4)])
    axes.set_xlim(0, 24)
    axes.set_xlabel("hour of the day")
    axes.set_ylabel(rate)
    dress(axes)
    legend(axes)
    return figure


def table_bars(
    rows: Mapping[str, Mapping[str, tuple[float, float | None]]], titles: Mapping[str, str]
) -> Any:
    """Bars with 95 % intervals: a panel a figure, a bar a method.

    Args:
        rows: (mean, half width or None) by figure, by method.
        titles: Of the figures that are drawn, in order.
    """
    names = list(rows)[::-1]
    figure = new_figure(2.6 * len(titles) + 1.2, 0.9 + 0.36 * len(names))
    panels = np.atleast_1d(figure.subplots(1, len(titles), sharey=True))
    sides = {"fresh": "fresh", "independent": "guard", "guard": "guard"}
    colors = [COLORS[sides.get(name, "simulator")] for name in names]
    at = np.arange(len(names))
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        values = [rows[name].get(key, (np.nan, 0.0)) for name in names]
        means, widths = np.array(values, float).T
        if means.min() > 0 and means.max() > 50 * means.min():
            # No bar has a beginning on a logarithmic axis.
            least = means.min() / 2
            below = np.minimum(widths, means - least)
            axes.errorbar(means, at, xerr=(below, widths), linestyle="", ecolor=INK, elinewidth=1.2)
            axes.scatter(means, at, 46, color=colors, zorder=3)
            axes.set_xscale("log")
            axes.set_xlim(left=least)
            axes.minorticks_off()
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            # An area of one half is nothing: bars of it begin there.
            start = 0.5 if key == "auc" else 0.0
            axes.barh(at, means - start, 0.62, left=start, xerr=widths, color=colors,
                      error_kw={"ecolor": INK, "elinewidth": 1.2})  # fmt: skip
            axes.locator_params(axis="x", nbins=4)
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.set_yticks(at, [called(name) for name in names])
        dress(axes, "x")
    return figure


def drift(found: Found) -> Any:
    """Lifts of R2P over days, in simulators and in the true store (the paper's Table 2).

    Args:
        found: ``days``, and ``rows`` by method of (mean, half width or None) in per cent under
            ``simulator_DAY`` and ``truth_DAY``.
    """
    days, rows = found["days"], found["rows"]
    guards: dict[str, tuple[str, Any]] = {
        "zero": (COLORS["guard"], (0, (5, 3))),
        "logger": (COLORS["real"], (0, (5, 3))),
        "blind": (MORE[4], (0, (1, 1.5))),
    }
    methods = [name for name in rows if name not in guards]
    inks = dict(zip(methods, (COLORS["simulator"], *MORE), strict=False))
    figure = new_figure(8.4, 3.8)
    panels = figure.subplots(1, 2)
    for axes, (side, title) in zip(
        panels, (("simulator", "In each day's simulator"), ("truth", "In the true store")),
        strict=True,
    ):  # fmt: skip
        for number, (name, row) in enumerate(rows.items()):
            # Of a single run there is no width: not a number, which is drawn as none.
            means, widths = np.array([row[f"{side}_{day}"] for day in days], float).T
            # A little apart, so that intervals do not hide one another.
            at = np.arange(len(days)) + 0.07 * (number - (len(rows) - 1) / 2)
            if name in inks:
                axes.errorbar(at, means, widths, color=inks[name], linewidth=2, elinewidth=1.4,
                              marker="o", markersize=5, label=called(name))  # fmt: skip
            else:
                color, style = guards[name]
                # Not a customer who is blind to features, as in reports of fidelity.
                label = "trained blind (guard)" if name == "blind" else called(name)
                axes.errorbar(at, means, widths, color=color, linewidth=1.4, linestyle=style,
                              elinewidth=1, label=label)  # fmt: skip
        axes.set_xticks(range(len(days)), [f"day {day}" for day in days])
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}%" if value else "0%")
        dress(axes)
    panels[0].set_ylabel("R2P over the random engine's")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False,
                  fontsize=9, labelcolor=INK)  # fmt: skip
    return figure


FIGURES: Final[Mapping[str, Callable[[Found], Any]]] = {
    "positions": positions,
    "marginals": marginals,
    "pairs": pairs,
    "pair_map": pair_map,
    "lengths": lengths,
    "pages": pages,
    "features": features,
    "hours": hours,
}
"""All figures by name, in the order of the page.

``hours`` needs a log with hours, ``pair_map`` two fields."""


def overview(found: Found) -> Any:
    """The verdict with what is behind it, in one picture: for a README, or a slide."""
    figure = new_figure(11.0, 7.6)
    panels = figure.subfigures(2, 2, width_ratios=(1.12, 1), hspace=0.04, wspace=0.03).ravel()
    parts = (
        (positions, "Where it stands"),
        (lengths, "How long sessions are"),
        (pages, "Answers page by page"),
        (features, "Who answers how"),
    )
    for panel, (draw, title) in zip(panels, parts, strict=True):
        draw(found, panel)
        panel.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return figure
