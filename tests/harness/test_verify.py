"""accl verify passes for the ops as they are and fails for one that is wrong."""

import pytest
import torch
from accl_harness.bench import bench
from accl_harness.errors import CheckFailed, UserError
from accl_harness.verify import Case, compare_op, lockstep, op_cases, verify

import accl_ext

pytestmark = pytest.mark.skipif(
    not accl_ext.build_info()["loaded"], reason="the fused ops are not built"
)


def test_right_ops_pass(capsys):
    rows = verify(steps=2)
    assert all(row.passed for row in rows)
    table = capsys.readouterr().out
    for name in ("2 training steps, float64", "first training step, float32"):
        assert [row.name for row in rows if row.name.startswith(name)] == [name, f"{name} C=3"]
        assert table.count(name) == 2
    assert "FAILED" not in table


def test_every_op_is_compared():
    names = {case.name.split()[0] for case in op_cases(torch.device("cpu"))}
    assert names == {
        "accl_loss",
        "accl_discriminator_loss",
        "partial_cross_entropy",
        "partial_overlap_loss",
        "size_penalty",
        "segmentation_head",
        "gated_crf_loss",
    }


def test_wrong_value_fails(monkeypatch, capsys):
    right = accl_ext.accl_loss
    monkeypatch.setattr(accl_ext, "accl_loss", lambda d, **options: right(d, **options) + 1e-6)
    with pytest.raises(CheckFailed, match="over tolerance: accl_loss lsgan"):
        verify(steps=1)
    assert "FAILED" in capsys.readouterr().out


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 + 1e-6)


def test_wrong_gradient_fails_in_the_op_and_in_lockstep(monkeypatch):
    right = accl_ext.segmentation_head

    def wrong(logits, *arguments, **options):
        return right(WrongGradient.apply(logits), *arguments, **options)

    monkeypatch.setattr(accl_ext, "segmentation_head", wrong)
    rows = [compare_op(c, accl_ext, accl_ext.reference) for c in op_cases(torch.device("cpu"))]
    failed = [row for row in rows if not row.passed]
    assert [row.name for row in failed] == ["segmentation_head C=1", "segmentation_head C=3"]
    assert failed[0].values["value"] < 1e-12 < 1e-7 < failed[0].values["gradient"]
    assert not lockstep(2, "64", "cpu", accl_ext, accl_ext.reference).passed


def test_an_error_of_several_classes_alone_is_found_in_their_training(monkeypatch):
    right = accl_ext.segmentation_head

    def wrong(logits, *arguments, **options):
        given = logits if logits.shape[1] == 1 else WrongGradient.apply(logits)
        return right(given, *arguments, **options)

    monkeypatch.setattr(accl_ext, "segmentation_head", wrong)
    assert lockstep(1, "64", "cpu", accl_ext, accl_ext.reference).passed
    assert not lockstep(1, "64", "cpu", accl_ext, accl_ext.reference, classes=3).passed


def test_bench_times_several_classes(capsys):
    rows = bench(size=32, width=2, rounds=1, classes=4)
    assert "1 x 32 x 32, 4 classes, float32" in capsys.readouterr().out
    assert [row["backend"] for row in rows[-2:]] == ["reference", "fused"]
    with pytest.raises(UserError, match=r"classes must be at least 2, .* got 1"):
        bench(classes=1)


def test_missing_second_derivative_fails():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)

    class Right:
        @staticmethod
        def op(x):
            return [(x**3).sum()]

    class Detached:
        @staticmethod
        def op(x):
            return [(3 * x * (x**2).detach() - 2 * (x**3).detach()).sum()]

    row = compare_op(Case("cube", [x], lambda ops, x: ops.op(x)), Detached, Right)
    assert row.values["value"] < 1e-12
    assert row.values["gradient"] < 1e-12
    assert row.values["second"] > 0.5


def test_nan_fails():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)

    class Right:
        @staticmethod
        def op(x):
            return [x.sum()]

    class Nan:
        @staticmethod
        def op(x):
            return [x.sum() * float("nan")]

    assert not compare_op(Case("sum", [x], lambda ops, x: ops.op(x)), Nan, Right).passed


def test_float32_is_judged_on_the_first_step_without_weights():
    row = lockstep(1, "32", "cpu", accl_ext, accl_ext.reference)
    assert row.passed
    assert set(row.values) == {"loss", "gradient"}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_right_ops_pass_on_cuda():
    assert all(row.passed for row in verify(steps=2, device="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize("command", [verify, bench])
def test_cuda_is_asked_for_and_absent(command):
    with pytest.raises(UserError, match="device is cuda, but torch finds no CUDA device"):
        command(device="cuda")
