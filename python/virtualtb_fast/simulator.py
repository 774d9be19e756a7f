"""Simulators: frozen customers, their files, and the ones that come with the package."""

from __future__ import annotations

import functools
import json
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast.errors import FileFormatError, InvalidArgumentError, OutputError
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA, Config, Schema

__all__ = ["DEFAULT", "Simulator", "embedded_simulators", "load_simulator"]

DEFAULT = "virtualtb-v0-refit"
"""The name of the simulator that everything uses unless told otherwise."""

_SUFFIX = ".safetensors"
_LAST_PAGE = 1 << 24
"""Beyond this a page number is no longer exact in float32."""

_alive: weakref.WeakValueDictionary[str, Simulator] = weakref.WeakValueDictionary()
"""Unpickled simulators by digest, so that a thousand environments sent to a worker share one."""


class Simulator:
    """Frozen customers: who comes, how a page is answered, when a session ends.

    `schema.Config` says of which kinds and sizes these parts are.

    A simulator never changes, so copies are the object itself, equality is equality of content
    (`digest`), and one may be shared by any number of environments and threads. Pickles hold the
    bytes of its file.

    Make one with `load_simulator`, `import_published`, `Simulator.load` or
    `Simulator.from_tensors`.
    """

    __slots__ = ("__weakref__", "_config", "_native", "_schema")

    _native: _core.Simulator
    _schema: Schema
    _config: Config

    def __init__(self, native: _core.Simulator, origin: str = "simulator") -> None:
        """Wraps a native simulator; callers outside the package use the functions above."""
        self._native = _arguments.instance("native", native, _core.Simulator)
        try:
            self._schema = Schema.from_json(native.schema)
            self._config = Config.from_json(native.config)
        except InvalidArgumentError as error:
            raise FileFormatError(f"{origin}: {error}") from error
        if not native.provenance.startswith("{"):
            got = native.provenance[:40]
            raise FileFormatError(f"{origin}: provenance: expected an object, got {got}")

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, NDArray[np.float32]],
        *,
        name: str,
        schema: Schema = V0_SCHEMA,
        config: Config = V0_CONFIG,
        provenance: Mapping[str, Any] | None = None,
    ) -> Simulator:
        """Builds a simulator from its weights.

        Args:
            tensors: Arrays with the names and shapes of ``config.shapes(schema)``, float32 but for
                a table of customers, which is uint8 (``config.dtypes(schema)``).
            name: What to call it.
            schema: What customers and actions look like.
            config: The kinds and sizes of its parts.
            provenance: Where it came from; anything that JSON can hold.

        Raises:
            InvalidArgumentError: tensors missing, surplus, of another shape or dtype, or not
                finite; probabilities that do not sum to 1, codes beyond their field, weights under
                which a sum could overflow; a name or provenance of the wrong kind.
        """
        if not _arguments.is_text(_arguments.instance("name", name, str)):
            raise InvalidArgumentError(f"name: expected a non-empty text of UTF-8, got {name!r}")
        _arguments.instance("schema", schema, Schema)
        _arguments.instance("config", config, Config)
        mapping = _arguments.instance("tensors", tensors, Mapping)  # type: ignore[type-abstract]
        dtypes = config.dtypes(schema)
        arrays = {key: _array(key, value, dtypes) for key, value in mapping.items()}
        try:
            text = json.dumps(dict(provenance or {}), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"provenance: expected a mapping that JSON can hold, got {error}"
            raise InvalidArgumentError(message) from error
        native = _core.Simulator.from_tensors(
            name, schema.to_json(), config.to_json(), text, arrays
        )
        return cls(native)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Simulator:
        """Reads a simulator's file.

        Raises:
            FileFormatError: the file is no simulator, was cut short, or was altered.
            OutputError: the operating system could not read it.
        """
        text = _arguments.as_path(path)
        try:
            return cls(_core.Simulator.load(text), text)
        except OutputError as error:
            error.naming("a simulator's file (.safetensors)")
            raise

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file beside ``path``, reads it back, then renames it over ``path``.

        Raises:
            OutputError: the operating system could not write it; ``path`` is as it was.
        """
        self._native.save(_arguments.as_path(path))

    def to_bytes(self) -> bytes:
        """The file's bytes; the same simulator always gives the same."""
        return self._native.to_bytes()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What it is made of, as fresh arrays with the names and shapes of ``config.shapes``."""
        return self._native.tensors()

    def customers(
        self, count: int, seed: int, *, first: int = 0, num_threads: int | None = None
    ) -> NDArray[np.uint8]:
        """The customers of some sessions, without playing them.

        Args:
            count: How many.
            seed: Stream of random numbers, 0 to 2**64 - 1.
            first: The first one's session.
            num_threads: Threads; one a core unless given. They change no result.

        Returns:
            uint8 category codes of shape (count, number of fields): row i is the customer of
            session ``first + i`` of the stream, in environments and rollouts alike.

        Raises:
            InvalidArgumentError: an argument out of its range.
            KeyboardInterrupt: Ctrl-C, answered within a fraction of a second.
        """
        return self._native.customers(
            _arguments.seed(seed),
            _arguments.integer("first", first),
            _arguments.integer("count", count),
            _arguments.threads(num_threads),
        )

    def response(
        self,
        codes: NDArray[np.uint8],
        pages: NDArray[Any],
        actions: NDArray[np.float32],
        *,
        logits: bool = False,
        num_threads: int | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """The answers to some pages: the probabilities that sessions draw from, or their logits.

        Args:
            codes: The customers, uint8 category codes of shape (N, number of fields).
            pages: Page numbers from 0, integers of shape (N,).
            actions: float32 of shape (N, A).
            logits: Return logits: any numbers, whose softmax, head by head, are the probabilities.
                Those of a `reduced` simulator are its own.
            num_threads: Threads; one a core unless given. They change no result.

        Returns:
            float32 of shape (N, categories) for each of ``config.heads``: ``clicks`` and
            ``second``, and with a hazard ``leave`` (stay, leave); or ``outcome`` (turn, buy,
            leave). They are views of one array.

        Raises:
            InvalidArgumentError: arrays of another shape or dtype, codes beyond their field, page
                numbers beyond 2**24, actions that are not finite or beyond 1e6.
            KeyboardInterrupt: Ctrl-C, answered within a fraction of a second.
        """
        numbers = np.asarray(pages)
        good = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer)
        if not good or (numbers < 0).any() or (numbers > _LAST_PAGE).any():
            expected = f"integers of shape (N,), 0 to {_LAST_PAGE}"
            got = f"{numbers.dtype} of shape {numbers.shape}"
            got += f", {numbers.min()} to {numbers.max()}" if good else ""
            raise InvalidArgumentError(f"pages: expected {expected}, got {got}")
        answers = self._native.respond(
            np.asarray(codes, order="C"),
            numbers.astype(np.uint32),
            np.asarray(actions, order="C"),
            _arguments.flag("logits", logits),
            _arguments.threads(num_threads),
        )
        heads = self._config.heads
        ends = np.cumsum(list(heads.values()))
        blocks = np.split(answers, ends[:-1], axis=1)
        return dict(zip(heads, blocks, strict=True))

    def forward(self, model: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The raw outputs (logits) of one network, for inspection; sessions do not need it.

        They are the exact ones, of a `reduced` simulator too.

        Args:
            model: One of ``config.layers(schema)``: ``action`` (customer one-hot, page times its
                scale, and the action unless the response is linear in it; logits of the heads
                out); with an ``mlp`` of customers ``generator`` (noise in, field logits out); with
                a leave of ``once`` ``leave`` (customer one-hot in, page-limit logits out).
            inputs: float32, C-contiguous, of shape (N, inputs of the model).

        Returns:
            float32 of shape (N, outputs of the model).

        Raises:
            InvalidArgumentError: another model, shape or dtype.
        """
        layers = self._config.layers(self._schema)
        if not isinstance(model, str) or model not in layers:
            raise InvalidArgumentError(f"model: expected {', '.join(layers)}, got {model!r}")
        array, width = np.asarray(inputs), layers[model][0]
        if array.ndim != 2 or array.shape[1] != width:
            message = f"expected shape (N, {width}), got {array.shape}"
            raise InvalidArgumentError(f"inputs: {message}")
        return self._native.forward(model, inputs)

    def reduced(self) -> Simulator:
        """This simulator at reduced precision, for speed: other answers, but seldom.

        The layers between hidden units (the answers', and those of page limits drawn once) get
        weights of eight bits, rounded so that outputs change least (GPTQ; Frantar et al., ICLR
        2023), and their inputs codes of eight bits a row. Who comes does not change. Results are
        still the same bytes whatever the threads, the batch and the CPU, but only CPUs with
        AVX-512 VNNI are faster at it than at the exact form.

        Of the embedded and the published networks, under random, zero and Gaussian actions, the
        click-through rate changes by at most 0.5 % of itself, and logits, counted from their head's
        mean, are off by at most 4 % of their size (root mean squares over all pages), on 999 of
        1,000 pages by at most 16 % of that page's own. How far those of another simulator are off,
        ``response(..., logits=True)`` of both forms tells.

        It has a digest of its own; its file, and `tensors`, are those of the exact one.

        Raises:
            InvalidArgumentError: no network with a layer between hidden units.

        Example:
            >>> import virtualtb_fast as vtb
            >>> fast = vtb.load_simulator().reduced()
            >>> vtb.rollout(fast, "zero", sessions=1000, keep=False).ctr  # doctest: +SKIP
        """
        return self if self.is_reduced else _reduced(self)

    @property
    def is_reduced(self) -> bool:
        """Whether it is a `reduced` one."""
        return self._native.is_reduced

    def with_page_base(self, base: Literal[0, 1]) -> Simulator:
        """This simulator, for customers whose first page counts as page ``base``.

        VirtualTB-v0's networks get 0 for the first page, while sessions of the data that they
        were probably fitted to start at 1. A network that is to see ``page + 1`` is the same
        network with the page's weights added to its first bias, which is what this returns.

        Raises:
            InvalidArgumentError: a base other than 0 or 1.
        """
        if not isinstance(base, int | np.integer) or base not in (0, 1) or isinstance(base, bool):
            raise InvalidArgumentError(f"page_base: expected 0 or 1, got {base!r}")
        if not base:
            return self
        if self.is_reduced:
            exact = Simulator(_core.Simulator.from_bytes(self.to_bytes(), self.name))
            return _shifted(exact).reduced()
        return _shifted(self)

    @property
    def name(self) -> str:
        """What it is called."""
        return self._native.name

    @property
    def page_items(self) -> int:
        """Items on a page."""
        return self.config.response.items

    @property
    def digest(self) -> str:
        """SHA-256 of the file with the digest's own digits zeroed, in hexadecimal."""
        return self._native.digest

    @property
    def schema(self) -> Schema:
        """What customers and actions look like."""
        return self._schema

    @property
    def config(self) -> Config:
        """The kinds and sizes of its parts."""
        return self._config

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it came from, as a fresh dictionary."""
        return dict(json.loads(self._native.provenance))

    def __repr__(self) -> str:
        reduced = ", reduced" if self.is_reduced else ""
        return f"<Simulator {self.name!r} {self.digest[:12]}{reduced}>"

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Simulator) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __copy__(self) -> Simulator:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Simulator:
        return self

    def __reduce__(self) -> tuple[Callable[[str, bytes, bool], Simulator], tuple[str, bytes, bool]]:
        return _unpickle, (self.digest, self.to_bytes(), self.is_reduced)


def load_simulator(name_or_path: str | os.PathLike[str] | Simulator = DEFAULT) -> Simulator:
    """Loads a simulator that comes with the package, by name, or one from a file.

    Args:
        name_or_path: A name out of `embedded_simulators`, the path of a ``.safetensors``
            simulator, or a `Simulator`, which is returned as it is. A name wins over a file that
            is called the same; write ``./name`` for the file.

    Raises:
        InvalidArgumentError: neither a known name nor a file.
        FileFormatError: the file is no simulator, was cut short, or was altered.
        OutputError: the operating system could not read it.
    """
    if isinstance(name_or_path, Simulator):
        return name_or_path
    text = _arguments.as_path(name_or_path)
    known = embedded_simulators()
    if text in known:
        return _embedded(text)
    if not os.path.exists(text):
        names = ", ".join(known) or "none in this build"
        raise InvalidArgumentError(
            f"simulator: expected a file or a name (there are: {names}), got {text!r}"
        )
    return Simulator.load(text)


def embedded_simulators() -> tuple[str, ...]:
    """Names of the simulators that come with the package."""
    folder = _data_folder()
    if not folder.is_dir():
        return ()
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)))


@functools.cache
def _embedded(name: str) -> Simulator:
    data = (_data_folder() / f"{name}{_SUFFIX}").read_bytes()
    return Simulator(_core.Simulator.from_bytes(data, name))


def _data_folder() -> Any:
    # Imported here: it costs more than the rest of this module together.
    from importlib.resources import files

    return files("virtualtb_fast") / "data"


@functools.lru_cache(maxsize=8)
def _shifted(simulator: Simulator) -> Simulator:
    schema, config = simulator.schema, simulator.config
    tensors = simulator.tensors()
    # The page enters right after the customer's columns.
    page = tensors["action.0.weight"][:, schema.customer_width]
    shifted = tensors["action.0.bias"] + np.float32(config.response.page_scale) * page
    tensors["action.0.bias"] = shifted.astype(np.float32)
    return Simulator.from_tensors(
        tensors,
        name=f"{simulator.name}, pages from 1",
        schema=schema,
        config=config,
        provenance={"page_base": 1, "of": simulator.digest, "source": simulator.provenance},
    )


@functools.lru_cache(maxsize=8)
def _reduced(simulator: Simulator) -> Simulator:
    return Simulator(simulator._native.reduced())


def _unpickle(digest: str, data: bytes, reduced: bool = False) -> Simulator:
    simulator = _alive.get(digest)
    if simulator is None:
        simulator = Simulator(_core.Simulator.from_bytes(data, "pickled simulator"))
        simulator = simulator.reduced() if reduced else simulator
        if simulator.digest != digest:
            message = f"expected digest {digest}, got {simulator.digest}"
            raise FileFormatError(f"pickled simulator: {message}")
        simulator = _alive.setdefault(digest, simulator)
    return simulator


def _array(name: object, value: object, dtypes: Mapping[str, np.dtype[Any]]) -> NDArray[Any]:
    if not isinstance(name, str) or not _arguments.is_text(name):
        raise InvalidArgumentError(f"tensors: expected names that are text, got {name!r}")
    # Safetensors files hold rows in order, so other layouts are copied into it here.
    array = np.asarray(value, order="C")
    expected = dtypes.get(name, np.dtype(np.float32))
    if array.dtype != expected:
        raise InvalidArgumentError(f"tensor {name}: expected {expected}, got {array.dtype}")
    return array
