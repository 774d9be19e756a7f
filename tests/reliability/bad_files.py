"""Bad files of every kind that the package reads, each with what its message must say."""

from __future__ import annotations

from tests.reliability import (
    bad_files_catalogs,
    bad_files_data,
    bad_files_logs,
    bad_files_others,
    bad_files_own_logs,
    bad_files_policies,
    bad_files_states,
    bad_files_tensors,
    bad_files_texts,
)
from tests.reliability.bad_files_kit import Kind

KINDS: list[Kind] = [
    *bad_files_tensors.KINDS,
    *bad_files_policies.KINDS,
    *bad_files_catalogs.KINDS,
    *bad_files_logs.KINDS,
    *bad_files_own_logs.KINDS,
    *bad_files_others.KINDS,
    *bad_files_data.KINDS,
    *bad_files_states.KINDS,
    *bad_files_texts.KINDS,
]
