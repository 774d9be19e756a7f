"""The ground-truth store: a shop whose customers' true behaviour is known.

``GroundTruthStore(seed=100 << 32)`` is a world of its own: a mixture of customer archetypes with a
known density, a catalogue, tastes, and a multinomial-logit customer. Environments, rollouts and
evaluation play in it; what is hidden from learners is reachable through `GroundTruthStore.reveal`
alone, which no training code calls.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast._world import Course, Hidden, Items
from virtualtb_fast.errors import InvalidActionError, InvalidArgumentError
from virtualtb_fast.schema import Schema

__all__ = [
    "ConstantCustomer",
    "Counters",
    "Course",
    "CustomerModel",
    "GroundTruthStore",
    "Hidden",
    "Items",
]

CustomerModel: TypeAlias = Callable[[dict[str, NDArray[Any]]], NDArray[np.float64]]
"""Customers of one's own: a function of a batch of n pages that all have the same query.

It is given fresh arrays ``customer`` (n, 11) u8 field codes, ``page`` (n,) i64 page numbers,
``hour`` (n,) f32 (NaN if the store has none), ``items`` (n, 10) i64 rows, ``attributes`` (n, 10,
27) f32 and ``actions`` (n, memory, 27) f32, newest first. It returns float64 (n, 12), C-contiguous:
weights, in proportion to the probabilities, of buying each of the ten, of turning the page, and of
leaving. An answer of another form, or weights that are negative, not finite or all 0, are a
`CustomerModelError`; so is an exception that the function raises, which is its ``__cause__``, but
for ``KeyboardInterrupt`` and other ones that are no ``Exception``: those pass. Draws are the
store's, so a pure function keeps results reproducible; a function that is not pure, or whose name
stands for another function, is not told apart in logs and snapshots.
"""

ExactPolicy: TypeAlias = Literal["zero", "logger", "uniform", "oracle"]

LOGGED_SD = 0.03 / 5.1325
"""Standard deviation of each dimension of a logged action: a median norm of .030."""
LOGGED_MU = 0.0354
"""The norm that 90 % of the logged actions do not exceed: the action norm constraint's ``mu``."""


@dataclass(frozen=True, slots=True)
class ConstantCustomer:
    """Customers who answer every page alike, whatever it shows; for checks with known answers."""

    buy: float
    """Probability of buying, each item alike: this is R2P."""
    turn: float
    """Probability of turning the page."""


@dataclass(frozen=True)
class Counters:
    """Exact counts of a store's sessions. Add those of several workers with ``+`` or ``sum``."""

    pages: int = 0
    """Pages shown."""
    sessions: int = 0
    """Sessions that ended."""
    buy_pages: int = 0
    """Pages on which something was bought."""
    units: int = 0
    """Units bought."""
    cents: int = 0
    """Price of all that was bought, in cents."""
    buys_squared: int = field(default=0, repr=False)
    """Sum over ended sessions of (purchases of the session) squared."""
    pages_squared: int = field(default=0, repr=False)
    """Sum over ended sessions of (pages of the session) squared."""
    buys_times_pages: int = field(default=0, repr=False)
    """Sum over ended sessions of purchases times pages."""
    outcomes: tuple[int, ...] = field(default=(0, 0, 0, 0), repr=False)
    """Pages by how they ended: turn, buy, leave, max_pages."""
    sessions_by_length: tuple[int, ...] = field(default=(), repr=False)
    """Entry ``n`` counts ended sessions of ``n`` pages."""

    @property
    def r2p(self) -> float:
        """R2P: pages with a purchase / pages; not a number before the first page."""
        return self.buy_pages / self.pages if self.pages else math.nan

    @property
    def tv(self) -> int:
        """TV: units sold."""
        return self.units

    @property
    def tt(self) -> float:
        """TT: money value of what was sold."""
        return self.cents / 100

    @property
    def ctr(self) -> float:
        """Purchases / (10 x pages): a store has no clicks but purchases."""
        return self.buy_pages / (10 * self.pages) if self.pages else math.nan

    def __add__(self, other: Counters) -> Counters:
        if not isinstance(other, Counters):
            return NotImplemented

        def add(left: Any, right: Any) -> Any:
            if isinstance(left, int):
                return left + right
            pairs = itertools.zip_longest(left, right, fillvalue=0)
            return tuple(a + b for a, b in pairs)

        names = [one.name for one in fields(self)]
        return Counters(*(add(getattr(self, name), getattr(other, name)) for name in names))

    def __radd__(self, other: object) -> Counters:
        # What `sum` starts with.
        return self if other == 0 else NotImplemented


class GroundTruthStore:
    """A shop with known customers: the referee by which simulators and policies are judged.

    Frozen, made of its arguments alone: the same arguments give the same world, to the last bit, on
    every CPU. Making one takes about a second, since the world is calibrated and checked.

    | argument | what |
    |---|---|
    | ``seed`` | of the world; the runs of an experiment use ``run << 32`` |
    | ``items`` | items of the catalogue, 180 to 2^32 - 2 |
    | ``candidates`` | the first so many items of its category are the candidates of a query |
    | ``categories`` | ``"even"``: row mod 18; ``"long-tail"``: shares fall as a power law |
    | ``day`` | 0 to 30: tastes turn and the mix of customers moves as days pass |
    | ``hour`` | ``None``, an hour in [0, 24), or ``"uniform"``: each session has its own |
    | ``memory`` | the last so many actions are observed, and may be looked at by ``customers`` |
    | ``max_index`` | number of the last page that a customer may see, from 0 |
    | ``repeat`` | whether an item may be shown again in a session; if not, a session is truncated \
when fewer than 10 candidates are left |
    | ``continuing`` | nothing ends a session: another customer takes over at once |
    | ``leave`` | ``"end"``; ``"respawn"``: another customer takes over when one leaves |
    | ``new_request`` | probability that a customer who turns the page asks for something else |
    | ``observe_page`` | False hides the page number (its column is 0) |
    | ``observe_feedback`` | False hides the last answer (its columns are 0) |
    | ``calibrate`` | False takes ``tau`` and ``b0`` as they are, and checks nothing |
    | ``customers`` | None for the true ones, a `ConstantCustomer`, or a `CustomerModel` |

    A world is calibrated for day 0, no hour and one request a session: ``day``, ``hour`` and
    ``new_request`` leave ``tau`` and ``b0`` alone, so that what they change is seen. Hours move
    answers but are not observed. Columns of ``memory`` are 0 before a customer's first page, which
    a zero action is as well: there is no column that tells the two apart. With ``repeat=False`` no
    strength of tastes brings an oracle to .200; such a store has the ``tau`` of the same world with
    ``repeat=True``, a logger at .090, and the oracle that follows (.127 to .135 over the ten
    worlds that experiments use). Seed 0 is one of the worlds for tuning: report on ``100 << 32`` to
    ``104 << 32``.

    Stores are equal if their digests and their customers are. Pickles keep the calibrated figures
    and make the items again.

    Raises:
        InvalidArgumentError: arguments that make no store.
        DegenerateWorldError: a seed whose world is no fair test, about one in seven.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        items: int = 5_000,
        candidates: int = 200,
        categories: Literal["even", "long-tail"] = "even",
        day: int = 0,
        hour: float | Literal["uniform"] | None = None,
        memory: int = 1,
        max_index: int = 100,
        repeat: bool = True,
        continuing: bool = False,
        leave: Literal["end", "respawn"] = "end",
        new_request: float = 0.0,
        observe_page: bool = True,
        observe_feedback: bool = True,
        calibrate: bool = True,
        tau: float | None = None,
        b0: float | None = None,
        customers: CustomerModel | ConstantCustomer | None = None,
        num_threads: int | None = None,
    ) -> None:
        if _arguments.flag("calibrate", calibrate) == (tau is not None) or (tau is None) != (
            b0 is None
        ):
            message = "expected both with calibrate=False and neither otherwise"
            raise InvalidArgumentError(f"tau and b0: {message}, got {tau!r} and {b0!r}")
        strength = None if tau is None else (_arguments.real("tau", tau), _arguments.real("b0", b0))
        native = _core.Store(
            _arguments.seed(seed),
            items=_arguments.integer("items", items),
            candidates=_arguments.integer("candidates", candidates),
            categories=_arguments.text("categories", categories),
            day=_arguments.integer("day", day, 0, 2**32 - 1),
            hour=hour if hour is None or isinstance(hour, str) else _arguments.real("hour", hour),
            memory=_arguments.integer("memory", memory),
            max_index=_arguments.integer("max_index", max_index, 0, 2**32 - 1),
            repeat=_arguments.flag("repeat", repeat),
            continuing=_arguments.flag("continuing", continuing),
            leave=_arguments.text("leave", leave),
            new_request=_arguments.real("new_request", new_request),
            observe_page=_arguments.flag("observe_page", observe_page),
            observe_feedback=_arguments.flag("observe_feedback", observe_feedback),
            strength=strength,
            num_threads=_arguments.threads(num_threads),
        )
        calibration = native.reveal().get("calibration")
        self._set(native, customers, calibration, num_threads)

    def _set(
        self,
        native: _core.Store,
        customers: CustomerModel | ConstantCustomer | None,
        calibration: dict[str, Any] | None,
        num_threads: int | None,
    ) -> None:
        self._customers = customers
        self._plain = native
        # A pickle keeps these; the native store that is made from it has no need of them.
        self._calibration, self._num_threads = calibration, num_threads
        if isinstance(customers, ConstantCustomer):
            native = native.with_constant(
                _arguments.real("buy", customers.buy), _arguments.real("turn", customers.turn)
            )
        elif customers is not None:
            native = native.with_function(customers, _name(customers))
        self._native = native

    @functools.cached_property
    def schema(self) -> Schema:
        """What customers, actions and the first 91 columns of observations look like.

        ``clicks_column`` holds the units bought on the last page, ``second_column`` whether the
        last page was turned.
        """
        return Schema.from_json(self._native.schema)

    @property
    def name(self) -> str:
        """What logs and reports call it."""
        return "ground-truth-store"

    @property
    def page_items(self) -> int:
        """Items on a page."""
        return 10

    @property
    def digest(self) -> str:
        """SHA-256 of all that the store is made of."""
        return self._native.digest

    @property
    def observation_width(self) -> int:
        """Columns of an observation: 91, and 27 more for each remembered action."""
        return self._native.observation_width

    @property
    def max_index(self) -> int:
        """The number of the last page that a customer may see, from 0."""
        return self._native.max_index

    @property
    def memory(self) -> int:
        """The last so many actions that are observed, this page's included."""
        return self._native.memory

    @functools.cached_property
    def production(self) -> NDArray[np.float32]:
        """(27,): ``w_base``, the weights that an action is added to."""
        weights = self._native.production
        weights.flags.writeable = False
        return weights

    def items(self, first: int = 0, count: int | None = None) -> Items:
        """Items of the catalogue, from row ``first`` on (all, without a ``count``)."""
        first = _arguments.integer("first", first)
        many = self._size - first if count is None else _arguments.integer("count", count)
        attributes, category, cents = self._native.items(first, max(many, 0))
        return Items(attributes, category, cents / 100)

    @property
    def _size(self) -> int:
        return self._native.size

    def __len__(self) -> int:
        return self._size

    def candidates(self, query: int) -> NDArray[np.int64]:
        """Rows of the items that a query (field 9) selects, ascending."""
        return self._native.candidates(_arguments.integer("query", query))

    def pages(self, actions: NDArray[np.float32], queries: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The pages that actions show: the ten candidates of the highest ``(w_base + a) x``.

        Args:
            actions: float32 (n, 27), C-contiguous; clipped into the box, as environments do.
            queries: uint8 (n,).

        Returns:
            Rows (n, 10), best first; ties go to the lower row.

        Raises:
            InvalidActionError: actions of another form, not finite, or beyond 1e6.
            InvalidArgumentError: queries of another form, or beyond 17.
        """
        return self._native.pages(actions, queries)

    def expected(self, policy: ExactPolicy | NDArray[np.float32]) -> Course:
        """How sessions truly go under a policy, computed, not simulated.

        Args:
            policy: ``"zero"``, ``"logger"``, ``"uniform"`` (on the box), ``"oracle"`` (the exact
                best response to each customer's archetype), or a constant action (27,), clipped
                into the box, as environments do.

        Raises:
            InvalidActionError: an action of another form, not finite, or beyond 1e6.
            InvalidArgumentError: another word.
            StateError: the store's customers or rules are not the referee's plain ones.
        """
        if isinstance(policy, str) and policy != "zero":
            return Course(*self._native.expected(policy, None))
        if policy is None:
            raise InvalidActionError("policy: expected a word or an action, got None")
        action = np.zeros(27, np.float32) if isinstance(policy, str) else policy
        return Course(*self._native.expected("constant", action))

    def reveal(self) -> Hidden:
        """Everything that is hidden from learners. Training code never calls this."""
        hidden = self._native.reveal()
        hidden["calibration"] = copy.deepcopy(self._calibration)
        return Hidden(**hidden, production=self.production, _native=self._native)

    def __repr__(self) -> str:
        return f"<GroundTruthStore {self._native.describe()} customers={self._native.model!r}>"

    def __eq__(self, other: object) -> bool:
        # The digest knows a function by its name; two of the same name may answer differently.
        return (
            isinstance(other, GroundTruthStore)
            and self.digest == other.digest
            and self._customers == other._customers
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __copy__(self) -> GroundTruthStore:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> GroundTruthStore:
        # Frozen: a copy could not be told apart.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        data = self._plain.to_bytes()
        return _again, (data, self._customers, self._calibration, self._num_threads)


def _again(
    data: bytes,
    customers: CustomerModel | ConstantCustomer | None,
    calibration: dict[str, Any] | None,
    num_threads: int | None,
) -> GroundTruthStore:
    """A pickled store: its items are made again, but it is not calibrated again."""
    store = GroundTruthStore.__new__(GroundTruthStore)
    native = _core.Store.from_bytes(data, num_threads)
    store._set(native, customers, calibration, num_threads)
    return store


def _name(function: Any) -> str:
    if not callable(function) or function is ConstantCustomer:
        expected = "None, a ConstantCustomer with its probabilities, or a function"
        raise InvalidArgumentError(f"customers: expected {expected}, got {function!r}")
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"function:{module}.{name or type(function).__qualname__}"
