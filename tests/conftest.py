"""Every test runs on one thread: the models are small, and two processes of two threads on two cores only wait for each other."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quiet_random_state() -> None:
    """Tests do not depend on each other's draws."""
    torch.manual_seed(0)
