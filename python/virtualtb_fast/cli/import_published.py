"""Make a simulator of the three files that VirtualTB-v0 was published with.

DIR is the folder virtualTB/data of the repository eyounx/VirtualTaobao, with
generator_model.pt, action_model.pt and leave_model.pt. Reading them needs
PyTorch: pip install "virtualtb-fast[train]".
"""

from __future__ import annotations

import argparse
import os

from virtualtb_fast.cli import common
from virtualtb_fast.published import import_published


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``import-published``."""
    parser.add_argument("directory", metavar="DIR", help="folder with the three .pt files")
    parser.add_argument("--out", metavar="FILE", required=True, help="the simulator's file")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    common.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Reads, writes, and says what came of it."""
    out = options.out
    common.refuse_existing(out, overwrite=options.overwrite)
    simulator = import_published(options.directory)
    simulator.save(out)
    published = bool(simulator.provenance["published"])
    if options.json:
        common.print_json(
            {
                "command": "import-published",
                "name": simulator.name,
                "digest": simulator.digest,
                "published": published,
                "out": out,
            }
        )
        return 0
    known = "as published" if published else "NOT the published ones: other SHA-256"
    common.print_table(
        [
            ("simulator", simulator.name),
            ("weights", known),
            ("digest", simulator.digest),
            ("file", f"{out} ({os.path.getsize(out) / 1e6:.2f} MB)"),
        ]
    )
    return 0
