"""The README's example runs as written, and its commands name what exists."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import accl_ext

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.skipif(not accl_ext.build_info()["loaded"], reason="accl_ext is not built")
def test_training_loop_example_trains_both_networks():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    namespace = {}
    exec(example, namespace)

    torch.manual_seed(0)
    generator = nn.Conv2d(1, 1, 3, padding=1)
    discriminator = nn.Conv2d(2, 1, 4, stride=2)
    before = [p.detach().clone() for m in (generator, discriminator) for p in m.parameters()]
    image = torch.randn(2, 1, 64, 64)
    labels = torch.full((2, 64, 64), 255, dtype=torch.uint8)
    labels[:, 30:34, 30:34] = 1
    reference = torch.zeros(2, 1, 64, 64)
    reference[:, :, 20:44, 20:44] = 1
    namespace["train_step"](
        generator,
        discriminator,
        torch.optim.Adam(generator.parameters()),
        torch.optim.Adam(discriminator.parameters()),
        image,
        labels,
        reference,
    )
    after = [p.detach() for m in (generator, discriminator) for p in m.parameters()]
    assert all(bool((a != b).any()) for a, b in zip(before, after, strict=True))
    assert all(bool(torch.isfinite(p).all()) for p in after)


def test_two_commands_of_one_line_each_main_job_first():
    """.ci/run reads them from here and executes them word for word."""
    section = README.split("## Two commands\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```\n", section, flags=re.DOTALL | re.MULTILINE)
    assert [block.count("\n") for block in blocks] == [1, 1]
    assert "accl compare" in blocks[0]
    assert blocks[1].endswith("-m pytest\n")
    for block in blocks:
        assert block.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert "activate" not in block


def test_commands_ask_for_extras_that_exist():
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        extra
        for group in re.findall(r"pip install '\.\[(.*?)\]'", README)
        for extra in group.split(",")
    }
    assert {"harness", "test"} <= extras <= set(project["optional-dependencies"])
    assert "accl" in project["scripts"]


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
