"""The command line, ``virtualtb-fast``: one word a stage, one file a command.

A command's module has ``SUMMARY``, ``add_arguments(parser)`` and ``run(options)``, and may have
``SIGNED``, options whose values may start with a minus; it is imported only when its word is given,
so that ``--help`` is quick.

Exit codes: 0, 2 for usage and bad input (one line on standard error), 130 for Ctrl-C; ``logs
check`` gives 1 for a log that cannot be learned from.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from virtualtb_fast.errors import VirtualTBError

__all__ = ["main"]

COMMANDS: Final = {
    "rollout": "play sessions under a policy: summary, Parquet, picture",
    "catalog": "millions of items: build, info, search, verify",
    "fit": "learn a simulator from a session log",
    "logs": "logs to learn from: check one, draft a schema for one",
    "report": "how far to trust a simulator; published tables and figures",
    "bench": "measure ours against other libraries that are installed",
    "info": "what is installed, in use and available",
    "import-published": "make a simulator of VirtualTB-v0's published files",
}
"""Every command with its line in the help."""

_USAGE_ERROR, _INTERRUPTED = 2, 130


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: virtualtb-fast COMMAND [options]",
            "",
            "A fast, reproducible simulator of an online shop's customers.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            f"  {'-h, --help':{width}}show this help",
            f"  {'--version':{width}}show the version",
            "",
            "virtualtb-fast COMMAND --help says more about a command.",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: What follows the program's name; ``sys.argv`` unless given.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else _USAGE_ERROR
    if words[0] in ("-V", "--version"):
        from virtualtb_fast import __version__

        print(f"virtualtb-fast {__version__}")
        return 0
    if words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"virtualtb-fast: expected a command ({known}), got {words[0]!r}", file=sys.stderr)
        return _USAGE_ERROR
    return _run(words[0], words[1:])


def _joined(words: Sequence[str], signed: Sequence[str]) -> list[str]:
    """The words, with a number that starts with a minus joined to the signed option before it."""
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in signed and re.match(r"-[0-9.]|-inf|-nan", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _run(name: str, words: list[str]) -> int:
    import argparse

    command: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"virtualtb-fast {name}",
        description=command.__doc__,
        # 80 columns, with room for the longest option.
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=26, width=80
        ),
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    # argparse takes "-1,2" for an option; with an equals sign it does not.
    words = _joined(words, getattr(command, "SIGNED", ()))
    try:
        options = parser.parse_args(words)
    except SystemExit as stop:
        # argparse has said why; it also leaves this way after --help.
        return stop.code if isinstance(stop.code, int) else _USAGE_ERROR
    try:
        return int(command.run(options))
    except VirtualTBError as error:
        from virtualtb_fast.cli.common import in_words

        print(f"virtualtb-fast {name}: {in_words(str(error))}", file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        print(f"virtualtb-fast {name}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not try again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
