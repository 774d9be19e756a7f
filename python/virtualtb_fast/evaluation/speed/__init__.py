"""Pages a second of ours and of rivals, in one run, with the outcome of each beside it.

Read in this order: `outcomes` (what contenders are held to before they are timed), `players` (how
each plays), `torch_rival`, `contenders` (the list: a contender more is a line more), `measure` (the
rounds), `memory`.
"""

from virtualtb_fast.evaluation.speed.contenders import Contender, contenders
from virtualtb_fast.evaluation.speed.measure import measure

__all__ = ["Contender", "contenders", "measure"]
