"""What every test stands on: no network, one thread, reproducible examples."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LYCORIS_KERNEL_BACKEND"] = "torch"  # the plain formula: an oracle, not a kernel

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before lokr.kernels is imported

from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, max_examples=100, print_blob=True
)
settings.load_profile("tests")
