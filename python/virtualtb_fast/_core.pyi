"""The native module: thin, strict, and wrapped by the public Python names.

Arrays that come in must have exactly the dtype and rank given and be C-contiguous; nothing is
converted silently. Arrays that go out are fresh. Every error is of the tree in
``virtualtb_fast.errors``.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "DEBUG_BUILD",
    "MOST_K",
    "OUTCOMES",
    "STREAM_VERSION",
    "Catalog",
    "Customers",
    "Log",
    "Policy",
    "SessionBatch",
    "Simulator",
    "Store",
    "StoreBatch",
    "__version__",
    "cpu_info",
    "rollout",
    "schema_digest",
]

_Step: TypeAlias = tuple[
    NDArray[np.float32],  # observations (N, D)
    NDArray[np.float64],  # rewards (N,)
    NDArray[np.bool_],  # terminated (N,)
    NDArray[np.bool_],  # truncated (N,)
    dict[str, Any],  # infos: columns (N,) or (N, width), masks (N,), with SameStep final_info
    NDArray[np.int64],  # with SameStep: the environments that finished (K,), ascending
    NDArray[np.float32],  # with SameStep: their final observations (K, D)
]

STREAM_VERSION: int
__version__: str
DEBUG_BUILD: bool

def cpu_info() -> dict[str, Any]:
    """``isa`` in use, ``available`` instruction sets, ``cores``."""

@final
class Customers:
    """A sampler of customers, by itself. F fields."""

    @staticmethod
    def from_tensors(
        fields: str, config: str, slope: float, tensors: dict[str, NDArray[Any]]
    ) -> Customers:
        """``fields`` is JSON, a list of ``{"name", "size"}``; ``config`` `Customers.to_json`'s."""
    def sample(
        self, seed: int, first: int, count: int, num_threads: int | None
    ) -> NDArray[np.uint8]:
        """Codes (count, F): the customers of sessions ``first`` and on of stream ``seed``."""

@final
class Simulator:
    """Frozen customers. F fields, A action dimensions."""

    @staticmethod
    def from_tensors(
        name: str,
        schema: str,
        config: str,
        provenance: str,
        tensors: dict[str, NDArray[Any]],
    ) -> Simulator: ...
    @staticmethod
    def load(path: str) -> Simulator: ...
    @staticmethod
    def from_bytes(data: bytes, origin: str) -> Simulator: ...
    def save(self, path: str) -> None: ...
    def to_bytes(self) -> bytes: ...
    def tensors(self) -> dict[str, NDArray[Any]]: ...
    def forward(self, model: str, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, outputs) of one network for dense inputs (n, inputs)."""
    def reduced(self) -> Simulator: ...
    def reduced_weights(self, layer: int) -> NDArray[np.float64] | None:
        """What a reduced layer of answers multiplies with (outputs, inputs); of others None."""
    def customers(
        self, seed: int, first: int, count: int, num_threads: int | None
    ) -> NDArray[np.uint8]:
        """`Customers.sample` of this one's."""
    def respond(
        self,
        codes: NDArray[np.uint8],
        pages: NDArray[np.uint32],
        actions: NDArray[np.float32],
        logits: bool,
        num_threads: int | None,
    ) -> NDArray[np.float32]:
        """Probabilities (n, all heads) for customers (n, F), page numbers (n,), actions (n, A).

        With ``logits`` what they are the softmax of, head by head.
        """
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def is_reduced(self) -> bool: ...
    @property
    def schema(self) -> str: ...
    @property
    def config(self) -> str: ...
    @property
    def provenance(self) -> str: ...

@final
class SessionBatch:
    """``num_envs`` sessions side by side. N environments, D observation columns, A action dims."""

    def __new__(
        cls,
        simulator: Simulator,
        num_envs: int,
        *,
        num_threads: int | None,
        quirks: bool,
        clip: bool,
        autoreset: Literal["NextStep", "SameStep", "Disabled"],
        reward: Literal["clicks", "deals", "buy", "expected"],
        anc: tuple[float, float] | None,
    ) -> Self: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def bytes_per_session(self) -> int: ...
    def reset(
        self, seeds: NDArray[np.uint64] | None, mask: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """Starts sessions in the masked environments (all, without a mask); observations (N, D).

        Session 0 of new streams with ``seeds`` (N, uint64), else each stream's next session.
        """
    def step(self, actions: NDArray[np.float32]) -> _Step:
        """A page for everybody.

        Infos: clicks, deals, page i64; CTR, raw_reward f64; clipped bool; with a hazard outcome
        i64; with the head outcome R2P f64.
        """
    def send(self, actions: NDArray[np.float32]) -> None:
        """Starts a step in the background."""
    def recv(self) -> _Step:
        """What `step` would have returned."""
    def check_here(self, what: str) -> None:
        """Raises `StateError`, for the call ``what``, while a step is under way."""
    def step_one(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """``step`` for a batch of one without autoreset: action (A,), observation (D,)."""
    def observe(self) -> NDArray[np.float32]: ...
    def sessions(self) -> dict[str, NDArray[Any]]:
        """``seed`` u64, ``session`` u64, ``page`` i64, ``total_clicks`` i64; each (N,)."""
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes) -> None: ...

@final
class Store:
    """A frozen ground-truth store."""

    def __new__(
        cls,
        seed: int,
        *,
        items: int,
        candidates: int,
        categories: str,
        day: int,
        hour: float | str | None,
        memory: int,
        max_index: int,
        repeat: bool,
        continuing: bool,
        leave: str,
        new_request: float,
        observe_page: bool,
        observe_feedback: bool,
        strength: tuple[float, float] | None,
        num_threads: int | None,
    ) -> Self:
        """``strength`` is (tau, b0), or None to calibrate them."""
    @staticmethod
    def from_bytes(data: bytes, num_threads: int | None) -> Store: ...
    def to_bytes(self) -> bytes:
        """The configuration with its calibrated strength; customers of one's own are left out."""
    def with_constant(self, buy: float, turn: float) -> Store: ...
    def with_function(
        self, function: Callable[[dict[str, NDArray[Any]]], NDArray[np.float64]], name: str
    ) -> Store: ...
    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def max_index(self) -> int: ...
    @property
    def memory(self) -> int: ...
    @property
    def model(self) -> str: ...
    @property
    def schema(self) -> str: ...
    @property
    def observation_width(self) -> int: ...
    @property
    def production(self) -> NDArray[np.float32]: ...
    def describe(self) -> str: ...
    def candidates(self, query: int) -> NDArray[np.int64]: ...
    def items(
        self, first: int, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
        """Attributes (n, 27), categories (n,), prices in cents (n,)."""
    def pages(
        self, actions: NDArray[np.float32], queries: NDArray[np.uint8]
    ) -> NDArray[np.int64]: ...
    def expected(
        self, policy: str, action: NDArray[np.float32] | None
    ) -> tuple[float, float, NDArray[np.float64]]:
        """R2P, mean length, distribution of lengths."""
    def reveal(self) -> dict[str, Any]: ...
    def ln_density(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]: ...

@final
class StoreBatch:
    """``num_envs`` sessions in a store side by side. N environments, D observation columns."""

    def __new__(
        cls,
        store: Store,
        num_envs: int,
        *,
        num_threads: int | None,
        autoreset: Literal["NextStep", "SameStep", "Disabled"],
        reward: Literal["buy", "value"],
        anc: tuple[float, float] | None,
    ) -> Self: ...
    @property
    def num_threads(self) -> int: ...
    @property
    def bytes_per_session(self) -> int: ...
    def reset(
        self, seeds: NDArray[np.uint64] | None, mask: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """As `SessionBatch.reset`."""
    def step(self, actions: NDArray[np.float32]) -> _Step:
        """A page for everybody.

        Infos: items i64 (N, 10); slot, outcome, units, page i64; value, R2P, raw_reward f64;
        clipped bool.
        """
    def send(self, actions: NDArray[np.float32]) -> None:
        """Starts a step in the background."""
    def recv(self) -> _Step:
        """What `step` would have returned."""
    def check_here(self, what: str) -> None:
        """Raises `StateError`, for the call ``what``, while a step is under way."""
    def step_one(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """``step`` for a batch of one without autoreset: action (27,), observation (D,)."""
    def observe(self) -> NDArray[np.float32]: ...
    def sessions(self) -> dict[str, NDArray[Any]]:
        """``seed`` u64, ``session`` u64, ``page`` i64, ``buys`` i64, ``hour`` f32; each (N,)."""
    def counters(self) -> dict[str, Any]:
        """Exact counts since the batch was made: the fields of ``store.Counters``."""
    def reveal(self) -> NDArray[np.int64]:
        """The customers' archetypes (N,)."""
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes) -> None: ...

MOST_K: int
"""Most items that a search finds for a customer."""

@final
class Catalog:
    """Items in a mapped file. N items, D attributes, q queries; rows are uint32."""

    @staticmethod
    def open(path: str) -> Catalog: ...
    @staticmethod
    def from_bytes(data: bytes) -> Catalog: ...
    @staticmethod
    def build_arrays(
        attributes: NDArray[np.float32],
        *,
        ids: NDArray[np.uint64] | list[str | None] | None,
        numbers: list[tuple[str, NDArray[np.float32]]],
        categories: list[
            tuple[str, NDArray[np.int64] | list[str | None], NDArray[np.bool_] | None]
        ],
        path: str | None,
        overwrite: bool,
        num_threads: int | None,
        progress: Callable[[str, int, int], None] | None,
    ) -> Catalog:
        """Columns have N values; the third of a category says which integers are missing."""
    @staticmethod
    def build_table(
        source: Any,
        columns: dict[str, Any],
        *,
        path: str | None,
        overwrite: bool,
        num_threads: int | None,
        progress: Callable[[str, int, int], None] | None,
    ) -> Catalog:
        """``source`` is a Parquet file or has ``__arrow_c_stream__``.

        ``columns``: ``attributes`` list of names, ``ids`` name or None, ``numbers`` and
        ``categories`` lists of (name in the catalogue, name in the table).
        """
    def __len__(self) -> int: ...
    @property
    def dimensions(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def has_text_ids(self) -> bool: ...
    @property
    def category_columns(self) -> list[str]: ...
    @property
    def path(self) -> os.PathLike[str] | None: ...
    def to_bytes(self) -> bytes: ...
    def info(self) -> dict[str, Any]: ...
    def verify(self, progress: Callable[[str, int, int], None] | None) -> None: ...
    def count(self, filters: list[tuple[Any, ...]], rows: NDArray[np.uint32] | None) -> int: ...
    def find(self, what: str, ids: NDArray[np.uint64] | list[str]) -> NDArray[np.uint32]:
        """Rows of ids; ``what`` the message about an unknown one calls them."""
    def ids(self, rows: NDArray[np.uint32]) -> NDArray[Any] | list[str]: ...
    def attributes(self, rows: NDArray[np.uint32]) -> NDArray[np.float32]: ...
    def column(self, name: str, rows: NDArray[np.uint32]) -> NDArray[np.float32] | list[Any]: ...
    def search(
        self,
        weights: NDArray[np.float32],
        k: int,
        *,
        filters: list[tuple[Any, ...]],
        rows: NDArray[np.uint32] | None,
        ends: list[int] | None,
        num_threads: int | None,
    ) -> tuple[NDArray[Any] | list[str], NDArray[np.uint32], NDArray[np.float32]]:
        """Ids (q * k,), rows (q, k) and scores (q, k), weights (q, D).

        A filter is (column, categories) or (column, low, high). ``rows`` may be found by all
        queries, or, with ``ends``, each query's end there.
        """

OUTCOMES: Sequence[str]
"""How a page can end, in the order of the codes."""
BLOCK: int
"""Sessions of a block: the unit of parallel work and of a file's row groups."""

@final
class Log:
    """The pages of some sessions, as columns in the order (session, page)."""

    def __len__(self) -> int: ...
    def columns(self) -> dict[str, NDArray[Any]]:
        """NumPy views, read-only, no copy.

        session i64, page i16, day i16, customer u8 (R, fields), action f32 (R, A), action_logp
        f32, clicks u8, second u8, outcome u8 codes, units u16.
        """
    def metadata(self) -> dict[str, str]: ...
    def digest(self) -> str:
        """SHA-256 of schema and columns."""
    @staticmethod
    def digest_file(path: str) -> str:
        """The same of a file, which is read a piece at a time."""
    @staticmethod
    def check_file(path: str) -> bool:
        """Whether a file has a checksum, which then is right; no more of it is read."""
    @staticmethod
    def read(path: str) -> Log: ...
    def write(self, path: str, overwrite: bool) -> None: ...
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class Policy:
    """A ranking policy that runs natively."""

    @staticmethod
    def parse(text: str) -> Policy:
        """``random``, ``zero`` or ``gaussian:SIGMA``."""
    @staticmethod
    def constant(action: NDArray[np.float32]) -> Policy: ...
    @staticmethod
    def load(path: str) -> Policy: ...
    @staticmethod
    def from_bytes(data: bytes, origin: str) -> Policy: ...
    @staticmethod
    def from_tensors(
        config: str, provenance: str, tensors: dict[str, NDArray[np.float32]]
    ) -> Policy: ...
    def save(self, path: str) -> None: ...
    def to_bytes(self) -> bytes: ...
    def tensors(self) -> dict[str, NDArray[np.float32]]: ...
    @property
    def name(self) -> str: ...
    @property
    def config(self) -> str | None: ...
    @property
    def provenance(self) -> str | None: ...

def schema_digest(schema: str) -> str:
    """SHA-256 of a schema's JSON in its one normal form: what a policy's file refers to."""

def rollout(
    place: Simulator | Store,
    policy: Policy | Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]], Any],
    *,
    name: str,
    seed: int,
    sessions: int | None,
    pages: int | None,
    num_threads: int | None,
    batch_size: int | None,
    keep: bool,
    out: str | None,
    overwrite: bool,
    resume: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Log | None, dict[str, Any], int]:
    """Plays sessions 0 to ``sessions - 1`` of stream ``seed``, or the fewest that have ``pages``.

    The log is kept if ``keep`` and if it does not go to a file, ``out``.
    A function must return float32 (n, A), C-contiguous; ``name`` is what logs call it. The
    dictionary holds exact counts: the first fields of ``rollout.Summary``, arrays as i64. The
    number is of pages that an earlier run had played, if this one resumed it.
    """
