"""PyTorch for the modules that train; without it, their import says what to install."""

from virtualtb_fast.errors import MissingExtraError

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:  # pragma: no cover - run in a process of its own
    message = "training needs PyTorch: pip install 'virtualtb-fast[train]'"
    raise MissingExtraError(message) from error

__all__ = ["Tensor", "nn", "torch"]
