"""The published tables and figures again, in ground-truth stores, where every answer is known.

| function | what |
|---|---|
| `responses` | ways to learn customers' answers, each figure beside a void guard |
| `table1` | samplers of customers: the paper's Table 1, with what marginals cannot see |
| `table2` | policies of day 0's simulator on later days, there and in truth |
| `figure3` | shares of every category: truth, GAN-SD and its baselines |
| `figure4` | R2P by customer feature, real against simulated |
| `figure5` | R2P over twelve parts of a day, a simulator a part |

Each runs in cells (`virtualtb_fast.evaluation.cells`), writes ``NAME.json``, ``NAME.md`` and
``NAME.png`` into its folder, and draws and tabulates from that JSON alone. Tune on worlds 0 to 4,
report on 100 to 104.
"""

from __future__ import annotations

from virtualtb_fast.evaluation.reproduce.drift import TABLE2, table2
from virtualtb_fast.evaluation.reproduce.parts import WORLDS, Told
from virtualtb_fast.evaluation.reproduce.responses import RESPONSES, responses
from virtualtb_fast.evaluation.reproduce.samplers import FIGURE3, TABLE1, figure3, table1
from virtualtb_fast.evaluation.reproduce.simulators import figure4, figure5

__all__ = [
    "FIGURE3",
    "RESPONSES",
    "TABLE1",
    "TABLE2",
    "WORLDS",
    "Told",
    "figure3",
    "figure4",
    "figure5",
    "responses",
    "table1",
    "table2",
]
