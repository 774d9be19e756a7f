"""Figures of who comes: every field, pairs of fields, what classifiers tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from virtualtb_fast.evaluation.figures_parts import (
    FAINT,
    INK,
    MORE,
    called,
    dress,
    inks,
    new_figure,
)

__all__ = ["marginals", "pair_map", "pairs"]

_FIELDS: Final = 24
"""Fields that are drawn."""
_LABELS: Final = 12
"""Categories of a field whose names fit under its bars."""


Found = Mapping[str, Any]


def marginals(found: Found) -> Any:
    """Shares of every field's categories, side by side (the paper's Figure 3)."""
    every = list(found["fields"])
    fields = every[:_FIELDS]
    names = [name for name in fields[0]["shares"] if name != "fresh"]
    columns = min(3, len(fields))
    rows = -(-len(fields) // columns)
    figure = new_figure(3.1 * columns, 1.95 * rows + 0.4)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in panels[len(fields) :]:
        axes.set_visible(False)
    shown = dict(zip(names, inks(names), strict=True))
    for axes, field in zip(panels, fields, strict=False):
        at, width = np.arange(field["size"]), 0.84 / len(names)
        for number, (name, color) in enumerate(shown.items()):
            place = at + (number - (len(names) - 1) / 2) * width
            axes.bar(place, field["shares"][name], width, color=color, label=called(name))
        axes.set_title(field["name"], loc="left", color=INK, fontsize=10)
        dress(axes)
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.locator_params(axis="y", nbins=4)
        _categories(axes, field)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(5, len(labels)),
                  frameon=False, fontsize=9, labelcolor=INK)  # fmt: skip
    if len(every) > len(fields):
        _say(figure, f"{len(fields)} of {len(every)} fields shown: the first")
    return figure


def _say(figure: Any, text: str) -> None:
    figure.supxlabel(text, color=INK, fontsize=9, x=0.01, ha="left")


def _categories(axes: Any, field: Found) -> None:
    labels = field.get("labels") or [str(code) for code in range(field["size"])]
    if field["size"] > _LABELS:
        axes.locator_params(axis="x", nbins=6, integer=True)
        return
    short = [text if len(text) <= 9 else f"{text[:8]}…" for text in labels]
    long = max(map(len, short)) * len(short) > 26
    axes.set_xticks(range(field["size"]), short, rotation=35 if long else 0,
                    ha="right" if long else "center")  # fmt: skip


def pairs(found: Found) -> Any:
    """How much of the structure between fields is missed, and by whom; classifiers beside it."""
    rows = {name: row for name, row in found["customers"].items()
            if isinstance(row, Mapping) and "pair_kl" in row}  # fmt: skip
    order = ["fresh", "simulator", *[n for n in rows if n not in ("fresh", "simulator")]]
    order = [name for name in order if name in rows][::-1]
    figure = new_figure(7.2, 1.0 + 0.4 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(order))
    colors = inks(order)
    # Where fields do not hang together, an independent sampler misses nothing: no measure.
    told = any(c["name"] == "pairs" and c["telling"] for c in found["checks"])
    floor = rows["independent"]["pair_kl"] if told else 1.0
    left.barh(at, [rows[name]["pair_kl"] / floor for name in order], 0.6, color=colors)
    left.set_yticks(at, [called(name) for name in order])
    if told:
        left.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    left.locator_params(axis="x", nbins=5)
    left.set_title("Missed between pairs of fields", loc="left", color=INK, fontsize=10)
    left.set_xlabel("share of the independent sampler's" if told else "KL of all pairs, nat")
    low, high = rows["simulator"]["auc_null"]
    right.axvspan(low, high, color=FAINT, linewidth=0)
    right.scatter([rows[name]["auc"] for name in order], at, s=48, color=colors, zorder=3)
    right.set_xlim(min(0.45, low - 0.02), 1.0)
    right.set_title("Told from real customers", loc="left", color=INK, fontsize=10)
    right.set_xlabel("area under the curve; band: by chance")
    for axes in (left, right):
        dress(axes, "x")
    right.tick_params(axis="y", length=0)
    right.spines["left"].set_visible(False)
    return figure


def pair_map(found: Found) -> Any:
    """The divergence of each pair of fields: the simulator's beside an independent sampler's.

    One scale for both, of square roots, so that small ones are seen beside large ones; its end is
    four times what fresh real customers come to at most, or more: chance is never dark.
    """
    every, rows = [field["name"] for field in found["fields"]], found["customers"]
    tables = {name: _square(rows[name]["pair_kls"], len(every))
              for name in ("simulator", "independent")}  # fmt: skip
    shown = np.arange(len(every))
    if len(every) > _FIELDS:
        # Those that the worst pairs are made of, in the order of the schema.
        worst = np.max(tables["simulator"], axis=1)
        shown = np.sort(np.argsort(-worst, kind="stable")[:_FIELDS])
    names = [_cut(every[at]) for at in shown]
    top = max(4 * max(rows["fresh"]["pair_kls"]), *(table.max() for table in tables.values()))
    size = len(names)
    # About squares; names of many fields are small, but all there.
    figure = new_figure(7.6, min(4.1, 1.6 + 0.25 * size))
    panels = figure.subplots(1, 2, sharey=True)
    marked = {tuple(sorted(pair["fields"])): str(number)
              for number, pair in enumerate(found["pairs"]["worst"], 1)}  # fmt: skip
    letters, drawn = min(9.0, 130 / size), None
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        drawn = axes.add_collection(_lower(table[np.ix_(shown, shown)], top))
        axes.set_xlim(0, size - 1)
        # The first field is nobody's row, the last nobody's column.
        axes.set_xticks(np.arange(size - 1) + 0.5, names[:-1], rotation=90, fontsize=letters)
        axes.set_yticks(np.arange(1, size) + 0.5, names[1:], fontsize=letters)
        axes.set_title(called(name), loc="left", color=INK, fontsize=10)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=INK)
        for (one, other), number in marked.items():
            places = [every.index(field) for field in (one, other)]
            if not set(places) <= set(shown.tolist()):
                continue
            column, row = sorted(np.searchsorted(shown, places).tolist())
            axes.add_patch(_frame(column, row))
            axes.annotate(number, (column + 1, row), (2, 2), textcoords="offset points",
                          color=MORE[1], fontsize=8, fontweight="bold")  # fmt: skip
    panels[0].set_ylim(size, 1)
    bar = figure.colorbar(drawn, ax=panels, shrink=0.75, pad=0.02)
    bar.set_label("KL(real || sampler), nat", color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8, length=2)
    bar.outline.set_visible(False)
    if len(every) > size:
        _say(figure, f"{size} of {len(every)} fields shown: those of the simulator's worst pairs")
    return figure


def _square(values: list[float], fields: int) -> Any:
    """Figures of all pairs, as `itertools.combinations` has them, in a symmetric square."""
    table = np.zeros((fields, fields))
    table[np.triu_indices(fields, 1)] = values
    return table + table.T


def _lower(table: Any, top: float) -> Any:
    """The cells below the diagonal: those above it would say the same again."""
    from matplotlib.collections import PolyCollection

    rows, columns = np.tril_indices(len(table), -1)
    corners = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
               for x, y in zip(columns, rows, strict=True)]  # fmt: skip
    return PolyCollection(corners, array=table[rows, columns], cmap=_shades(), norm=_roots(top),
                          edgecolors=FAINT, linewidths=0.4)  # fmt: skip


def _cut(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _shades() -> Any:
    """One ink, ever denser: whatever the page's colour is shines through."""
    from matplotlib.colors import ListedColormap, to_rgb

    # Fewer than fifty: longer scales become bitmaps, whose ink would not follow the page.
    return ListedColormap([(*to_rgb(INK), part) for part in np.linspace(0.0, 1.0, 40)])


def _roots(top: float) -> Any:
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, 0.0, top or 1.0)


def _frame(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (column, row), 1, 1, fill=False, edgecolor=MORE[1], linewidth=1.4, zorder=3, clip_on=False
    )
