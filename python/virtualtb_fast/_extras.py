"""Optional dependencies, imported when something needs them."""

from __future__ import annotations

import importlib
from typing import Any

from virtualtb_fast.errors import MissingExtraError

__all__ = ["sklearn_for", "torch_for"]


def torch_for(what: str) -> Any:
    """The module ``torch``, for a function called ``what``.

    Raises:
        MissingExtraError: PyTorch is not installed.
    """
    return _module("torch", what, "PyTorch", "train")


def sklearn_for(what: str, module: str) -> Any:
    """A module of scikit-learn, for example ``"mixture"``, for a function called ``what``.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    return _module(f"sklearn.{module}", what, "scikit-learn", "report")


def _module(name: str, what: str, project: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"{what} needs {project}: pip install virtualtb-fast[{extra}]"
        raise MissingExtraError(message) from error
