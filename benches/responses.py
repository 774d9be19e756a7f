"""Learned customers judged in ground-truth stores, world by world and method by method.

    python -m benches.responses --worlds 100 101 --methods bc linear mail bc+mail --out FOLDER

Every cell (world x method) is one JSON file that is written when the cell is done; a run that was
killed goes on with the cells that are missing. `virtualtb_fast.evaluation.imitation` says what a
cell holds; `tests/training/test_mail_truth.py` runs it in small.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import torch

from virtualtb_fast.evaluation.imitation import METHODS, Sizes, run


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--worlds", type=int, nargs="+", default=[100, 101, 102, 103, 104])
    parser.add_argument("--methods", nargs="+", default=list(METHODS[:4]), choices=METHODS)
    parser.add_argument("--iterations", type=int, default=Sizes.iterations, help="of MAIL")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    options = parser.parse_args()
    # One thread: results depend on how PyTorch splits its sums.
    torch.set_num_threads(1)
    git = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    run(
        options.worlds,
        options.methods,
        options.out,
        Sizes(iterations=options.iterations),
        about={"commit": commit},
        done=lambda world, method, seconds: print(
            f"world {world}, {method}: {seconds:.0f} s", flush=True
        ),
    )


if __name__ == "__main__":
    main()
