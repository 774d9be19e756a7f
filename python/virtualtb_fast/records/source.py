"""Where a log comes from, read in pieces whose size does not depend on the log's."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from virtualtb_fast._arguments import as_path
from virtualtb_fast._sniff import not_parquet
from virtualtb_fast.errors import (
    FileFormatError,
    InvalidArgumentError,
    MissingExtraError,
    OutputError,
)
from virtualtb_fast.logs import has_checksum

__all__ = ["PACKAGE_FORMAT", "Source", "open_source", "pyarrow"]

PACKAGE_FORMAT: Final = "virtualtb_fast.sessions"
"""What the metadata of this package's own logs say of their format."""

_CREATOR: Final = "virtualtb_fast "
"""How the name of the program begins that wrote the file itself, as Parquet's footer has it."""
_BATCH_ROWS: Final = 32_768
_HASH_BYTES: Final = 1 << 22


def pyarrow(what: str) -> Any:
    """The module pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow as module
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        message = f'{what} needs pyarrow: pip install "virtualtb-fast[train]"'
        raise MissingExtraError(message) from error
    return module


@dataclass(frozen=True, slots=True)
class Source:
    """A log that can be read once, or again and again."""

    name: str
    """What messages call it: the file's path, or the kind of object."""
    schema: Any
    """`pyarrow.Schema` of all its columns."""
    metadata: dict[str, str]
    """The log's own metadata: what a log of this package says of itself."""
    rows: int | None
    """Rows, if known before reading."""
    path: str | None
    """The file, if it is one."""
    _read: Callable[[Sequence[str]], Iterator[Any]]

    @property
    def ours(self) -> bool:
        """Whether this package wrote it."""
        return self.metadata.get("format") == PACKAGE_FORMAT

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """`pyarrow.RecordBatch` after `pyarrow.RecordBatch`, of these columns in this order.

        Raises:
            FileFormatError: the file is damaged.
            OutputError: the operating system could not read it, or it changed meanwhile.
        """
        before = self._stat()
        arrow = pyarrow("reading a log")
        batches = self._read(columns)
        while True:
            try:
                batch = next(batches, None)
                if batch is not None:
                    # Texts that are no UTF-8, offsets that point elsewhere: decoders do not look.
                    batch.validate(full=True)
            except _unreadable(arrow) as e:
                raise FileFormatError(f"{self.name}: expected readable columns, got {e}") from e
            except OSError as error:
                # pyarrow raises OSError for damaged pages too, without a number.
                if error.errno is None:
                    message = f"{self.name}: expected an intact file, got {error}"
                    raise FileFormatError(message) from error
                raise OutputError(error.errno, error.strerror, self.name) from error
            if batch is None:
                break
            if batch.num_rows:
                yield batch
        if self._stat() != before:
            raise OutputError(f"{self.name}: expected a file at rest, got one that was changed")

    def digest(self) -> str | None:
        """SHA-256 of the file's bytes; None if it is no file."""
        if self.path is None:
            return None
        hashed = hashlib.sha256()
        with _reading(self.path), open(self.path, "rb", buffering=0) as file:
            piece = bytearray(_HASH_BYTES)
            while count := file.readinto(piece):
                hashed.update(memoryview(piece)[:count])
        return hashed.hexdigest()

    def _stat(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        with _reading(self.path):
            now = os.stat(self.path)
        return now.st_size, now.st_mtime_ns


def open_source(logs: Any, what: str = "fit") -> Source:
    """Opens a log.

    Args:
        logs: The path of a Parquet file; a `SessionLog` or `Rollout`; a DataFrame, a
            `pyarrow.Table` or whatever else speaks the Arrow PyCapsule interface; a `Source` as it
            is.
        what: Who asks, for messages.

    Raises:
        InvalidArgumentError: something else.
        FileFormatError: the file is no Parquet, or is damaged.
        OutputError: the operating system could not read it.
        MissingExtraError: pyarrow is not installed.
    """
    arrow = pyarrow(what)
    if isinstance(logs, Source):
        return logs
    path = getattr(logs, "path", None) if hasattr(logs, "summary") else logs
    if isinstance(path, str | os.PathLike):
        return _open_file(arrow, as_path(path))
    if isinstance(logs, arrow.RecordBatchReader):
        reader, rows = logs, None
    elif hasattr(logs, "__arrow_c_stream__"):
        try:
            reader = arrow.RecordBatchReader.from_stream(logs)
            rows = len(logs) if hasattr(logs, "__len__") else None
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, TypeError) as error:
            raise InvalidArgumentError(f"logs: expected a table, got {error}") from error
    else:
        expected = "a Parquet file, a SessionLog, a DataFrame or another Arrow table"
        raise InvalidArgumentError(f"logs: expected {expected}, got {type(logs).__name__}")

    def read(columns: Sequence[str]) -> Iterator[Any]:
        for batch in reader:
            for first in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.select(list(columns)).slice(first, _BATCH_ROWS)

    metadata = _texts(reader.schema.metadata)
    return Source(f"the {type(logs).__name__}", reader.schema, metadata, rows, None, read)


def _open_file(arrow: Any, path: str) -> Source:
    with _reading(path), open(path, "rb"):
        pass
    unreadable: tuple[type[Exception], ...] = (*_unreadable(arrow), OSError)
    try:
        file = arrow.parquet.ParquetFile(path, pre_buffer=False)
        schema, rows = file.schema_arrow, file.metadata.num_rows
        first_hand = (file.metadata.created_by or "").startswith(_CREATOR)
        file.close()
    except unreadable as error:
        got = not_parquet(path) or _first_line(error)
        message = f"{path}: expected a Parquet file, got {got}"
        raise FileFormatError(message) from error

    def read(columns: Sequence[str]) -> Iterator[Any]:
        with arrow.parquet.ParquetFile(path, pre_buffer=False) as opened:
            yield from opened.iter_batches(_BATCH_ROWS, columns=list(columns), use_threads=False)

    source = Source(path, schema, _texts(schema.metadata), rows, path, read)
    # Parquet's readers compare no checksums. Ours is in the footer, unless another tool wrote the
    # log anew.
    if source.ours or first_hand:
        compared = has_checksum(path)
        if first_hand and not compared:
            expected = "expected the checksum that this package writes"
            raise FileFormatError(f"{path}: {expected}, got none")
    return source


def _unreadable(arrow: Any) -> tuple[type[Exception], ...]:
    """What pyarrow raises for damaged files, among them names of columns that are no UTF-8."""
    kinds = (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, arrow.ArrowTypeError)
    return (*kinds, UnicodeDecodeError)


def _texts(metadata: Any) -> dict[str, str]:
    pairs = (metadata or {}).items()
    return {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in pairs
    }


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = OutputError(error.errno, error.strerror, path)
        raise told.naming("a log, a Parquet file") from error
