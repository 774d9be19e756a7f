"""The rivals that our speed is a ratio against: PyTorch versions of VirtualTB, and numpy's sgemm.

The PyTorch versions run the same networks as the simulator under test, without gradients, and
write the same observations. They differ in how they draw a category: with ``torch.multinomial``,
as the published environment and most hand-written code do, or, tuned, by inverting the cumulative
distribution, which is about twice as fast for a whole page.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from virtualtb_fast import schema

if TYPE_CHECKING:
    from virtualtb_fast import Simulator

FLOP_A_PAGE = 105e3
"""A page with its share of a new customer: 2 * (28*128 + 128*256 + 256*21 + 86,272 / 7.8)."""


def _network(tensors: dict[str, np.ndarray], model: str) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    index = 0
    while f"{model}.{index}.weight" in tensors:
        weight = torch.from_numpy(tensors[f"{model}.{index}.weight"])
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data = weight
        layer.bias.data = torch.from_numpy(tensors[f"{model}.{index}.bias"])
        layers += [layer, torch.nn.LeakyReLU(0.01)]
        index += 2
    return torch.nn.Sequential(*layers[:-1]).eval()


Draw = Callable[[torch.Tensor], torch.Tensor]


def multinomial(logits: torch.Tensor) -> torch.Tensor:
    """One category a row, as the published environment draws it."""
    return torch.multinomial(torch.softmax(logits, dim=-1), 1).squeeze(-1)


def inverse_cdf(logits: torch.Tensor) -> torch.Tensor:
    """One category a row, the fastest way we found in PyTorch."""
    cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
    uniforms = torch.rand(*logits.shape[:-1], 1) * cumulative[..., -1:]
    return (cumulative <= uniforms).sum(dim=-1).clamp_(max=logits.shape[-1] - 1)


class BatchedTorch:
    """``n`` customers a step, in PyTorch; finished sessions start again in the same step."""

    def __init__(self, simulator: Simulator, n: int, draw: Draw) -> None:
        self.draw = draw
        tensors = simulator.tensors()
        self.generator = _network(tensors, "generator")
        self.action = _network(tensors, "action")
        self.leave = _network(tensors, "leave")
        self.sizes = [field.size for field in schema.V0_SCHEMA.customer]
        self.clicks = schema.V0_CONFIG.response.clicks
        self.n = n
        self.user, self.limit = self._customers(n)
        self.page = torch.zeros(n)
        self.feedback = torch.zeros(n, 2)

    def _customers(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.generator(torch.rand(n, schema.V0_CONFIG.customers.latent))
        fields = [
            torch.nn.functional.one_hot(self.draw(field), field.shape[1])
            for field in logits.split(self.sizes, dim=1)
        ]
        user = torch.cat(fields, dim=1).float()
        return user, self.draw(self.leave(user)).float()

    @torch.inference_mode()
    def step(self, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Observations (n, 91), clicks (n,), done (n,)."""
        logits = self.action(torch.cat([self.user, self.page[:, None], actions], dim=1))
        clicks = self.draw(logits[:, : self.clicks])
        second = self.draw(logits[:, self.clicks :])
        self.page += 1
        self.feedback = torch.stack([clicks, second], dim=1).float()
        done = self.page >= self.limit
        index = done.nonzero().squeeze(1)
        if len(index):
            self.user[index], self.limit[index] = self._customers(len(index))
            self.page[index] = 0
            self.feedback[index] = 0
        return torch.cat([self.user, self.feedback, self.page[:, None]], dim=1), clicks, done


def sgemm_flops(repeats: int = 8) -> float:
    """Best rate of numpy's single-precision matrix product on one thread, in FLOP a second."""
    best = 0.0
    for m, k, n in [(2048, 2048, 2048), (1024, 1024, 1024), (4096, 128, 256)]:
        a = np.random.default_rng(0).random((m, k), dtype=np.float32)
        b = np.random.default_rng(1).random((k, n), dtype=np.float32)
        a @ b
        for _ in range(repeats):
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * m * k * n / (time.perf_counter() - start))
    return best
