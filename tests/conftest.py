"""What every test starts from: the same random numbers, and torch's switches as they were."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_torch():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(threads)
