"""People's own logs: what their columns mean, whether they can be learned from, and in which form.

```
Parquet, DataFrame, SessionLog ──> source ──> decode ──> check ──> prepared ──> Pages for training
                                     schema file ─┘
```

`LogSchema` is the schema file, `draft_schema` writes a first one by looking at a log, `check_log`
says what is wrong with a log, `prepare` turns one into columns on disk that training reads.
"""

from __future__ import annotations

from virtualtb_fast.records.check import check_log
from virtualtb_fast.records.draft import draft_schema
from virtualtb_fast.records.findings import Finding, LogReport
from virtualtb_fast.records.prepared import Prepared, prepare
from virtualtb_fast.records.schema import Feedback, LogSchema

__all__ = [
    "Feedback",
    "Finding",
    "LogReport",
    "LogSchema",
    "Prepared",
    "check_log",
    "draft_schema",
    "prepare",
]
