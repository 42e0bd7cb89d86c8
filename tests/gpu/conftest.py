"""Tests of what only a GPU does: `pytest tests/gpu`."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _context() -> None:
    """Give autograd's thread its CUDA context: cuBLAS, called first in it, would warn of none."""
    if torch.cuda.is_available():
        torch.ones(1, device="cuda", requires_grad=True).square().backward()
