"""The figures of a fidelity report, each drawn from the report's JSON and from nothing else.

`FIGURES` has them by name: functions of the object that `fidelity` returns (or that was read from
its file), which give a matplotlib figure. `image` turns one into PNG, or into SVG whose inks are
those of the page it stands on, so that one drawing does for light and dark. Nothing here computes
what is not in the JSON.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from virtualtb_fast.errors import MissingExtraError

__all__ = ["FIGURES", "drift", "image", "marginals", "needs_matplotlib", "table_bars"]

INK, FAINT = "#22303c", "#d9dee3"
COLORS: Final = {
    "real": "#7a8894",
    "fresh": "#3a9a68",
    "simulator": "#2f6db5",
    "guard": "#d9772b",
}
"""One colour a side: the same in all figures. Further samplers take those of `_MORE`."""
_MORE: Final = ("#8a63b0", "#c04a5e", "#b08a2e", "#4aa3a8", "#6b7f2f", "#a0568f")
_FIELDS: Final = 24
"""Fields that are drawn."""
_LABELS: Final = 12
"""Categories of a field whose names fit under its bars."""

Found = Mapping[str, Any]


def needs_matplotlib() -> None:
    """Raises `MissingExtraError` if there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = 'reports need matplotlib: pip install "virtualtb-fast[report]"'
        raise MissingExtraError(message) from error


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _dress(axes: Any, grid: str = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(where: Any, **options: Any) -> None:
    where.legend(frameon=False, fontsize=9, labelcolor=INK, **options)


def positions(found: Found) -> Any:
    """Every check on a line from fresh real sessions (0) to its void guard (1)."""
    checks = list(found["checks"])[::-1]
    figure = _figure(7.2, 0.9 + 0.42 * len(checks))
    axes = figure.subplots()
    for row, check in enumerate(checks):
        axes.plot([0, 1], [row, row], color=FAINT, linewidth=2, zorder=1)
        if check["position"] is None:
            axes.text(0.5, row, "cannot be told", ha="center", va="center", color=INK, fontsize=9)
            continue
        # A simulator may be worse than a guard: the figure goes on a little, and says how far.
        at = float(np.clip(check["position"], -0.08, 1.12))
        axes.scatter([at], [row], s=64, color=COLORS["simulator"], zorder=3, clip_on=False)
        if check["position"] > 1.12:
            text = f"{check['position']:.1f} x"
            axes.annotate(text, (at, row), (8, 0), textcoords="offset points", va="center",
                          color=INK, fontsize=9)  # fmt: skip
    rows = np.arange(len(checks))
    axes.scatter(np.zeros(len(rows)), rows, s=22, marker="|", color=COLORS["fresh"], zorder=2)
    axes.scatter(np.ones(len(rows)), rows, s=22, marker="|", color=COLORS["guard"], zorder=2)
    axes.set_yticks(rows, [check["title"] for check in checks])
    axes.set_xticks([0, 0.25, 0.5, 1], ["fresh real\nsessions", "close", "", "void\nguard"])
    axes.set_xlim(-0.12, 1.22)
    axes.set_ylim(-0.6, len(checks) - 0.4)
    _dress(axes, "x")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    return figure


def marginals(found: Found, *, without: tuple[str, ...] = ()) -> Any:
    """Shares of every field's categories, side by side (the paper's Figure 3)."""
    fields = list(found["fields"])[:_FIELDS]
    names = [name for name in fields[0]["shares"] if name not in ("fresh", "independent", *without)]
    columns = min(3, len(fields))
    rows = -(-len(fields) // columns)
    figure = _figure(3.1 * columns, 1.95 * rows + 0.4)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in panels[len(fields) :]:
        axes.set_visible(False)
    shown = dict(zip(names, _inks(names), strict=True))
    for axes, field in zip(panels, fields, strict=False):
        at, width = np.arange(field["size"]), 0.84 / len(names)
        for number, (name, color) in enumerate(shown.items()):
            place = at + (number - (len(names) - 1) / 2) * width
            axes.bar(place, field["shares"][name], width, color=color, label=_called(name))
        axes.set_title(field["name"], loc="left", color=INK, fontsize=10)
        _dress(axes)
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.locator_params(axis="y", nbins=4)
        _categories(axes, field)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(2 * columns, len(labels)),
                  frameon=False, fontsize=9, labelcolor=INK)  # fmt: skip
    return figure


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
    figure = _figure(7.2, 1.0 + 0.4 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(order))
    colors = _inks(order)
    floor = rows["independent"]["pair_kl"]
    left.barh(at, [rows[name]["pair_kl"] / floor for name in order], 0.6, color=colors)
    left.set_yticks(at, [_called(name) for name in order])
    left.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    left.set_title("Missed between pairs of fields", loc="left", color=INK, fontsize=10)
    left.set_xlabel("share of the independent sampler's")
    low, high = rows["simulator"]["auc_null"]
    right.axvspan(low, high, color=FAINT, linewidth=0)
    right.scatter([rows[name]["auc"] for name in order], at, s=48, color=colors, zorder=3)
    right.set_xlim(min(0.45, low - 0.02), 1.0)
    right.set_title("Told from real customers", loc="left", color=INK, fontsize=10)
    right.set_xlabel("area under the curve; band: by chance")
    for axes in (left, right):
        _dress(axes, "x")
    right.tick_params(axis="y", length=0)
    right.spines["left"].set_visible(False)
    return figure


def lengths(found: Found) -> Any:
    """Shares of sessions by number of pages."""
    shares = found["lengths"]["shares"]
    real = np.array(shares["real"])
    last = int(np.searchsorted(np.cumsum(real), 0.99)) + 1
    at = np.arange(1, min(last + 1, len(real)))
    figure = _figure(7.2, 3.2)
    axes = figure.subplots()
    axes.bar(at, real[at], 0.8, color=COLORS["real"], alpha=0.55, label="real")
    styles = {"simulator": ("simulator", "-", 2.0), "forgetful": ("guard", (0, (5, 3)), 1.4)}
    for name, (color, line, width) in styles.items():
        axes.plot(at, np.array(shares[name])[at], color=COLORS[color], linestyle=line,
                  linewidth=width, marker="o" if name == "simulator" else None, markersize=3,
                  label=_called(name))  # fmt: skip
    axes.set_xlabel("pages of the session")
    axes.set_ylabel("share of sessions")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    _dress(axes)
    _legend(axes)
    return figure


def pages(found: Found) -> Any:
    """Answers by number of the page, with the log's 95 % intervals."""
    held, rate = found["pages"], found["rate"]["name"]
    real = np.array(held["rate"]["real"])
    at = np.arange(1, len(real) + 1)
    figure = _figure(7.2, 3.2)
    axes = figure.subplots()
    axes.errorbar(at, real, held["half_width"], color=COLORS["real"], linewidth=0, elinewidth=1.6,
                  marker="o", markersize=4, label="real, 95 %")  # fmt: skip
    axes.plot(at, held["rate"]["simulator"], color=COLORS["simulator"], linewidth=2,
              label=_called("simulator"))  # fmt: skip
    axes.plot(at, held["rate"]["forgetful"], color=COLORS["guard"], linewidth=1.4,
              linestyle=(0, (5, 3)), label=_called("forgetful"))  # fmt: skip
    axes.set_xlabel("page of the session")
    axes.set_ylabel(rate)
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0)
    _dress(axes)
    _legend(axes, ncols=3, loc="lower left")
    return figure


def features(found: Found) -> Any:
    """Answers by feature, simulated against real (the paper's Figure 4)."""
    held, rate = found["features"], found["rate"]["name"]
    figure = _figure(7.2, 4.4)
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
                     linestyle=(0, (5, 3)), label=_called("blind"))  # fmt: skip
        for cell in _furthest(cells):
            text = f"{cell['field']} = {cell['label']}"
            # On the side where the diagonal, and so most of the others, is not.
            above = cell["rate"]["simulator"] > cell["rate"]["real"]
            axes.annotate(text, (cell["rate"]["real"], cell["rate"]["simulator"]),
                          (-6 if above else 6, -3), ha="right" if above else "left",
                          textcoords="offset points", color=INK, fontsize=8)  # fmt: skip
        axes.set_xlim(span)
        axes.set_ylim(span)
    axes.set_xlabel(f"{rate} in the log")
    axes.set_ylabel(f"{rate} simulated")
    _dress(axes, "both")
    _legend(axes, loc="upper left")
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
    figure = _figure(7.2, 3.2)
    axes = figure.subplots()
    axes.errorbar(at, real, held["half_width"], color=COLORS["real"], linewidth=1.2,
                  elinewidth=1.6, marker="o", markersize=4, label="real, 95 %")  # fmt: skip
    label = "simulators, one a part" if held["by_slice"] else _called("simulator")
    axes.plot(at, held["rate"]["simulator"], color=COLORS["simulator"], linewidth=2, marker="s",
              markersize=4, label=label)  # fmt: skip
    axes.plot(at, held["rate"]["pooled"], color=COLORS["guard"], linewidth=1.4,
              linestyle=(0, (5, 3)), label="one rate for all hours (guard)")  # fmt: skip
    axes.set_xticks(range(0, 25, 4), [f"{hour}:00" for hour in range(0, 25, 4)])
    axes.set_xlim(0, 24)
    axes.set_xlabel("hour of the day")
    axes.set_ylabel(rate)
    _dress(axes)
    _legend(axes)
    return figure


def table_bars(
    rows: Mapping[str, Mapping[str, tuple[float, float]]], titles: Mapping[str, str]
) -> Any:
    """Bars with 95 % intervals: a panel a figure, a bar a method.

    Args:
        rows: (mean, half width) by figure, by method.
        titles: Of the figures that are drawn, in order.
    """
    names = list(rows)[::-1]
    figure = _figure(2.6 * len(titles) + 1.2, 0.9 + 0.36 * len(names))
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
        axes.set_yticks(at, [_called(name) for name in names])
        _dress(axes, "x")
    return figure


def drift(found: Found) -> Any:
    """Lifts of R2P over days, in simulators and in the true store (the paper's Table 2).

    Args:
        found: ``days``, and ``rows`` by method of (mean, half width) in per cent under
            ``simulator_DAY`` and ``truth_DAY``.
    """
    days, rows = found["days"], found["rows"]
    guards = ("zero", "logger", "blind")
    methods = [name for name in rows if name not in guards]
    inks = dict(zip(methods, (COLORS["simulator"], *_MORE), strict=False))
    figure = _figure(8.4, 3.8)
    panels = figure.subplots(1, 2)
    for axes, (side, title) in zip(
        panels, (("simulator", "In each day's simulator"), ("truth", "In the true store")),
        strict=True,
    ):  # fmt: skip
        for number, (name, row) in enumerate(rows.items()):
            means, widths = np.array([row[f"{side}_{day}"] for day in days]).T
            # A little apart, so that intervals do not hide one another.
            at = np.arange(len(days)) + 0.07 * (number - (len(rows) - 1) / 2)
            if name in inks:
                axes.errorbar(at, means, widths, color=inks[name], linewidth=2, elinewidth=1.4,
                              marker="o", markersize=5, label=_called(name))  # fmt: skip
            else:
                color = COLORS["real" if name == "logger" else "guard"]
                style = ":" if name == "blind" else (0, (5, 3))
                axes.errorbar(at, means, widths, color=color, linewidth=1.4, linestyle=style,
                              elinewidth=1, label=_called(name))  # fmt: skip
        axes.set_xticks(range(len(days)), [f"day {day}" for day in days])
        axes.set_title(title, loc="left", color=INK, fontsize=10)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}%" if value else "0%")
        _dress(axes)
    panels[0].set_ylabel("R2P over the random engine's")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False,
                  fontsize=9, labelcolor=INK)  # fmt: skip
    return figure


FIGURES: Final[Mapping[str, Callable[[Found], Any]]] = {
    "positions": positions,
    "marginals": marginals,
    "pairs": pairs,
    "lengths": lengths,
    "pages": pages,
    "features": features,
    "hours": hours,
}
"""All figures by name, in the order of the page; ``hours`` needs a log with hours."""


def image(figure: Any, kind: str = "png") -> bytes:
    """A figure as a file's bytes: ``png`` on white, ``svg`` in the inks of the page around it."""
    import matplotlib

    buffer = io.BytesIO()
    if kind == "png":
        figure.savefig(buffer, format="png", dpi=150, facecolor="white")
        return buffer.getvalue()
    # Texts stay texts; a fixed salt and no date: the same JSON gives the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "virtualtb_fast"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'font: ([0-9.]+)px [^;"]*', r"font-size: \1px", text)
    for color, name in ((INK, "ink"), (FAINT, "faint"), ("#000000", "ink")):
        text = text.replace(color, f"var(--{name})")
    return text.encode()


def _inks(names: list[str]) -> list[str]:
    more = iter(_MORE * (1 + len(names) // len(_MORE)))
    known = COLORS | {"independent": COLORS["guard"], "uniform": COLORS["guard"]}
    return [known[name] if name in known else next(more) for name in names]


def _called(name: str) -> str:
    words = {
        "fresh": "fresh real",
        "independent": "independent (guard)",
        "forgetful": "all pages alike (guard)",
        "blind": "feature-blind (guard)",
        "zero": "zero action",
        "logger": "random engine",
        "guard": "trivially wrong (guard)",
        "linear": "linear in the action",
        "mail-paper": "MAIL, paper's reward",
        "bc": "BC",
        "mail": "MAIL",
        "bc+mail": "BC + MAIL",
        "gan-sd": "GAN-SD",
        "gan-sd-fields": "GAN-SD, fields",
        "gan-sd-paper": "GAN-SD, paper",
        "gan": "GAN",
        "wgan": "WGAN",
        "wgan-gp": "WGAN-GP",
        "gmm": "GMM",
        "lca": "latent classes",
        "ar": "autoregressive",
        "rows": "bootstrap",
        "published": "released generator",
    }
    return words.get(name, name)
