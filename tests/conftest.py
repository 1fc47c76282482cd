"""What all tests share: one torch thread in each process, so that workers do not fight over the cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
