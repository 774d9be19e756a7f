"""Fidelity reports as files: one page, its figures, the JSON that they are drawn from."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast import cli
from virtualtb_fast.errors import FileFormatError, MissingExtraError, OutputError
from virtualtb_fast.evaluation import figures, report
from virtualtb_fast.evaluation.fidelity import fidelity
from virtualtb_fast.evaluation.report import page, read_report, write_report
from virtualtb_fast.rollout import rollout

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def found(simulator: vtb.Simulator) -> dict[str, Any]:
    log = rollout(simulator, "gaussian:0.1", sessions=3_000, seed=2).log
    made = fidelity(log, simulator, judged=300, baselines=["rows"])
    # What a log with hours would have.
    slices = np.arange(12)
    rate = {name: (0.04 + 0.01 * np.sin(slices + n)).tolist()
            for n, name in enumerate(("real", "fresh", "simulator", "pooled"))}  # fmt: skip
    made["hours"] = {
        "pages": [1_000] * 12, "rate": rate, "half_width": [0.004] * 12, "by_slice": True,
        "pearson": dict.fromkeys(rate, 0.5), "error": dict.fromkeys(rate, 0.01),
    }  # fmt: skip
    return json.loads(json.dumps(made))


@pytest.fixture(scope="module")
def written(found: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    write_report(found, folder)
    return folder


def line(axes: Any, label: str) -> np.ndarray:
    return next(one.get_ydata() for one in axes.get_lines() if one.get_label() == label)


def test_figures_show_the_figures_of_the_file(written: Path) -> None:
    """What is drawn is what the file holds, so what tests read is what people see."""
    held = read_report(written / "fidelity.json")
    axes = figures.pages(held).axes[0]
    assert line(axes, "simulator").tolist() == held["pages"]["rate"]["simulator"]
    axes = figures.hours(held).axes[0]
    assert line(axes, "simulators, one a part").tolist() == held["hours"]["rate"]["simulator"]
    dots = figures.features(held).axes[0].collections[0].get_offsets()
    wanted = [[c["rate"]["real"], c["rate"]["simulator"]] for c in held["features"]["cells"]]
    assert np.asarray(dots).tolist() == wanted
    bars = figures.lengths(held).axes[0].patches
    assert [bar.get_height() for bar in bars] == held["lengths"]["shares"]["real"][
        1 : len(bars) + 1
    ]
    panels = figures.marginals(held).axes
    for axes, field in zip(panels, held["fields"], strict=False):
        heights = [bar.get_height() for bar in axes.patches]
        assert heights[: field["size"]] == field["shares"]["real"]
        assert field["shares"]["rows"] == heights[-field["size"] :]
    places = [patch.get_width() for patch in figures.pairs(held).axes[0].patches]
    floor = held["customers"]["independent"]["pair_kl"]
    assert max(places) == pytest.approx(
        max(held["customers"][n]["pair_kl"] for n in ("fresh", "simulator", "independent", "rows"))
        / floor
    )


def test_another_file_gives_another_figure(found: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(found))
    changed["pages"]["rate"]["simulator"][0] *= 2
    assert figures.image(figures.pages(changed)) != figures.image(figures.pages(found))
    assert figures.image(figures.pages(found)) == figures.image(figures.pages(found))
    svg = figures.image(figures.pages(found), "svg")
    assert svg == figures.image(figures.pages(found), "svg")
    assert svg != figures.image(figures.pages(changed), "svg")


class Page(html.parser.HTMLParser):
    """Tags that are open, ids, and what would be fetched."""

    EMPTY = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self._look(attrs)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self._look(attrs)

    def _look(self, attrs: Any) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def test_the_page_stands_alone(written: Path, found: dict[str, Any]) -> None:
    text = (written / "fidelity.html").read_text(encoding="utf-8")
    seen = Page()
    seen.feed(text)
    assert seen.open == []
    assert seen.fetched == []
    assert len(set(seen.ids)) == len(seen.ids)
    assert not {"script", "link", "iframe", "object"} & seen.tags
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert used <= set(seen.ids)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'name="viewport"' in text
    # Inks follow the page: none of them is left as it was drawn.
    assert "var(--ink)" in text
    assert figures.INK not in text.split("</style>")[1]
    for check in found["checks"]:
        assert check["grade"] in text
    assert {path.name for path in written.iterdir()} == {
        "fidelity.html", "fidelity.json", *(f"{name}.png" for name in figures.FIGURES),
    }  # fmt: skip
    for name in figures.FIGURES:
        assert (written / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'id="{name}"' in text


def test_names_are_no_markup(found: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(found))
    changed["about"]["simulator"]["name"] = "<script>alert(1)</script>"
    changed["features"]["cells"][0]["label"] = "$a <b> & c"
    drawn = dict.fromkeys(figures.FIGURES, b"<svg width='1' height='1'></svg>")
    text = page(changed, drawn)
    assert "<script" not in text
    assert "$a &lt;b&gt; &amp; c" in text


def test_a_report_is_not_replaced_unasked(written: Path, found: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match="expected no report there"):
        write_report(found, written)
    before = (written / "fidelity.json").stat().st_mtime_ns
    write_report(found, written, overwrite=True)
    assert (written / "fidelity.json").stat().st_mtime_ns > before


def test_half_a_report_has_no_json(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> Path:
        raise OutputError(28, "No space left on device", str(path))

    monkeypatch.setattr(report, "_write", full)
    with pytest.raises(OutputError, match="No space left"):
        write_report(found, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_other_files_are_no_reports(tmp_path: Path) -> None:
    path = tmp_path / "fidelity.json"
    with pytest.raises(OutputError):
        read_report(path)
    for text in ("{", "[]", '{"format": "other"}'):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=r"fidelity\.json"):
            read_report(path)


def test_without_matplotlib_it_says_what_to_install(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"virtualtb-fast\[report\]"):
        write_report(found, tmp_path / "out")


def test_the_command_writes_what_it_says(
    simulator: vtb.Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.save(tmp_path / "sim.safetensors")
    log = str(tmp_path / "log.parquet")
    rollout(simulator, "random", sessions=300, seed=2, out=log)
    words = ["report", "fidelity", "--real", log, "--simulator", str(tmp_path / "sim.safetensors")]
    out = tmp_path / "out"
    assert cli.main([*words, "--out", str(out), "--seed", "4"]) == 0
    text, error = capsys.readouterr()
    assert error == ""
    held = read_report(out / "fidelity.json")
    assert held["about"]["seed"] == 4
    assert held["verdict"]["headline"] in text
    assert max(map(len, text.splitlines()[:9])) <= 80
    # Nothing of the work is left.
    assert not [path for path in out.iterdir() if path.is_dir()]
    assert cli.main([*words, "--out", str(out)]) == 2
    assert "expected no report there" in capsys.readouterr().err
    assert cli.main([*words, "--out", str(out), "--overwrite", "--seed", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in held} == held
    words[3] = str(tmp_path / "none.parquet")
    assert cli.main([*words, "--out", str(tmp_path / "other")]) == 2
    assert "none.parquet" in capsys.readouterr().err
