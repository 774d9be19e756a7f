"""Customers to fit samplers to and to judge them by: of ground-truth stores, and people's own."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import gymnasium
import numpy as np
from numpy.typing import NDArray

from virtualtb_fast.customers.table import Table
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError
from virtualtb_fast.evaluation import metrics
from virtualtb_fast.schema import V0_SCHEMA, Field
from virtualtb_fast.store import GroundTruthStore

__all__ = [
    "FRESH",
    "GENERATED",
    "KUAIRAND",
    "REAL_USERS",
    "TRAIN",
    "CustomerData",
    "counted_customers",
    "kuairand_customers",
    "published_counts",
    "real_customers",
    "store_customers",
]

TRAIN, FRESH, MORE, GENERATED = 1, 2, 3, 4
"""Purposes of draws: run r of purpose p has the base seed ``(r << 32) | (p << 24)``."""


@dataclass(frozen=True, slots=True)
class CustomerData:
    """Customers to fit to and to judge by."""

    name: str
    """What the cells' files are called."""
    seed: int
    """Run number: fits and draws are seeded by it."""
    fields: tuple[Field, ...]
    """What a customer is."""
    train: NDArray[np.uint8]
    """What samplers are fitted to."""
    held_out: NDArray[np.uint8]
    """Real customers for the classifier."""
    fresh: NDArray[np.uint8]
    """Other real customers, which stand in for generated ones."""
    truth: metrics.Mixture | None = None
    """The density, where it is known."""
    entropy: float = float("nan")
    """Of the density, in nat."""

    @property
    def sizes(self) -> list[int]:
        """Categories of each field."""
        return [field.size for field in self.fields]

    def base(self, purpose: int) -> int:
        """The base seed of a purpose."""
        return self.seed << 32 | purpose << 24


def store_customers(seed: int, size: int = 100_000) -> CustomerData:
    """Customers of the first pages of sessions in the store ``seed << 32``, and their density.

    Args:
        seed: Run number: tune on 0 to 4, report on 100 to 104.
        size: Customers to fit to, and as many each held out and fresh.
    """
    store = GroundTruthStore(seed << 32)
    hidden = store.reveal()

    def drawn(purpose: int) -> NDArray[np.uint8]:
        environments = gymnasium.make_vec(
            "virtualtb_fast:GroundTruthStore-v0",
            num_envs=size,
            store=store,
            autoreset_mode="SameStep",
        )
        observations, _ = environments.reset(seed=seed << 32 | purpose << 24)
        environments.close()
        return store.schema.codes(observations)

    calibration = hidden.calibration or {}
    return CustomerData(
        f"store-{seed}",
        seed,
        store.schema.customer,
        drawn(TRAIN),
        drawn(FRESH),
        drawn(MORE),
        metrics.Mixture(hidden.shares, hidden.fields),
        float(calibration["entropy"]),
    )


def real_customers(
    name: str, codes: NDArray[np.uint8], fields: Sequence[Field], seed: int
) -> CustomerData:
    """Customers of one's own, a fifth of them held out.

    The row ``fresh`` compares one half of these with the other, so its classifier sees half as many
    as those of samplers do.

    Args:
        name: What the cells' files are called.
        codes: Category codes (n, F), n at least 200.
        fields: The F fields.
        seed: Of the split; also the run number of fits and draws.

    Raises:
        InvalidArgumentError: fewer than 200 customers.
    """
    if len(codes) < 200:
        raise InvalidArgumentError(f"customers: expected 200 or more, got {len(codes)}")
    order = np.random.default_rng([seed, len(codes)]).permutation(len(codes))
    held, train = np.split(codes[order], [len(codes) // 5])
    return CustomerData(f"{name}-{seed}", seed, tuple(fields), train, held, held[len(held) // 2 :])


def counted_customers(
    name: str, counts: NDArray[np.int64], fields: Sequence[Field], seed: int
) -> CustomerData:
    """Customers of whom nothing but each field's counts is known: fields are taken as independent.

    Args:
        name: What the cells' files are called.
        counts: Customers of each category, the fields' blocks side by side, (W,).
        fields: The F fields, each with the same number of customers in all.
        seed: Of how fields are put together; also the run number of fits and draws.

    Raises:
        InvalidArgumentError: counts that do not fit the fields, or one another.
    """
    parts = np.split(np.asarray(counts), np.cumsum([one.size for one in fields])[:-1])
    totals = {int(part.sum()) for part in parts}
    if len(totals) != 1 or any(len(p) != f.size for p, f in zip(parts, fields, strict=True)):
        raise InvalidArgumentError(f"counts: expected one total for all fields, got {totals}")
    total = totals.pop()
    random = np.random.default_rng([seed, total])

    def put_together() -> NDArray[np.uint8]:
        columns = [random.permutation(np.repeat(np.arange(len(p)), p)) for p in parts]
        return np.stack(columns, axis=1).astype(np.uint8)

    shares = np.concatenate(parts) / total
    return CustomerData(
        f"{name}-{seed}",
        seed,
        tuple(fields),
        put_together(),
        put_together(),
        put_together(),
        metrics.Mixture(np.ones(1), shares[None]),
        sum(metrics.entropy(part / total) for part in parts),
    )


KUAIRAND: Final = "kuairand_pure/user_features_pure.csv"
"""KuaiRand-Pure's users (Gao et al., CIKM 2022), under ``VIRTUALTB_DATA``."""
REAL_USERS: Final = "virtualtb_real_users/kmeans100_dataset_summary.npz"
"""Field counts of the published data set of VirtualTB-v0, likewise."""


def kuairand_customers(path: str | os.PathLike[str], seed: int) -> CustomerData:
    """KuaiRand's users: categories, of which 40 are kept a column, and numbers in 16 bins.

    Ranges of columns that are there themselves are left out, and so is the user's number.

    Raises:
        OutputError: the file cannot be read.
        FileFormatError: it is no table of text with a row for each user.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error
    except (ValueError, csv.Error) as error:
        raise FileFormatError(f"{path}: expected a table of users (CSV), got {error}") from error
    if not rows or "user_id" not in rows[0]:
        got = f"columns {list(rows[0])[:5]}" if rows else "no rows"
        raise FileFormatError(f"{path}: expected users with a user_id, got {got}")
    uneven = next((n for n, row in enumerate(rows) if None in row or None in row.values()), None)
    if uneven is not None:
        expected = f"{len(rows[0])} columns in each row"
        raise FileFormatError(f"{path}: expected {expected}, got others in row {uneven}")
    names = [name for name in rows[0] if name != "user_id" and not name.endswith("_range")]
    numeric = [name for name in names if name.endswith(("_num", "_days"))]
    data = {
        name: np.array([row[name] if row[name] else None for row in rows], object) for name in names
    }
    table = Table.of(data, numeric=numeric, bins=16, largest=40)
    return real_customers("kuairand", table.encode(data), table.fields, seed)


def published_counts(path: str | os.PathLike[str], seed: int) -> CustomerData:
    """Customers with the field counts of VirtualTB-v0's data set of 100,000.

    Raises:
        OutputError: the file cannot be read.
        FileFormatError: it holds no counts of VirtualTB-v0's fields.
    """
    expected = f"column_sums of {V0_SCHEMA.customer_width} counts in an archive (.npz)"
    try:
        with np.load(path) as file:
            counts = np.asarray(file["column_sums"], np.float64)
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error
    # What is no archive is an array, which has no columns by name, or anything at all.
    except Exception as error:
        raise FileFormatError(f"{path}: expected {expected}, got {error!r}") from error
    if counts.shape != (V0_SCHEMA.customer_width,) or not ((counts >= 0) & (counts < 2**53)).all():
        got = f"shape {counts.shape} or numbers that are no counts"
        raise FileFormatError(f"{path}: expected {expected}, got {got}")
    rounded = np.round(counts).astype(np.int64)
    return counted_customers("virtualtb-counts", rounded, V0_SCHEMA.customer, seed)
