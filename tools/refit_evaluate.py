"""How close a refitted simulator is to the published one: the fidelity table.

Both simulators play the same number of sessions. Click-through and the divergences are computed
from the exact click probabilities of the pages that were visited, so that what is left of chance
in a figure is the customers and the lengths of their sessions, not the clicks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name torch's own documentation uses)

from virtualtb_fast.schema import V0_CONFIG, V0_SCHEMA

FIELDS = tuple(field.size for field in V0_SCHEMA.customer)
CUSTOMER, ACTION = sum(FIELDS), V0_SCHEMA.action
CLICKS, SECOND = V0_CONFIG.response.clicks, V0_CONFIG.response.second
LENGTHS, NOISE = V0_CONFIG.leave.classes, V0_CONFIG.customers.latent
LAYERS: dict[str, tuple[int, ...]] = {
    "generator": (NOISE, *V0_CONFIG.customers.hidden, CUSTOMER),
    "action": (CUSTOMER + 1 + ACTION, *V0_CONFIG.response.hidden, CLICKS + SECOND),
    "leave": (CUSTOMER, *V0_CONFIG.leave.hidden, LENGTHS),
}
OFFSETS = torch.tensor([sum(FIELDS[:f]) for f in range(len(FIELDS))])
SLOPE = V0_CONFIG.slope  # of LeakyReLU, in all three networks
CHUNK = 16_384  # rows of one forward pass while logging and evaluating

Tensors = dict[str, Tensor]


def random_stream(run: int, purpose: int, index: int = 0) -> torch.Generator:
    """The generator of base seed `(run << 32) | (purpose << 24)`, plus an index within it.

    torch seeds its Mersenne twister with the low 32 bits of a seed only, so that base seeds which
    differ in the run alone would all give one stream. Hashing all 64 bits keeps them apart.
    """
    base = (run << 32) | (purpose << 24) | index
    digest = hashlib.sha256(base.to_bytes(8, "little")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name and rename it, so that no half file is ever seen."""
    partial = path.with_name(path.name + ".partial")
    write(partial)
    os.replace(partial, path)


def write_safetensors(tensors: Tensors, path: Path) -> None:
    """A plain safetensors file: header length, JSON header, then the tensors' bytes in order."""
    check_tensors(tensors, "the fit")
    header: dict[str, Any] = {}
    body = b""
    for name in sorted(tensors):
        data = tensors[name].contiguous().numpy().astype("<f4").tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text + body
    write_beside(path, lambda partial: partial.write_bytes(content))
    back = read_safetensors(path)
    if any(not torch.equal(back[name], value) for name, value in tensors.items()):
        raise OSError(f"{path} does not read back as it was written")


def read_safetensors(path: Path) -> Tensors:
    """The tensors of a file that `write_safetensors` wrote."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    tensors: Tensors = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        flat = torch.frombuffer(bytearray(content[start:end]), dtype=torch.float32)
        tensors[name] = flat.reshape(entry["shape"])
    return check_tensors(tensors, str(path))


# ------------------------------------------------------------------ the published networks


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the 16 tensors, in torch's (out, in) layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for model, sizes in LAYERS.items():
        for layer in range(len(sizes) - 1):
            shapes[f"{model}.{2 * layer}.weight"] = (sizes[layer + 1], sizes[layer])
            shapes[f"{model}.{2 * layer}.bias"] = (sizes[layer + 1],)
    return shapes


def check_tensors(tensors: Tensors, source: str) -> Tensors:
    """Refuse tensors that are missing, surplus, misshapen, not float32 or not finite."""
    shapes = expected_shapes()
    if set(tensors) != set(shapes):
        raise ValueError(f"{source}: expected {sorted(shapes)}, got {sorted(tensors)}")
    for name, shape in shapes.items():
        value = tensors[name]
        if tuple(value.shape) != shape or value.dtype != torch.float32:
            got = f"{value.dtype} {tuple(value.shape)}"
            raise ValueError(f"{source}: {name} should be float32 {shape}, got {got}")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{source}: {name} holds values that are not finite")
    return tensors


def read_published(folder: Path) -> tuple[Tensors, dict[str, str]]:
    """The published networks as 16 named tensors, and the SHA-256 of each file."""
    tensors: Tensors = {}
    digests: dict[str, str] = {}
    for model in LAYERS:
        path = folder / f"{model}_model.pt"
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        state = torch.load(path, map_location="cpu", weights_only=True)
        tensors |= {f"{model}.{name}": value for name, value in state.items()}
    return check_tensors(tensors, str(folder)), digests


def forward(tensors: Tensors, model: str, x: Tensor) -> Tensor:
    """The logits of one network."""
    last = len(LAYERS[model]) - 2
    for layer in range(last + 1):
        x = F.linear(
            x, tensors[f"{model}.{2 * layer}.weight"], tensors[f"{model}.{2 * layer}.bias"]
        )
        if layer < last:
            x = F.leaky_relu(x, SLOPE)
    return x


def one_hot(customers: Tensor) -> Tensor:
    """Category codes (rows, 11) to the 88 customer columns."""
    x = torch.zeros(customers.shape[0], CUSTOMER)
    return x.scatter_(1, customers.long() + OFFSETS, 1.0)


def page_input(customers: Tensor, pages: Tensor, actions: Tensor) -> Tensor:
    """The 116 inputs of the response network: customer, page (0-based, unscaled), action."""
    x = torch.zeros(customers.shape[0], CUSTOMER + 1 + ACTION)
    x.scatter_(1, customers.long() + OFFSETS, 1.0)
    x[:, CUSTOMER] = pages
    x[:, CUSTOMER + 1 :] = actions
    return x


def draw(logits: Tensor, rng: torch.Generator) -> Tensor:
    """One category a row, by the inverse of the cumulative distribution."""
    cumulative = logits.softmax(1).cumsum(1)[:, :-1]
    return (cumulative < torch.rand(logits.shape[0], 1, generator=rng)).sum(1)


def draw_sessions(tensors: Tensors, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Customers (count, 11) and the pages that each of them will see (count,), both uint8.

    A session ends once the page count reaches the drawn class, so classes 0 and 1 both show one
    page, and an observed length of one is taken as class 1.
    """
    customers, lengths = [], []
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        logits = forward(tensors, "generator", torch.rand(rows, NOISE, generator=rng))
        codes = torch.stack([draw(field, rng) for field in logits.split(FIELDS, 1)], 1)
        leave = draw(forward(tensors, "leave", one_hot(codes)), rng).clamp(min=1)
        customers.append(codes.to(torch.uint8))
        lengths.append(leave.to(torch.uint8))
    return torch.cat(customers), torch.cat(lengths)


def page_rows(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """For every page of the sessions in order: its session and its 0-based number."""
    counts = lengths.long()
    session = torch.repeat_interleave(torch.arange(len(counts)), counts)
    first = counts.cumsum(0) - counts
    return session, torch.arange(len(session)) - first[session]


def respond(
    tensors: Tensors, customers: Tensor, pages: Tensor, actions: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sampled clicks and second responses of a batch of pages."""
    logits = forward(tensors, "action", page_input(customers, pages, actions))
    return draw(logits[:, :CLICKS], rng), draw(logits[:, CLICKS:], rng)


def directions(count: int, rng: torch.Generator) -> Tensor:
    """Uniform points on the sphere of actions of norm one."""
    return F.normalize(torch.randn(count, ACTION, generator=rng), dim=1)


# ------------------------------------------------------------------ the fidelity table

KL_AIM, CTR_AIM, FIELD_AIM = 0.01, 0.03, 0.005
PAGE_BANDS = ((0, 0), (1, 1), (2, 4), (5, 9), (10, 19), (20, 99))


@dataclasses.dataclass(frozen=True)
class Visits:
    """Sessions of one simulator; lengths do not depend on actions, so every policy shares them."""

    customers: Tensor
    lengths: Tensor
    session: Tensor
    page: Tensor


def visit(tensors: Tensors, sessions: int, rng: torch.Generator) -> Visits:
    """Customers and lengths drawn from one simulator, laid out page by page."""
    customers, lengths = draw_sessions(tensors, sessions, rng)
    return Visits(customers, lengths, *page_rows(lengths))


def policy_actions(name: str, rows: int, constant: Tensor, rng: torch.Generator) -> Tensor:
    """Actions of one evaluation policy."""
    if name == "uniform":
        return torch.rand(rows, ACTION, generator=rng) * 2 - 1
    if name == "zero":
        return torch.zeros(rows, ACTION)
    if name == "gaussian:0.1":
        return 0.1 * torch.randn(rows, ACTION, generator=rng)
    if name == "norm:0.03":
        return 0.03 * directions(rows, rng)
    return constant.expand(rows, ACTION)


def click_through(logits: Tensor) -> Tensor:
    """Expected share of the ten items clicked, page by page."""
    return logits[:, :CLICKS].softmax(1) @ torch.arange(CLICKS, dtype=torch.float32) / 10


def divergence(truth: Tensor, model: Tensor) -> Tensor:
    """KL(truth || model) of two batches of logits, row by row."""
    p, q = truth.log_softmax(1), model.log_softmax(1)
    return (p.exp() * (p - q)).sum(1)


@torch.no_grad()
def mean_ctr(
    tensors: Tensors, visits: Visits, name: str, constant: Tensor, rng: torch.Generator
) -> float:
    """Click-through of a policy over all visited pages of one simulator."""
    total = 0.0
    for rows in torch.arange(len(visits.session)).split(CHUNK):
        action = policy_actions(name, len(rows), constant, rng)
        customers = visits.customers[visits.session[rows]]
        x = page_input(customers, visits.page[rows], action)
        total += float(click_through(forward(tensors, "action", x)).double().sum())
    return total / len(visits.session)


@torch.no_grad()
def divergences(
    published: Tensors, fitted: Tensors, visits: Visits, name: str, rng: torch.Generator
) -> dict[str, Any]:
    """Mean KL of both heads over the pages that the published simulator visits, and by page."""
    clicks, second, constant = [], [], torch.zeros(ACTION)
    for rows in torch.arange(len(visits.session)).split(CHUNK):
        customers = visits.customers[visits.session[rows]]
        action = policy_actions(name, len(rows), constant, rng)
        x = page_input(customers, visits.page[rows], action)
        truth = forward(published, "action", x)
        model = forward(fitted, "action", x)
        clicks.append(divergence(truth[:, :CLICKS], model[:, :CLICKS]))
        second.append(divergence(truth[:, CLICKS:], model[:, CLICKS:]))
    both = torch.stack([torch.cat(clicks), torch.cat(second)], 1).double()
    error = both.std(0) / len(both) ** 0.5
    bands = {}
    for low, high in PAGE_BANDS:
        inside = (visits.page >= low) & (visits.page <= high)
        bands[f"{low}-{high}"] = [round(float(v), 5) for v in both[inside].mean(0)]
    return {
        "clicks": round(float(both[:, 0].mean()), 6),
        "second": round(float(both[:, 1].mean()), 6),
        "standard_error": [round(float(e), 6) for e in error],
        "by_page": bands,
        "reached": bool((both.mean(0) <= KL_AIM).all()),
    }


def best_constant(
    tensors: Tensors, visits: Visits, found: Tensor, steps: int, rng: torch.Generator
) -> Tensor:
    """The constant action with the highest click-through that we can find.

    There are many good actions far from each other, and an ascent ends in the nearest. So we
    climb from 32 random directions of several norms and from where the searches of the log
    ended, each in steps measured by its own norm, and return what does best on fresh pages.
    """
    norms = torch.tensor([0.1, 0.3, 0.6, 1.0]).repeat_interleave(8)[:, None]
    starts = torch.cat([directions(len(norms), rng) * norms, found])
    norms = starts.norm(dim=1, keepdim=True)
    point = (starts / norms).requires_grad_()
    optimiser = torch.optim.Adam([point], lr=0.05)

    def score(pages: int) -> Tensor:
        shown = torch.randint(len(visits.session), (pages,), generator=rng)
        customers = one_hot(visits.customers[visits.session[shown]]).repeat(len(norms), 1)
        page = visits.page[shown].float().repeat(len(norms))[:, None]
        action = (point * norms).repeat_interleave(pages, 0)
        logits = forward(tensors, "action", torch.cat([customers, page, action], 1))
        return click_through(logits).view(len(norms), pages).mean(1)

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        optimiser.zero_grad()
        (-score(256).sum()).backward()
        optimiser.step()
    with torch.no_grad():
        return (point * norms)[score(2_000).argmax()].clone()


@torch.no_grad()
def field_marginals(tensors: Tensors, customers: int, rng: torch.Generator) -> list[Tensor]:
    """Shares of the categories of each field: the mean of the exact shares given the noise.

    Counting sampled customers instead would put a total variation of up to 0.005 between two
    samples of 100,000 from one generator, which is as much as we want to measure.
    """
    total = torch.zeros(sum(FIELDS), dtype=torch.float64)
    for rows in torch.arange(customers).split(CHUNK):
        logits = forward(tensors, "generator", torch.rand(len(rows), NOISE, generator=rng))
        shares = torch.cat([field.softmax(1) for field in logits.split(FIELDS, 1)], 1)
        total += shares.double().sum(0)
    return list((total / customers).split(FIELDS))


def length_distance(a: Tensor, b: Tensor) -> float:
    """Kolmogorov-Smirnov distance of two samples of session lengths."""
    shares = [torch.bincount(x.long(), minlength=LENGTHS).double() / len(x) for x in (a, b)]
    return float((shares[0].cumsum(0) - shares[1].cumsum(0)).abs().max())


def length_figures(lengths: Tensor) -> dict[str, Any]:
    """Mean and quantiles of session lengths in pages."""
    quantiles = torch.quantile(
        lengths.double(), torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9, 0.99]).double()
    )
    return {
        "mean": round(float(lengths.double().mean()), 4),
        "quantiles_10_25_50_75_90_99": [int(q) for q in quantiles],
    }


def fidelity(
    published: Tensors,
    fitted: Tensors,
    found: Tensor,
    sessions: int,
    stream: Callable[[int], torch.Generator],
    check: Callable[[], None],
) -> dict[str, Any]:
    """The whole table.

    `stream(i)` gives independent random streams, and `check` may raise between two figures. The
    aims stand beside the figures, and every figure that has one says whether it was reached.
    """
    truth, model = visit(published, sessions, stream(0)), visit(fitted, sessions, stream(1))
    fields = []
    for f, (p, q) in enumerate(
        zip(
            *(field_marginals(net, sessions, stream(2)) for net in (published, fitted)), strict=True
        )
    ):
        distance = float((p - q).abs().sum() / 2)
        fields.append(
            {
                "field": f,
                "published": [round(float(v), 4) for v in p],
                "refit": [round(float(v), 4) for v in q],
                "total_variation": round(distance, 5),
                "reached": distance < FIELD_AIM,
            }
        )
    kl = {}
    for i, name in enumerate(("uniform", "zero", "gaussian:0.1", "norm:0.03")):
        check()
        kl[name] = divergences(published, fitted, truth, name, stream(10 + i))
    steps = 400 if sessions >= 10_000 else 20
    best = {
        "published": best_constant(published, truth, found, steps, stream(20)),
        "refit": best_constant(fitted, model, found, steps, stream(21)),
    }
    policies = {
        "uniform": ("uniform", best["published"]),
        "zero": ("zero", best["published"]),
        "gaussian:0.1": ("gaussian:0.1", best["published"]),
        "best constant of the published networks": ("constant", best["published"]),
        "best constant of the refit": ("constant", best["refit"]),
    }
    ctr: dict[str, dict[str, Any]] = {}
    for i, (title, (name, action)) in enumerate(policies.items()):
        check()
        a = mean_ctr(published, truth, name, action, stream(30 + i))
        b = mean_ctr(fitted, model, name, action, stream(40 + i))
        ctr[title] = {
            "published": round(a, 5),
            "refit": round(b, 5),
            "relative_difference": round(b / a - 1, 5),
        }
        if title != "best constant of the refit":  # an exploit of the fit, reported without aim
            ctr[title]["reached"] = abs(b / a - 1) <= CTR_AIM
    return {
        "sessions": sessions,
        "pages": {"published": len(truth.session), "refit": len(model.session)},
        "aims": {"kl_nat": KL_AIM, "ctr_relative": CTR_AIM, "field_total_variation": FIELD_AIM},
        "field_marginals": fields,
        "kl_nat_per_page": kl,
        "session_length": {
            "published": length_figures(truth.lengths),
            "refit": length_figures(model.lengths),
            "kolmogorov_smirnov": round(length_distance(truth.lengths, model.lengths), 5),
        },
        "click_through": ctr,
        "best_constant_norm": {name: round(float(a.norm()), 4) for name, a in best.items()},
    }
