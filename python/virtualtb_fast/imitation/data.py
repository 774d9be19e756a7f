"""Pages of logged sessions, as training reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._batches import SessionRows
from virtualtb_fast._torch import Tensor, torch
from virtualtb_fast.errors import InvalidArgumentError
from virtualtb_fast.logs import OUTCOMES, SessionLog
from virtualtb_fast.networks import stream
from virtualtb_fast.schema import Schema

__all__ = ["ANSWERS", "Pages", "one_hot"]

ANSWERS: Final = ("turn", "buy", "leave")
"""What a customer does on a page, in the order of the head ``outcome``."""

_ANSWER_OF = np.array([ANSWERS.index(name if name in ANSWERS else "turn") for name in OUTCOMES])
"""A session that ends at its longest ends with a page that would have been turned."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages, session after session: R rows of S sessions.

    What is long may be on disk, as a `virtualtb_fast.records.columns.Column`.
    """

    schema: Schema
    """What customers and actions look like."""
    customer: NDArray[np.uint8]
    """(R, fields): category codes."""
    action: NDArray[np.float32]
    """(R, A): what was shown, raw."""
    page: NDArray[np.int16]
    """(R,): page within the session, from 0."""
    outcome: NDArray[np.uint8]
    """(R,): codes of `virtualtb_fast.logs.OUTCOMES`."""
    clicks: NDArray[np.uint8]
    """(R,)."""
    second: NDArray[np.uint8]
    """(R,)."""
    offsets: NDArray[np.int64]
    """(S + 1,): session i is rows ``offsets[i]`` to ``offsets[i + 1]``."""
    items: NDArray[np.uint32] | None = None
    """(R, 10): rows of the catalogue, best first; None if there are none."""
    value: NDArray[np.float32] | None = None
    """(R,): price of what was bought; None if there are no prices."""

    def __post_init__(self) -> None:
        rows = len(self.page)
        fields, size = len(self.schema.customer), self.schema.action
        forms: list[tuple[str, Any, tuple[int, ...], str]] = [
            ("customer", self.customer, (rows, fields), "u"),
            ("action", self.action, (rows, size), "f"),
            ("page", self.page, (rows,), "iu"),
            ("outcome", self.outcome, (rows,), "u"),
            ("clicks", self.clicks, (rows,), "u"),
            ("second", self.second, (rows,), "u"),
        ]
        for name, array, shape, dtype in forms:
            if array.shape != shape or array.dtype.kind not in dtype:
                got = f"{array.dtype} of shape {array.shape}"
                raise InvalidArgumentError(f"{name}: expected shape {shape}, got {got}")
        ends = self.offsets
        good = ends.ndim == 1 and len(ends) > 1 and ends[0] == 0 and ends[-1] == rows
        if not good or not (ends[1:] > ends[:-1]).all():
            expected = f"ascending numbers from 0 to {rows}, one a session and one more"
            raise InvalidArgumentError(f"offsets: expected {expected}, got {ends!r}")

    @classmethod
    def from_log(cls, log: SessionLog) -> Pages:
        """The pages of a log, sharing its memory."""
        store = "items" in log.keys()  # noqa: SIM118 (a log is no mapping)
        return cls(
            schema=log.schema,
            customer=log["customer"],
            action=log["action"],
            page=log["page"],
            outcome=log["outcome"],
            clicks=log["clicks"],
            second=log["second"],
            offsets=log.session_offsets(),
            items=log["items"] if store else None,
            value=log["value"] if store else None,
        )

    def __len__(self) -> int:
        """Rows."""
        return len(self.page)

    @property
    def sessions(self) -> int:
        """Sessions."""
        return len(self.offsets) - 1

    def lengths(self, sessions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pages of these sessions."""
        found: NDArray[np.int64] = self.offsets[sessions + 1] - self.offsets[sessions]
        return found

    def rows_of(self, sessions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of these sessions, in their order."""
        first, lengths = self.offsets[sessions], self.lengths(sessions)
        before = np.cumsum(lengths) - lengths
        rows: NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(first - before, lengths)
        return rows

    def held_out(self, share: float, seed: int) -> NDArray[np.bool_]:
        """Which sessions are held out, at random: bool (S,).

        Whole sessions are held out: pages of one customer on both sides would hide overfitting.

        Raises:
            InvalidArgumentError: a share that leaves one side without sessions.
        """
        chosen = (torch.rand(self.sessions, generator=stream(seed, "held out")) < share).numpy()
        if not chosen.any() or chosen.all():
            got = f"{share!r} of {self.sessions} sessions"
            raise InvalidArgumentError(f"held_out: expected a share that leaves both, got {got}")
        found: NDArray[np.bool_] = chosen
        return found

    def split(self, share: float, seed: int) -> tuple[SessionRows, SessionRows]:
        """The rows to train with and those of the sessions held out; see `held_out`."""
        held = self.held_out(share, seed)
        return SessionRows(self.offsets, ~held), SessionRows(self.offsets, held)

    def spread(self, most: int = 100_000) -> NDArray[np.int64]:
        """Numbers of about ``most`` rows, evenly over the log."""
        return np.arange(0, len(self), max(1, len(self) // most))

    def answers(self, rows: NDArray[np.int64]) -> Tensor:
        """What the customer did, int64 (n,), codes of `ANSWERS`."""
        return torch.from_numpy(_ANSWER_OF[self.outcome[rows]])

    def customers(self, rows: NDArray[np.int64]) -> Tensor:
        """One-hot customers, float32 (n, customer_width)."""
        return one_hot(self.schema, torch.from_numpy(self.customer[rows]))

    def actions(self, rows: NDArray[np.int64]) -> Tensor:
        """Raw actions, float32 (n, A)."""
        return torch.from_numpy(np.asarray(self.action[rows]))

    def numbers(self, rows: NDArray[np.int64]) -> Tensor:
        """Page numbers, float32 (n,)."""
        return torch.from_numpy(self.page[rows].astype(np.float32))

    def action_units(self) -> Tensor:
        """Standard deviation of each dimension of the logged actions, (A,): the unit of networks.

        A dimension that never changes has the unit 1.
        """
        # A hundred thousand rows give it to a quarter of a per cent.
        sd = self.action[self.spread()].std(0, dtype=np.float64)
        return torch.from_numpy(np.where(sd > 1e-12, sd, 1.0).astype(np.float32))


def one_hot(schema: Schema, codes: Tensor) -> Tensor:
    """One-hot customers, float32 (n, customer_width), of codes (n, fields)."""
    sizes = torch.tensor([0, *(one.size for one in schema.customer)])
    columns = codes.long() + sizes.cumsum(0)[:-1]
    return torch.zeros(len(codes), schema.customer_width).scatter_(1, columns, 1.0)
