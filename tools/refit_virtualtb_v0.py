"""Fit the embedded simulator `virtualtb-v0-refit` on logs of the published VirtualTB-v0 networks.

The published networks play the part of the shop. We log sessions from them, as a shop logs its
customers, and then put them away: the three networks that we ship are fitted by maximum
likelihood on the log alone, that is on sampled customers, sampled clicks, sampled second
responses and observed session lengths. No logit and no weight of the published networks enters
a loss. They come back once, at the end, as the yardstick of the fidelity table.

    python tools/refit_virtualtb_v0.py --published DIR --work DIR \
        --out-tensors refit.safetensors --report report.json [--out simulator.safetensors]

The steps:

1. `refit_log.find_good_actions`: a cross-entropy search that sees nothing but sampled clicks.
2. `refit_log.log_shard`: sessions under actions whose norm is log-uniform, a fifth of them near
   good ones.
3. `fit`: one loop of Adam with an average of the weights, used for all three networks.
4. `generator_loss`, `leave_loss`, `action_loss`: the three likelihoods.
5. `export`: the 16 tensors, with every input scaling folded into the first layers.

Everything is kept under `--work`, so a run that was killed or stopped with Ctrl-C goes on where it
was. All randomness comes from one base seed, and one thread gives the same bytes on every run.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name torch's own documentation uses)

from refit_evaluate import (
    ACTION,
    CLICKS,
    CUSTOMER,
    FIELDS,
    LAYERS,
    NOISE,
    SLOPE,
    Tensors,
    fidelity,
    one_hot,
    page_input,
    random_stream,
    read_published,
    write_beside,
    write_safetensors,
)
from refit_log import (
    PURPOSES,
    Config,
    Control,
    Log,
    NetworkFit,
    Stopped,
    make_log,
    quick,
    show,
)

# ------------------------------------------------------------------ 3: one loop for all fits


UNIT_LENGTH = 5.0  # about that of a customer's eleven bits at the scale that they are given


class Net(torch.nn.Module):
    """One network with scaled inputs, each layer one matrix whose last column is the bias.

    The published response network is nearly homogeneous: twice the input gives twice the logits,
    up to thousands of nats for actions at the edge of the box. Trained as it stands, far actions
    own the gradient, and a fit that is still wrong somewhere is punished most for being sure.
    With `unit` = 1 every input is therefore shrunk to one length, which for a homogeneous network
    only sets a temperature; the fit learns like that, and lowers `unit` to 0 once it has learned.
    """

    def __init__(self, model: str, scale: Tensor, shift: float, rng: torch.Generator) -> None:
        super().__init__()
        sizes = LAYERS[model]
        self.model, self.scale, self.shift = model, scale, shift
        self.unit, self.coarse = 0.0, False
        self.layers = torch.nn.ParameterList()
        for i, o in itertools.pairwise(sizes):
            weight = torch.randn(o, i + 1, generator=rng) / math.sqrt(i)
            weight[:, -1] = 0.0
            self.layers.append(torch.nn.Parameter(weight))
        with torch.no_grad():
            self.layers[-1].zero_()

    def forward(self, x: Tensor) -> Tensor:
        """The logits, always float32."""
        x = (x - self.shift) * self.scale
        if self.unit > 0:
            x = x * (UNIT_LENGTH / (1.0 + x.norm(dim=1, keepdim=True))) ** self.unit
        dtype = torch.bfloat16 if self.coarse else torch.float32
        x = x.to(dtype)
        for layer in self.layers:
            weight = layer.to(dtype)
            x = F.linear(x, weight[:, :-1], weight[:, -1])
            if layer is not self.layers[-1]:
                x = F.leaky_relu(x, SLOPE, inplace=True)
        return x.float()


Loss = Callable[[Net, Tensor, int], Tensor]
BETA1, BETA2 = 0.9, 0.99  # Adam's decays
REPORT_SECONDS, CHECKPOINT_SECONDS = 10.0, 60.0  # neither changes the result


def unit_share(share: float, settings: NetworkFit) -> float:
    """How far inputs are shrunk to unit length once a share of the fit is done."""
    if share >= settings.unit_until:
        return 0.0
    span = settings.unit_until - settings.unit_from
    return min(1.0, (settings.unit_until - share) / span)


def fit(
    net: Net,
    rows: int,
    settings: NetworkFit,
    loss: Loss,
    run: int,
    work: Path,
    control: Control,
) -> Net:
    """Minimise `loss(net, row numbers, step)` and leave the averaged weights in `net`.

    Rows are visited in shuffled passes. The order depends on the pass alone, so a fit that goes
    on from a checkpoint repeats what an undisturbed one would have done.
    """
    path = work / f"fit_{net.model}.pt"
    layers = list(net.layers)
    batch = min(settings.batch, rows)
    steps, per_pass = max(1, settings.visits // batch), rows // batch
    state: dict[str, Any] = {
        "step": 0,
        "layers": [layer.detach().clone() for layer in layers],
        "average": [layer.detach().clone() for layer in layers],
        "mean": [torch.zeros_like(layer) for layer in layers],
        "square": [torch.zeros_like(layer) for layer in layers],
    }
    if path.exists():
        state = torch.load(path, weights_only=True)
    with torch.no_grad():
        for layer, value in zip(layers, state["layers"], strict=True):
            layer.copy_(value)

    def save(step: int) -> None:
        state["step"], state["layers"] = step, [layer.detach() for layer in layers]
        write_beside(path, functools.partial(torch.save, state))

    order_pass, order = -1, torch.empty(0)
    begun = reported = saved = time.monotonic()
    first, total = state["step"], torch.zeros(())
    since = 0
    for step in range(first, steps):
        number, position = divmod(step, per_pass)
        if number != order_pass:
            stream = random_stream(run, PURPOSES[net.model], 1 + number)
            order_pass, order = number, torch.randperm(rows, generator=stream)
        share = step / steps
        net.unit = unit_share(share, settings)
        net.coarse = share < settings.half_until
        rate = settings.rate * min(1.0, (step + 1) / settings.warmup) * (1.0 - share)
        value = loss(net, order[position * batch : (position + 1) * batch], step)
        gradients = torch.autograd.grad(value, layers)
        with torch.no_grad():
            for k, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
                mean = state["mean"][k].lerp_(gradient, 1 - BETA1)
                square = state["square"][k].lerp_(gradient.square(), 1 - BETA2)
                size = rate / (1 - BETA1 ** (step + 1))
                root = (square / (1 - BETA2 ** (step + 1))).sqrt_().add_(1e-12)
                layer.addcdiv_(mean, root, value=-size)
                # The average starts short, so that it never remembers the random start.
                decay = min(settings.average, step / (step + 10))
                state["average"][k].lerp_(layer, 1 - decay)
            total, since = total + value.detach(), since + 1
        now = time.monotonic()
        if control.asked or now - saved > CHECKPOINT_SECONDS:
            save(step + 1)
            saved = now
            control.check()
        if now - reported > REPORT_SECONDS or step + 1 == steps:
            left = (now - begun) / (step + 1 - first) * (steps - step - 1)
            text = f"{net.model}: {100 * (step + 1) / steps:.1f} %, loss {float(total) / since:.4f}"
            show(f"{text}, {left / 60:.0f} min left", done=step + 1 == steps)
            reported, total, since = now, torch.zeros(()), 0
    save(steps)
    with torch.no_grad():
        for layer, value in zip(layers, state["average"], strict=True):
            layer.copy_(value)
    net.unit, net.coarse = 0.0, False
    return net


# ------------------------------------------------------------------ 4: the three likelihoods


def generator_loss(log: Log, latents: int, run: int) -> Loss:
    """-log p(customer), with p estimated by noise draws that the whole batch shares.

    Given the noise the fields are independent, so log p(customer | noise) is one matrix product
    of the customer's bits and the log probabilities.
    """

    def loss(net: Net, rows: Tensor, step: int) -> Tensor:
        rng = random_stream(run, PURPOSES["generator"], (1 << 23) + step)
        logits = net(torch.rand(latents, NOISE, generator=rng))
        fields = torch.cat([f.log_softmax(1) for f in logits.split(FIELDS, 1)], 1)
        joint = one_hot(log.customers[rows]) @ fields.T
        return math.log(latents) - joint.logsumexp(1).mean()

    return loss


def leave_loss(log: Log) -> Loss:
    """-log p(session length | customer)."""

    def loss(net: Net, rows: Tensor, step: int) -> Tensor:
        return F.cross_entropy(net(one_hot(log.customers[rows])), log.lengths[rows].long())

    return loss


def action_loss(log: Log) -> Loss:
    """-log p(clicks, second response | customer, page, action); the two are independent."""

    def loss(net: Net, rows: Tensor, step: int) -> Tensor:
        customers = log.customers[log.session[rows]]
        logits = net(page_input(customers, log.page[rows].float(), log.actions[rows].float()))
        clicks = F.cross_entropy(logits[:, :CLICKS], log.clicks[rows].long())
        return clicks + F.cross_entropy(logits[:, CLICKS:], log.second[rows].long())

    return loss


def fit_all(log: Log, config: Config, work: Path, control: Control) -> Tensors:
    """The three fits, one after the other, as the 16 tensors of a simulator."""
    customer, page, action = config.action.scales
    plan: dict[str, tuple[NetworkFit, Tensor, float, int, Loss]] = {
        # The noise is uniform on [0, 1) and enters the network centred.
        "generator": (
            config.generator,
            torch.full((NOISE,), config.generator.scales[0]),
            0.5,
            len(log.lengths),
            generator_loss(log, config.latents, config.run),
        ),
        "leave": (
            config.leave,
            torch.full((CUSTOMER,), config.leave.scales[0]),
            0.0,
            len(log.lengths),
            leave_loss(log),
        ),
        "action": (
            config.action,
            torch.tensor([customer] * CUSTOMER + [page] + [action] * ACTION),
            0.0,
            len(log.clicks),
            action_loss(log),
        ),
    }
    tensors: Tensors = {}
    for model, (settings, scale, shift, rows, loss) in plan.items():
        net = Net(model, scale, shift, random_stream(config.run, PURPOSES[model]))
        tensors |= export(fit(net, rows, settings, loss, config.run, work, control))
    return tensors


# ------------------------------------------------------------------ 5: export


def export(net: Net) -> Tensors:
    """Plain Linear weights: scale and shift of the inputs move into the first layer.

    W (s (x - c)) + b = (W s) x + (b - W s c), computed in float64.
    """
    tensors: Tensors = {}
    for layer, joint in enumerate(net.layers):
        weight, bias = joint.detach().double()[:, :-1], joint.detach().double()[:, -1]
        if layer == 0:
            weight = weight * net.scale.double()
            bias = bias - net.shift * weight.sum(1)
        tensors[f"{net.model}.{2 * layer}.weight"] = weight.float().contiguous()
        tensors[f"{net.model}.{2 * layer}.bias"] = bias.float().contiguous()
    return tensors


# ------------------------------------------------------------------ the command


def claim(work: Path, settings: dict[str, Any]) -> None:
    """Tie a work folder to one set of settings, so that no run goes on from another's pieces."""
    path = work / "settings.json"
    text = json.dumps(settings, indent=1)
    if path.exists() and path.read_text() != text:
        raise ValueError(f"{work} belongs to a run with other settings; give an empty folder")
    write_beside(path, lambda partial: partial.write_text(text))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--published", type=Path, required=True, help="folder of the .pt files")
    parser.add_argument("--work", type=Path, required=True, help="folder for log and checkpoints")
    parser.add_argument("--out-tensors", type=Path, required=True, help="plain safetensors file")
    parser.add_argument("--report", type=Path, required=True, help="fidelity table, JSON")
    parser.add_argument("--out", type=Path, help="also write the package's own simulator file")
    parser.add_argument("--run", type=int, default=Config.run, help="run number of the base seed")
    parser.add_argument("--visits", type=int, help="rows the response network's fit sees in all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test the pipeline")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Log, fit, compare, write; 130 if Ctrl-C was pressed on the way."""
    options = parse(arguments)
    config = dataclasses.replace(Config(), run=options.run)
    config = quick(config) if options.quick else config
    if options.visits is not None:
        action = dataclasses.replace(config.action, visits=options.visits)
        config = dataclasses.replace(config, action=action)
    control = Control()
    torch.set_num_threads(1)  # one order of summation, hence one result
    published, files = read_published(options.published)
    options.work.mkdir(parents=True, exist_ok=True)
    settings = {"config": dataclasses.asdict(config), "published_sha256": files}
    claim(options.work, json.loads(json.dumps(settings)))
    try:
        log = make_log(published, config, options.work, control)
        fitted = fit_all(log, config, options.work, control)
        write_safetensors(fitted, options.out_tensors)
        report = {
            "name": "virtualtb-v0-refit",
            "method": "maximum likelihood on logged sessions of the published networks",
            "base_seed": config.run << 32,
            **settings,
            "log": {"sessions": len(log.lengths), "pages": len(log.clicks), "sha256": log.digest},
            "torch": torch.__version__,
            "fidelity": fidelity(
                published,
                fitted,
                log.found,
                config.evaluation_sessions,
                lambda i: random_stream(config.run, PURPOSES["evaluate"], i),
                control.check,
            ),
        }
    except Stopped:
        show(f"stopped; run the same command again to go on from {options.work}", done=True)
        return 130
    text = json.dumps(report, indent=1)
    write_beside(options.report, lambda partial: partial.write_text(text + "\n"))
    if options.out is not None:
        import virtualtb_fast

        simulator = virtualtb_fast.Simulator.from_tensors(
            fitted, name="virtualtb-v0-refit", provenance=report
        )
        simulator.save(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
