"""Fidelity reports as files: one page, its figures, the JSON that they are drawn from."""

from __future__ import annotations

import html.parser
import itertools
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
from virtualtb_fast.evaluation.verdict import verdict
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
        sides = ("real", "simulator", "independent", "rows")
        assert heights == [share for side in sides for share in field["shares"][side]]


def test_pairs_are_shares_of_what_an_independent_sampler_misses(found: dict[str, Any]) -> None:
    order = ("rows", "independent", "simulator", "fresh")
    values = [found["customers"][name]["pair_kl"] for name in order]
    floor = found["customers"]["independent"]["pair_kl"]
    changed = json.loads(json.dumps(found))
    check = next(one for one in changed["checks"] if one["name"] == "pairs")
    # A simulator may be worse than a guard that proves nothing.
    for telling, position, unit in ((True, 0.5, floor), (False, None, 1.0), (False, 3.0, 1.0)):
        check |= {"telling": telling, "position": position}
        axes = figures.FIGURES["pairs"](changed).axes[0]
        widths = [patch.get_width() for patch in axes.patches]
        assert widths == pytest.approx([value / unit for value in values])
        assert ("share" in axes.get_xlabel()) == telling


def test_every_pair_of_fields_is_on_the_map(found: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(found))
    names = [field["name"] for field in found["fields"]]
    worst = {"fields": [names[2], names[5]], "chance": 0.001}
    values = {"simulator": 0.25, "fresh": 0.001, "independent": 0.5}
    changed["pairs"]["worst"] = [worst | {"kl": values}]
    at = list(itertools.combinations(range(len(names)), 2)).index((2, 5))
    for name, value in values.items():
        changed["customers"][name]["pair_kls"][at] = value
    axes = figures.FIGURES["pair_map"](changed).axes[:2]
    for one, name in zip(axes, ("simulator", "independent"), strict=True):
        cells = one.collections[0]
        kls = changed["customers"][name]["pair_kls"]
        assert sorted(cells.get_array()) == sorted(kls)
        # The darkest cell that is framed is that of the two fields, by their names.
        (frame,) = one.patches
        assert one.get_xticklabels()[2].get_text() == names[2]
        assert axes[0].get_yticklabels()[4].get_text() == names[5]
        assert frame.get_xy() == (2, 5)
        place = next(i for i, path in enumerate(cells.get_paths())
                     if path.vertices[0].tolist() == [2, 5])  # fmt: skip
        assert cells.get_array()[place] == values[name]
    # One scale for both, whose chance is in its lower half.
    scales = {(one.collections[0].norm.vmin, one.collections[0].norm.vmax) for one in axes}
    fresh = max(changed["customers"]["fresh"]["pair_kls"])
    assert len(scales) == 1
    assert scales.pop()[1] >= max(4 * fresh, 0.5)


def many_fields(found: dict[str, Any], count: int) -> dict[str, Any]:
    """A report of so many fields, whose last one hangs together with the first least of all."""
    changed = json.loads(json.dumps(found))
    old = changed["fields"]
    changed["fields"] = [{**old[n % len(old)], "name": f"f{n}"} for n in range(count)]
    pairs = list(itertools.combinations(range(count), 2))
    for row in changed["customers"].values():
        if isinstance(row, dict) and "pair_kls" in row:
            row["pair_kls"] = [0.001 + 0.00001 * n for n in range(len(pairs))]
            row["marginal_kl"] = row["marginal_kl_back"] = [0.001] * count
    changed["customers"]["simulator"]["pair_kls"][pairs.index((0, count - 1))] = 0.3
    return changed


def test_fields_that_are_not_drawn_are_counted(found: dict[str, Any]) -> None:
    for count in (24, 40):
        changed = many_fields(found, count)
        for name in ("marginals", "pair_map"):
            figure = figures.FIGURES[name](changed)
            said = figure.get_supxlabel()
            assert said.startswith(f"24 of {count} fields shown") == (count > 24), name
        ticks = figure.axes[0]
        names = {one.get_text() for one in (*ticks.get_xticklabels(), *ticks.get_yticklabels())}
        assert len(names) == 24
        # Those of the worst pair are there, however many there are.
        assert {"f0", f"f{count - 1}"} <= names
    text = page(changed, dict.fromkeys(figures.FIGURES, b"<svg></svg>"))
    assert "300 of 780 pairs" in text
    assert text.index("<td>f0 and f39</td>") < text.index("<td>f0 and f1</td>")


def test_every_row_has_its_own_bar(found: dict[str, Any]) -> None:
    """What the picture calls close is what the verdict calls close."""
    changed = json.loads(json.dumps(found))
    truth = {
        "customer_excess": {"simulator": 0.1, "fresh": 0.0, "independent": 1.0},
        "response_excess": {"simulator": 0.02, "constant": 0.04},
        "action_effect": {"simulator": 0.4, "blind": 0.0},
    }
    changed |= {"truth": truth}
    changed |= verdict(changed)
    axes = figures.FIGURES["positions"](changed).axes[0]
    bars = {one.get_gid(): one.get_xdata()[1] for one in axes.get_lines() if one.get_gid()}
    told = [check for check in changed["checks"] if check["position"] is not None]
    assert len(told) >= 4
    assert set(bars) == {f"close-{check['name']}" for check in told}
    dots = [one.get_offsets()[0] for one in axes.collections]
    titles = [one.get_text() for one in axes.get_yticklabels()]
    for check in told:
        close = bars[f"close-{check['name']}"]
        assert (check["position"] <= close) == (check["grade"] in ("close", "very close"))
        x = next(x for x, row in dots if titles[int(row)] == check["title"])
        assert x == pytest.approx(min(1.12, max(-0.08, check["position"])))
    # An effect of .4 is beyond the middle of its line, and close all the same.
    effect = next(check for check in told if check["name"] == "action_effect")
    assert effect["position"] == pytest.approx(0.6)
    assert effect["grade"] == "close"
    assert bars["close-action_effect"] == pytest.approx(0.7)
    # The guard of this test: the common bar would put it elsewhere.
    assert bars["close-customer_excess"] == 0.25


def test_both_divergences_of_fields_are_on_the_page(found: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(found))
    row = changed["customers"]["simulator"]
    row["marginal_kl"][0], row["marginal_kl_back"][0] = 0.12345, 0.54321
    text = page(changed, dict.fromkeys(figures.FIGURES, b"<svg></svg>"))
    table = text[text.index('<section id="marginals">') : text.index('<section id="pairs">')]
    for sampler in ("fresh", "simulator", "independent", "rows"):
        assert f"<th>real || {sampler}</th><th>{sampler} || real</th>" in table
    assert "<td>0.12345</td><td>0.54321</td>" in table
    assert table.count("<td>") == len(found["fields"]) * (1 + 2 * 4)


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
        "fidelity.html", "fidelity.json", "overview.png",
        *(f"{name}.png" for name in figures.FIGURES),
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
    path.write_text('{"format": "virtualtb_fast.fidelity", "version": 1}')
    with pytest.raises(FileFormatError, match="expected version 2, got 1"):
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
    # A quick baseline stands beside the simulator unasked.
    assert "gmm" in held["customers"]
    assert max(map(len, text.splitlines()[:9])) <= 80
    # Nothing of the work is left.
    assert not [path for path in out.iterdir() if path.is_dir()]
    assert cli.main([*words, "--out", str(out)]) == 2
    assert "expected no report there" in capsys.readouterr().err
    assert cli.main([*words, "--out", str(tmp_path / "bare"), "--baselines"]) == 0
    assert "gmm" not in read_report(tmp_path / "bare" / "fidelity.json")["customers"]
    capsys.readouterr()
    assert cli.main([*words, "--out", str(out), "--overwrite", "--seed", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in held} == held
    words[3] = str(tmp_path / "none.parquet")
    assert cli.main([*words, "--out", str(tmp_path / "other")]) == 2
    assert "none.parquet" in capsys.readouterr().err


def test_a_policy_that_was_trained_blind_is_called_so() -> None:
    """In table 2 ``blind`` is a policy, and no customer who is blind to features."""
    row = {f"{side}_{day}": (1.0, 0.5) for side in ("simulator", "truth") for day in (0, 30)}
    names = ("bc", "zero", "logger", "blind")
    figure = figures.drift({"days": [0, 30], "rows": dict.fromkeys(names, row)})
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["BC", "zero action", "random engine", "trained blind (guard)"]
