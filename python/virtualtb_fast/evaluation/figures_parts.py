"""What figures share: inks, names, sizes, and how one becomes a file."""

from __future__ import annotations

import io
import re
from typing import Any, Final

from virtualtb_fast.errors import MissingExtraError

__all__ = [
    "COLORS",
    "FAINT",
    "INK",
    "MORE",
    "called",
    "dress",
    "image",
    "inks",
    "legend",
    "needs_matplotlib",
    "new_figure",
]

INK, FAINT = "#22303c", "#d9dee3"
COLORS: Final = {
    "real": "#7a8894",
    "fresh": "#3a9a68",
    "simulator": "#2f6db5",
    "guard": "#d9772b",
}
"""One colour a side: the same in all figures. Further samplers take those of `MORE`."""
MORE: Final = ("#8a63b0", "#c04a5e", "#b08a2e", "#4aa3a8", "#6b7f2f", "#a0568f")


def needs_matplotlib() -> None:
    """Raises `MissingExtraError` if there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        message = 'reports need matplotlib: pip install "virtualtb-fast[report]"'
        raise MissingExtraError(message) from error


def new_figure(width: float, height: float) -> Any:
    """A figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def dress(axes: Any, grid: str = "y") -> None:
    """Inks and lines of axes."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def legend(where: Any, **options: Any) -> None:
    """A legend without a frame."""
    where.legend(frameon=False, fontsize=9, labelcolor=INK, **options)


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


def inks(names: list[str]) -> list[str]:
    """A colour a sampler."""
    more = iter(MORE * (1 + len(names) // len(MORE)))
    known = COLORS | {"independent": COLORS["guard"], "uniform": COLORS["guard"]}
    return [known[name] if name in known else next(more) for name in names]


def called(name: str) -> str:
    """What a side, a sampler or a method is called in figures."""
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
