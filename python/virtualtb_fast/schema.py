"""What customers, actions and observations look like: the only home of these numbers.

A `Schema` says what a customer and an action are, a `Config` what shapes the three customer
networks have. Both are frozen, and travel as JSON in every simulator file. Everything else in the
package asks them; no other module knows that VirtualTB-v0 has 88 customer columns or 27 action
dimensions.

An observation is one row of float32:

| columns | what |
|---|---|
| ``schema.customer_columns`` | the customer: one one-hot block a field, see ``schema.slices`` |
| ``schema.clicks_column`` | clicks on the last page |
| ``schema.second_column`` | second head on the last page (in VirtualTB-v0 probably purchases) |
| ``schema.page_column`` | pages shown so far in this session |
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast.errors import InvalidArgumentError

__all__ = [
    "V0_CONFIG",
    "V0_PUBLISHED_HIGH",
    "V0_SCHEMA",
    "Config",
    "Customers",
    "Field",
    "Leave",
    "Response",
    "Schema",
]

_FEEDBACK_COLUMNS: Final = 3
"""Observation columns after the customer: last clicks, last second head, page."""

_CATEGORIES: Final = (2, 256)
"""Fewest and most categories of a field or head: codes are one byte."""


def _check(condition: bool, what: str, expected: str, got: object) -> None:
    if not condition:
        raise InvalidArgumentError(f"{what}: expected {expected}, got {got!r}")


def _is_integer(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_categories(what: str, size: object) -> None:
    low, high = _CATEGORIES
    _check(_is_integer(size, low, high), what, f"{low} to {high} categories", size)


def _check_hidden(what: str, sizes: object) -> None:
    good = isinstance(sizes, tuple) and all(_is_integer(size, 1, 16_384) for size in sizes)
    _check(good and bool(sizes), what, "a tuple of layer sizes from 1 to 16384", sizes)


@dataclass(frozen=True, slots=True)
class Field:
    """One categorical field of a customer."""

    name: str
    """Column name in logs."""
    size: int
    """Number of categories, 2 to 256."""

    def __post_init__(self) -> None:
        _check(isinstance(self.name, str) and self.name != "", "field name", "a name", self.name)
        _check_categories(f"customer field {self.name!r}", self.size)


@dataclass(frozen=True, slots=True)
class Schema:
    """What customers and actions look like.

    Raises `InvalidArgumentError` for anything that a simulator could not have.
    """

    customer: tuple[Field, ...]
    """The customer's fields, in the order of the one-hot columns."""
    action: int
    """Dimensions of the action."""
    action_range: tuple[float, float] = (-1.0, 1.0)
    """Lowest and highest value of each dimension of the action."""

    def __post_init__(self) -> None:
        fields = self.customer
        good = isinstance(fields, tuple) and all(isinstance(field, Field) for field in fields)
        _check(good and 0 < len(fields) <= 256, "customer", "a tuple of 1 to 256 Fields", fields)
        names = [field.name for field in fields]
        _check(len(set(names)) == len(names), "customer", "fields of different names", names)
        _check(_is_integer(self.action, 1, 16_384), "action", "1 to 16384 dimensions", self.action)
        span = self.action_range
        numbers = isinstance(span, tuple) and len(span) == 2 and all(map(_is_number, span))
        good = numbers and -1e6 <= span[0] < span[1] <= 1e6
        _check(good, "action_range", "(low, high) with low < high within +-1e6", span)

    @property
    def customer_width(self) -> int:
        """Columns of the one-hot customer."""
        return sum(field.size for field in self.customer)

    @property
    def observation_width(self) -> int:
        """Columns of an observation."""
        return self.customer_width + _FEEDBACK_COLUMNS

    @property
    def slices(self) -> dict[str, slice]:
        """The observation columns of each customer field, by name."""
        slices, first = {}, 0
        for field in self.customer:
            slices[field.name] = slice(first, first + field.size)
            first += field.size
        return slices

    @property
    def customer_columns(self) -> slice:
        """The observation columns of the whole customer."""
        return slice(0, self.customer_width)

    @property
    def clicks_column(self) -> int:
        """The observation column of the last page's clicks."""
        return self.customer_width

    @property
    def second_column(self) -> int:
        """The observation column of the last page's second head."""
        return self.customer_width + 1

    @property
    def page_column(self) -> int:
        """The observation column of the number of pages shown."""
        return self.customer_width + 2

    def one_hot(self, codes: ArrayLike) -> NDArray[np.float32]:
        """One-hot customers.

        Args:
            codes: Category codes, integers of shape (..., number of fields).

        Returns:
            float32 of shape (..., customer_width).

        Raises:
            InvalidArgumentError: codes of another shape or type, or out of range.
        """
        codes = np.asarray(codes)
        sizes = np.array([field.size for field in self.customer])
        good = np.issubdtype(codes.dtype, np.integer) and codes.shape[-1:] == sizes.shape
        expected = f"integers of shape (..., {len(sizes)})"
        _check(good, "codes", expected, f"{codes.dtype} of shape {codes.shape}")
        within = bool(((codes >= 0) & (codes < sizes)).all())
        _check(within, "codes", f"0 <= code < {sizes.tolist()}", codes.tolist())
        first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        out = np.zeros((*codes.shape[:-1], self.customer_width), np.float32)
        np.put_along_axis(out, codes.astype(np.int64) + first, np.float32(1), axis=-1)
        return out

    def codes(self, observations: NDArray[Any]) -> NDArray[np.uint8]:
        """The customers' category codes, from observations or one-hot customers.

        Args:
            observations: Array of shape (..., C) with C at least ``customer_width``.

        Returns:
            uint8 of shape (..., number of fields).
        """
        blocks = [observations[..., columns].argmax(-1) for columns in self.slices.values()]
        return np.stack(blocks, axis=-1).astype(np.uint8)

    def to_json(self) -> str:
        """The form in which simulator files hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Reads `to_json`'s form back; raises `InvalidArgumentError` if it is another."""
        data = _mapping("schema", text, {"customer", "action", "action_range"})
        fields, span = data["customer"], data["action_range"]
        _check(isinstance(fields, list), "schema.customer", "a list", fields)
        _check(isinstance(span, list), "schema.action_range", "a list", span)
        keys = {"name", "size"}
        customer = tuple(Field(**_mapping("field", field, keys)) for field in fields)
        return cls(customer, data["action"], tuple(span))


@dataclass(frozen=True, slots=True)
class Customers:
    """How a session's customer is drawn.

    A network makes one softmax a field from uniform noise in [0, 1).
    """

    latent: int = 128
    """Dimensions of the noise."""
    hidden: tuple[int, ...] = (128,)
    """Sizes of the hidden layers."""
    kind: str = "mlp"
    """Kind of sampler; ``mlp`` is the only one."""

    def __post_init__(self) -> None:
        _check(self.kind == "mlp", "customers.kind", "'mlp'", self.kind)
        good = _is_integer(self.latent, 1, 16_384)
        _check(good, "customers.latent", "1 to 16384 dimensions", self.latent)
        _check_hidden("customers.hidden", self.hidden)


@dataclass(frozen=True, slots=True)
class Response:
    """How a page is answered: from customer, page and action, in this order."""

    page_scale: float = 1.0
    """The page number is multiplied by this before it enters the network."""
    clicks: int = 11
    """Categories of the first head: 0 to ``clicks - 1`` clicks."""
    second: int = 10
    """Categories of the second head: 0 to ``second - 1`` (in VirtualTB-v0 probably purchases)."""
    hidden: tuple[int, ...] = (128, 256)
    """Sizes of the hidden layers."""

    def __post_init__(self) -> None:
        good = _is_number(self.page_scale) and abs(self.page_scale) <= 1e6
        _check(good, "response.page_scale", "a number within +-1e6", self.page_scale)
        _check_categories("response.clicks", self.clicks)
        _check_categories("response.second", self.second)
        _check_hidden("response.hidden", self.hidden)

    @property
    def items(self) -> int:
        """Items on a page, and so the most clicks: CTR is clicks / (``items`` x pages)."""
        return self.clicks - 1


@dataclass(frozen=True, slots=True)
class Leave:
    """How a session ends: at a page limit drawn once, at its start, from the customer alone."""

    classes: int = 101
    """Limits are 0 to ``classes - 1`` pages; 0 also plays one page."""
    hidden: tuple[int, ...] = (128, 256)
    """Sizes of the hidden layers."""
    kind: str = "once"
    """Kind of rule; ``once`` is the only one."""

    def __post_init__(self) -> None:
        _check(self.kind == "once", "leave.kind", "'once'", self.kind)
        _check_categories("leave.classes", self.classes)
        _check_hidden("leave.hidden", self.hidden)

    @property
    def longest(self) -> int:
        """Pages of the longest possible session."""
        return max(1, self.classes - 1)


@dataclass(frozen=True, slots=True)
class Config:
    """The shapes of the three customer networks. The defaults are VirtualTB-v0's."""

    customers: Customers = Customers()
    """Sampler of customers: the model ``generator``."""
    response: Response = Response()
    """Answers to pages: the model ``action``."""
    leave: Leave = Leave()
    """End of sessions: the model ``leave``."""
    slope: float = 0.01
    """Slope of the leaky ReLU between layers, in [0, 1)."""

    def __post_init__(self) -> None:
        good = _is_number(self.slope) and 0.0 <= self.slope < 1.0
        _check(good, "slope", "a number in [0, 1)", self.slope)

    def layers(self, schema: Schema) -> dict[str, tuple[int, ...]]:
        """Layer sizes of each model, inputs first."""
        width, response, leave = schema.customer_width, self.response, self.leave
        heads = response.clicks + response.second
        return {
            "generator": (self.customers.latent, *self.customers.hidden, width),
            "action": (width + 1 + schema.action, *response.hidden, heads),
            "leave": (width, *leave.hidden, leave.classes),
        }

    def shapes(self, schema: Schema) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a simulator: ``<model>.<0, 2, 4>.<weight|bias>``."""
        shapes: dict[str, tuple[int, ...]] = {}
        for model, sizes in self.layers(schema).items():
            for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
                shapes[f"{model}.{2 * layer}.weight"] = (outputs, inputs)
                shapes[f"{model}.{2 * layer}.bias"] = (outputs,)
        return shapes

    def observation_high(self, schema: Schema) -> NDArray[np.float32]:
        """The largest value of each observation column; the smallest is 0."""
        high = np.ones(schema.observation_width, np.float32)
        high[schema.clicks_column] = self.response.items
        high[schema.second_column] = self.response.second - 1
        high[schema.page_column] = self.leave.longest
        return high

    def to_json(self) -> str:
        """The form in which simulator files hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads `to_json`'s form back; raises `InvalidArgumentError` if it is another."""
        data = _mapping("config", text, {"customers", "response", "leave", "slope"})
        customers = _mapping("customers", data["customers"], {"kind", "latent", "hidden"})
        keys = {"page_scale", "clicks", "second", "hidden"}
        response = _mapping("response", data["response"], keys)
        leave = _mapping("leave", data["leave"], {"kind", "classes", "hidden"})
        for part in (customers, response, leave):
            _check(isinstance(part["hidden"], list), "hidden", "a list", part["hidden"])
            part["hidden"] = tuple(part["hidden"])
        return cls(Customers(**customers), Response(**response), Leave(**leave), data["slope"])


def _mapping(what: str, value: object, keys: set[str]) -> dict[str, Any]:
    """A JSON object with exactly these keys, from text or as parsed."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"{what}: expected JSON, got {error}") from error
    if not isinstance(value, dict) or set(value) != keys:
        got = sorted(value) if isinstance(value, dict) else value
        raise InvalidArgumentError(f"{what}: expected an object of {sorted(keys)}, got {got!r}")
    return dict(value)


V0_SCHEMA: Final = Schema(
    customer=tuple(
        Field(f"field_{index}", size)
        for index, size in enumerate((8, 8, 11, 11, 11, 11, 2, 2, 3, 18, 3))
    ),
    action=27,
)
"""VirtualTB-v0's customers (11 fields, 88 one-hot columns) and actions (27 weights).

The released data do not say what the fields mean, so they have numbers for names.
"""

V0_CONFIG: Final = Config()
"""The shapes of the networks that VirtualTB-v0 was released with."""

V0_PUBLISHED_HIGH: Final = (29, 9)
"""Upper bounds of the two feedback columns as VirtualTB-v0 declares them.

They are left over from an earlier network with more categories; clicks never exceed 10.
"""
