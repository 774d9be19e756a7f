"""README's tables of what was learned from logs, from ``benches/results/learned``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from readme_runs import listed

Rows = Mapping[str, Mapping[str, Sequence[float]]]

NAMES = {
    "fresh": "*fresh true customers*",
    "independent": "*guard: independent fields*",
    "gan-sd": "GAN-SD",
    "gan-sd-fields": "GAN-SD, fields without pairs",
    "gan-sd-paper": "GAN-SD, paper's preset",
    "published": "the published generator",
    "rows": "*training customers again*",
    "gmm": "Gaussian mixture",
    "gan": "GAN",
    "wgan": "WGAN",
    "lca": "latent classes",
    "ar": "autoregressive",
    "bc": "behaviour cloning",
    "linear": "linear in the action",
    "mail": "MAIL",
    "bc+mail": "cloning, then MAIL",
    "mail-paper": "MAIL, paper's reward",
    "zero": "*zero action*",
    "logger": "*the random engine again*",
    "blind": "*guard: trained blind*",
    "guard": "*guards: trivially wrong*",
    "feature_blind": "*guard: a table of answers by page*",
}


def customers(found: Mapping[str, Any]) -> str:
    """Samplers of customers, means over worlds."""
    head = "| customers | worst field KL | pairs missed | triples | excess | classifier AUC "
    table = [f"{head}| CPU s a fit |", "|---|" + "--:|" * 6]
    for name, row in found["rows"].items():
        cells = [_mean(row, "worst_kl", 4, plain=True)]
        cells += [_mean(row, key, 3) for key in ("ratio_pair", "ratio_triple", "ratio_excess")]
        seconds = f"{row['cpu_seconds'][0]:.0f}" if "cpu_seconds" in row else ""
        cells += [_mean(row, "auc", 3), seconds]
        table.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} |")
    columns = ("worst_kl", "ratio_pair", "ratio_triple", "ratio_excess", "auc")
    for title, aim in (("aim", "pairs"), ("aim, fields without pairs", "fields")):
        if aim == "pairs" or "gan-sd-fields" in found["rows"]:
            aims = found["aims"][aim]
            digits = {key: 2 if aims[key] >= 0.01 else 3 for key in aims}
            cells = [f"{aims[key]:.{digits[key]}f}"[1:] if key in aims else "" for key in columns]
            table.append(f"| *{title}* | {' | '.join(cells)} | |")
    keys = {"ratio_pair": "pairs", "ratio_triple": "triples", "ratio_excess": "excess"}
    keys["auc"] = "AUC"
    worst = []
    for name in ("gan-sd", "gan-sd-fields"):
        own = [cell for cell in found["cells"] if cell["sampler"] == name]
        if own:
            shown = [f"{title} {max(cell[key] for cell in own):.3f}" for key, title in keys.items()]
            worst.append(f" The worst world of {NAMES[name]}: {', '.join(shown)}.")
    return "\n".join(
        [
            *table,
            "",
            f"{_worlds(found)}, {found['settings']['size']:,} customers in and out; pairs, triples "
            "and excess cross-entropy as shares of what independent fields miss "
            "(`report table1`). Half widths are 95 % intervals over worlds."
            + "".join(worst)
            + "".join(f" {note}" for note in found.get("notes", [])),
        ]
    )


def fields(found: Mapping[str, Any]) -> str:
    """KL of every field, both ways (the paper's Table 1), and the picture of the shares."""
    rows, back = found["rows"], found["rows_back"]
    names = [field["name"] for field in found["fields"]]
    table = [
        f"| KL, nat | {' | '.join(NAMES.get(name, name) for name in rows)} |",
        "|---|" + "--:|" * len(rows),
    ]
    for field in names:
        cells = [f"{rows[one][field][0]:.4f} / {back[one][field][0]:.4f}" for one in rows]
        table.append(f"| `{field}` | {' | '.join(cells)} |")
    worst = {one: max(row[field][0] for field in names) for one, row in rows.items()}
    learned = [worst[one] for one in worst if one not in ("fresh", "independent")]
    text = (
        f"KL(real || generated) / KL(generated || real) of each field, means over "
        f"{_worlds(found, 'worlds')} (`report figure3`), smoothed by half a customer a category; "
        "the paper's Table 1 has four fields of its own data, one way."
    )
    if "independent" in worst and learned and worst["independent"] <= min(learned):
        text += (
            " Fields drawn independently of one another come as close as anything that was "
            "learned: this table alone would call them perfect, and the one above does not."
        )
    picture = f"![Shares of every field's categories in world {found['worlds'][0]}]"
    return "\n".join([*table, "", text, "", f"{picture}(benches/results/learned/figure3.png)"])


def real(found: Mapping[str, Any]) -> str:
    """Samplers of people's own customers."""
    tables = found["tables"]
    large, counted = tables["kuairand"], tables["virtualtb-counts"]
    table = [
        "| | KuaiRand's users: classifier AUC | pairs missed | worst field KL | CPU s a fit "
        "| published counts: AUC | worst field KL |",
        "|---|" + "--:|" * 6,
    ]
    for name, row in large["rows"].items():
        other = counted["rows"].get(name, {})
        cells = [_mean(row, "auc", 3), _mean(row, "ratio_pair", 3), _mean(row, "field_kl", 4)]
        cells.append(f"{row['cpu_seconds'][0]:.0f}" if "cpu_seconds" in row else "")
        cells += [_mean(other, "auc", 3), _mean(other, "field_kl", 4)]
        title = "*fresh real customers*" if name == "fresh" else NAMES.get(name, name)
        table.append(f"| {title} | {' | '.join(cells)} |")
    floor = large["rows"]["fresh"]["ratio_pair"][0]
    return "\n".join(
        [
            *table,
            "",
            f"KuaiRand-Pure's users ({large['fields']} columns, {large['train']:,} to fit to; "
            f"{_seeds(large)}), and customers put together from the field counts of VirtualTB-v0's "
            f"data set ({counted['train']:,}; {_seeds(counted)}). Intervals are over splits. Fresh "
            "real customers are the floor, the independent sampler is the void guard; of the "
            "published counts the fields are independent by construction, so there it is the "
            "truth. Pairs are shares of what independent fields miss, and on KuaiRand much of "
            "that, as of field KL, is counting: the "
            f"{large['generated']['fresh']:,} fresh customers, held against as many, get "
            f"{floor:.2f}; the training customers drawn again, as many as samplers draw, are the "
            "floor there (a classifier knows them by their repeats).",
        ]
    )


def _seeds(table: Mapping[str, Any]) -> str:
    rows = table["rows"]
    every = sorted({seed for row in rows.values() for seed in row["seeds"]})
    text = f"seeds {every[0]} to {every[-1]}" if len(every) > 1 else f"seed {every[0]}"
    short = [
        f"{NAMES.get(name, name).strip('*')} {' '.join(map(str, row['seeds']))}"
        for name, row in rows.items()
        if row["seeds"] != every
    ]
    return f"{text}, but {', '.join(short)}" if short else text


ANSWERS = {
    "effect": "effect",
    "excess": "excess",
    "logger": "R2P",
    "zero": "R2P at zero",
    "distance": "sessions",
    "shifted": "shifted sessions",
    "auc": "AUC",
    "engine": "engine",
    "length": "length",
}
"""Columns of the table of answers, and what sentences call them."""


def responses(found: Mapping[str, Any]) -> str:
    """Ways to learn answers, means over worlds."""
    keys = {"effect": 3, "excess": 4, "logger": 4, "zero": 4, "distance": 3, "shifted": 3}
    keys |= {"auc": 3, "engine": 3, "length": 3}
    head = (
        "| answers | effect of actions | excess, nat | R2P gap | at zero | sessions | shifted "
        "| AUC | engine, sd | length | CPU s |"
    )
    table = [head, "|---|" + "--:|" * 10]
    for name, row in found["rows"].items():
        cells = [_mean(row, key, digits, plain=True) for key, digits in keys.items()]
        cells.append(f"{row['cpu_seconds'][0]:.0f}" if "cpu_seconds" in row else "")
        shown = "*other true sessions*" if name == "fresh" else NAMES[name]
        table.append(f"| {shown} | {' | '.join(cells)} |")
    table.append(f"| *aim* | {' | '.join(_aim(found['aims'].get(key)) for key in keys)} | |")
    return "\n".join(
        [
            *table,
            "",
            f"{_worlds(found)}, {found['settings']['train']:,} sessions (`report responses`). "
            "Effect: correlation of learned with true differences of buy logits between logged "
            "actions; sessions: total variation of length and end by query, under the logger and "
            "one standard deviation off; AUC: of a fresh discriminator; length: of generated "
            f"sessions over real ones. {_missed(found)}"
            f"{_under_shifted(found['cells'], found['aims']['shifted'][1])}",
        ]
    )


def _aim(span: Sequence[float] | None) -> str:
    """The bound of a span that can be missed, or both."""
    if span is None:
        return ""
    low, high = (f"{value:.3f}".removesuffix("0").removeprefix("0") for value in span)
    if span[0] <= 0:
        return high
    return f"{low} or more" if span[1] == 1 else f"{low} to {high}"


def _missed(found: Mapping[str, Any]) -> str:
    """What MAIL from random weights does not reach in the mean over worlds."""
    row = found["rows"].get("mail")
    if row is None:
        return ""
    missed = [
        ANSWERS[key] for key, (low, high) in found["aims"].items() if not low <= row[key][0] <= high
    ]
    if not missed:
        return ""
    iterations = {cell["fit"]["iterations"] for cell in found["cells"] if cell["method"] == "mail"}
    text = (
        f"MAIL from random weights misses the aims of {listed(missed)} after "
        f"{listed(sorted(iterations))} iterations. "
    )
    warm = [cell["fit"]["best_iteration"] for cell in found["cells"] if cell["method"] == "bc+mail"]
    if warm:
        text += (
            "Started from cloned weights its steps made held-out answers likelier in "
            f"{sum(best > 0 for best in warm)} of {len(warm)} worlds. "
        )
    return text


def paper(found: Mapping[str, Any]) -> str:
    """What the paper's reward does to the length of sessions."""
    cells = found["cells"]
    ratios = [cell["length"]["ratio"] for cell in cells]
    spread = f"{min(ratios):.1f} to {max(ratios):.1f}" if len(ratios) > 1 else f"{ratios[0]:.1f}"
    aucs = [cell["telling_apart"]["auc"] for cell in cells]
    rates = [cell["r2p"]["logger"] for cell in cells]
    return (
        f'With the paper\'s reward, -log(1 - D) and no padding (`responses="mail-paper"`), every '
        f"further page pays, so customers learn to stay: after {found['settings']['iterations']} "
        f"iterations from random weights sessions were {spread} times as long as real ones "
        f"({_worlds(found, 'worlds')}), a fresh discriminator's "
        f"AUC at least {min(aucs):.3f}, and R2P at most "
        f"{max(one['simulator'] for one in rates):.4f} where the truth has at least "
        f"{min(one['truth'] for one in rates):.4f}. Logit rewards and an absorbing state, the "
        "defaults, are there for that reason."
    )


def _under_shifted(cells: Sequence[Mapping[str, Any]], aim: float) -> str:
    """Where the guard that knows no features comes as close as what was learned."""
    shifted: dict[int, list[float]] = {}
    blind = {}
    for cell in cells:
        held = cell["distance"]["shifted"]
        if cell["method"] != "mail":
            shifted.setdefault(cell["world"], []).append(held["distance"])
        blind[cell["world"]] = held["feature_blind"]
    within = [world for world, distance in blind.items() if distance <= aim]
    if not within:
        return ""
    closer = [world for world in shifted if blind[world] < max(shifted[world])]
    text = (
        f"Under shifted actions the table that knows the page alone is within the aim in "
        f"{len(within)} of {len(blind)} worlds ({listed(within)})"
    )
    if closer:
        closeness = "closer to the truth than some of what was learned but for MAIL"
        text += f", and in {listed(closer)} {closeness}"
    return (
        f"{text}: that column says nothing about features there, only that answers to actions "
        "never logged are not far off. The guards' row has constant answers in it, which are not "
        "within the aim in any world."
    )


def drift(found: Mapping[str, Any]) -> str:
    """Policies of day 0 on later days."""
    days = found["days"]
    head = [f"day {day}" for day in days]
    table = [
        "| R2P over the random engine's, % | in truth: "
        + " | ".join(head)
        + f" | lost | over zero | in simulators: {head[0]} | {head[-1]} |",
        "|---|" + "--:|" * (len(days) + 4),
    ]
    for name, row in found["rows"].items():
        keys = [*(f"truth_{day}" for day in days), "truth_drop", "truth_over_zero"]
        keys += [f"simulator_{days[0]}", f"simulator_{days[-1]}"]
        table.append(f"| {NAMES[name]} | {' | '.join(_mean(row, key, 1) for key in keys)} |")
    return "\n".join(
        [
            *table,
            "",
            f"{_worlds(found)} (`report table2`); policies by TRPO with the action norm "
            "constraint, trained in the simulator of day 0. " + " ".join(found["notes"]),
        ]
    )


def fits(found: Mapping[str, Any]) -> str:
    """Click-through rates of fits to the published networks' logs; the cost of long logs."""
    rates = found["published"]["click_through"]
    policies = list(rates["published"])
    table = [f"| CTR under | {' | '.join(policies)} |", "|---|" + "--:|" * len(policies)]
    for name, row in rates.items():
        cells = [f"{row[policy]:.4f}" for policy in policies]
        if name != "published":
            truth = rates["published"]
            cells = [f"{100 * (row[policy] / truth[policy] - 1):+.1f} %" for policy in policies]
        table.append(f"| {name} | {' | '.join(cells)} |")
    lines = [
        *table,
        "",
        f"{found['published']['sessions']:,} sessions of the published networks; mixed: under "
        f"{', '.join(found['published']['policies'])} (`python -m benches.fits`). Uniform actions "
        "alone are never near zero, so what customers do there cannot be learned from them.",
        "",
        "| pages in the log | time of `fit` | simulating | peak memory | log |",
        "|--:|--:|--:|--:|--:|",
    ]
    for pages, fit in found["scale"].items():
        memory = fit["peak_memory_bytes"] / 1e6
        lines.append(
            f"| {int(pages):,} | {fit['seconds']:.0f} s | "
            f"{100 * fit['simulating_share']:.1f} % | {memory:.0f} MB | "
            f"{fit['log_bytes'] / 1e6:,.0f} MB |"
        )
    machine = found["machine"]
    return "\n".join([*lines, "", f"With the command's defaults on {machine}."])


def features(found: Mapping[str, Any]) -> str:
    """R2P by customer feature (the paper's Figure 4)."""
    sides = {"simulator": "simulator", "fresh": "*other true sessions*"}
    sides["blind"] = "*guard: features not seen*"
    head = "| R2P by category of every field | weighted error | rank correlation |"
    table = [head, "|---|--:|--:|"]
    for name, shown in sides.items():
        row = found["rows"][name]
        table.append(f"| {shown} | {_mean(row, 'error', 4)} | {_mean(row, 'spearman', 3)} |")
    text = f"{_simulated(found, 'figure4')}."
    if found["rows"]["blind"]["error"][0] <= 0.006:
        text += " The guard passes the first aim: it is the second that tells them apart."
    return "\n".join([*table, "| *aim* | .006 | .8 |", "", text])


def hours(found: Mapping[str, Any]) -> str:
    """R2P over a day (the paper's Figure 5)."""
    sides = {"simulator": "twelve simulators", "fresh": "*other true sessions*"}
    sides["pooled"] = "*guard: one simulator of the day*"
    table = ["| R2P over twelve parts of a day | correlation | largest error |", "|---|--:|--:|"]
    for name, shown in sides.items():
        row = found["rows"][name]
        table.append(f"| {shown} | {_mean(row, 'pearson', 3)} | {_mean(row, 'largest_error', 4)} |")
    return "\n".join(
        [
            *table,
            "| *aim* | .9 | .004 |",
            "",
            f"{_simulated(found, 'figure5')} for each part.",
            "",
            "![R2P over a day, real and simulated](benches/results/learned/figure5.png)",
        ]
    )


def hours_warm(found: Mapping[str, Any]) -> str:
    """The same, each part starting from the part before."""
    row = found["rows"]["simulator"]
    return (
        "With each part's answers starting from those of the part before, where the paper fits "
        f"every part by itself, the correlation is {_mean(row, 'pearson', 3)} and the largest "
        f"error {_mean(row, 'largest_error', 4)}. {_simulated(found, 'figure5')} for each part."
    )


def _simulated(found: Mapping[str, Any], name: str) -> str:
    held = found["settings"]
    worlds = " ".join(map(str, found["worlds"]))
    command = f"report {name} --worlds {worlds} --customers {held['customers']}"
    command += "" if held["responses"] == "bc+mail" else f" --responses {held['responses']}"
    command += " --warm" if held.get("warm") else ""
    return (
        f"{_worlds(found)} (`{command}`): customers by {NAMES[held['customers']]}, answers by "
        f"{NAMES[held['responses']]}; {held['sessions']:,} sessions"
    )


def _mean(
    row: Mapping[str, Sequence[float | None]], key: str, digits: int, *, plain: bool = False
) -> str:
    if key not in row:
        return ""
    mean, half = row[key]
    shown = f"{mean:.{digits}f}"
    return shown if plain or not half else f"{shown} ± {half:.{digits}f}"


def _worlds(found: Mapping[str, Any], word: str = "Worlds") -> str:
    worlds = found["worlds"]
    return f"{word} {worlds[0]} to {worlds[-1]}" if len(worlds) > 1 else f"{word[:-1]} {worlds[0]}"
