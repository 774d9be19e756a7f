"""Judging simulators and samplers of customers.

`fidelity` compares a simulator with a log, and `report` makes a page of it; `reproduce` has the
published tables and figures; `customer_table`, `responses` and `imitation` judge what was learned
from ground-truth stores; `speed` and `retrieval` measure ours against rivals; `plots` draws
rollouts and benches. Pictures, pages and classifiers need
the extra ``[report]``.
"""
