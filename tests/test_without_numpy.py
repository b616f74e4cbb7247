"""accl_ext where torch is the only package: no NumPy, and every warning an error."""

import subprocess
import sys

import pytest

import accl_ext

BLOCKED = """
import sys

class NoNumpy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numpy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoNumpy())
"""
LOSSES = """
import accl_ext
import torch

logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
labels = torch.full((1, 4, 4), 255)
labels[0, 0, 0] = 1
head = OPS.segmentation_head(logits, labels, bounds=(9.0, 10.0))
print(head.partial_ce.item(), head.size_penalty.item())
(head.partial_ce + OPS.accl_loss(torch.zeros(3)) + OPS.gated_crf_loss(
    torch.sigmoid(logits), torch.zeros(1, 1, 4, 4), kernels=((1.0, 6.0, 0.2),)
)).backward()
accl_ext.ACCLLoss(), accl_ext.build_info()
assert "numpy" not in sys.modules
"""


@pytest.mark.parametrize("ops", ["accl_ext", "accl_ext.reference"])
def test_losses_need_torch_alone_and_warn_of_nothing(ops):
    if ops == "accl_ext" and not accl_ext.build_info()["loaded"]:
        pytest.skip("the compiled library is not there")
    code = BLOCKED + LOSSES.replace("OPS", ops)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    cross_entropy, penalty = map(float, done.stdout.split())
    assert cross_entropy == pytest.approx(0.6931472)  # softplus(0)
    assert penalty == pytest.approx((9 - 16 / 2) ** 2 / 16)


def test_the_package_asks_for_torch_alone():
    from importlib.metadata import PackageNotFoundError, requires

    try:
        wanted = requires("accl_ext")
    except PackageNotFoundError:
        pytest.skip("accl_ext is not installed, it runs from its sources")
    assert [line for line in wanted if "extra ==" not in line and "torch" not in line] == []
