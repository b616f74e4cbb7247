"""One thread, unless a test asks for more: these tensors are too small to be worth waking another,
and on a busy machine that takes longer than all the rest."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(_fresh_torch):
    torch.set_num_threads(1)
