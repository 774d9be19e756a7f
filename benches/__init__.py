"""Benches with rivals in the same run: one thread for BLAS and PyTorch, set before any import."""

import os

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
