"""For all tests: no example of hypothesis is too slow for a busy machine; and where pytest-xdist runs several
at a time, each has its share of the processors' threads."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

if _WORKERS > 1:
    _each = max((os.cpu_count() or 1) // _WORKERS, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(_each))  # of commands that tests start
    torch.set_num_threads(_each)
