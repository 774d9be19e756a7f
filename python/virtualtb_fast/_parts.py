"""The parts of a simulator, of every kind there is: who comes, how a page is answered, who leaves.

`virtualtb_fast.schema` puts them together and is where people import them from. Each is frozen,
refuses what no simulator could have, and travels as JSON in simulator files. An argument that the
chosen kind does not have must be left out, and reads None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias, cast

from virtualtb_fast._arguments import parsed
from virtualtb_fast.errors import InvalidArgumentError

CustomersKind: TypeAlias = Literal["mlp", "mixture", "rows", "autoregressive"]
ResponseKind: TypeAlias = Literal["mlp", "linear"]
HeadsKind: TypeAlias = Literal["clicks", "outcome"]
LeaveKind: TypeAlias = Literal["once", "hazard"]
Shapes: TypeAlias = dict[str, tuple[int, ...]]

OUTCOMES: Final = ("turn", "buy", "leave")
"""Categories of the head ``outcome``, in the order of logs' codes."""
STAYING: Final = ("stay", "leave")
"""Categories of the head ``leave``."""

_CATEGORIES: Final = (2, 256)
"""Fewest and most categories of a field or head: codes are one byte."""
_UNITS: Final = 16_384
"""Most units of a layer, and most dimensions of an action or of noise."""
_COMPONENTS: Final = 16_384
_ROWS: Final = 1 << 24
_PAGES: Final = 32_767
"""Most pages of a session: what a log can number."""


def check(condition: bool, what: str, expected: str, got: object) -> None:
    """Raises `InvalidArgumentError` unless the condition holds."""
    if not condition:
        raise InvalidArgumentError(f"{what}: expected {expected}, got {got!r}")


def is_integer(value: object, low: int, high: int) -> bool:
    """Whether the value is an int within bounds, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value: object) -> bool:
    """Whether the value is an int or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_categories(what: str, size: object) -> None:
    """Raises `InvalidArgumentError` for what is no number of categories."""
    low, high = _CATEGORIES
    check(is_integer(size, low, high), what, f"{low} to {high} categories", size)


def check_dimensions(what: str, size: object) -> None:
    """Raises `InvalidArgumentError` for what is no number of dimensions."""
    check(is_integer(size, 1, _UNITS), what, f"1 to {_UNITS} dimensions", size)


def mapping(what: str, value: object, keys: set[str]) -> dict[str, Any]:
    """A JSON object with exactly these keys and no nulls, from text or as parsed."""
    value = _parsed(what, value)
    if not isinstance(value, dict) or set(value) != keys:
        got = sorted(value, key=str) if isinstance(value, dict) else value
        raise InvalidArgumentError(f"{what}: expected an object of {sorted(keys)}, got {got!r}")
    for key, one in value.items():
        check(one is not None, f"{what}.{key}", "a value", one)
    return dict(value)


def _parsed(what: str, value: object) -> object:
    return parsed(what, value) if isinstance(value, str) else value


def _check_hidden(what: str, sizes: object) -> None:
    good = isinstance(sizes, tuple) and all(is_integer(size, 1, _UNITS) for size in sizes)
    check(good and bool(sizes), what, f"a tuple of layer sizes from 1 to {_UNITS}", sizes)


def _layers(value: object) -> tuple[Any, ...]:
    check(isinstance(value, list), "hidden", "a list", value)
    return tuple(value)  # type: ignore[arg-type]


def _settle(part: Any, what: str, kind: str, kinds: Mapping[str, Mapping[str, Any]]) -> None:
    """Fills in a kind's defaults and refuses what only other kinds have.

    ``kinds`` says which arguments a kind has, with their defaults.
    """
    known = isinstance(kind, str) and kind in kinds
    check(known, what, " or ".join(map(repr, kinds)), kind)
    mine = kinds[kind]
    for name in dict.fromkeys(name for one in kinds.values() for name in one):
        if name not in mine:
            where = f"{type(part).__name__.lower()}.{name}"
            check(getattr(part, name) is None, where, f"nothing for {kind!r}", getattr(part, name))
        elif getattr(part, name) is None:
            object.__setattr__(part, name, mine[name])


def of_network(model: str, sizes: tuple[int, ...]) -> Shapes:
    """Names and shapes of a network's tensors."""
    shapes: Shapes = {}
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        shapes[f"{model}.{2 * layer}.weight"] = (outputs, inputs)
        shapes[f"{model}.{2 * layer}.bias"] = (outputs,)
    return shapes


@dataclass(frozen=True, slots=True)
class Field:
    """One categorical field of a customer."""

    name: str
    """Column name in logs."""
    size: int
    """Number of categories, 2 to 256."""

    def __post_init__(self) -> None:
        check(isinstance(self.name, str) and self.name != "", "field name", "a name", self.name)
        check_categories(f"customer field {self.name!r}", self.size)


def check_fields(what: str, fields: object) -> None:
    """Raises `InvalidArgumentError` for what is no customer's fields."""
    good = isinstance(fields, tuple) and all(isinstance(field, Field) for field in fields)
    good = good and 0 < len(cast(tuple[Field, ...], fields)) <= 256
    check(good, what, "a tuple of 1 to 256 Fields", fields)


@dataclass(frozen=True, slots=True)
class Customers:
    """How a session's customer is drawn.

    | kind | arguments | who comes |
    |---|---|---|
    | ``mlp`` | ``latent``, ``hidden`` | one softmax a field from uniform noise in [0, 1) |
    | ``mixture`` | ``components`` | a component, then each field by itself; one component: \
independent fields |
    | ``rows`` | ``rows`` | a row of a table, each alike |
    | ``autoregressive`` | ``hidden`` | each field from a network of the fields before it |

    With W columns of a one-hot customer, W_f of them before field f, and s_f in it, the tensors are

    | kind | tensors |
    |---|---|
    | ``mlp`` | the network ``generator``: ``latent`` to W logits |
    | ``mixture`` | ``customers.shares`` (K,) and ``customers.fields`` (K, W), probabilities: the \
shares, and the block of each field, sum to 1 |
    | ``rows`` | ``customers.rows`` (n, fields), uint8 category codes |
    | ``autoregressive`` | ``customers.0.bias`` (s_0,), the first field's logits, and for every \
other field the network ``customers.f``: W_f to s_f logits |
    """

    latent: int | None = None
    """Dimensions of the noise (128 unless given)."""
    hidden: tuple[int, ...] | None = None
    """Sizes of the hidden layers ((128,) unless given); with ``autoregressive`` the one hidden
    layer of every field ((64,) unless given, which costs less than the published generator)."""
    kind: CustomersKind = "mlp"
    """Kind of sampler."""
    components: int | None = None
    """Components of a mixture, K."""
    rows: int | None = None
    """Rows of a table, n."""

    def __post_init__(self) -> None:
        kinds: dict[str, dict[str, Any]] = {
            "mlp": {"latent": 128, "hidden": (128,)},
            "mixture": {"components": None},
            "rows": {"rows": None},
            "autoregressive": {"hidden": (64,)},
        }
        _settle(self, "customers.kind", self.kind, kinds)
        if self.kind == "mlp":
            check_dimensions("customers.latent", self.latent)
        if self.kind == "mixture":
            good = is_integer(self.components, 1, _COMPONENTS)
            check(good, "customers.components", f"1 to {_COMPONENTS}", self.components)
        elif self.kind == "rows":
            check(is_integer(self.rows, 1, _ROWS), "customers.rows", f"1 to {_ROWS}", self.rows)
        else:
            _check_hidden("customers.hidden", self.hidden)
            if self.kind == "autoregressive":
                one = len(self.hidden or ()) == 1
                check(one, "customers.hidden", "one hidden layer", self.hidden)

    def layers(self, fields: tuple[Field, ...]) -> Shapes:
        """Layer sizes of its networks, inputs first."""
        check_fields("fields", fields)
        hidden, sizes = self.hidden or (), [field.size for field in fields]
        if self.kind == "mlp":
            return {"generator": (self.latent or 0, *hidden, sum(sizes))}
        if self.kind == "autoregressive":
            return {
                f"customers.{index}": (sum(sizes[:index]), *hidden, sizes[index])
                for index in range(1, len(sizes))
            }
        return {}

    def shapes(self, fields: tuple[Field, ...]) -> Shapes:
        """Name and shape of every one of its tensors."""
        check_fields("fields", fields)
        shapes: Shapes = {}
        if self.kind == "mixture":
            count = self.components or 0
            shapes = {
                "customers.shares": (count,),
                "customers.fields": (count, sum(field.size for field in fields)),
            }
        elif self.kind == "rows":
            shapes = {"customers.rows": (self.rows or 0, len(fields))}
        elif self.kind == "autoregressive":
            shapes = {"customers.0.bias": (fields[0].size,)}
        for model, sizes in self.layers(fields).items():
            shapes |= of_network(model, sizes)
        return shapes

    def to_json(self) -> str:
        """The form in which simulator files hold it."""
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The same as a dictionary: the kind, and what this kind has."""
        return _given(self)

    @classmethod
    def from_json(cls, value: object) -> Customers:
        """Reads `to_json`'s form, or what was parsed of it; raises `InvalidArgumentError`."""
        keys = {
            "mlp": {"latent", "hidden"},
            "mixture": {"components"},
            "rows": {"rows"},
            "autoregressive": {"hidden"},
        }
        return cls(**_of_kind("customers", value, keys))


@dataclass(frozen=True, slots=True)
class Response:
    """How a page is answered: from customer, page and action, in this order.

    | heads | what is drawn on a page |
    |---|---|
    | ``clicks`` | clicks and the second head; with ``Leave(kind="hazard")`` also whether the \
customer leaves |
    | ``outcome`` | one of turn, buy, leave; needs ``Leave(kind="hazard")`` |

    | kind | how the action enters |
    |---|---|
    | ``mlp`` | the network ``action`` gets it with everything else: W + 1 + A inputs |
    | ``linear`` | the network ``action`` gets customer and page, W + 1 inputs; the logit of \
buying gets (W x + v) a on top: ``effect.weight`` (A, W), ``effect.bias`` (A,). Heads ``outcome`` |
    """

    page_scale: float = 1.0
    """The page number is multiplied by this before it enters the network."""
    clicks: int | None = None
    """Categories of the first head: 0 to ``clicks - 1`` clicks (11 unless given)."""
    second: int | None = None
    """Categories of the second head (10 unless given; in VirtualTB-v0 probably purchases)."""
    hidden: tuple[int, ...] = (128, 256)
    """Sizes of the hidden layers."""
    kind: ResponseKind = "mlp"
    """How the action enters."""
    heads: HeadsKind = "clicks"
    """What is drawn on a page."""
    items: int = cast("int", None)  # a number once this is made
    """Items on a page, so that CTR is clicks / (``items`` x pages): ``clicks - 1``, and 10 unless
    given where the outcome is drawn."""

    def __post_init__(self) -> None:
        good = is_number(self.page_scale) and abs(self.page_scale) <= 1e6
        check(good, "response.page_scale", "a number within +-1e6", self.page_scale)
        good = isinstance(cast(object, self.kind), str) and self.kind in ("mlp", "linear")
        check(good, "response.kind", "'mlp' or 'linear'", self.kind)
        kinds: dict[str, dict[str, Any]] = {
            "clicks": {"clicks": 11, "second": 10, "items": None},
            "outcome": {"items": 10},
        }
        _settle(self, "response.heads", self.heads, kinds)
        if self.heads == "outcome":
            check(is_integer(self.items, 1, 256), "response.items", "1 to 256 items", self.items)
        else:
            check_categories("response.clicks", self.clicks)
            check_categories("response.second", self.second)
            items = (self.clicks or 0) - 1
            good = self.items is None or is_integer(self.items, items, items)
            check(good, "response.items", f"clicks - 1, {items}", self.items)
            object.__setattr__(self, "items", items)
            good = self.kind == "mlp"
            check(good, "response.kind", "'mlp' where clicks are drawn", self.kind)
        _check_hidden("response.hidden", self.hidden)

    def to_dict(self) -> dict[str, Any]:
        """What files hold: the keys of the first simulators, and others where they say more."""
        out: dict[str, Any] = {"page_scale": self.page_scale, "hidden": list(self.hidden)}
        if self.heads == "clicks":
            out |= {"clicks": self.clicks, "second": self.second}
        else:
            out |= {"heads": self.heads, "items": self.items}
        if self.kind != "mlp":
            out["kind"] = self.kind
        return out

    @classmethod
    def from_json(cls, value: object) -> Response:
        """Reads `to_dict`'s form; raises `InvalidArgumentError`."""
        value = _parsed("response", value)
        keys = {"page_scale", "hidden"}
        if isinstance(value, dict):
            outcome = value.get("heads", "clicks") == "outcome"
            keys |= {"heads", "items"} if outcome else {"clicks", "second"}
            keys |= {key for key in ("kind", "heads") if key in value}
        part = mapping("response", value, keys)
        fields: dict[str, Any] = {**part, "hidden": _layers(part["hidden"])}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Leave:
    """How a session ends.

    | kind | arguments | when |
    |---|---|---|
    | ``once`` | ``classes``, ``hidden`` | at a page limit drawn once, at the session's start, \
from the customer alone: the network ``leave``, W to ``classes`` |
    | ``hazard`` | ``longest`` | whether the customer leaves is drawn on every page with the \
answer; one who turns page number ``longest`` finds no more (outcome ``max_pages``) |
    """

    classes: int | None = None
    """Limits are 0 to ``classes - 1`` pages (101 unless given); 0 also plays one page."""
    hidden: tuple[int, ...] | None = None
    """Sizes of the hidden layers ((128, 256) unless given)."""
    kind: LeaveKind = "once"
    """Kind of rule."""
    longest: int = cast("int", None)  # a number once this is made
    """Pages of the longest possible session."""

    def __post_init__(self) -> None:
        kinds: dict[str, dict[str, Any]] = {
            "once": {"classes": 101, "hidden": (128, 256), "longest": None},
            "hazard": {"longest": None},
        }
        _settle(self, "leave.kind", self.kind, kinds)
        if self.kind == "hazard":
            good = is_integer(self.longest, 1, _PAGES)
            check(good, "leave.longest", f"1 to {_PAGES} pages", self.longest)
            return
        check_categories("leave.classes", self.classes)
        _check_hidden("leave.hidden", self.hidden)
        longest = max(1, (self.classes or 0) - 1)
        good = self.longest is None or is_integer(self.longest, longest, longest)
        check(good, "leave.longest", f"classes - 1, {longest}", self.longest)
        object.__setattr__(self, "longest", longest)

    def layers(self, fields: tuple[Field, ...]) -> Shapes:
        """Layer sizes of its network, if it has one."""
        check_fields("fields", fields)
        if self.kind == "hazard":
            return {}
        width = sum(field.size for field in fields)
        return {"leave": (width, *(self.hidden or ()), self.classes or 0)}

    def to_dict(self) -> dict[str, Any]:
        """What files hold: the kind, and what this kind has."""
        out = _given(self)
        if self.kind == "once":
            del out["longest"]
        return out

    @classmethod
    def from_json(cls, value: object) -> Leave:
        """Reads `to_dict`'s form; raises `InvalidArgumentError`."""
        keys = {"once": {"classes", "hidden"}, "hazard": {"longest"}}
        return cls(**_of_kind("leave", value, keys))


def _given(part: Any) -> dict[str, Any]:
    """What a part's kind has, as JSON holds it."""
    values = {name: getattr(part, name) for name in part.__dataclass_fields__}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def _of_kind(what: str, value: object, kinds: Mapping[str, set[str]]) -> dict[str, Any]:
    """The arguments of a part that is told by its kind."""
    value = _parsed(what, value)
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        expected = f"an object of a kind ({', '.join(kinds)})"
        raise InvalidArgumentError(f"{what}: expected {expected}, got {value!r}")
    part = mapping(what, value, {"kind", *kinds[kind]})
    if "hidden" in part:
        part["hidden"] = _layers(part["hidden"])
    return part
