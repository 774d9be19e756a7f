"""Samplers of customers: what was asked beside what was measured.

Rules are those of `test_committed_results`.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.statistical.committed import WORLDS, cell, read

TABLE1, FIGURE3, REAL = read("table1"), read("figure3"), read("real")


def test_rows_are_means_of_their_cells() -> None:
    """README quotes rows; bounds are held by cells."""
    assert tuple(TABLE1["worlds"]) == WORLDS
    assert not TABLE1["commit"].endswith("-dirty")
    held = {(one["sampler"], one["world"]) for one in TABLE1["cells"]}
    assert held == {(name, world) for name in TABLE1["rows"] for world in WORLDS}
    for name, row in TABLE1["rows"].items():
        for figure, (mean, _) in row.items():
            values = [cell(TABLE1, "sampler", name, world).get(figure) for world in WORLDS]
            assert mean == pytest.approx(np.mean(values)), (name, figure)


# --- GAN-SD, its default preset -----------------------------------------------------------------

MARGINAL_KL = 0.001
"""Of each field, nat, real || generated. Sanity alone: independent fields pass."""
PAIRS = 0.05
"""Of what independent fields miss of the divergences of the 55 pairs of fields."""
TRIPLES = 0.15
"""The same of 100 triples of fields, which no term of the loss fits."""
EXCESS = 0.20
"""Cross-entropy beyond the truth's entropy, as a share of independent fields'."""
AUC = 0.56
"""Of a fresh classifier between real and generated customers, on customers it did not see."""
VOID_AUC = 0.80
"""A classifier that gives independent fields less than this can tell nothing."""
NOVEL_UNIQUE = 0.30
"""Least share of the different customers generated who are not in the log: no mere copies. No guard
in these results: the log's own rows have a share of 0 in `tests/unit/test_reproduce.py`."""
NOVEL_MORE = 0.10
"""Most share of customers who are not in the log beyond fresh true ones': noise is new, too."""


@pytest.mark.parametrize("world", WORLDS)
def test_customers_of_gan_sd(world: int) -> None:
    names = ("gan-sd", "gmm", "independent", "fresh")
    gan, gmm, independent, fresh = (cell(TABLE1, "sampler", name, world) for name in names)
    assert TABLE1["settings"]["size"] == 100_000
    assert max(gan["marginal_kl"]) <= MARGINAL_KL < max(gmm["marginal_kl"])
    # The guard that passes: marginals say nothing of how fields hang together.
    assert max(independent["marginal_kl"]) <= MARGINAL_KL
    assert gan["ratio_pair"] <= PAIRS < min(gmm["ratio_pair"], independent["ratio_pair"])
    assert gan["ratio_triple"] <= TRIPLES < min(gmm["ratio_triple"], independent["ratio_triple"])
    # A mixture of Gaussians passes here in world 100; pairs, triples and classifier tell it apart.
    assert gan["ratio_excess"] <= EXCESS < independent["ratio_excess"]
    assert gan["auc"] <= AUC < gmm["auc"]
    assert independent["auc"] > VOID_AUC
    assert gan["novel_unique"] >= NOVEL_UNIQUE
    most = fresh["novel_rows"] + NOVEL_MORE
    assert gan["novel_rows"] <= most < independent["novel_rows"]


FIELDS_PAIRS = 0.20
"""Of the preset without pairs, as `PAIRS`."""
FIELDS_AUC = 0.62
"""Of the same, as `AUC`."""


@pytest.mark.parametrize("world", WORLDS)
def test_customers_of_gan_sd_without_pairs(world: int) -> None:
    names = ("gan-sd-fields", "gmm", "independent")
    fields, gmm, independent = (cell(TABLE1, "sampler", name, world) for name in names)
    assert fields["ratio_pair"] <= FIELDS_PAIRS < min(gmm["ratio_pair"], independent["ratio_pair"])
    assert fields["auc"] <= FIELDS_AUC < gmm["auc"]
    assert independent["auc"] > VOID_AUC


LOST = pytest.mark.xfail(reason="measured: .0106 nat; one category comes at a third of its share")


@pytest.mark.parametrize("world", [*WORLDS[:-1], pytest.param(WORLDS[-1], marks=LOST)])
def test_worst_field_of_gan_sd_without_pairs(world: int) -> None:
    found, gmm = (cell(TABLE1, "sampler", name, world) for name in ("gan-sd-fields", "gmm"))
    assert max(gmm["marginal_kl"]) > MARGINAL_KL
    assert max(found["marginal_kl"]) <= MARGINAL_KL


def test_the_aims_in_the_table_are_these() -> None:
    """README prints them from the results."""
    pairs = (MARGINAL_KL, PAIRS, TRIPLES, EXCESS, AUC)
    keys = ("worst_kl", "ratio_pair", "ratio_triple", "ratio_excess", "auc")
    assert TABLE1["aims"]["pairs"] == dict(zip(keys, pairs, strict=True))
    fields = {"worst_kl": MARGINAL_KL, "ratio_pair": FIELDS_PAIRS, "auc": FIELDS_AUC}
    assert TABLE1["aims"]["fields"] == fields


def test_the_published_generator_is_another_shops() -> None:
    """It meets no aim in any world, and the note under the table says so."""
    for world in WORLDS:
        found = cell(TABLE1, "sampler", "published", world)
        assert min(found["ratio_pair"] / PAIRS, found["ratio_triple"] / TRIPLES) > 1
        assert found["ratio_excess"] > EXCESS
        assert found["auc"] > AUC
        assert max(found["marginal_kl"]) > MARGINAL_KL
    assert any("meets none of the aims" in note for note in TABLE1["notes"])


def test_fields_alone_tell_nothing_of_customers() -> None:
    """Figure 3: independent fields come as close as anything; a Gaussian mixture does not."""
    rows = {name: [mean for mean, _ in row.values()] for name, row in FIGURE3["rows"].items()}
    for name in ("independent", "gan-sd"):
        assert max(rows[name]) <= MARGINAL_KL < max(rows["gmm"]), name
    assert len(rows["gan-sd"]) == 11
    for field in FIGURE3["fields"]:
        for sampler, shares in field["shares"].items():
            assert len(shares) == field["size"], sampler
            assert sum(shares) == pytest.approx(1)


def test_peoples_own_customers() -> None:
    """No bounds were set for these: what was learned, against guards on the same split."""
    users = REAL["tables"]["kuairand"]["rows"]
    assert users["gan-sd"]["seeds"] == list(WORLDS)
    for world in map(str, WORLDS):
        auc = {name: row["by_seed"]["auc"][world] for name, row in users.items()}
        assert auc["gan-sd"] < min(auc["lca"], auc["gmm"], auc["independent"])
        # Guards: what knows no structure is told from real users nearly always.
        assert auc["independent"] > VOID_AUC
        pairs = {name: row["by_seed"]["ratio_pair"][world] for name, row in users.items()}
        assert pairs["gan-sd"] < 0.5 < min(pairs["gmm"], pairs["independent"])
        counts = REAL["tables"]["virtualtb-counts"]["rows"]
        kl = {name: row["by_seed"]["field_kl"][world] for name, row in counts.items()}
        assert kl["gan-sd"] <= MARGINAL_KL < kl["gmm"]
