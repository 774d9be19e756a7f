"""Each field given those before it, with an exact likelihood.

The chain rule log p(x) = sum_f log p(x_f | x_1 .. x_{f-1}), with one small network a field: one
hidden layer on the one-hot fields before it. Fitted by maximum likelihood (Adam, a half cosine, a
running mean of the weights), stopped where the likelihood of held-out customers is best.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtualtb_fast import _arguments as arguments
from virtualtb_fast._extras import torch_for
from virtualtb_fast._training import device as checked_device
from virtualtb_fast._training import torch_threads
from virtualtb_fast.customers import _run as running
from virtualtb_fast.customers import _tables as tables
from virtualtb_fast.customers._config_checks import check_autoregressive
from virtualtb_fast.customers.sampler import CustomerSampler
from virtualtb_fast.schema import Customers, Field

__all__ = ["AutoregressiveConfig", "fit_autoregressive"]

SLOPE = 0.01
"""Of the leaky ReLU."""

Tensor = Any
"""A ``torch.Tensor``; torch is imported when a fit is called."""


@dataclass(frozen=True, slots=True)
class AutoregressiveConfig:
    """Settings of a fit."""

    hidden: int = 64
    """Units of each field's hidden layer."""
    steps: int = 3_000
    """Most updates."""
    batch: int = 1024
    """Customers in an update."""
    rate: float = 4e-3
    """Adam's rate; it falls by a half cosine to ``rate_end`` of it."""
    rate_end: float = 0.02
    """See ``rate``."""
    decay: float = 1e-4
    """AdamW's weight decay."""
    average: float = 0.99
    """Decay of the running mean of the weights, which is what is judged and exported."""
    held_out: float = 0.05
    """Share of customers held out, at most 20,000 of them."""
    patience: int = 8
    """Judgements, 100 updates apart, without a better one after which the fit stops."""
    num_threads: int = 1
    """Threads of torch. Another number gives another, equally good, result."""

    def __post_init__(self) -> None:
        check_autoregressive(self)


_JUDGED = 100
"""Updates between two judgements on held-out customers."""


# --- network and loss ---------------------------------------------------------------------------


def _parameters(
    fields: Sequence[Field], hidden: int, shares: NDArray[np.float64], generator: Any
) -> dict[str, Tensor]:
    """The tensors of simulator files, with torch's usual initialisation, but for the last biases.

    These are the logarithms of the logged shares (W,), where the likelihood of independent fields
    is best: from 0, Adam would not come down to those of rare categories in these few steps.
    """
    torch = torch_for("fit_autoregressive")
    starts, device = tables.offsets(fields), generator.device
    logs = torch.from_numpy(np.log(shares).astype(np.float32)).to(device)
    parameters = {"customers.0.bias": logs[: fields[0].size].clone()}
    for number in range(1, len(fields)):
        layers = ((0, int(starts[number]), hidden), (2, hidden, fields[number].size))
        for layer, inputs, outputs in layers:
            # A field's input is as many ones as there are fields before it.
            bound = 1 / math.sqrt(number if layer == 0 else inputs)
            for kind, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
                one = torch.empty(shape, device=device).uniform_(-bound, bound, generator=generator)
                parameters[f"customers.{number}.{layer}.{kind}"] = one
        parameters[f"customers.{number}.2.bias"] = logs[starts[number] : starts[number + 1]].clone()
    return {name: one.requires_grad_(True) for name, one in parameters.items()}


def negative_log_likelihood(
    parameters: dict[str, Tensor], codes: Tensor, rows: Tensor, starts: Sequence[int]
) -> Tensor:
    """Mean of -log p(x), in nat.

    Args:
        parameters: As `_parameters` makes them.
        codes: Field codes (B, F), int64.
        rows: The same one-hot (B, W).
        starts: Where each field's block starts.
    """
    functional = torch_for("fit_autoregressive").nn.functional
    total = functional.cross_entropy(
        parameters["customers.0.bias"].expand(len(codes), -1), codes[:, 0]
    )
    for number in range(1, codes.shape[1]):
        name, shown = f"customers.{number}", rows[:, : starts[number]]
        first = functional.linear(
            shown, parameters[f"{name}.0.weight"], parameters[f"{name}.0.bias"]
        )
        hidden = functional.leaky_relu(first, SLOPE)
        logits = functional.linear(
            hidden, parameters[f"{name}.2.weight"], parameters[f"{name}.2.bias"]
        )
        total = total + functional.cross_entropy(logits, codes[:, number])
    return total


# --- the loop -----------------------------------------------------------------------------------


class _Trainer:
    """Parameters, optimiser, running mean, and the best on held-out customers so far."""

    def __init__(
        self,
        table: NDArray[np.uint8],
        fields: Sequence[Field],
        seed: int,
        config: AutoregressiveConfig,
        device: str,
    ) -> None:
        self.torch = torch = torch_for("fit_autoregressive")
        self.config, self.fields, self.table, self.device = config, tuple(fields), table, device
        self.starts = tables.offsets(fields).tolist()
        hashed = tables.hashed_seed(seed, "autoregressive")
        order = np.random.default_rng(hashed).permutation(len(table))
        held = min(20_000, max(1, int(len(table) * config.held_out)))
        self.kept = order[held:]
        self.held = self._batch(order[:held])
        self.random = torch.Generator(device).manual_seed(hashed)
        shares = tables.smoothed(table, fields)
        self.parameters = _parameters(fields, config.hidden, shares, self.random)
        self.adam = torch.optim.AdamW(
            self.parameters.values(), config.rate, weight_decay=config.decay
        )
        self.average = {name: one.detach().clone() for name, one in self.parameters.items()}
        self.best = copy.deepcopy(self.average)
        self.best_loss, self.since, self.held_loss = math.inf, 0, math.inf

    def _batch(self, picked: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        codes = np.ascontiguousarray(self.table[picked])
        rows = tables.one_hot(codes, self.fields)
        torch = self.torch
        return (
            torch.from_numpy(codes.astype(np.int64)).to(self.device),
            torch.from_numpy(rows).to(self.device),
        )

    def step(self, step: int) -> dict[str, float]:
        """One update, and a judgement if it is time for one."""
        config, torch = self.config, self.torch
        fall = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        self.adam.param_groups[0]["lr"] = config.rate * (
            config.rate_end + (1 - config.rate_end) * fall
        )
        picked = torch.randint(
            len(self.kept), (config.batch,), generator=self.random, device=self.device
        )
        codes, rows = self._batch(self.kept[picked.cpu().numpy()])
        loss = negative_log_likelihood(self.parameters, codes, rows, self.starts)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        # Early on, a mean over the updates so far: the beginning is not worth keeping.
        keep = min(config.average, (1 + step) / (10 + step))
        for name, one in self.parameters.items():
            self.average[name].lerp_(one.detach(), 1 - keep)
        if (step + 1) % _JUDGED == 0 or step + 1 == config.steps:
            self._judge()
        losses = {"negative_log_likelihood": loss.item()}
        if math.isfinite(self.best_loss) or math.isnan(self.held_loss):
            losses["held_out"] = self.held_loss
        return losses

    def _judge(self) -> None:
        with self.torch.no_grad():
            held = negative_log_likelihood(self.average, *self.held, self.starts).item()
        self.held_loss, self.since = held, self.since + 1
        if held < self.best_loss:
            self.best_loss, self.since = held, 0
            self.best = {name: one.clone() for name, one in self.average.items()}

    @property
    def stopped(self) -> bool:
        """Whether held-out customers have not become more likely for long enough."""
        return self.since >= self.config.patience

    def state(self) -> running.State:
        """A copy of all that changes."""
        held = {name: one.detach() for name, one in self.parameters.items()}
        state = {"parameters": held, "adam": self.adam.state_dict()}
        state |= {"average": self.average, "best": self.best}
        numbers = {"held_loss": self.held_loss, "best_loss": self.best_loss, "since": self.since}
        return {**copy.deepcopy(state), **numbers, "random": self.random.get_state()}

    def load(self, state: running.State) -> None:
        """Takes up a state."""
        with self.torch.no_grad():
            for name, one in self.parameters.items():
                one.copy_(state["parameters"][name])
        self.adam.load_state_dict(copy.deepcopy(state["adam"]))
        self.average = {name: one.clone() for name, one in state["average"].items()}
        self.best = {name: one.clone() for name, one in state["best"].items()}
        self.held_loss, self.best_loss = float(state["held_loss"]), float(state["best_loss"])
        self.since = int(state["since"])
        self.random.set_state(state["random"])

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The best running mean, in the form of simulator files."""
        return {name: one.cpu().numpy().copy() for name, one in self.best.items()}


def fit_autoregressive(
    codes: ArrayLike,
    fields: Sequence[Field],
    *,
    seed: int = 0,
    config: AutoregressiveConfig | None = None,
    progress: running.Progress | None = None,
    checkpoint: running.Checkpoint | None = None,
    device: str = "cpu",
    what: str = "fit_autoregressive",
) -> CustomerSampler:
    """Fits an autoregressive sampler to logged customers.

    Args:
        codes: Category codes of the customers, integers (n, F), n at least 2.
        fields: The F fields, each given those before it.
        seed: Of initialisation, minibatches and what is held out.
        config: Settings.
        progress: Called every 20 steps with (what, steps done, most steps, losses).
        checkpoint: Where states go and come from; the fit continues from one to the same bits.
        device: Of torch.
        what: The name that errors and the report give it.

    Returns:
        A sampler of kind ``autoregressive`` with an exact density.

    Raises:
        InvalidArgumentError: a table or settings that make no fit; a state of another run.
        MissingExtraError: PyTorch is not installed.
        TrainingDivergedError: a loss or weight is not finite; the last good state is kept in it.
    """
    config = AutoregressiveConfig() if config is None else config
    config = arguments.instance("config", config, AutoregressiveConfig)
    table = tables.check_customers(codes, fields)
    torch_for(arguments.text("what", what))
    with torch_threads(config.num_threads):
        trainer = _Trainer(table, fields, seed, config, checked_device(device))
        run = running.Run(
            what,
            config.steps,
            identity=running.identity(table, fields, seed, config),
            progress=progress,
            checkpoint=checkpoint,
        )
        if run.resumed is not None:
            trainer.load(run.resumed)
        for step in range(run.first, config.steps):
            if trainer.stopped:
                break
            losses = trainer.step(step)
            run.done(step, losses, trainer.state, final=trainer.stopped)
    customers = Customers(kind="autoregressive", hidden=(config.hidden,))
    report = run.report(held_out=trainer.best_loss)
    return CustomerSampler(tuple(fields), customers, trainer.tensors(), SLOPE, report)
