"""GAN-SD on ground-truth customers: the claims of its documentation, on one world for reports.

100,000 customers in and 100,000 out, with the default settings: some two minutes of one core. The
whole table, with all samplers and five worlds, is made by
``python -m virtualtb_fast.evaluation.customer_table``. Each bound has a sampler beside it, fitted
to the same customers in the same run, that does not meet it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import virtualtb_fast as vtb
from virtualtb_fast.customers import CustomerSampler
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.evaluation import customer_data, metrics
from virtualtb_fast.evaluation.customer_data import CustomerData
from virtualtb_fast.evaluation.customer_table import SAMPLERS, cell, customer_table, evaluate

pytest.importorskip("torch", reason="GAN-SD needs PyTorch")
pytest.importorskip("sklearn", reason="the classifier and the Gaussian mixture are scikit-learn's")

ROWS = ("fresh", "independent", "gmm", "rows")


@pytest.fixture(scope="module")
def customers() -> CustomerData:
    return customer_data.store_customers(100)


@pytest.fixture(scope="module")
def table(
    customers: CustomerData, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    out = tmp_path_factory.mktemp("table")
    rows = customer_table(out, [customers], (*ROWS, "gan-sd"))
    print(json.dumps([{k: v for k, v in one.items() if k != "report"} for one in rows]))
    return {one["sampler"]: one for one in rows}


def test_the_world_has_joint_structure(customers: CustomerData) -> None:
    alone = [metrics.joint_table(customers.truth, customers.sizes, (i,)) for i in range(11)]
    correlation = sum(metrics.entropy(one) for one in alone) - customers.entropy
    assert correlation >= 1.0


def test_marginals(table: dict[str, dict[str, Any]]) -> None:
    """A sanity check: fields that are drawn independently of one another pass it as well."""
    assert max(table["gan-sd"]["marginal_kl"]) <= 0.001
    assert max(table["independent"]["marginal_kl"]) <= 0.001
    assert max(table["gmm"]["marginal_kl"]) > 0.001


def test_pairs_of_fields(table: dict[str, dict[str, Any]]) -> None:
    """Of all 55 pairs, against their exact probabilities."""
    assert table["gan-sd"]["ratio_pair"] <= 0.05
    assert table["gmm"]["ratio_pair"] > 0.2
    assert table["independent"]["ratio_pair"] == 1


def test_triples_of_fields_which_no_loss_fits(table: dict[str, dict[str, Any]]) -> None:
    """Of a hundred random triples, as a share of what independent fields miss."""
    assert table["gan-sd"]["ratio_triple"] <= 0.15
    assert table["gmm"]["ratio_triple"] > 0.15
    assert table["independent"]["ratio_triple"] == 1


def test_generated_customers_are_likely_under_the_truth(table: dict[str, dict[str, Any]]) -> None:
    """The share is that of the independent sampler, which must be far off itself."""
    assert table["gan-sd"]["excess"] <= 0.20 * table["independent"]["excess"]
    assert table["independent"]["excess"] > 2
    assert abs(table["fresh"]["excess"]) < 0.03


def test_a_classifier_hardly_tells_them_from_real_ones(table: dict[str, dict[str, Any]]) -> None:
    """Of 20,000 real and as many generated ones, half of them held out."""
    low, high = table["fresh"]["auc_null"]
    assert low - 0.01 < table["fresh"]["auc"] < high + 0.01
    assert table["gan-sd"]["auc"] <= 0.56
    assert table["independent"]["auc"] > 0.80
    assert table["gmm"]["auc"] > 0.65


def test_customers_are_new_and_not_noise(table: dict[str, dict[str, Any]]) -> None:
    """Noise is new too, so fresh customers say how many new ones are right."""
    most = table["fresh"]["novel_rows"] + 0.10
    assert table["gan-sd"]["novel_unique"] >= 0.30
    assert table["gan-sd"]["novel_rows"] <= most
    assert table["rows"]["novel_unique"] == 0
    assert table["independent"]["novel_rows"] > most


def test_noise_matters(table: dict[str, dict[str, Any]], customers: CustomerData) -> None:
    """What it tells of the fields: half a nat or more."""
    assert table["gan-sd"]["noise_information"]["bound"] >= 0.5
    assert table["gan-sd"]["noise_information"]["fields"] >= 0.5
    # Void guard: a generator that ignores its noise.
    shares = [metrics.joint_table(customers.truth, customers.sizes, (i,)) for i in range(11)]
    deaf = np.tile(np.concatenate(shares), (2000, 1))
    bound, alone = metrics.noise_information(deaf, customers.sizes)
    assert max(bound, alone.sum()) < 0.01


def test_the_published_generator_has_marginals_and_nothing_else(
    published: vtb.Simulator, customers: CustomerData
) -> None:
    """Its own customers, fields shuffled against one another, cannot be told from it."""
    sampler = CustomerSampler.of(published)
    codes = sampler.sample(40_000, seed=1 << 32)
    shuffled = np.stack(
        [np.random.default_rng(i).permutation(column) for i, column in enumerate(codes.T)], 1
    )
    half = len(codes) // 2
    told = metrics.classifier_two_sample(codes[:half], shuffled[half:], seed=0)
    assert told.null[0] - 0.01 < told.auc < told.null[1] + 0.01
    bound, alone = metrics.noise_information(sampler.field_probabilities(20_000), customers.sizes)
    assert alone.max() <= 0.0045
    assert bound < 0.05
    # Void guard: the same of customers that have structure.
    real = customers.train[: len(codes)]
    mixed = np.stack(
        [np.random.default_rng(i).permutation(column) for i, column in enumerate(real.T)], 1
    )
    assert metrics.classifier_two_sample(real[:half], mixed[half:], seed=0).auc > 0.8


# --- the table ----------------------------------------------------------------------------------


def small(seed: int = 3) -> CustomerData:
    random = np.random.default_rng(seed)
    first, other = random.integers(0, 3, (2, 3000))
    second = (first + random.integers(0, 2, 3000)) % 3
    codes = np.stack((first, second, (first + second + (other == 0)) % 3), 1).astype(np.uint8)
    fields = tuple(vtb.schema.Field(name, 3) for name in "abc")
    return customer_data.real_customers("small", codes, fields, seed)


def test_a_table_does_only_what_is_missing(tmp_path: Path) -> None:
    fits: list[str] = []

    def counted(*arguments: Any, **settings: Any) -> CustomerSampler:
        fits.append("fit")
        return vtb.customers.fit_independent(*arguments, **settings)

    def run(samplers: tuple[str, ...]) -> list[dict[str, Any]]:
        return customer_table(tmp_path, [small()], samplers, fits={"counted": counted})

    rows = run(("counted", "fresh"))
    assert [one["sampler"] for one in rows] == ["independent", "counted", "fresh"]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["small-3-counted.json", "small-3-fresh.json", "small-3-independent.json"]
    assert run(("counted", "fresh")) == rows
    assert len(fits) == 1
    (tmp_path / "small-3-counted.json").unlink()
    again = run(("counted", "fresh", "rows"))
    assert len(fits) == 2
    timed = {"cpu_seconds", "wall_seconds"}
    for before, after in zip(rows, again, strict=False):
        assert {k: v for k, v in before.items() if k not in timed} == {
            k: v for k, v in after.items() if k not in timed
        }
    assert again[1]["ratio_pair"] == 1
    assert again[-1]["ratio_pair"] < 0.2
    with pytest.raises(InvalidArgumentError, match=r"got \['best'\]"):
        run(("best",))
    assert set(SAMPLERS) >= {"fresh", "gan-sd", "gmm", "gan", "wgan", "lca", "ar", "independent"}


def test_customers_of_ones_own_are_split_once() -> None:
    data = small()
    assert (len(data.train), len(data.held_out)) == (2400, 600)
    assert len(data.fresh) == 300
    assert np.array_equal(small().train, data.train)
    assert not np.array_equal(small(4).train[:50], data.train[:50])
    with pytest.raises(InvalidArgumentError, match="200 or more, got 100"):
        customer_data.real_customers("x", data.train[:100], data.fields, 0)


def test_counts_alone_make_customers_with_exactly_those() -> None:
    fields = small().fields
    counts = np.array([500, 300, 200, 10, 0, 990, 1, 2, 997])
    data = customer_data.counted_customers("counts", counts, fields, 0)
    for codes in (data.train, data.held_out):
        found = [np.bincount(codes[:, i], minlength=3) for i in range(3)]
        assert np.concatenate(found).tolist() == counts.tolist()
    with pytest.raises(InvalidArgumentError, match="one total"):
        customer_data.counted_customers("counts", counts[[0, 1, 2, 3, 4, 3, 6, 7, 8]], fields, 0)


def test_kuairand_has_structure_that_an_independent_sampler_lacks(data: Path) -> None:
    path = data / customer_data.KUAIRAND
    if not path.exists():
        pytest.skip(f"KuaiRand's users are not in {path}")
    users = customer_data.kuairand_customers(path, 100)
    assert len(users.train) + len(users.held_out) == 27_285
    fresh, guard, logged = (cell(users, name) for name in ("fresh", "independent", "rows"))
    low, high = fresh["auc_null"]
    assert low - 0.01 < fresh["auc"] < high + 0.01
    assert guard["auc"] > 0.95
    # What counting 5,457 held-out users costs is in both; structure is in one.
    assert logged["pair_kl"] < 0.4 * guard["pair_kl"]


def test_the_published_counts_are_met(data: Path) -> None:
    path = data / customer_data.REAL_USERS
    if not path.exists():
        pytest.skip(f"the published counts are not in {path}")
    users = customer_data.published_counts(path, 100)
    assert len(users.train) == 100_000
    sampler = vtb.customers.fit_latent_class(
        users.train, users.fields, config=vtb.customers.LatentClassConfig(components=1)
    )
    figures = evaluate(users, sampler.sample(100_000, seed=2))
    assert max(figures["marginal_kl"]) < 0.001
    # Void guard: equal shares.
    even = np.random.default_rng(0).integers(0, users.sizes, (100_000, 11)).astype(np.uint8)
    assert max(evaluate(users, even)["marginal_kl"]) > 0.1
