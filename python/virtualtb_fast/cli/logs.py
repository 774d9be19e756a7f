"""Check logs to learn from, and draft schema files for them.

actions:
  check FILE         what a log holds and what is wrong with it
  schema FILE        draft the schema file of a log that is not of this package

virtualtb-fast logs ACTION --help says more about an action.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from virtualtb_fast._training import write_atomically
from virtualtb_fast.cli import common
from virtualtb_fast.records import Finding, LogReport, check_log, draft_schema

_UNUSABLE = 1
"""Exit code of a check that found errors."""
_WIDTH = 80
_KINDS = 18
"""Width of the kinds of findings, if none is longer."""
_FIELDS = 12
"""Columns of customers that are shown as text."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of ``logs`` and their options."""
    action = common.add_actions(parser, "action")
    _add_check(action("check", _CHECK))
    _add_schema(action("schema", _SCHEMA))


_CHECK = """\
Say what a log holds and what is wrong with it: columns, types, missing values,
categories, the order of pages, feedback after the end, and what is too little
to learn from.

Logs that rollouts wrote need no schema. The log is read in pieces, whatever its
size. The exit code is 1 if the log cannot be learned from."""

_SCHEMA = """\
Draft a schema file: which column is the session, the page, the customer's, the
action's, the feedback. It is TOML, and says of every guess that it is one: read
it, mend it, then run virtualtb-fast logs check FILE --schema SCHEMA."""


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a Parquet file, one row a page")
    parser.add_argument("--schema", metavar="SCHEMA", help="what its columns are (.toml)")
    common.add_json(parser)


def _add_schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a Parquet file, one row a page")
    parser.add_argument("--out", metavar="SCHEMA", help="write it here instead of printing it")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    common.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Does what the action says."""
    actions: dict[str, Callable[[argparse.Namespace], int]] = {"check": _check, "schema": _schema}
    return actions[options.action](options)


def _check(options: argparse.Namespace) -> int:
    with common.Stages(quiet=options.json) as progress:
        report = check_log(options.file, options.schema, progress=progress)
    if options.json:
        common.print_json({"command": "logs check", **report.to_dict()})
    else:
        common.print_table(report_table(report))
        print_findings(report)
    return _UNUSABLE if report.errors else 0


def _schema(options: argparse.Namespace) -> int:
    common.refuse_existing(options.out, overwrite=options.overwrite)
    draft = draft_schema(options.file)
    if options.out is not None:
        import pathlib

        with write_atomically(pathlib.Path(options.out)) as file:
            file.write(draft.text.encode())
    if options.json:
        common.print_json(
            {
                "command": "logs schema",
                "out": options.out,
                "schema": draft.text,
                "missing": list(draft.missing),
                "left_out": list(draft.left_out),
                "warnings": list(draft.warnings),
            }
        )
    elif options.out is None:
        print(draft.text, end="")
    else:
        print(f"{options.out}: a draft, with its guesses marked; read it before it is used")
    if not options.json:
        common.print_warnings(draft.warnings)
    if draft.missing and not options.json:
        print(f"not found, to be filled in: {', '.join(draft.missing)}", file=sys.stderr)
    return 0


def report_table(report: LogReport) -> list[tuple[str, str]]:
    """What a log holds, as rows for `common.print_table`."""
    rows = [("log", report.source), ("schema", report.schema)]
    if not report.summary:
        return [*rows, ("pages", "not read")]
    about = report.summary
    sessions = f"{report.rows:,} in {common.plural(report.sessions, 'session')}"
    if report.sessions:
        each, longest = about["pages_per_session"], about["longest"]
        sessions += f", {each:.2f} each, {longest:,} the longest"
    rows.append(("pages", sessions))
    rows += zip(_first_only("customers"), _fields(about["customer"]), strict=False)
    action = about["action"]
    if action["dimensions"]:
        span = f"{action['low']:.4g} to {action['high']:.4g}"
        rows.append(("action", f"{action['dimensions']} numbers, {span}"))
    if report.heads == "clicks":
        rows.append(("clicks", _shares(enumerate(about["clicks"]))))
    outcomes = [(name, count) for name, count in about["outcomes"].items() if count]
    rows.append(("outcomes", _shares(outcomes)))
    return rows


def _first_only(name: str) -> Iterator[str]:
    yield name
    while True:
        yield ""


def _fields(fields: Sequence[Any]) -> Iterator[str]:
    width = max((len(one["name"]) for one in fields[:_FIELDS]), default=0)
    for one in fields[:_FIELDS]:
        if one["kind"] == "numeric":
            what = "no numbers"
            if one["low"] is not None:
                what = f"{one['low']:.4g} to {one['high']:.4g}"
        else:
            what = common.plural(one["distinct"], "category", "categories")
            if one["categories"] > one["distinct"]:
                what = f"{one['distinct']:,} of {one['categories']:,} categories"
        if one["missing"]:
            what += f", {common.plural(one['missing'], 'session')} without"
        yield f"{one['name']:{width}}  {what}"
    if len(fields) > _FIELDS:
        yield f"and {len(fields) - _FIELDS} more"


def _shares(counts: Any) -> str:
    pairs = [(name, count) for name, count in counts if count]
    total = sum(count for _, count in pairs)
    shown = [f"{name}: {count / total:.2%}" for name, count in pairs[:6]]
    return ", ".join(shown) + (", ..." if len(pairs) > len(shown) else "")


def print_findings(report: LogReport) -> None:
    """What is wrong, and a last line that says whether the log will do."""
    width = max((len(one.kind) for one in report.findings), default=0)
    for name, findings in (("errors", report.errors), ("warnings", report.warnings)):
        if findings:
            print(f"\n{name}")
            for finding in findings:
                print("\n".join(_finding_lines(finding, max(width, _KINDS))))
    if any(finding.rows for finding in report.findings):
        print("\nThe first row of the log is row 0.")
    counts = [
        f"{len(findings)} {name}{'' if len(findings) == 1 else 's'}"
        for name, findings in (("error", report.errors), ("warning", report.warnings))
        if findings
    ]
    some = f" ({', '.join(counts)})" if counts else ""
    verdict = "cannot be learned from" if report.errors else "good to learn from"
    print(f"\n{report.source}: {verdict}{some}")


def _finding_lines(finding: Finding, width: int) -> Iterator[str]:
    head = f"  {finding.kind:{width}} "
    text = str(finding)
    if finding.hint:
        text += f"; {finding.hint}"
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
    if finding.count > 1:
        rows = ", ".join(f"{row:,}" for row in finding.rows)
        more = ", ..." if finding.count > len(finding.rows) else ""
        yield f"{'':{len(head)}}rows {rows}{more}"
