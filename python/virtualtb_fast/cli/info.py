"""Say what is installed, what of this CPU is in use, and what a simulator is."""

from __future__ import annotations

import argparse

from virtualtb_fast.cli import common
from virtualtb_fast.info import system_info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``info``."""
    parser.add_argument(
        "--simulator", metavar="NAME|FILE", help="look at another simulator than the default"
    )
    common.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints a table or an object."""
    info = system_info(options.simulator)
    if options.json:
        common.print_json(info)
        return 0
    build = " (a debug build: slow)" if info["debug_build"] else ""
    rows = [
        ("virtualtb_fast", f"{info['version']}{build}"),
        ("random streams", f"version {info['stream_version']}"),
        ("instructions", f"{info['instruction_set']} in use"),
        ("", f"{', '.join(info['instruction_sets_available'])} available"),
        ("threads", f"{info['threads']} by default"),
    ]
    simulator = info["simulator"]
    if simulator is None:
        rows.append(("simulator", "none in this build"))
    else:
        rows += [
            ("simulator", simulator["name"]),
            *(("", part) for part in simulator["kind"].split(": ")),
            ("digest", simulator["digest"]),
            ("customers", f"{simulator['customer_fields']} fields, {simulator['customers']}"),
            ("answers", f"{', '.join(simulator['heads'])}, {simulator['response']}"),
            ("leaving", simulator["leave"]),
            (
                "actions",
                "{} numbers, {:g} to {:g}".format(
                    simulator["action_dimensions"], *simulator["action_range"]
                ),
            ),
        ]
    rows += [
        ("Python", info["python"]),
        ("numpy", info["numpy"]),
        ("gymnasium", info["gymnasium"]),
        ("platform", info["platform"]),
    ]
    common.print_table(rows)
    return 0
