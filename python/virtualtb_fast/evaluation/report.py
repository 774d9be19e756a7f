"""A fidelity report as files: one page, its figures, and the JSON that both are made from.

The page stands alone: styles and figures are in it, nothing is fetched, no script runs. Figures are
drawings whose inks follow the page, light or dark, and whose texts can be searched; the same ones
lie beside it as PNG.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import string
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast

from virtualtb_fast._arguments import as_path, flag, function, parsed
from virtualtb_fast._training import write_atomically
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError
from virtualtb_fast.evaluation.fidelity import FORMAT, VERSION
from virtualtb_fast.evaluation.figures import FIGURES, image, needs_matplotlib, overview

__all__ = ["page", "read_report", "require_folder", "write_report"]

JSON_NAME: Final = "fidelity.json"
PAGE_NAME: Final = "fidelity.html"
_PAIRS: Final = 300
"""Pairs of fields that the page has the figures of: those of 24 fields."""

Found = Mapping[str, Any]

_PARTS: Final = (
    *("about", "checks", "customers", "features", "fields", "hours", "lengths", "pages"),
    *("left_out", "pairs", "rate", "sides", "truth", "verdict"),
)
"""What the page and its figures are made of."""

_SECTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "positions": (
        "Where it stands",
        "Each line goes from fresh real sessions, which are the best that can be had, to a guard "
        "that is trivially wrong in this respect. The dot is the simulator; where it is on the "
        "green part of its line, it is graded close.",
    ),
    "marginals": (
        "Who comes, field by field",
        "Shares of every category. Every sampler worth its name has these right, and so does one "
        "that draws all fields independently: read on.",
    ),
    "pairs": (
        "How fields hang together",
        "Left: KL of all pairs of fields, as a share of what an independent sampler misses, or in "
        "nat where that misses no more than fresh sessions do. Right: "
        "how well a classifier tells the customers from real ones that it has not seen; within the "
        "band it does not.",
    ),
    "pair_map": (
        "Pair by pair",
        "KL of every pair of fields, one scale for both samplers; up to its middle, it may be "
        "chance. Where beyond that the simulator's ink is as strong as the independent sampler's, "
        "it has not learned how the two fields hang together. Framed: the pairs that are furthest "
        "off beyond chance.",
    ),
    "lengths": (
        "How long sessions are",
        "Dashed: customers who leave every page with one probability.",
    ),
    "pages": (
        "Answers page by page",
        "Pages that enough real sessions came to. Dashed: one rate for all pages.",
    ),
    "features": (
        "Who answers how",
        "One dot a category of a field, as large as it has pages. On the diagonal the simulator "
        "answers as the log does; on the dashed line all features would be alike to it.",
    ),
    "hours": (
        "Over the day",
        "Twelve parts of two hours. Dashed: one rate for all hours.",
    ),
}


def require_folder(out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The folder of a report, made if it is not there.

    Raises:
        OutputError: it holds a report already and ``overwrite`` is false, it is a file, or the
            system refused.
    """
    folder, overwrite = Path(as_path(out)), flag("overwrite", overwrite)
    if (folder / JSON_NAME).exists() and not overwrite:
        raise OutputError(f"{folder}: expected no report there, got one (overwrite=True?)")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(folder)) from error
    return folder


def write_report(
    found: Found,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Writes ``fidelity.html``, ``fidelity.json``, a PNG a figure and ``overview.png``.

    Everything is written beside its name and renamed; the JSON comes last, so that a folder with
    one holds a whole report.

    Args:
        found: What `fidelity` returned.
        out: The folder.
        overwrite: Whether a report that is there may be replaced.
        progress: Called with (what is going on, how much of it is done, of how much).

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: there is a report already, or the system refused.
        InvalidArgumentError: ``found`` is nothing that `fidelity` returned.
    """
    function("progress", progress)
    text = _text_of(found)
    needs_matplotlib()
    folder = require_folder(out, overwrite=overwrite)
    # Figures are drawn from what a reader of the file gets, to the last digit.
    held = json.loads(text)
    written, names = [], figures_of(held)
    drawn: dict[str, bytes] = {}
    for number, name in enumerate(names):
        if progress is not None:
            progress("drawing", number, len(names))
        figure = FIGURES[name](held)
        drawn[name] = image(figure, "svg")
        written.append(_write(folder / f"{name}.png", image(figure)))
    written.append(_write(folder / "overview.png", image(overview(held))))
    written.append(_write(folder / PAGE_NAME, page(held, drawn).encode()))
    written.append(_write(folder / JSON_NAME, text.encode()))
    return written


def _text_of(found: Found) -> str:
    """A report as JSON, if it is one."""
    if not isinstance(cast(object, found), Mapping) or found.get("format") != FORMAT:
        got = type(found).__name__
        raise InvalidArgumentError(f"found: expected what fidelity returned, got a {got}")
    if found.get("version") != VERSION:
        got = f"one of version {found.get('version')!r}"
        raise InvalidArgumentError(f"found: expected a report of version {VERSION}, got {got}")
    lacking = [name for name in _PARTS if name not in found]
    if lacking:
        expected = "what fidelity returned"
        raise InvalidArgumentError(f"found: expected {expected}, got one without {lacking}")
    try:
        return json.dumps(found, indent=1, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"found: expected what JSON can hold, got {error}") from error


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads ``fidelity.json`` back.

    Raises:
        FileFormatError: it is no report.
        OutputError: it cannot be read.
    """
    name = as_path(path)
    try:
        held = parsed(name, Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise OutputError(error.errno, error.strerror, name).naming("a report (JSON)") from error
    except InvalidArgumentError as error:
        raise FileFormatError(str(error)) from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{name}: expected JSON, got {error}") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        got = repr(held.get("format")) if isinstance(held, dict) else f"a {type(held).__name__}"
        raise FileFormatError(f"{name}: expected a report of format {FORMAT!r}, got {got}")
    if held.get("version") != VERSION:
        raise FileFormatError(f"{name}: expected version {VERSION}, got {held.get('version')!r}")
    lacking = [part for part in _PARTS if part not in held]
    if lacking:
        raise FileFormatError(f"{name}: expected a whole report, got one without {lacking}")
    return held


def figures_of(found: Found) -> list[str]:
    """Names of the figures that this report has."""
    lacking = set()
    if found["hours"] is None:
        lacking.add("hours")
    if len(found["fields"]) < 2:
        lacking.add("pair_map")
    return [name for name in FIGURES if name not in lacking]


def page(found: Found, drawn: Mapping[str, bytes]) -> str:
    """The page, with its figures (SVG) in it."""
    about, sections = found["about"], []
    for name in figures_of(found):
        title, text = _SECTIONS[name]
        sections.append(
            f'<section id="{name}">\n<h2>{title}</h2>\n'
            f'<figure><div class="scroll">{_unique(drawn[name], name, title)}</div>'
            f"<figcaption>{text}</figcaption></figure>\n"
            + (f"<p>{_text(found['verdict']['worst_pairs'])}</p>\n" if name == "pair_map" else "")
            + (_verdicts(found) if name == "positions" else _table(found, name))
            + "</section>"
        )
    notes = "".join(f"<li>{_text(note)}</li>" for note in found["verdict"]["notes"])
    template = string.Template(
        (files("virtualtb_fast.evaluation") / "page.html").read_text(encoding="utf-8")
    )
    return template.substitute(
        title=f"How far to trust “{_text(about['simulator']['name'])}”",
        about=_about(found),
        headline=_text(found["verdict"]["headline"]),
        notes=f"<ul>{notes}</ul>",
        sections="\n".join(sections),
    )


def _about(found: Found) -> str:
    about, sides = found["about"], found["sides"]
    log, simulator = about["log"], about["simulator"]
    parts = (
        f"Log {log['name']}: {log['sessions']:,} sessions, {log['pages']:,} pages.",
        f"Simulator {simulator['digest'][:12]}: customers {simulator['customers']}, responses "
        f"{simulator['response']}, leaving {simulator['leave']};"
        f" {sides['simulator']['sessions']:,} sessions simulated.",
        f"{found['rate']['name']} ({found['rate']['what']}): {sides['real']['rate']:.4f} in the "
        f"log, {sides['simulator']['rate']:.4f} simulated.",
        f"Seed {about['seed']}, virtualtb-fast {about['versions']['virtualtb_fast']}.",
    )
    return " ".join(map(_text, parts))


def _verdicts(found: Found) -> str:
    rows = []
    for check in found["checks"]:
        digits = check["digits"]
        kind = check["grade"].replace(" ", "-")
        cells = "".join(
            f'<td data-head="{head}">{check[key]:.{digits}f}</td>'
            for head, key in (("simulator", "simulator"), ("fresh", "fresh"), ("guard", "guard"))
        )
        rows.append(
            f'<tr><th scope="row">{_text(check["title"])}</th>'
            f'<td class="grade {kind}">{check["grade"]}</td>{cells}</tr>'
        )
    says = "".join(
        f"<li><strong>{_text(check['title'])}.</strong> {_text(check['says'])} "
        f'<span class="figure">({_text(check["figure"])}; guard: {_text(check["guard_name"])})'
        "</span></li>"
        for check in found["checks"]
    )
    return (
        '<div class="wide"><table class="verdicts"><thead><tr><th>distance from the log</th>'
        "<th>grade</th><th>simulator</th><th>fresh real</th><th>void guard</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>\n<ul>{says}</ul>\n"
    )


def _table(found: Found, name: str) -> str:
    """The figures behind a drawing, for whoever wants them."""
    if name == "marginals":
        rows = found["customers"]
        names = [key for key, row in rows.items() if isinstance(row, dict) and "auc" in row]
        # Both ways: what a sampler never brings, and what it brings that never comes.
        head = ["KL by field, nat"]
        for key in names:
            head += [f"real || {key}", f"{key} || real"]
        body = [
            [field["name"]]
            + [
                f"{rows[key][way][at]:.5f}"
                for key in names
                for way in ("marginal_kl", "marginal_kl_back")
            ]
            for at, field in enumerate(found["fields"])
        ]
    elif name == "pairs":
        rows = found["customers"]
        head = ["sampler", "all pairs, nat", "area (AUC)", "not among real ones"]
        body = [
            [key, f"{row['pair_kl']:.4f}", f"{row['auc']:.4f}", f"{row['novel_rows']:.1%}"]
            for key, row in rows.items()
            if isinstance(row, dict) and "auc" in row
        ]
    elif name == "pair_map":
        head, body = _pair_table(found)
    elif name == "features":
        head = ["field = category", "pages", "in the log", "fresh real", "simulated"]
        body = [
            [f"{cell['field']} = {cell['label']}", f"{cell['pages']:,}"]
            + [f"{cell['rate'][key]:.4f}" for key in ("real", "fresh", "simulator")]
            for cell in found["features"]["cells"]
        ]
    else:
        return ""
    lines = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    heads = "".join(f"<th>{_text(one)}</th>" for one in head)
    return (
        "<details><summary>The figures</summary>"
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
        "</div></details>\n"
    )


def _pair_table(found: Found) -> tuple[list[str], list[list[str]]]:
    """All pairs of fields, the simulator's worst first."""
    rows = {key: row["pair_kls"] for key, row in found["customers"].items()
            if isinstance(row, dict) and "pair_kls" in row}  # fmt: skip
    pairs = list(itertools.combinations([field["name"] for field in found["fields"]], 2))
    order = sorted(range(len(pairs)), key=lambda at: rows["fresh"][at] - rows["simulator"][at])
    shown = order[:_PAIRS]
    what = "pairs" if len(shown) == len(pairs) else f"{len(shown)} of {len(pairs)} pairs"
    head = [f"KL(real || sampler), nat: {what}", *rows]
    body = [
        [" and ".join(pairs[at]), *(f"{values[at]:.5f}" for values in rows.values())]
        for at in shown
    ]
    return head, body


def _unique(svg: bytes, name: str, title: str) -> str:
    """A drawing whose ids are its own on the page, and which says what it is."""
    text = svg.decode()
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{_text(title)}" ', 1)


def _text(value: object) -> str:
    return html.escape(str(value))


def _write(path: Path, data: bytes) -> Path:
    with write_atomically(path) as file:
        file.write(data)
    return path
