"""Reading the networks that VirtualTB-v0 was published with.

They come as three PyTorch files in the folder ``virtualTB/data`` of the repository
eyounx/VirtualTaobao (Shi et al., "Virtual-Taobao", AAAI 2019). They are not part of this package,
and this package has no tie to their authors; people who have the files can use them here.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast import _arguments
from virtualtb_fast._training import said
from virtualtb_fast.errors import (
    FileFormatError,
    InvalidArgumentError,
    MissingExtraError,
    OutputError,
)
from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA
from virtualtb_fast.simulator import Simulator

__all__ = ["PUBLISHED_DIGESTS", "import_published"]

NAME: Final = "virtualtb-v0"

PUBLISHED_DIGESTS: Final = {
    "generator": "15f4f5b05df3de81016cde4b29379d24cf8b4fcb076d78055b06984137a983ac",
    "action": "eceebf80181735459eec841cb1f73fa1a3f5f2796f68f4f8366a36d5e8da7be8",
    "leave": "022d7f88e180899bd8fe6b26b82b6ccca8bbb82d253b30ebac372534e8a2df12",
}
"""SHA-256 of ``<model>_model.pt`` as published with version 0.0.5."""

_LARGEST_FILE: Final = 64 << 20
"""Bytes; the published files have less than one megabyte together."""

_SOURCE: Final = {
    "paper": "Shi et al., Virtual-Taobao, AAAI 2019 (arXiv 1805.10000)",
    "repository": "https://github.com/eyounx/VirtualTaobao",
}


def import_published(directory: str | os.PathLike[str]) -> Simulator:
    """Makes a simulator of the three published files of VirtualTB-v0.

    Args:
        directory: The folder with ``generator_model.pt``, ``action_model.pt`` and
            ``leave_model.pt``. Files of the same shapes with other weights are accepted too;
            ``provenance["published"]`` says whether all three are the published ones, and
            ``provenance["files"]`` holds their SHA-256.

    Returns:
        A `Simulator` named ``virtualtb-v0``.

    Raises:
        MissingExtraError: PyTorch is not installed.
        OutputError: a file is not there or cannot be read.
        FileFormatError: a file is not a PyTorch state dict, or has other names, shapes or dtypes,
            or values that are not finite.
    """
    try:
        folder = Path(_arguments.as_path(directory))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"directory: expected a path, got {directory!r}") from error
    tensors: dict[str, NDArray[np.float32]] = {}
    files: dict[str, str] = {}
    for model in PUBLISHED_DIGESTS:
        path = folder / f"{model}_model.pt"
        data = _read(path)
        files[path.name] = hashlib.sha256(data).hexdigest()
        tensors |= _state_dict(model, path, data)
    published = list(files.values()) == list(PUBLISHED_DIGESTS.values())
    provenance = {**_SOURCE, "published": published, "files": files}
    try:
        return Simulator.from_tensors(tensors, name=NAME, provenance=provenance)
    except InvalidArgumentError as error:
        raise FileFormatError(f"{folder}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            message = f"expected at most {_LARGEST_FILE} bytes, got {size}"
            raise FileFormatError(f"{path}: {message}")
        return path.read_bytes()
    except OSError as error:
        raise OutputError(
            error.errno, f"expected a published network, got {error.strerror}", str(path)
        ) from error


def _state_dict(model: str, path: Path, data: bytes) -> dict[str, NDArray[np.float32]]:
    """The file's tensors under the names that simulator files use, of exactly the right shapes."""
    shapes = {
        name.removeprefix(f"{model}."): shape
        for name, shape in V0_CONFIG.shapes(V0_SCHEMA).items()
        if name.startswith(f"{model}.")
    }
    found = _load(path, data)
    if not isinstance(found, dict) or set(found) != set(shapes):
        got = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise FileFormatError(f"{path}: expected tensors {sorted(shapes)}, got {got}")
    out = {}
    for key, shape in shapes.items():
        try:
            array = found[key].detach().numpy()
        except (AttributeError, TypeError, RuntimeError) as error:
            # Sparse tensors and types that NumPy does not have are tensors, but not of numbers.
            one = found[key]
            of = (f"{one.dtype}, {one.layout}",) if hasattr(one, "layout") else ()
            got = " of ".join((type(one).__name__, *of))
            expected = "a tensor that NumPy can hold"
            raise FileFormatError(f"{path}: {key}: expected {expected}, got {got}") from error
        if array.shape != shape or array.dtype != np.float32:
            got = f"{array.dtype} of shape {array.shape}"
            expected = f"float32 of shape {shape}"
            raise FileFormatError(f"{path}: {key}: expected {expected}, got {got}")
        if not np.isfinite(array).all():
            got = array[~np.isfinite(array)][0]
            raise FileFormatError(f"{path}: {key}: expected finite values, got {got}")
        out[f"{model}.{key}"] = array
    return out


def _load(path: Path, data: bytes) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            "import_published needs PyTorch: pip install virtualtb-fast[train]"
        ) from error
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # What torch raises for a damaged file depends on where the damage is: anything at all.
    except Exception as error:
        message = f"expected a state dict written by PyTorch, got {said(error)}"
        raise FileFormatError(f"{path}: {message}") from error
