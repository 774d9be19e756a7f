"""README's sentences on what long runs found and what modes of playing gain, from their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Results = Mapping[str, Any]

_FOLDER = "benches/results"
_ERRORS = ("rms", "most")
"""Of logits at reduced precision."""


def reliability(found: Mapping[str, Results]) -> str:
    """What the last long runs found, a line each.

    Args:
        found: ``kills``, ``soak``, ``forks``, ``fuzz`` and ``sanitizers``, and ``signals`` if there
            is such a result.
    """
    lines = (
        ("make soak-kills", "kills", _kills(found["kills"])),
        *(("make soak-kills", "signals", _signals(one)) for one in [found.get("signals")] if one),
        ("make soak", "soak", _soak(found["soak"])),
        ("make soak-forks", "forks", _forks(found["forks"])),
        ("make fuzz", "fuzz", _fuzz(found["fuzz"])),
        ("make asan`, `make tsan", "sanitizers", _sanitizers(found["sanitizers"])),
    )
    return "\n".join(
        f"- `{target}` ([results]({_FOLDER}/reliability/{name}.json)): {text}"
        for target, name, text in lines
    )


def at_once(result: Results) -> str:
    """What `send` and `recv` gain: against `step` on one thread, and on more."""
    ratios = {name: row["ratio"] for name, row in result["contenders"].items()}
    one, two, halves = (
        ratios[name] for name in ("whole, 1 thread", "whole, 2 threads", "halves at once")
    )
    return (
        "With a PyTorch network of 91-256-256-27 on one thread as policy, and "
        f"{result['customers']:,} customers, two halves at once played {halves / one:.2f} times "
        f"the pages a second of `step` on one thread and {halves / two:.2f} times those of "
        f"`step` on two; the network alone allows {ratios['policy alone'] / one:.2f} times "
        f"(`make bench-async`, [results]({_FOLDER}/async.json); medians of "
        f"{result['rounds']} rounds{_busy(result)})."
    )


def reduced(result: Results, speed: Results) -> str:
    """What reduced precision changes, and what it gains.

    Args:
        result: ``reduced.json``.
        speed: ``environments.json``; of a CPU that is no faster at it, nothing is said.
    """
    changes = {
        name: max(abs(row["reduced"]["relative_change_of_ctr"]) for row in policies.values())
        for name, policies in result["simulators"].items()
    }
    errors = []
    for name, policies in result["simulators"].items():
        logits = [row["logits"]["reduced"] for row in policies.values()]
        worst = (f"{100 * max(one[key] for one in logits):.1f} %" for key in _ERRORS)
        errors.append(f"{listed(worst)} (`{name}`)")
    rms, most = (100 * result["bounds"][key] for key in _ERRORS)
    rows = [row for policies in result["simulators"].values() for row in policies.values()]
    pages = min(row[form]["pages"] for row in rows for form in ("exact", "reduced"))
    policies = max(len(policies) for policies in result["simulators"].values())
    judged = round(min(row["logits"]["pages"] for row in rows), -4)
    text = (
        f"Over {pages / 1e6:.0f} million pages under each of {policies} policies the CTR differed "
        f"from the exact form's by at most "
        f"{listed(f'{100 * change:.2f} % (`{name}`)' for name, change in changes.items())}. The "
        f"error of logits, from their head's mean, is at most {rms:.0f} % of their size (root mean "
        f"squares over the pages of a policy), and on 999 of 1,000 pages at most {most:.0f} % of "
        f"the page's own; found were {listed(errors)}, over some {judged:,} pages a policy: "
        f"`make bench-reduced`, [results]({_FOLDER}/reduced.json)."
    )
    ratios = {
        where: speed["ratios"].get(f"{name}: reduced / exact")
        for name, where in (
            ("rollout, counts only", "rollouts"),
            ("vector env", "the vector environment"),
        )
    }
    gains = [f"{row['ratio']:.2f} times in {where}" for where, row in ratios.items() if row]
    if gains:
        text += (
            f" Pages a second, against the exact form: {listed(gains)} (one thread; `make bench`, "
            f"[results]({_FOLDER}/environments.json))."
        )
    return text


def yardstick(speed: Results) -> str:
    """How a bench of environments keeps everybody honest, and what it tells."""
    return (
        "Nobody gains by skipping work: before anything is timed, all that play our streams must "
        "bring one digest of lengths and clicks, and the others our click-through rate and length "
        f"of sessions within {speed['reference']['sigmas']:.0f} standard errors; the clicks of "
        "what was timed are held to the same. It tells pages and GFLOP a second (a page costs "
        f"{speed['flop_a_page'] / 1e3:.0f} thousand operations; set that beside environments "
        "whose step is trivial), the share of numpy's rate, p50 and p99 of a step, and memory."
    )


def _kills(found: Results) -> str:
    kills, writes, stops = found["kills"], found["failed_writes"], found["ctrl_c"]
    return (
        f"{kills['kills']:,} kills of {kills['rollouts']:,} rollouts, and "
        f"{writes['failed_writes']:,} writes that failed. Resumed, "
        f"{_all(kills['equal'] + writes['equal'], kills['rollouts'] + writes['failed_writes'])} "
        "files were, byte for byte, those of an undisturbed run. Of "
        f"{stops['count']:,} presses of Ctrl-C "
        f"{100 * stops['within_100_ms']:.1f} % were answered within 100 ms, the slowest in "
        f"{stops['most_ms']:,.0f} ms."
    )


def _signals(found: Results) -> str:
    name, longest = max(found["longest_ms"].items(), key=lambda one: one[1])
    most, guard = found["most_ms"], found["guard"]["numpy.sort"]
    slow = sum(gap > most for gap in found["longest_ms"].values())
    bound = f"{slow:,} of them longer than" if slow else "each at most"
    text = (
        f"the longest CPU time between two looks at signals, of {len(found['longest_ms'])} long "
        f"native calls: {bound} {most:.0f} ms, the longest {longest:.1f} ms (`{name}`). A "
        f"`numpy.sort`, which never looks, took {guard:.0f} ms"
    )
    return f"{text}." if guard > most else f"{text}, so that this run proves nothing."


def _soak(found: Results) -> str:
    ways, rounds = found["configurations"], found["rounds"]
    by_count: dict[int, list[str]] = {}
    for isa, count in sorted(rounds.items(), key=lambda one: -one[1]):
        by_count.setdefault(count, []).append(isa)
    played = [
        f"{listed(names)} played {count} round{'s' if count > 1 else ''}"
        + (" each" if len(names) > 1 else "")
        for count, names in by_count.items()
    ]
    slow = ", since it takes so much longer" if len(by_count) > 1 else ""
    memory = (
        f"{first:.1f} to {last:.1f} MB on {isa}"
        for isa, (first, last) in found["memory_mb"].items()
    )
    return (
        f"{found['pages'] / 1e6:.0f} million pages over {len(ways['batch sizes'])} batch sizes, "
        f"{listed(map(str, ways['threads']))} threads and {len(ways['autoreset modes'])} "
        "autoreset modes: one digest a round on all instruction sets that played it. "
        f"{'; '.join(played)}{slow}. From the first third of the rounds to the last, memory went "
        f"from {listed(memory)}."
    )


def _forks(found: Results) -> str:
    half = found["half_stepped"]
    text = (
        f"{found['forks']:,} forks in {len(found['ways'])} ways while threads were at work: no "
        f"child hung, and what they did ({len(found['works'])} kinds of work) came out right."
    )
    if half.get("refused"):
        text += (
            f" {half['refused']:,} times an environment was half stepped at the fork, and its use "
            "in the child was refused."
        )
    return text


def _fuzz(found: Results) -> str:
    slowest = max(kind["slowest_ms"] for kind in found["kinds"].values())
    text = (
        f"{found['files']:,} mutated files of {len(found['kinds'])} kinds, to be refused with a "
        f"typed error or to work: {_none(found['failures'])} failures, and at most "
        f"{slowest / 1e3:.1f} s a file."
    )
    # What was mended meanwhile is said where it happened, up to how the machine was.
    note = found.get("note", "").partition(" Times are ")[0]
    return f"{text} {note}".strip()


def _sanitizers(found: Results) -> str:
    def ran(name: str, row: Results) -> str:
        skipped = f" ({len(row['skipped'])} skipped)" if row["skipped"] else ""
        failed = f", {row['tests_failed']} failed" if row["tests_failed"] else ""
        return (
            f"{row['tests_passed']} Rust tests{skipped}{failed} and {row['mutated_files']:,} "
            f"mutated files under {name}"
        )

    names = {"address": "AddressSanitizer", "thread": "ThreadSanitizer"}
    findings = sum(len(row["findings"]) for row in found.values())
    hidden = sum(len(row["suppressions"]) for row in found.values())
    text = listed(ran(names[key], row) for key, row in found.items())
    return f"{text}: {_none(findings)} findings, {_none(hidden)} suppressions."


def _none(count: int) -> str:
    return f"{count:,}" if count else "no"


def _all(equal: int, total: int) -> str:
    return f"all {total:,}" if equal == total else f"{equal:,} of {total:,}"


def _busy(result: Results) -> str:
    """What a reader must know of a machine that had other work."""
    load = result.get("load") or 0
    return f", on a machine busy with other work: load {load:.0f}" if load >= 1 else ""


def listed(words: Iterable[object]) -> str:
    """As one says it: a, b and c."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last
