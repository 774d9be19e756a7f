"""What customers, actions and observations look like: the only home of these numbers.

A `Schema` says what a customer and an action are, a `Config` of which kinds and sizes a simulator's
parts are. Both are frozen, and travel as JSON in every simulator file. Everything else in the
package asks them; no other module knows that VirtualTB-v0 has 88 customer columns or 27 action
dimensions.

An observation is one row of float32:

| columns | what |
|---|---|
| ``schema.customer_columns`` | the customer: one one-hot block a field, see ``schema.slices`` |
| ``schema.clicks_column`` | clicks on the last page, or units bought on it |
| ``schema.second_column`` | second head on the last page (in VirtualTB-v0 probably purchases), or \
whether it was turned |
| ``schema.page_column`` | pages shown so far in this session |

The second of each is for heads ``outcome`` (see `Response`), as in a `GroundTruthStore`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments
from virtualtb_fast._parts import (
    OUTCOMES,
    STAYING,
    Customers,
    Field,
    Leave,
    Response,
    check,
    check_dimensions,
    check_fields,
    is_number,
    mapping,
    of_network,
)

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
        check_fields("customer", self.customer)
        names = [field.name for field in self.customer]
        check(len(set(names)) == len(names), "customer", "fields of different names", names)
        check_dimensions("action", self.action)
        span = self.action_range
        numbers = isinstance(span, tuple) and len(span) == 2 and all(map(is_number, span))
        good = numbers and -1e6 <= span[0] < span[1] <= 1e6
        check(good, "action_range", "(low, high) with low < high within +-1e6", span)

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
        for one in self.customer:
            slices[one.name] = slice(first, first + one.size)
            first += one.size
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
        codes = _arguments.array("codes", codes)
        sizes = np.array([field.size for field in self.customer])
        good = np.issubdtype(codes.dtype, np.integer) and codes.shape[-1:] == sizes.shape
        expected = f"integers of shape (..., {len(sizes)})"
        check(good, "codes", expected, f"{codes.dtype} of shape {codes.shape}")
        within = ((codes >= 0) & (codes < sizes)).all(-1)
        if not within.all():
            check(False, "codes", f"0 <= code < {sizes.tolist()}", codes[~within][0].tolist())
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

        Raises:
            InvalidArgumentError: no array of numbers, or too few columns.
        """
        good = isinstance(observations, np.ndarray) and observations.dtype.kind in "fiub"
        good = good and observations.ndim > 0 and observations.shape[-1] >= self.customer_width
        expected = f"an array of numbers of shape (..., {self.customer_width} or more)"
        check(good, "observations", expected, getattr(observations, "shape", observations))
        blocks = [observations[..., columns].argmax(-1) for columns in self.slices.values()]
        return np.stack(blocks, axis=-1).astype(np.uint8)

    def to_json(self) -> str:
        """The form in which simulator files hold it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Reads `to_json`'s form back; raises `InvalidArgumentError` if it is another."""
        data = mapping("schema", text, {"customer", "action", "action_range"})
        fields, span = data["customer"], data["action_range"]
        check(isinstance(fields, list), "schema.customer", "a list", fields)
        check(isinstance(span, list), "schema.action_range", "a list", span)
        keys = {"name", "size"}
        customer = tuple(Field(**mapping("field", field, keys)) for field in fields)
        return cls(customer, data["action"], tuple(span))


@dataclass(frozen=True, slots=True)
class Config:
    """The kinds and sizes of a simulator's parts. The defaults are VirtualTB-v0's."""

    customers: Customers = field(default_factory=Customers)
    """Who comes."""
    response: Response = field(default_factory=Response)
    """How a page is answered: the network ``action``."""
    leave: Leave = field(default_factory=Leave)
    """How sessions end."""
    slope: float = 0.01
    """Slope of the leaky ReLU between layers, in [0, 1)."""

    def __post_init__(self) -> None:
        parts = {"customers": Customers, "response": Response, "leave": Leave}
        for name, kind in parts.items():
            part = getattr(self, name)
            check(isinstance(part, kind), name, f"a {kind.__name__}", part)
        good = is_number(self.slope) and 0.0 <= self.slope < 1.0
        check(good, "slope", "a number in [0, 1)", self.slope)
        good = self.response.heads == "clicks" or self.leave.kind == "hazard"
        check(good, "leave.kind", "'hazard', since the outcome says who leaves", self.leave.kind)

    @property
    def heads(self) -> dict[str, int]:
        """Categories of each head that is drawn on a page, in the order of the logits.

        ``clicks`` and ``second``, with a hazard also ``leave`` (stay, leave); or ``outcome`` (turn,
        buy, leave).
        """
        response = self.response
        if response.heads == "outcome":
            return {"outcome": len(OUTCOMES)}
        heads = {"clicks": response.clicks or 0, "second": response.second or 0}
        return heads | ({"leave": len(STAYING)} if self.leave.kind == "hazard" else {})

    def layers(self, schema: Schema) -> dict[str, tuple[int, ...]]:
        """Layer sizes of each network, inputs first."""
        _arguments.instance("schema", schema, Schema)
        inputs = schema.customer_width + 1
        if self.response.kind == "mlp":
            inputs += schema.action
        return {
            **self.customers.layers(schema.customer),
            "action": (inputs, *self.response.hidden, sum(self.heads.values())),
            **self.leave.layers(schema.customer),
        }

    def shapes(self, schema: Schema) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor: ``<network>.<0, 2, 4>.<weight|bias>``, and others."""
        _arguments.instance("schema", schema, Schema)
        shapes = self.customers.shapes(schema.customer)
        if self.response.kind == "linear":
            shapes["effect.weight"] = (schema.action, schema.customer_width)
            shapes["effect.bias"] = (schema.action,)
        for model, sizes in self.layers(schema).items():
            shapes |= of_network(model, sizes)
        return shapes

    def dtypes(self, schema: Schema) -> dict[str, np.dtype[Any]]:
        """Name and dtype of every tensor: float32, but for a table of codes, which is uint8."""
        codes, numbers = np.dtype(np.uint8), np.dtype(np.float32)
        shapes = self.shapes(schema)
        return {name: codes if name == "customers.rows" else numbers for name in shapes}

    def observation_high(self, schema: Schema) -> NDArray[np.float32]:
        """The largest value of each observation column; the smallest is 0."""
        _arguments.instance("schema", schema, Schema)
        high = np.ones(schema.observation_width, np.float32)
        if self.response.heads == "clicks":
            high[schema.clicks_column] = self.heads["clicks"] - 1
            high[schema.second_column] = self.heads["second"] - 1
        high[schema.page_column] = self.leave.longest
        return high

    def to_json(self) -> str:
        """The form in which simulator files hold it."""
        parts = {
            "customers": self.customers.to_dict(),
            "response": self.response.to_dict(),
            "leave": self.leave.to_dict(),
        }
        return json.dumps(parts | {"slope": self.slope})

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Reads `to_json`'s form back; raises `InvalidArgumentError` if it is another."""
        data = mapping("config", text, {"customers", "response", "leave", "slope"})
        customers = Customers.from_json(data["customers"])
        response, leave = Response.from_json(data["response"]), Leave.from_json(data["leave"])
        return cls(customers, response, leave, data["slope"])


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
