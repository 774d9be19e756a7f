"""Catalogues: millions of items in one mapped file, searched exactly.

A catalogue holds for each item its attributes, an id, and columns to filter by: categories and
numbers, one of which is usually the price. ``Catalog.search`` finds the items whose attributes
have the largest inner product with a customer's weights; the answer is exact, whatever the
filters, the batching, the number of threads and the CPU.

The file is opened in milliseconds whatever its size, and processes that open it share its memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments, _choices, _columns, _core
from virtualtb_fast._sniff import not_parquet
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError, StateError

__all__ = ["Catalog"]

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much (0: not known)."""

Range = tuple[float | None, float | None]
"""The smallest and the largest value, both included; None for no limit."""


class _Content:
    """A native catalogue that several unpickled ones share, each of which is closed by itself."""

    __slots__ = ("__weakref__", "native")

    def __init__(self, native: _core.Catalog) -> None:
        self.native = native


_alive: weakref.WeakValueDictionary[str, _Content] = weakref.WeakValueDictionary()
"""Unpickled catalogues in memory by digest, so that copies sent to a worker share one."""


class Catalog:
    """Items with attributes, ids, and what they can be filtered by. It never changes.

    Make one with `Catalog.build`, open a file with `Catalog.open`. Items have *rows*, their
    numbers in the order in which they were given, and *ids*, which are the rows unless others were
    given.

    Any number of threads and processes may use one at a time. Copies are the object itself;
    pickles hold the path of the file, or the content of a catalogue in memory; equality is equality
    of content. A catalogue is a context manager that closes itself.

    Every method raises `FileFormatError` once the file has been written to, shortened, or replaced
    by another of its name (open it again then), and `StateError` once the catalogue is closed.

    Example:
        >>> import numpy as np
        >>> import virtualtb_fast as vtb
        >>> attributes = np.eye(3, dtype=np.float32)
        >>> shop = vtb.Catalog.build(attributes, ids=["hat", "coat", "shoe"], price=[20, 90, 60])
        >>> ids, scores = shop.search([1.0, 3.0, 2.0], k=2, price=(None, 80))
        >>> list(ids)
        ['shoe', 'hat']
    """

    __slots__ = ("__weakref__", "_content", "_native")

    _native: _core.Catalog | None
    _content: _Content | None

    def __init__(self, native: _core.Catalog) -> None:
        """Wraps a native catalogue; callers outside the package use `build` and `open`."""
        if not isinstance(cast(object, native), _core.Catalog):
            got = type(native).__name__
            raise InvalidArgumentError(f"native: expected a native catalogue, got a {got}")
        self._native = native
        self._content = None

    @classmethod
    def build(
        cls,
        attributes: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        columns: str | Sequence[str] | None = None,
        ids: Any = None,
        price: Any = None,
        category: Any = None,
        numbers: Any = None,
        overwrite: bool = False,
        num_threads: int | None = None,
        progress: Progress | None = None,
    ) -> Catalog:
        """Builds a catalogue from arrays, an Arrow table or stream, or a Parquet file.

        With **arrays**, every argument is the column itself. With a **table**, every argument is
        the *name* of a column (or several), and ``columns`` says which hold the attributes. Tables
        are read in pieces, so a catalogue may be larger than memory: besides the file that is
        written, a scratch file of the attributes is needed for a while.

        Args:
            attributes: Numbers of shape (N, D), D from 1 to 512 (float32 in C order is read where
                it lies; anything else is copied); or an object with ``__arrow_c_stream__``
                (tables of pyarrow, polars, pandas); or the path of a Parquet file.
            path: The file to write; in memory unless given. It is written beside this name
                and renamed when it is complete.
            columns: For tables: the column of lists of attributes, or the columns of one attribute
                each. Unless given, the only column of lists, or else every column of floats that
                is nothing else.
            ids: Whole numbers from 0 to 2**64 - 2 or texts, each once, N of them. Unless given,
                items are called by their rows.
            price: Numbers (N,), NaN or null for none; kept as float32. For `search`'s ``price``.
            category: Texts or whole numbers (N,), None for none, or several such columns as a
                mapping from names. For tables: a name, several names, or a mapping from names
                in the catalogue to names in the table.
            numbers: More columns of numbers, as a mapping from names. For tables as ``category``.
            overwrite: Whether a file at ``path`` may be replaced.
            num_threads: Threads; one a core unless given.
            progress: Called up to 40 times a second with (what is going on, done, of how much).

        Raises:
            InvalidArgumentError: a value that is not finite (row and column are named), an id that
                is there twice (both rows are named), columns of wrong lengths, types or names.
            FileFormatError: the Parquet file is damaged.
            OutputError: ``path`` exists, or the system refused to read or write.
            KeyboardInterrupt: Ctrl-C; nothing is left under ``path``.
        """
        common: dict[str, Any] = {
            "path": None if path is None else _arguments.as_path(path),
            "overwrite": _arguments.flag("overwrite", overwrite),
            "num_threads": _arguments.threads(num_threads),
            "progress": _arguments.function("progress", progress),
        }
        if isinstance(attributes, str | os.PathLike) or hasattr(attributes, "__arrow_c_stream__"):
            is_file = isinstance(attributes, str | os.PathLike)
            chosen = _columns.of_table(columns, ids, price, category, numbers)
            source = _arguments.as_path(attributes) if is_file else attributes
            try:
                return cls(_core.Catalog.build_table(source, chosen, **common))
            except FileFormatError as error:
                got = not_parquet(source) if is_file else None
                if got is None:
                    raise
                message = f"{source}: expected a Parquet file, got {got}"
                raise FileFormatError(message) from error
            except InvalidArgumentError as error:
                told = _columns.unknown_column(str(error), chosen, source if is_file else None)
                if told is None and not is_file:
                    raise
                # Of many files, which one.
                raise InvalidArgumentError(told or f"{source}: {error}") from error
            except OutputError as error:
                if is_file and error.filename == source:
                    error.naming("a Parquet file")
                raise
        if columns is not None:
            raise InvalidArgumentError(
                f"columns: expected a table if columns are named, got {type(attributes).__name__}"
            )
        values = _columns.float32("attributes", attributes, 2)
        others = _columns.of_arrays(len(values), ids, price, category, numbers)
        return cls(_core.Catalog.build_arrays(values, **others, **common))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Catalog:
        """Opens a catalogue's file, whose size does not matter.

        Raises:
            FileFormatError: the file is no catalogue of this version, was cut short, or altered.
            OutputError: the operating system could not read it.
        """
        try:
            return cls(_core.Catalog.open(_arguments.as_path(path)))
        except OutputError as error:
            error.naming("a catalogue")
            raise

    def search(
        self,
        weights: ArrayLike,
        k: int = 10,
        *,
        category: Any = None,
        price: Range | None = None,
        numbers: Mapping[str, Range] | None = None,
        candidates: Any = None,
        rows: Any = None,
        num_threads: int | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Finds the ``k`` items of the highest score for each customer.

        An item's score is the inner product of weights and attributes, added up in float32 in the
        order of the attributes with fused multiply-adds. Of equal scores the lower row comes
        first. Filters are combined with *and*; no result depends on ``num_threads``.

        Args:
            weights: One customer's (D,), or those of q customers (q, D).
            k: How many items, 1 to 65,536.
            category: A category, or several of which one has to match, of the column
                ``category``, or of the only column of categories; or a mapping from columns to
                such. A category that no item has matches nothing.
            price: The smallest and the largest price, both included, either None for no limit.
                Both are rounded to float32, as prices are. Items without a price never match.
            numbers: The same for other columns of numbers.
            candidates: Ids of the items to choose from: one list for all customers, or one list
                for each (a matrix, or a sequence of lists; in a matrix, -1 and "" stand for none).
            rows: The same as row numbers.
            num_threads: Threads; one a core unless given.

        Returns:
            ids and scores, each (k,) or (q, k), the best first. Ids are int64 (uint64 if an id is
            larger than that), or texts in an array of objects. Where fewer than ``k`` items
            match, ids are -1 (as uint64: 2**64 - 1) or "", and scores are minus infinity.

        Raises:
            InvalidArgumentError: weights that are not finite or of another width, an unknown
                column or id, a range whose ends are the wrong way round, or a score that is too
                large for float32.
        """
        native = self._open()
        queries = _columns.float32("weights", weights, None)
        single = queries.ndim == 1
        if queries.ndim not in (1, 2) or queries.shape[-1] != native.dimensions:
            expected = f"shape ({native.dimensions},) or (q, {native.dimensions})"
            raise InvalidArgumentError(f"weights: expected {expected}, got {queries.shape}")
        queries = queries.reshape(-1, native.dimensions)
        chosen, ends = self._chosen(candidates, rows, None if single else len(queries))
        ids, _, scores = native.search(
            queries,
            _arguments.integer("k", k, 1, _core.MOST_K),
            filters=self._filters(category, price, numbers),
            rows=chosen,
            ends=ends,
            num_threads=_arguments.threads(num_threads),
        )
        shape = scores.shape[1:] if single else scores.shape
        return _columns.as_array(ids).reshape(shape), scores.reshape(shape)

    def count(
        self,
        *,
        category: Any = None,
        price: Range | None = None,
        numbers: Mapping[str, Range] | None = None,
    ) -> int:
        """How many items meet the filters, which are those of `search`."""
        return self._open().count(self._filters(category, price, numbers), None)

    def rows(self, ids: Any) -> NDArray[np.int64]:
        """The rows of some ids, int64 of their shape.

        Raises:
            InvalidArgumentError: an id that is unknown, or of the wrong kind.
        """
        array = _choices.id_array("ids", ids, self._texts())
        return self._find("ids", array.ravel()).astype(np.int64).reshape(array.shape)

    def ids(self, rows: ArrayLike | None = None) -> NDArray[Any]:
        """What items are called: those at some rows, or all.

        Returns:
            int64 (or uint64, or texts as objects) of the shape of ``rows``, or (N,).
        """
        wanted = self._rows(rows)
        return _columns.as_array(self._open().ids(wanted.ravel())).reshape(wanted.shape)

    def attributes(self, ids: Any = None, *, rows: ArrayLike | None = None) -> NDArray[np.float32]:
        """The attributes of some items, or of all, in the order of rows.

        Returns:
            float32 (n, D), a copy.
        """
        return self._open().attributes(self._wanted(ids, rows))

    def column(self, name: str, ids: Any = None, *, rows: ArrayLike | None = None) -> NDArray[Any]:
        """A column's values for some items, or for all, in the order of rows.

        Returns:
            float32 (n,), NaN for none; of categories an array of objects (n,), None for none.
        """
        return _columns.as_array(
            self._open().column(_columns.column_name("name", name), self._wanted(ids, rows))
        )

    def verify(self, progress: Progress | None = None) -> None:
        """Reads the whole file and compares every checksum.

        Raises:
            FileFormatError: the file was altered; the message names the section.
        """
        self._open().verify(_arguments.function("progress", progress))

    def info(self) -> dict[str, Any]:
        """What the catalogue holds, as a fresh dictionary.

        Keys: ``path`` (None in memory), ``items``, ``dimensions``, ``ids`` (``rows``, ``integers``
        or ``texts``), ``columns`` (a list of dictionaries with ``name``, ``kind``, ``categories``
        and ``items`` that have a value), ``bytes``, ``sections`` (bytes by kind), ``clusters``,
        ``digest``, ``made_by``.
        """
        return {"path": self.path, **self._open().info()}

    def close(self) -> None:
        """Lets go of the file. Searches under way go on; closing twice is no error."""
        self._native = self._content = None

    @property
    def dimensions(self) -> int:
        """Attributes of an item, D."""
        return self._open().dimensions

    @property
    def path(self) -> str | None:
        """The file's whole path; None for a catalogue in memory."""
        path = self._open().path
        return None if path is None else os.fspath(path)

    @property
    def digest(self) -> str:
        """SHA-256 of the header, which holds those of all sections: equal for equal content."""
        return self._open().digest

    def __len__(self) -> int:
        """Items, N."""
        return len(self._open())

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._native is None:
            return "<Catalog, closed>"
        where = "in memory" if self.path is None else f"in {self.path!r}"
        return f"<Catalog of {len(self):,} items x {self.dimensions} {where}>"

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Catalog) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __copy__(self) -> Catalog:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Catalog:
        return self

    def __reduce__(self) -> tuple[Callable[..., Catalog], tuple[str, str | bytes]]:
        native = self._open()
        if self.path is None:
            return _unpickle_content, (native.digest, native.to_bytes())
        return _unpickle_path, (native.digest, self.path)

    def _open(self) -> _core.Catalog:
        if self._native is None:
            raise StateError("expected an open catalogue, got one that was closed")
        return self._native

    def _texts(self) -> bool:
        return self._open().has_text_ids

    def _find(self, what: str, ids: NDArray[Any]) -> NDArray[np.uint32]:
        native = self._open()
        return native.find(what, ids.tolist() if ids.dtype == object else ids)

    def _rows(self, rows: ArrayLike | None) -> NDArray[np.uint32]:
        if rows is None:
            return np.arange(len(self), dtype=np.uint32)
        return _choices.row_array("rows", rows, len(self))

    def _wanted(self, ids: Any, rows: ArrayLike | None) -> NDArray[np.uint32]:
        if ids is not None and rows is not None:
            raise InvalidArgumentError("ids, rows: expected one of the two, got both")
        if ids is not None:
            return self._find("ids", _choices.id_array("ids", ids, self._texts()).ravel())
        return self._rows(rows).ravel()

    def _chosen(
        self, candidates: Any, rows: Any, queries: int | None
    ) -> tuple[NDArray[np.uint32] | None, list[int] | None]:
        """Rows to choose from, and where each query's end if each has its own."""
        if candidates is None and rows is None:
            return None, None
        if candidates is not None and rows is not None:
            raise InvalidArgumentError("candidates, rows: expected one of the two, got both")
        what, given = ("rows", rows) if candidates is None else ("candidates", candidates)
        texts = candidates is not None and self._texts()

        def flat(one: Any) -> NDArray[Any]:
            if what == "rows":
                return _choices.row_array(what, one, len(self)).ravel()
            return _choices.id_array(what, one, texts).ravel()

        joined, ends = _choices.joined(what, given, queries, flat)
        return (joined if what == "rows" else self._find(what, joined)), ends

    def _filters(
        self, category: Any, price: Range | None, numbers: Mapping[str, Range] | None
    ) -> list[tuple[Any, ...]]:
        if category is not None and not isinstance(category, Mapping):
            category = {self._category_name(): category}
        return _choices.filters(category, price, numbers)

    def _category_name(self) -> str:
        names = self._open().category_columns
        if len(names) == 1 or _columns.CATEGORY in names:
            return _columns.CATEGORY if _columns.CATEGORY in names else names[0]
        known = ", ".join(names) or "none"
        raise InvalidArgumentError(
            f"category: expected a mapping from columns of categories ({known}), got a value"
        )


def _unpickle_path(digest: str, path: str) -> Catalog:
    catalog = Catalog.open(path)
    if catalog.digest != digest:
        message = f"expected the catalogue of digest {digest}, got {catalog.digest}"
        raise FileFormatError(f"{path}: {message}: the file was replaced")
    return catalog


def _unpickle_content(digest: str, data: bytes) -> Catalog:
    content = _alive.get(digest)
    if content is None:
        content = _Content(_core.Catalog.from_bytes(data))
        if content.native.digest != digest:
            message = f"expected digest {digest}, got {content.native.digest}"
            raise FileFormatError(f"pickled catalogue: {message}")
        _alive[digest] = content
    catalog = Catalog(content.native)
    catalog._content = content
    return catalog
