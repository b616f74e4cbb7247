"""Every example runs on small data and does what its first lines say."""

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accl_harness.data.dataset import load_split
from accl_harness.data.options import WeakOptions

import accl_ext

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.skipif(not accl_ext.build_info()["loaded"], reason="accl_ext is not built")


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command, **options):
    """What the command printed. All that it started ends with it."""
    words = [str(part) for part in command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, start_new_session=True, **pipes, **options) as process:
        try:
            output, _ = process.communicate(timeout=1800)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, output[-6000:]
    return output


@pytest.mark.slow
def test_plain_loop_segments_new_images():
    """A network that marks everything reaches a Dice of about 0.08 here."""
    _, dice = load("plain_loop").main(epochs=8, size=64, count=20)
    assert dice > 0.4


def test_scribbles_of_the_plain_loop_are_true():
    example = load("plain_loop")
    _, masks = example.phantoms(8, 64, seed=0)
    labels = example.scribbles(masks)
    masks = masks[:, 0]
    assert (labels == 1).flatten(1).any(1).all()
    assert (masks[labels == 1] == 1).all()
    assert (masks[labels == 0] == 0).all()
    assert 0.9 < (labels == 255).float().mean() < 0.995


@pytest.mark.slow
def test_lightning_module_trains_both_networks():
    pytest.importorskip("lightning", reason="needs pip install '.[examples]'")
    example = load("lightning_module")
    module, trainer = example.main(epochs=16, size=64, count=8)
    assert trainer.global_step == 16 * 2 * 4  # epochs, optimisers, batches
    assert {"partial_ce", "accl", "loss_d", "size_ratio"} <= set(trainer.callback_metrics)
    assert all(math.isfinite(value) for value in trainer.callback_metrics.values())
    # From a foreground probability of 0.05 the marked pixels cost -log 0.05 = 3.0 at the start.
    assert trainer.callback_metrics["partial_ce"] < 0.5
    moments = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    assert [len(m) for m in moments] == [
        len(list(network.parameters())) for network in (module.generator, module.discriminator)
    ]


@pytest.mark.slow
def test_monai_pipeline_segments_new_images():
    pytest.importorskip("ignite", reason="needs pip install '.[examples]'")
    assert load("monai_pipeline").main(epochs=4, size=64, count=20) > 0.2


@pytest.mark.slow
def test_volume_segments_new_volumes():
    assert load("volume_3d").main(steps=60) > 0.6


@pytest.mark.slow
def test_nnunet_folder_is_trained_from_scribbles():
    """The last words of its output: `DSC x100 60.9, class 1 69.4, ...; run in ...`."""
    output = run(sys.executable, EXAMPLES / "nnunet_folder.py")
    assert float(re.search(r"DSC x100 ([\d.]+), class 1", output)[1]) > 30


def linked(folder):
    """Links below a folder and what they lead to, as paths of two folders."""
    links = sorted(path for path in folder.rglob("*") if path.is_symlink())
    return {str(path.relative_to(folder)): path.resolve() for path in links}


def test_nnunet_folder_links_scribbles_and_painted_cases(tmp_path):
    example = load("nnunet_folder")
    data = example.small_dataset(tmp_path / "D", cases=4)
    options = example.link(data, tmp_path / "data")
    assert options[2:] == ["--classes", "4", "--ignore-index", "4"]
    labels, images = tmp_path / "D/labelsTr", tmp_path / "D/imagesTr"
    assert linked(tmp_path / "data") == {
        "test/images/heart_3.nii.gz": images / "heart_3_0000.nii.gz",
        "test/masks/heart_3.nii.gz": labels / "heart_3.nii.gz",
        "train/references/heart_2.nii.gz": labels / "heart_2.nii.gz",
        **{f"train/images/heart_{i}.nii.gz": images / f"heart_{i}_0000.nii.gz" for i in range(3)},
        **{f"train/weak/heart_{i}.nii.gz": labels / f"heart_{i}.nii.gz" for i in range(3)},
    }
    read = {"size": 64, "classes": 4, "weak": WeakOptions(unlabelled=4)}
    split = load_split(tmp_path / "data", "train", **read)
    assert split.volumes == [f"heart_{i}.nii.gz" for i in range(3) for _ in range(2)]
    assert split.weak_labels.unique().tolist() == [0, 1, 2, 3, 255]
    method = ["--method", "accl_crf", "--references.folder"]
    assert example.default_options(tmp_path / "data")[:3] == method


def test_nnunet_folder_of_full_masks_and_of_the_decathlon(tmp_path):
    example = load("nnunet_folder")
    data = example.small_dataset(tmp_path / "D", cases=4)
    for path in (data / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    described = json.loads((data / "dataset.json").read_text())
    del described["file_ending"]
    described["labels"] = {str(index): name for name, index in described["labels"].items()}
    (data / "dataset.json").write_text(json.dumps(described))
    assert "--ignore-index" in example.link(data, tmp_path / "scribbles")
    described["labels"]["4"] = "vessel"
    (data / "dataset.json").write_text(json.dumps(described))
    assert example.link(data, tmp_path / "full")[2:] == ["--classes", "5"]
    kinds = {Path(name).parent.as_posix() for name in linked(tmp_path / "full")}
    assert kinds == {
        f"{split}/{kind}" for split in ("train", "test") for kind in ("images", "masks")
    }
    assert example.default_options(tmp_path / "full") == ["--method", "accl_crf"]


def test_nnunet_folder_says_what_it_cannot_take(tmp_path):
    example = load("nnunet_folder")
    data = example.small_dataset(tmp_path / "D", cases=3)
    for case in (1, 2):  # the painted ones
        (data / f"labelsTr/heart_{case}.nii.gz").unlink()
    with pytest.raises(SystemExit, match="no case is painted in full"):
        example.link(data, tmp_path / "data")
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": 2}}
    (data / "dataset.json").write_text(json.dumps(regions))
    with pytest.raises(SystemExit, match=r"wanted labels 0, 1, 2, ... \(no regions\), got .*whole"):
        example.link(data, tmp_path / "data")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_mixed_precision_keeps_the_losses_in_float32(dtype):
    logits_dtype, loss = load("mixed_precision").main(steps=2, size=32, dtype=dtype, device="cpu")
    assert logits_dtype == dtype
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_compiled_step_gives_what_the_plain_one_gives():
    example = load("compiled_step")
    losses = example.main(steps=3, size=32, backend="aot_eager")
    torch._dynamo.reset()
    assert losses == pytest.approx(example.main(steps=3, size=32, backend="eager"), rel=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_compiled_step_under_inductor():
    example = load("compiled_step")
    losses = example.main(steps=2, size=32)
    torch._dynamo.reset()
    assert losses == pytest.approx(example.main(steps=2, size=32, backend="eager"), rel=1e-4)


# --standalone: a free port, where the default one may be taken by another run.
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)


@pytest.mark.slow
def test_two_processes_hold_the_same_weights():
    output = run(*TORCHRUN, EXAMPLES / "two_processes.py")
    for process in (0, 1):
        assert f"process {process}: weights as in process 0: True" in output


@pytest.mark.slow
def test_two_processes_give_the_mean_over_the_whole_batch(tmp_path):
    """Three labelled pixels in one process, one in the other: the mean of means is another."""
    (tmp_path / "check.py").write_text(
        f"""
import sys
import torch
import torch.distributed as dist
import accl_ext
sys.path.insert(0, {str(EXAMPLES)!r})
from two_processes import whole_batch_mean

dist.init_process_group("gloo")
logits = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.5, 0.0, 0.0, 0.0]]).view(2, 1, 4)
labels = torch.tensor([[1, 1, 0, 255], [0, 255, 255, 255]])
wanted = accl_ext.partial_cross_entropy(logits, labels)
mine = slice(dist.get_rank(), dist.get_rank() + 1)
loss = accl_ext.partial_cross_entropy(logits[mine], labels[mine])
means = torch.stack([loss, whole_batch_mean(loss, (labels[mine] != 255).sum())])
dist.all_reduce(means)
# Asserted here: what two processes print can run into each other.
assert abs(means[0] / 2 - wanted) > 0.05, means
assert torch.allclose(means[1] / 2, wanted), means
dist.destroy_process_group()
"""
    )
    run(*TORCHRUN, tmp_path / "check.py")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_libtorch_program_links_the_exported_package(tmp_path):
    package = Path(accl_ext.__file__).parent
    prefix = f"{torch.utils.cmake_prefix_path};{package}"
    run("cmake", "-S", EXAMPLES / "libtorch", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path)
    dice = float(run(tmp_path / "train_step").split("Dice")[1])
    assert dice > 0.8


NNUNET_BESIDE_A_CPU_TORCH = """
# The registry's torchvision is built for CUDA. Beside a torch without CUDA its import fails, for
# its operators are missing; nnU-Net calls none of them, so declaring them is enough.
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float t) -> Tensor")
"""


@pytest.mark.install
def test_nnunet_from_scribbles_to_predictions(tmp_path):
    """In an environment of its own, which borrows torch and accl_ext from this one."""
    import site
    import venv

    import numpy as np
    from PIL import Image

    venv.create(tmp_path / "environment", with_pip=True)
    programs = tmp_path / "environment" / "bin"
    (packages,) = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    shared = [*site.getsitepackages(), str(ROOT), str(ROOT / "python")]
    shared += [line for p in site.getsitepackages() for line in _paths_of(Path(p))]
    (packages / "zz_shared.pth").write_text("\n".join(shared))
    (tmp_path / "constraints.txt").write_text(f"torch=={torch.__version__.split('+')[0]}\n")
    run(programs / "pip", "install", "-q", "-c", tmp_path / "constraints.txt", "nnunetv2")
    environment = dict(os.environ, PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    if not torch.version.cuda:
        (tmp_path / "stand_in").mkdir()
        (tmp_path / "stand_in" / "sitecustomize.py").write_text(NNUNET_BESIDE_A_CPU_TORCH)
        environment["PYTHONPATH"] = str(tmp_path / "stand_in")

    output = run("bash", EXAMPLES / "nnunet" / "run.sh", tmp_path / "work", env=environment)
    assert "ACCL takes" in output
    assert "Training done" in output
    predicted = sorted((tmp_path / "work" / "predicted").glob("*.png"))
    assert [path.name for path in predicted] == ["phantom_010.png", "phantom_011.png"]
    for path in predicted:
        values = set(np.unique(np.asarray(Image.open(path))).tolist())
        assert values <= {0, 1}, values  # the ignore label is never predicted


def _paths_of(packages):
    """Folders that the .pth files of an environment add to it."""
    lines = [line for pth in packages.glob("*.pth") for line in pth.read_text().splitlines()]
    return [line for line in lines if Path(line).is_dir()]
