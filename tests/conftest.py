"""What every test needs before torch is imported."""

from __future__ import annotations

import os

# Two test runs (or the processes a test starts) share few cores: more threads than cores only slow them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test reaches for the network: every model is built from a configuration.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
