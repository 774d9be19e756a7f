"""Processes that tests start."""

from __future__ import annotations

import subprocess
from types import TracebackType

__all__ = ["Started"]


class Started(subprocess.Popen):
    """A process that a failing test takes with it, where `Popen` would wait for its end.

    A rollout of a hundred million sessions that Ctrl-C did not stop would fill the disk.
    """

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, value, trace)
