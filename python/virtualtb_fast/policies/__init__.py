"""Ranking policies that run natively, and their file.

A policy file is one safetensors file (format ``virtualtb_fast.policy``, version 1) with the
tensors below, all float32, and JSON metadata; it carries a SHA-256 of itself and the digest of the
schema that it was made for. Reading it checks all of that.

| tensor | shape | what |
|---|---|---|
| ``policy.<0, 2, 4, ...>.weight`` | (outputs, inputs) | numbered as in ``nn.Sequential`` |
| ``policy.<0, 2, 4, ...>.bias`` | (outputs,) | |
| ``observation.mean``, ``observation.sd`` | (D,) | ``(observation - mean) / sd`` enters |
| ``log_sd`` | (A,) | normal noise around the output; only in a sampled policy |
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments, _core
from virtualtb_fast._npy import load_npy
from virtualtb_fast.errors import InvalidArgumentError, OutputError
from virtualtb_fast.schema import Schema

__all__ = ["Activation", "Policy"]

Activation = Literal["identity", "tanh", "relu"] | tuple[Literal["leaky_relu"], float]
"""What follows a layer; the leaky ReLU comes with its slope, in [0, 1)."""


_LONGEST_TEXT = 1 << 20
"""Most characters of a constant action as text."""
_WORDS = ("random", "zero", "logger", "logger:query")


class Policy:
    """A ranking policy: an action a page, chosen natively from the observation.

    The draws of a policy belong to (seed, session, page), so a rollout under it does not depend on
    threads or batches. Policies are equal if they have the same name; copies and pickles are cheap.
    """

    __slots__ = ("_native", "_source")

    def __init__(self, native: _core.Policy, source: tuple[str, Any]) -> None:
        """Wraps a native policy; callers use the class methods."""
        self._native = native
        self._source = source

    @classmethod
    def parse(cls, text: str) -> Policy:
        """A policy from words, as the command line takes them.

        Args:
            text: ``random`` (uniform on the action box), ``zero``, ``gaussian:SIGMA``, ``logger``
                (what a store's logs are made with) or ``logger:query`` (the same with means that
                depend on the customer's query), ``constant:FILE`` (numbers in a ``.npy`` or text
                file), or the path of a policy's ``.safetensors`` file.

        Raises:
            InvalidArgumentError: none of these.
            FileFormatError: the file is no policy, was cut short, or was altered.
            OutputError: the file cannot be read.
        """
        _arguments.text("policy", text)
        if text.startswith("constant:"):
            return _constant(text.removeprefix("constant:"))
        if text.endswith(".safetensors"):
            return cls.load(text)
        if text not in _WORDS and not text.startswith("gaussian:"):
            expected = f"{', '.join(_WORDS)}, gaussian:SIGMA, constant:FILE or a .safetensors file"
            raise InvalidArgumentError(f"policy: expected {expected}, got {text!r}")
        return cls(_core.Policy.parse(text), ("parse", text))

    @classmethod
    def constant(cls, action: ArrayLike) -> Policy:
        """Shows every customer the same action.

        Args:
            action: (A,) finite numbers; clipped into the simulator's range when it is played.
        """
        try:
            # What is too large for float32 becomes infinite, which is refused by name.
            with np.errstate(over="ignore"):
                given = np.asarray(action)
                if given.dtype.kind not in "biufO":
                    raise TypeError(f"an array of {given.dtype}")
                array = given.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"constant action: expected numbers, got {error}") from error
        if array.ndim != 1:
            message = f"constant action: expected shape (A,), got {array.shape}"
            raise InvalidArgumentError(message)
        array = np.ascontiguousarray(array)
        return cls(_core.Policy.constant(array), ("constant", array.tolist()))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Reads a policy's file.

        Raises:
            FileFormatError: the file is no policy, was cut short, or was altered.
            OutputError: the operating system could not read it.
        """
        try:
            return cls._of_network(_core.Policy.load(_arguments.as_path(path)))
        except OutputError as error:
            error.naming("a policy's file (.safetensors)")
            raise

    @classmethod
    def from_tensors(
        cls,
        layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
        *,
        schema: Schema,
        activation: Activation = "tanh",
        output: Activation = "identity",
        observation_mean: ArrayLike | None = None,
        observation_sd: ArrayLike | None = None,
        observation_clip: float | None = None,
        log_sd: ArrayLike | None = None,
        action_clip: tuple[float, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Policy:
        """A multilayer perceptron from observations to actions.

        Args:
            layers: (weight, bias) pairs, float32 of shapes (outputs, inputs) and (outputs,), from
                ``schema.observation_width`` inputs to ``schema.action`` outputs.
            schema: What customers and actions look like; other simulators refuse the policy.
            activation: What follows every layer but the last.
            output: What follows the last layer.
            observation_mean: (D,), 0 unless given.
            observation_sd: (D,), 1 unless given; positive.
            observation_clip: Bound of the normalised observation.
            log_sd: (A,). If given, actions are drawn: normal around the output, with these
                logarithms of the standard deviations. Else the output is the action.
            action_clip: Actions are clipped to (low, high), on top of the simulator's range.
            provenance: Where the policy came from; anything that JSON can hold.

        Raises:
            InvalidArgumentError: shapes or dtypes that do not fit together, values not finite.
        """
        width, size = _arguments.instance("schema", schema, Schema).observation_width, schema.action
        tensors = {
            "observation.mean": _column("observation_mean", observation_mean, 0.0, width),
            "observation.sd": _column("observation_sd", observation_sd, 1.0, width),
        }
        sizes = [width]
        try:
            pairs = list(layers)
        except TypeError as error:
            message = f"layers: expected (weight, bias) pairs, got {layers!r}"
            raise InvalidArgumentError(message) from error
        for index, pair in enumerate(pairs):
            weight, bias = _layer(index, pair)
            tensors[f"policy.{2 * index}.weight"] = weight
            tensors[f"policy.{2 * index}.bias"] = bias
            sizes.append(len(bias))
        if sizes[-1] != size or len(sizes) == 1:
            message = f"expected layers that end in {size} outputs, got sizes {sizes}"
            raise InvalidArgumentError(f"layers: {message}")
        if log_sd is not None:
            tensors["log_sd"] = _column("log_sd", log_sd, 0.0, size)
        config = {
            "layers": sizes,
            "activation": _activation("activation", activation),
            "output": _activation("output", output),
            "sampled": log_sd is not None,
            "observation_clip": _number("observation_clip", observation_clip),
            "action_clip": _clip(action_clip),
            "schema_digest": _core.schema_digest(schema.to_json()),
        }
        try:
            text = json.dumps(dict(provenance or {}), allow_nan=False)
        except (TypeError, ValueError) as error:
            message = f"provenance: expected a mapping that JSON can hold, got {error}"
            raise InvalidArgumentError(message) from error
        native = _core.Policy.from_tensors(json.dumps(config), text, tensors)
        return cls._of_network(native)

    @classmethod
    def _of_network(cls, native: _core.Policy) -> Policy:
        return cls(native, ("network", None))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a network's file beside ``path``, reads it back, then renames it over ``path``.

        Raises:
            InvalidArgumentError: the policy is not a network.
            OutputError: the operating system could not write it; ``path`` is as it was.
        """
        self._native.save(_arguments.as_path(path))

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """A network's tensors, as fresh arrays; of other policies, none."""
        return self._native.tensors()

    @property
    def name(self) -> str:
        """What logs call it: equal names are equal policies."""
        return self._native.name

    @property
    def config(self) -> dict[str, Any] | None:
        """A network's shape, activations, clips and schema digest; of other policies, None."""
        text = self._native.config
        return None if text is None else dict(json.loads(text))

    @property
    def provenance(self) -> dict[str, Any] | None:
        """Where a network came from; of other policies, None."""
        text = self._native.provenance
        return None if text is None else dict(json.loads(text))

    def __repr__(self) -> str:
        return f"<Policy {self.name[:40]}>"

    def __eq__(self, other: object) -> bool:
        return self.name == other.name if isinstance(other, Policy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)

    def __copy__(self) -> Policy:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Policy:
        return self

    def __reduce__(self) -> tuple[Callable[[str, Any], Policy], tuple[str, Any]]:
        kind, value = self._source
        return _unpickle, (kind, self._native.to_bytes() if kind == "network" else value)


def _unpickle(kind: str, value: Any) -> Policy:
    if kind == "network":
        return Policy._of_network(_core.Policy.from_bytes(value, "pickled policy"))
    return Policy.constant(value) if kind == "constant" else Policy.parse(value)


def _column(what: str, value: ArrayLike | None, default: float, size: int) -> NDArray[np.float32]:
    array = np.full(size, default) if value is None else np.asarray(value)
    if array.shape != (size,) or array.dtype.kind not in "fiu":
        got = f"{array.dtype} of shape {array.shape}"
        raise InvalidArgumentError(f"{what}: expected numbers of shape ({size},), got {got}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def _layer(index: int, pair: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A layer's weight and bias, whose shapes the native module compares with its neighbours'."""
    if isinstance(pair, list | tuple) and len(pair) == 2:
        arrays = [part for part in pair if isinstance(part, np.ndarray)]
        for name, array in zip(("weight", "bias"), arrays, strict=False):
            if len(arrays) == 2 and array.dtype != np.float32:
                got = f"{array.dtype} of shape {array.shape}"
                message = f"layer {index}: expected a {name} of float32, got {got}"
                raise InvalidArgumentError(message)
        if [array.ndim for array in arrays] == [2, 1] and arrays[0].shape[0] == len(arrays[1]):
            return np.ascontiguousarray(arrays[0]), np.ascontiguousarray(arrays[1])
    expected = "(weight, bias), arrays of shapes (outputs, inputs) and (outputs,)"
    raise InvalidArgumentError(f"layer {index}: expected {expected}, got {pair!r}")


def _number(what: str, value: Any) -> float | None:
    return None if value is None else _arguments.real(what, value)


def _clip(action_clip: Any) -> list[float] | None:
    if action_clip is None:
        return None
    if not isinstance(action_clip, list | tuple) or len(action_clip) != 2:
        message = f"action_clip: expected None or (low, high), got {action_clip!r}"
        raise InvalidArgumentError(message)
    return [_arguments.real("action_clip", bound) for bound in action_clip]


def _activation(what: str, value: Activation) -> dict[str, Any]:
    # An array compared with a text is an array, or raises: hence the type first.
    if isinstance(value, str) and value in ("identity", "tanh", "relu"):
        return {"kind": value}
    match value:
        case ("leaky_relu", float() | int() as slope):
            return {"kind": "leaky_relu", "slope": slope}
    expected = "'identity', 'tanh', 'relu' or ('leaky_relu', slope)"
    raise InvalidArgumentError(f"{what}: expected {expected}, got {value!r}")


def _constant(path: str) -> Policy:
    """One action from a ``.npy`` file or from text, numbers apart by spaces, commas or lines."""
    named, expected = "an action, a .npy or text file", f"{path}: expected a vector of numbers"
    if path.endswith(".npy"):
        numbers = np.array(load_npy(path, "a vector", named))
    else:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LONGEST_TEXT + 1)
            words = text.replace(",", " ").split()
            numbers = np.array([float(word) for word in words])
        except OSError as error:
            raise OutputError(error.errno, error.strerror, path).naming(named) from error
        except ValueError as error:
            raise InvalidArgumentError(f"{expected}, got {error}") from error
        if len(text) > _LONGEST_TEXT:
            most = f"{_LONGEST_TEXT:,} characters"
            raise InvalidArgumentError(f"{expected} of at most {most}, got more")
    try:
        return Policy.constant(numbers)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{path}: {error}") from error
