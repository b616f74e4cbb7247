"""What takes seconds to import is not imported before it is needed."""

import subprocess
import sys

import pytest

LOOK = """
import sys
from accl_harness.cli import main
status = main(sys.argv[1:])
print("\\nstatus", status, *({"monai", "lightning"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("words", "status"), [(["train", "--data", "none", "--out", "run"], 2), (["info"], 0)], ids=str
)
def test_a_mistake_and_info_need_neither_monai_nor_lightning(words, status, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1].split() == ["status", str(status)], done.stderr
