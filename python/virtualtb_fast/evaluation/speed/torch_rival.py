"""The rival in PyTorch: the same networks, batched, or with a batch of 1 the one-at-a-time loop.

It runs the networks of the simulator under test, without gradients, and writes the same
observations. A category is drawn with ``torch.multinomial``, as the published environment and most
hand-written code do, or, tuned, by inverting the cumulative distribution, which is about twice as
fast for a whole page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virtualtb_fast._torch import Tensor, nn, torch
from virtualtb_fast.evaluation.speed.players import Own
from virtualtb_fast.simulator import Simulator

__all__ = ["BatchedTorch", "Draw", "inverse_cdf", "multinomial", "playable"]

Draw = Callable[[Tensor], Tensor]
"""One category a row, from logits (n, categories)."""


def multinomial(logits: Tensor) -> Tensor:
    """As the published environment draws."""
    return torch.multinomial(torch.softmax(logits, dim=-1), 1).squeeze(-1)


def inverse_cdf(logits: Tensor) -> Tensor:
    """The fastest way we found in PyTorch."""
    cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
    uniforms = torch.rand(*logits.shape[:-1], 1) * cumulative[..., -1:]
    return (cumulative <= uniforms).sum(dim=-1).clamp_(max=logits.shape[-1] - 1)


def playable(simulator: Simulator) -> bool:
    """Whether the simulator's parts are of the published kinds, which is all that it plays."""
    config = simulator.config
    response = config.response.kind == "mlp" and config.response.heads == "clicks"
    return config.customers.kind == "mlp" and response and config.leave.kind == "once"


def _network(tensors: dict[str, NDArray[Any]], model: str, slope: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    index = 0
    while f"{model}.{index}.weight" in tensors:
        weight = torch.from_numpy(tensors[f"{model}.{index}.weight"])
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data = weight
        layer.bias.data = torch.from_numpy(tensors[f"{model}.{index}.bias"])
        layers += [layer, nn.LeakyReLU(slope)]
        index += 2
    return nn.Sequential(*layers[:-1]).eval()


class BatchedTorch(Own):
    """``batch`` customers a step; finished sessions start again in the same step."""

    def __init__(self, simulator: Simulator, batch: int, draw: Draw, threads: int = 1) -> None:
        """A simulator that is `playable`."""
        self.batch, self.draw, self.threads = batch, draw, threads
        tensors, config = simulator.tensors(), simulator.config
        self.generator = _network(tensors, "generator", config.slope)
        self.action = _network(tensors, "action", config.slope)
        self.leave = _network(tensors, "leave", config.slope)
        self.sizes = [field.size for field in simulator.schema.customer]
        self.latent, self.clicks = config.customers.latent or 0, config.response.clicks or 0
        self.scale = config.response.page_scale
        self.actions = torch.zeros(batch, simulator.schema.action)
        self.user, self.limit = self._customers(batch)
        self.page = torch.zeros(batch)
        self.never = np.zeros(batch, np.bool_)
        self.observation = torch.cat([self.user, torch.zeros(batch, 3)], dim=1)

    def prepare(self) -> None:
        """Sets torch's threads."""
        torch.set_num_threads(self.threads)

    @torch.inference_mode()
    def _customers(self, n: int) -> tuple[Tensor, Tensor]:
        logits = self.generator(torch.rand(n, self.latent))
        fields = [
            nn.functional.one_hot(self.draw(field), field.shape[1])
            for field in logits.split(self.sizes, dim=1)
        ]
        user = torch.cat(fields, dim=1).float()
        return user, self.draw(self.leave(user)).float()

    @torch.inference_mode()
    def step(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """A page for every customer; the observation is kept, as an environment returns it."""
        page = self.page[:, None] if self.scale == 1 else self.scale * self.page[:, None]
        logits = self.action(torch.cat([self.user, page, self.actions], dim=1))
        clicks = self.draw(logits[:, : self.clicks])
        second = self.draw(logits[:, self.clicks :])
        self.page += 1
        feedback = torch.stack([clicks, second], dim=1).float()
        over = self.page >= self.limit
        index = over.nonzero().squeeze(1)
        if len(index):
            self.user[index], self.limit[index] = self._customers(len(index))
            self.page[index] = 0
            feedback[index] = 0
        self.observation = torch.cat([self.user, feedback, self.page[:, None]], dim=1)
        return clicks.numpy(), over.numpy(), self.never
