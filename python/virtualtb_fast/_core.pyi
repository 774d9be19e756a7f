"""The native module: thin, strict, and wrapped by the public Python names.

Arrays that come in must have exactly the dtype and rank given and be C-contiguous; nothing is
converted silently. Arrays that go out are fresh. Every error is of the tree in
``virtualtb_fast.errors``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

STREAM_VERSION: int
__version__: str
DEBUG_BUILD: bool

def cpu_info() -> dict[str, Any]:
    """``isa`` in use, ``available`` instruction sets, ``cores``."""

@final
class Simulator:
    """Frozen customer networks."""

    @staticmethod
    def from_tensors(
        name: str,
        schema: str,
        config: str,
        provenance: str,
        tensors: dict[str, NDArray[np.float32]],
    ) -> Simulator: ...
    @staticmethod
    def load(path: str) -> Simulator: ...
    @staticmethod
    def from_bytes(data: bytes, origin: str) -> Simulator: ...
    def save(self, path: str) -> None: ...
    def to_bytes(self) -> bytes: ...
    def tensors(self) -> dict[str, NDArray[np.float32]]: ...
    def forward(
        self, model: Literal["generator", "action", "leave"], x: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Logits (n, outputs) of one network for dense inputs (n, inputs)."""
    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def schema(self) -> str: ...
    @property
    def config(self) -> str: ...
    @property
    def provenance(self) -> str: ...

@final
class SessionBatch:
    """``num_envs`` sessions side by side. N environments, D observation columns, A action dims."""

    def __init__(
        self,
        simulator: Simulator,
        num_envs: int,
        *,
        num_threads: int | None,
        quirks: bool,
        clip: bool,
        autoreset: Literal["NextStep", "SameStep", "Disabled"],
        reward: Literal["clicks", "deals", "buy"],
        anc: tuple[float, float] | None,
    ) -> None: ...
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
    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[
        NDArray[np.float32],  # observations (N, D)
        NDArray[np.float64],  # rewards (N,)
        NDArray[np.bool_],  # terminated (N,)
        NDArray[np.bool_],  # truncated (N,)
        dict[str, NDArray[Any]],  # clicks, deals i64; CTR, raw_reward f64; clipped bool; (N,)
        NDArray[np.int64],  # with SameStep: the environments that finished (K,), ascending
        NDArray[np.float32],  # with SameStep: their final observations (K, D)
    ]: ...
    def step_one(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """``step`` for a batch of one without autoreset: action (A,), observation (D,)."""
    def observe(self) -> NDArray[np.float32]: ...
    def sessions(self) -> dict[str, NDArray[Any]]:
        """``seed`` u64, ``session`` u64, ``page`` i64, ``total_clicks`` i64; each (N,)."""
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes) -> None: ...

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
    simulator: Simulator,
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
    progress: Callable[[int, int], None] | None,
) -> tuple[Log | None, dict[str, Any]]:
    """Plays sessions 0 to ``sessions - 1`` of stream ``seed``, or the fewest that have ``pages``.

    The log is kept if ``keep`` and if it does not go to a file, ``out``.
    A function must return float32 (n, A), C-contiguous; ``name`` is what logs call it. The
    dictionary holds exact counters: pages, sessions, clicks, second, pages_with_click; sums over
    sessions clicks_squared, pages_squared, clicks_times_pages; arrays (i64) sessions_by_length,
    clicks_by_page, pages_by_page.
    """
