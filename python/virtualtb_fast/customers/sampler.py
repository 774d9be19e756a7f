"""A fitted sampler of customers: what every fit returns, and what a simulator file holds of it.

Four kinds, all drawn natively: ``mlp`` (a generator network), ``mixture`` (independent fields
within each of K components; K = 1 for independent fields), ``rows`` (a bootstrap of logged rows)
and ``autoregressive`` (each field given those before it).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast import _core
from virtualtb_fast.customers import _tables as tables
from virtualtb_fast.errors import InvalidArgumentError, RareConditionError
from virtualtb_fast.schema import Customers, Field
from virtualtb_fast.simulator import Simulator

__all__ = ["CustomerSampler"]

_CHUNK = 1 << 17
"""Customers drawn at once when most of them are thrown away."""
_HOPELESS = 1 << 21
"""A condition that none of so many draws meets is too rare."""
_LONGEST = 1 << 27
"""More draws than this are not made for one call."""


@dataclass(frozen=True, eq=False)
class CustomerSampler:
    """Draws customers. Frozen; made by the fits of this package.

    Raises:
        InvalidArgumentError: tensors that are not those of the kind.
    """

    fields: tuple[Field, ...]
    """What a customer is."""
    config: Customers
    """The kind of sampler and its sizes, as simulator files hold them."""
    tensors: Mapping[str, NDArray[Any]] = field(repr=False)
    """Its parameters, under the names that simulator files use."""
    slope: float = 0.01
    """Slope of its leaky ReLU."""
    report: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """How it was fitted: settings, seed, digest of the data, losses, processor time."""

    def __post_init__(self) -> None:
        fields = self.fields
        if not isinstance(fields, list | tuple) or not all(isinstance(f, Field) for f in fields):
            raise InvalidArgumentError(f"fields: expected one Field or more, got {fields!r}")
        object.__setattr__(self, "fields", tuple(fields))
        arguments.instance("config", self.config, Customers)
        arguments.real("slope", self.slope)
        for name in ("tensors", "report"):
            _require_mapping(name, getattr(self, name))
        # Made now rather than at the first draw: it checks everything.
        _ = self._native

    @classmethod
    def of(cls, simulator: Simulator) -> CustomerSampler:
        """The customers of a simulator."""
        arguments.instance("simulator", simulator, Simulator)
        models = ("generator.", "customers.")
        tensors = {
            name: array for name, array in simulator.tensors().items() if name.startswith(models)
        }
        config = simulator.config
        fields = simulator.schema.customer
        return cls(fields, config.customers, tensors, config.slope, dict(simulator.provenance))

    @functools.cached_property
    def _native(self) -> _core.Customers:
        fields = json.dumps([{"name": one.name, "size": one.size} for one in self.fields])
        tensors = {
            arguments.text("tensors", name): np.ascontiguousarray(arguments.array(name, array))
            for name, array in self.tensors.items()
        }
        return _core.Customers.from_tensors(fields, self.config.to_json(), self.slope, tensors)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_native"}

    def sample(
        self,
        count: int,
        seed: int = 0,
        *,
        first: int = 0,
        given: Mapping[str, int] | None = None,
        num_threads: int | None = None,
    ) -> NDArray[np.uint8]:
        """Draws customers.

        Args:
            count: How many.
            seed: Of the stream: these are the customers of the sessions ``first``,
                ``first + 1``, ... of this stream in a simulator with this sampler.
            first: Number of the first session.
            given: Categories of some fields by name, which all customers are to have. Mixtures and
                rows draw from their conditional distribution at once; the other kinds draw until
                enough customers fit, which is exact too, but takes the longer the rarer they are.
            num_threads: Threads; None for all cores. Does not change the result.

        Returns:
            uint8 codes (count, F).

        Raises:
            InvalidArgumentError: a count or seed out of range, an unknown field or category.
            RareConditionError: customers as given are drawn never, or too rarely to wait for.
        """
        count, first = arguments.integer("count", count), arguments.integer("first", first)
        seed, num_threads = arguments.seed(seed), arguments.threads(num_threads)
        if given is None or _require_mapping("given", given) == {}:
            return self._native.sample(seed, first, count, num_threads)
        if first:
            raise InvalidArgumentError(f"first: expected 0 with a condition, got {first}")
        if self.config.kind in ("mixture", "rows"):
            return self.given(given).sample(count, seed, num_threads=num_threads)
        return self._rejection(count, seed, self._condition(given), given, num_threads)

    def given(self, values: Mapping[str, int]) -> CustomerSampler:
        """The sampler of customers who have these categories of these fields.

        Args:
            values: Categories by field name.

        Raises:
            InvalidArgumentError: an unknown field or category, or a kind other than ``mixture``
                and ``rows``: for those, `sample` takes the condition.
            RareConditionError: no such customer is ever drawn.
        """
        condition = self._condition(values)
        if self.config.kind == "rows":
            rows = self.tensors["customers.rows"]
            kept = rows[(rows[:, list(condition)] == list(condition.values())).all(1)]
            if not len(kept):
                raise RareConditionError(f"given: expected logged customers of {values}, got none")
            if len(kept) == 1:
                kept = np.repeat(kept, 2, axis=0)
            config = Customers(kind="rows", rows=len(kept))
            tensors = {"customers.rows": np.ascontiguousarray(kept)}
            return CustomerSampler(self.fields, config, tensors, self.slope, self.report)
        if self.config.kind != "mixture":
            expected = "a sampler of kind mixture or rows"
            raise InvalidArgumentError(f"given: expected {expected}, got {self.config.kind}")
        starts = tables.offsets(self.fields)
        shares = self.tensors["customers.shares"].astype(np.float64)
        columns = self.tensors["customers.fields"].astype(np.float64)
        for number, code in condition.items():
            block = columns[:, starts[number] : starts[number + 1]]
            shares = shares * block[:, code]
            block[:] = 0
            block[:, code] = 1
        if not shares.sum() > 0:
            raise RareConditionError(f"given: expected customers of {values}, got probability 0")
        kept = shares > 0
        return mixture(self.fields, shares[kept] / shares.sum(), columns[kept], self.report)

    def log_density(self, codes: ArrayLike) -> NDArray[np.float64]:
        """Logarithms of the probabilities with which customers are drawn.

        Args:
            codes: Category codes, integers (n, F), n at least 1.

        Returns:
            float64 (n,), minus infinity for customers who are never drawn.

        Raises:
            InvalidArgumentError: codes of another shape or out of range; a sampler whose density is
                not known: of kind ``mlp``, or ``rows``, whose density is no use for other rows.
        """
        table = tables.check_customers(codes, self.fields, least=1)
        if self.config.kind == "mixture":
            parts = (self.tensors["customers.shares"], self.tensors["customers.fields"])
            return mixture_log_density(table, self.fields, *parts)
        if self.config.kind == "autoregressive":
            return self._autoregressive_log_density(table)
        expected = "a sampler of kind mixture or autoregressive"
        raise InvalidArgumentError(f"density: expected {expected}, got {self.config.kind}")

    def field_probabilities(self, count: int, seed: int = 0) -> NDArray[np.float64]:
        """P(category | noise) of fresh noise: how much customers depend on it can be measured.

        Args:
            count: Draws of the noise; of a mixture, of the component.
            seed: Of these draws, which are not those of `sample`.

        Returns:
            float64 (count, W), each field's block summing to 1.

        Raises:
            InvalidArgumentError: a sampler of kind ``rows`` or ``autoregressive``.
        """
        count = arguments.integer("count", count)
        random = np.random.default_rng(tables.hashed_seed(seed, "noise"))
        tensors = self.tensors
        if self.config.kind == "mixture":
            shares = tensors["customers.shares"].astype(np.float64)
            picked = random.choice(len(shares), count, p=shares / shares.sum())
            return tensors["customers.fields"][picked].astype(np.float64)
        if self.config.kind != "mlp":
            expected = "a sampler of kind mlp or mixture"
            raise InvalidArgumentError(f"field probabilities: {expected}, got {self.config.kind}")
        rows = random.random((count, tensors["generator.0.weight"].shape[1]))
        layers = len(tensors) // 2
        for layer in range(layers):
            weight = tensors[f"generator.{2 * layer}.weight"].astype(np.float64)
            rows = rows @ weight.T + tensors[f"generator.{2 * layer}.bias"]
            if layer + 1 < layers:
                rows = np.where(rows > 0, rows, self.slope * rows)
        sizes = [one.size for one in self.fields]
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        return np.concatenate([np.exp(log_softmax(part)) for part in parts], axis=1)

    def _autoregressive_log_density(self, table: NDArray[np.uint8]) -> NDArray[np.float64]:
        total = np.zeros(len(table))
        row = 0
        for block in tables.blocks(table):
            shown = tables.one_hot(block, self.fields).astype(np.float64)
            numbers = np.arange(len(block))
            for number, start in enumerate(tables.offsets(self.fields)[:-1]):
                logits = self._logits(number, shown[:, :start])
                chosen = log_softmax(logits)[numbers, block[:, number]]
                total[row : row + len(block)] += chosen
            row += len(block)
        return total

    def _logits(self, number: int, shown: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits (n, size) of a field, of the one-hot fields before it (n, W_f)."""
        name = f"customers.{number}"
        if not number:
            bias = self.tensors[f"{name}.bias"].astype(np.float64)
            return np.broadcast_to(bias, (len(shown), len(bias)))
        hidden = shown @ self.tensors[f"{name}.0.weight"].T + self.tensors[f"{name}.0.bias"]
        hidden = np.where(hidden > 0, hidden, self.slope * hidden)
        second = hidden @ self.tensors[f"{name}.2.weight"].T
        logits: NDArray[np.float64] = second + self.tensors[f"{name}.2.bias"]
        return logits

    def _condition(self, values: Mapping[str, int]) -> dict[int, int]:
        """Field numbers and categories of a condition."""
        names = [one.name for one in self.fields]
        condition = {}
        _require_mapping("given", values)
        for name, code in values.items():
            if name not in names:
                raise InvalidArgumentError(f"given: expected a field out of {names}, got {name!r}")
            size = self.fields[names.index(name)].size
            what = f"given: a category of {name!r}"
            condition[names.index(name)] = arguments.integer(what, code, 0, size - 1)
        return condition

    def _rejection(
        self,
        count: int,
        seed: int,
        condition: Mapping[int, int],
        given: Mapping[str, int],
        num_threads: int | None,
    ) -> NDArray[np.uint8]:
        """The first customers of the stream that fit: exact, and a prefix of any longer answer."""
        columns, wanted = list(condition), list(condition.values())
        kept: list[NDArray[np.uint8]] = []
        found = drawn = 0
        while found < count:
            rows = self._native.sample(seed, drawn, _CHUNK, num_threads)
            kept.append(rows[(rows[:, columns] == wanted).all(1)])
            drawn, found = drawn + _CHUNK, found + len(kept[-1])
            needed = count * drawn / found if found else float("inf")
            if (drawn >= _HOPELESS and not found) or (found and needed > _LONGEST):
                raise RareConditionError(
                    f"given: expected {count} customers of {dict(given)} within {_LONGEST} draws, "
                    f"got {found} in {drawn}"
                )
        return np.concatenate(kept)[:count] if kept else np.empty((0, len(self.fields)), np.uint8)


def _require_mapping(what: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        got = type(value).__name__
        raise InvalidArgumentError(f"{what}: expected a mapping by name, got a {got}")
    return value


def mixture(
    fields: Sequence[Field],
    shares: NDArray[np.float64],
    columns: NDArray[np.float64],
    report: Mapping[str, Any],
) -> CustomerSampler:
    """A sampler of kind ``mixture``, of shares (K,) and probabilities (K, W)."""
    tensors = {
        "customers.shares": shares.astype(np.float32),
        "customers.fields": columns.astype(np.float32),
    }
    config = Customers(kind="mixture", components=len(shares))
    return CustomerSampler(tuple(fields), config, tensors, report=report)


def mixture_log_density(
    codes: NDArray[np.uint8],
    fields: Sequence[Field],
    shares: NDArray[Any],
    columns: NDArray[Any],
) -> NDArray[np.float64]:
    """Logarithms of sum_k pi_k prod_f P(x_f | k) of codes (n, F); shares (K,), columns (K, W)."""
    starts = tables.offsets(fields)[:-1]
    with np.errstate(divide="ignore"):
        prior = np.log(shares.astype(np.float64))
        logs = np.log(columns.astype(np.float64)).T
    parts = []
    for block in tables.blocks(codes):
        joint = np.tile(prior, (len(block), 1))
        for number, start in enumerate(starts):
            joint += logs[start + block[:, number].astype(np.int64)]
        parts.append(log_sum_exp(joint))
    return np.concatenate(parts)


def log_sum_exp(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the sum of exp of each row; rows of minus infinity stay that."""
    top = rows.max(-1)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total: NDArray[np.float64] = np.log(np.exp(rows - safe[..., None]).sum(-1))
    return total + safe


def log_softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row minus its log sum exp."""
    return rows - log_sum_exp(rows)[..., None]
