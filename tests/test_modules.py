"""The nn.Module twins: the same numbers, options kept, moved, saved, copied and shown."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from ops.oracle import as_tuple, make_labels, make_logits

import accl_ext

WEIGHT, BOUNDS = torch.tensor([0.5, 2.0]), torch.tensor([[3.0, 6.0]])

# module, its function, what it is called with, its extra_repr
MODULES = {
    "accl": (
        accl_ext.ACCLLoss(target=0.9, criterion="vanilla", reduction="sum"),
        accl_ext.accl_loss,
        lambda z, y: (z,),
        "target=0.9, criterion='vanilla', reduction='sum'",
    ),
    "discriminator": (
        accl_ext.ACCLDiscriminatorLoss(fake_target=0.1, real_target=0.8, scale=0.5),
        accl_ext.accl_discriminator_loss,
        lambda z, y: (z, -z),
        "fake_target=0.1, real_target=0.8, criterion='lsgan', scale=0.5, reduction='mean'",
    ),
    "partial_ce": (
        accl_ext.PartialCrossEntropyLoss(label_smoothing=0.1, reduction="image_mean"),
        accl_ext.partial_cross_entropy,
        lambda z, y: (z, y),
        "ignore_index=255, weight=None, label_smoothing=0.1, reduction='image_mean'",
    ),
    "weighted_partial_ce": (
        accl_ext.PartialCrossEntropyLoss(weight=WEIGHT.clone()),
        accl_ext.partial_cross_entropy,
        lambda z, y: (z, y),
        "ignore_index=255, weight=tensor([0.5000, 2.0000]), label_smoothing=0.0, reduction='mean'",
    ),
    "overlap": (
        accl_ext.PartialOverlapLoss(alpha=0.3, absent="keep", batch=True, weight=WEIGHT.clone()),
        accl_ext.partial_overlap_loss,
        lambda z, y: (z, y),
        "ignore_index=255, alpha=0.3, beta=0.5, smooth_numerator=0.0, smooth_denominator=0.0, "
        "absent='keep', include_background=None, weight=tensor([0.5000, 2.0000]), squared=False, "
        "batch=True, reduction='mean'",
    ),
    "size_penalty": (
        accl_ext.SizePenalty((3, 6), normalize="none", reduction="sum"),
        accl_ext.size_penalty,
        lambda z, y: (z,),
        "bounds=(3, 6), form='quadratic', t=5.0, normalize='none', reduction='sum'",
    ),
    "size_penalty_of_tensor": (
        accl_ext.SizePenalty(BOUNDS.clone()),
        accl_ext.size_penalty,
        lambda z, y: (z,),
        "bounds=tensor([[3., 6.]]), form='quadratic', t=5.0, normalize='area', reduction='mean'",
    ),
    "head": (
        accl_ext.SegmentationHead(label_smoothing=0.2, normalize="area2"),
        accl_ext.segmentation_head,
        lambda z, y: (z, y),
        "bounds=None, ignore_index=255, weight=None, label_smoothing=0.2, normalize='area2', "
        "size_form='quadratic', size_t=5.0, overlap=None",
    ),
    "head_with_tensors": (
        accl_ext.SegmentationHead(BOUNDS.clone(), weight=WEIGHT.clone()),
        accl_ext.segmentation_head,
        lambda z, y: (z, y),
        "bounds=tensor([[3., 6.]]), ignore_index=255, weight=tensor([0.5000, 2.0000]), "
        "label_smoothing=0.0, normalize='area', size_form='quadratic', size_t=5.0, "
        "overlap=None",
    ),
    "gated_crf": (
        accl_ext.GatedCRFLoss(radius=2, kernels=((1, 3, 0.2), (0.5, 2, None)), reduction="sum"),
        accl_ext.gated_crf_loss,
        lambda z, y: (z.sigmoid(), z),
        "radius=2, kernels=((1, 3, 0.2), (0.5, 2, None)), spacing=None, reduction='sum'",
    ),
}

for_modules = pytest.mark.parametrize(
    ("module", "function", "arguments", "shown"), MODULES.values(), ids=MODULES
)


def assert_same(got, wanted):
    for a, b in zip(as_tuple(got), as_tuple(wanted), strict=True):
        assert torch.equal(a, b)


def data():
    return make_logits(2, 1, dtype=torch.float32), make_labels(2, 1)


@for_modules
def test_is_its_function(module, function, arguments, shown):
    inputs = arguments(*data())
    assert_same(module(*inputs), function(*inputs, **module._kwargs()))


@for_modules
def test_shows_its_options(module, function, arguments, shown):
    assert module.extra_repr() == shown
    assert repr(module) == f"{type(module).__name__}({shown})"


@for_modules
def test_has_the_options_and_defaults_of_its_function(module, function, arguments, shown):
    options = {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if p.default is not p.empty and name != "pixel_weight"  # belongs to a batch: at call
    }
    given = inspect.signature(type(module)).parameters
    for name in ("mask", "source_mask", "destination_mask"):  # tensors of each call
        options.pop(name, None)
    for name, default in options.items():
        assert given[name].default == default
    assert set(given) - set(options) <= {"bounds"}


@for_modules
@pytest.mark.parametrize("how", ["pickle", "deepcopy", "torch_save"])
def test_copies(module, function, arguments, shown, how):
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(module))
    elif how == "deepcopy":
        twin = copy.deepcopy(module)
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    inputs = arguments(*data())
    assert repr(twin) == repr(module)
    assert_same(twin(*inputs), module(*inputs))


@for_modules
def test_has_no_parameters(module, function, arguments, shown):
    assert list(module.parameters()) == []


def test_state_dict_holds_weight_and_bounds():
    saved = MODULES["head_with_tensors"][0].state_dict()
    assert saved.keys() == {"weight", "bounds"}
    other = accl_ext.SegmentationHead(torch.zeros(1, 2), weight=torch.ones(2))
    other.load_state_dict(saved)
    assert torch.equal(other.bounds, BOUNDS)
    assert torch.equal(other.weight, WEIGHT)
    assert accl_ext.SegmentationHead((3, 6)).state_dict() == {}


def converted(module, how):
    """The module as a part of a model whose dtype changes."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), copy.deepcopy(module))
    return how(model)[1]


CONVERSIONS = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "to_half": lambda m: m.to(torch.float16),
    "to_tensor": lambda m: m.to(torch.zeros(1, dtype=torch.bfloat16)),
    "double": lambda m: m.double(),
    "to_device_and_dtype": lambda m: m.to("cpu", torch.float16),
    "type": lambda m: m.type(torch.float16),
}


@pytest.mark.parametrize("how", CONVERSIONS.values(), ids=CONVERSIONS)
def test_bounds_and_weights_keep_their_dtype(how):
    """Bounds of 1000 and 70 000 pixels: infinite in float16, rounded in bfloat16. V = 421 is
    579 below: 579^2 / 421."""
    bounds, weight = torch.tensor([1000.0, 70_000.0]), torch.tensor([1 / 3, 70_000.0])
    z, y = torch.full((1, 1, 421), 40.0), make_labels(1, 1, (421,))
    penalty = converted(accl_ext.SizePenalty(bounds.clone()), how)
    assert penalty.bounds.dtype == torch.float32
    assert penalty(z).item() == pytest.approx(579**2 / 421)
    module = accl_ext.SegmentationHead(bounds.clone(), weight=weight.clone())
    head = converted(module, how)
    assert torch.equal(head.bounds, bounds)
    assert torch.equal(head.weight, weight)
    assert_same(head(z, y), module(z, y))
    ce = converted(accl_ext.PartialCrossEntropyLoss(weight=weight.clone()), how)
    assert torch.equal(ce.weight, weight)


def test_parameters_that_a_subclass_adds_take_the_dtype():
    class Learned(accl_ext.SizePenalty):
        def __init__(self):
            super().__init__(BOUNDS.clone())
            self.factor = torch.nn.Parameter(torch.ones(1))

    module = Learned().half()
    assert (module.factor.dtype, module.bounds.dtype) == (torch.float16, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [accl_ext.SizePenalty, accl_ext.SegmentationHead])
@pytest.mark.parametrize("assign", [False, True])
def test_bounds_of_half_precision_are_refused(kind, dtype, assign):
    reason = "because lower precision rounds sizes in pixels .* got " + str(dtype)[6:]
    with pytest.raises(TypeError, match="^bounds must be float32, float64 .* " + reason):
        kind(BOUNDS.to(dtype))
    model = torch.nn.Sequential(kind(BOUNDS.clone()))
    with pytest.raises(RuntimeError, match=r"0\.bounds must be float32, .* " + reason):
        model.load_state_dict({"0.bounds": BOUNDS.to(dtype) * 2}, assign=assign)
    assert torch.equal(model[0].bounds, BOUNDS)
    model.load_state_dict({"0.bounds": BOUNDS.double() * 2}, assign=assign)
    assert torch.equal(model[0].bounds, BOUNDS.to(model[0].bounds.dtype) * 2)


def test_to_moves_weight_and_bounds():
    module = copy.deepcopy(MODULES["head_with_tensors"][0]).to("meta", torch.float64)
    assert module.weight.is_meta
    assert module.bounds.is_meta
    assert (module.weight.dtype, module.bounds.dtype) == (torch.float32, torch.float32)
    z, y = data()
    assert module(z.to("meta"), y.to("meta")).size_penalty.is_meta


def test_pixel_weights_at_call():
    z, y = data()
    weight = torch.rand(2, 5, 7)
    loss = accl_ext.PartialCrossEntropyLoss(label_smoothing=0.1)
    wanted = accl_ext.partial_cross_entropy(z, y, pixel_weight=weight, label_smoothing=0.1)
    assert torch.equal(loss(z, y, weight), wanted)
    head = accl_ext.SegmentationHead(label_smoothing=0.1)(z, y, pixel_weight=weight)
    assert torch.equal(head.partial_ce, wanted)


@pytest.mark.parametrize("kind", [accl_ext.SizePenalty, accl_ext.SegmentationHead])
@pytest.mark.parametrize("given", [(3, 6), BOUNDS, None], ids=["pair", "tensor", "none"])
def test_bounds_at_call_replace_those_at_construction(kind, given):
    z, y = data()
    inputs = (z, y) if kind is accl_ext.SegmentationHead else (z,)
    module = kind(given)
    assert_same(module(*inputs, (1, 2)), kind((1, 2))(*inputs))
    assert_same(module(*inputs, torch.tensor([1.0, 2.0])), kind((1, 2))(*inputs))


def test_a_size_penalty_without_bounds():
    with pytest.raises(ValueError, match="bounds must be given at construction or at call"):
        accl_ext.SizePenalty()(torch.zeros(1, 1, 4))


def test_masks_of_the_gated_crf_loss_are_given_at_call():
    z, _ = data()
    source, destination = torch.rand(2, 2, *z.shape[2:]) < 0.5
    loss = accl_ext.GatedCRFLoss(radius=1)
    got = loss(z.sigmoid(), z, source, destination)
    wanted = accl_ext.gated_crf_loss(
        z.sigmoid(), z, radius=1, source_mask=source, destination_mask=destination
    )
    assert torch.equal(got, wanted)
    assert not torch.equal(got, loss(z.sigmoid(), z, source_mask=source))


def test_in_a_training_step():
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    head, accl = accl_ext.SegmentationHead((5, 9)), accl_ext.ACCLLoss()
    out = head(network(torch.randn(2, 1, 8, 8)), make_labels(2, 1, (8, 8)))
    (out.partial_ce + 0.01 * out.size_penalty + accl(out.probabilities)).backward()
    assert network.weight.grad.isfinite().all()
    assert network.weight.grad.any()


def test_the_head_s_overlap():
    z, y = data()
    weight = torch.rand(2, 5, 7)
    plain = accl_ext.SegmentationHead(overlap={"alpha": 0.3})
    got = plain(z, y, pixel_weight=weight)
    assert torch.equal(
        got.overlap, accl_ext.partial_overlap_loss(z, y, alpha=0.3, pixel_weight=weight)
    )
    # A weight is a buffer: it moves with the module, is saved, and keeps its dtype.
    options = {"include_background": True, "weight": WEIGHT.clone()}
    module = accl_ext.SegmentationHead(overlap=options)
    assert set(module.state_dict()) == {"overlap_weight"}
    assert "weight" in options
    wanted = accl_ext.partial_overlap_loss(z, y, **options)
    assert torch.equal(module.half()(z, y).overlap, wanted)
    assert module.to("meta")(z.to("meta"), y.to("meta")).overlap.is_meta
