"""The terms beyond the paper by hand, and the numbers that are measured on the data."""

import math

import pytest
import torch
from accl_harness.config import make_config
from accl_harness.data.image_moves import enlargement, inside, move
from accl_harness.data.options import ImageMoves, ReferenceOptions
from accl_harness.data.references import ReferenceBank, make_bank
from accl_harness.errors import UserError
from accl_harness.terms import Pass
from accl_harness.terms.consistency import Consistency
from accl_harness.terms.gated_crf import CRFOptions, GatedCRF, flat_cost, typical_difference
from accl_harness.terms.size_balance import SizeBalance
from accl_harness.terms.size_prior import SizePrior
from accl_harness.training.batches import VIEW, TrainingData
from accl_harness.training.measures import (
    extent,
    measured,
    needed,
    reference_bank,
    whole_objects,
)
from accl_harness.training.ops import load_ops
from small_runs import measure, small_config, small_dataset, small_trainer

OPS = load_ops("reference")


# The gated CRF


def test_crf_of_two_pixels_by_hand():
    p = torch.tensor([[[[0.8, 0.3]]]], dtype=torch.float64)
    image = torch.tensor([[[[0.1, 0.5]]]], dtype=torch.float64)
    tie = math.exp(-1 / (2 * 2.0**2) - 0.4**2 / (2 * 0.5**2))
    differ = 0.8 + 0.3 - 2 * 0.8 * 0.3
    term = GatedCRF(1.0, radius=1, sigma_space=2.0, sigma_image=0.5)
    # Both directions of the pair, over two pixels.
    assert term.energy(OPS, p, image, None).item() == pytest.approx(2 * tie * differ / 2)


def test_crf_leaves_out_what_a_move_brought_in():
    p = torch.tensor([[[[0.8, 0.3, 0.9]]]])
    image = torch.tensor([[[[0.1, 0.5, 0.5]]]])
    term = GatedCRF(1.0, radius=1, sigma_space=2.0, sigma_image=0.5)
    seen = torch.tensor([[[True, True, False]]])
    alone = term.energy(OPS, p[..., :2], image[..., :2], None)
    assert term.energy(OPS, p, image, seen).item() == pytest.approx(alone.item())


def test_pixels_that_moved_in_from_outside():
    moves = torch.tensor([[[1.0, 0, 2 / 4], [0, 1, 0]], [[1, 0, 0], [0, 1, -2 / 3]]])
    right, top = inside(moves, 3, 4)
    assert right.tolist() == [[True, True, True, False]] * 3
    assert top.tolist() == [[False] * 4, [True] * 4, [True] * 4]
    still = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert inside(still, 3, 4).all()


def test_batches_carry_the_moved_image_and_what_is_seen_of_it():
    data = small_dataset(6)
    data.images = torch.arange(32.0).expand(6, 1, 32, 32) / 32
    moves = ImageMoves(shift=0.5, grey=0.3)
    batches = TrainingData(small_config(method="sccl_crf", image_moves=moves), data, None, "cpu")
    for batch in batches.epoch(1):
        assert not torch.equal(batch.images, batch.guide)
        # The outermost column may lie half between the frame and its border value.
        lines = batch.guide[0, 0][:, batch.seen[0].any(0)][:, 1:-1].diff(dim=1)
        torch.testing.assert_close(lines, torch.full_like(lines, 1 / 32), atol=1e-5, rtol=0)
        assert not batch.seen.all()


def test_without_a_crf_batches_carry_nothing_for_it():
    moves = ImageMoves(shift=0.5)
    batches = TrainingData(
        small_config(method="sccl", image_moves=moves), small_dataset(), None, "cpu"
    )
    assert all(batch.guide is None and batch.seen is None for batch in batches.epoch(1))


def test_crf_of_a_mask_in_a_flat_image_by_hand():
    mask = torch.tensor([[[0, 1, 0]]], dtype=torch.uint8)
    term = GatedCRF(1.0, radius=1, sigma_space=2.0, sigma_image=0.5)
    # Two pairs of unlike neighbours, both directions, over three pixels.
    assert flat_cost(term, mask, OPS) == pytest.approx(4 * math.exp(-1 / 8) / 3)
    with pytest.raises(UserError, match=r"crf\.weight: the reference masks have no outline"):
        flat_cost(term, torch.ones_like(mask), OPS)


def test_typical_difference_passes_over_a_black_frame():
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:, :] = torch.tensor([0.0, 0.1, 0.3, 0.6, 0.0, 0.1, 0.3, 0.6])
    neighbours = [0.1, 0.2, 0.3, 0.6, 0.1, 0.2, 0.3] * 4 + [0.1, 0.3, 0.6] * 2
    wanted = torch.tensor(neighbours).median().item()
    assert typical_difference(image) == pytest.approx(wanted)
    with pytest.raises(UserError, match=r"crf\.sigma_image: no training image has an edge"):
        typical_difference(torch.zeros(1, 1, 8, 8))


def test_numbers_of_the_crf_come_from_options_or_data():
    data = small_dataset()
    config = small_config(method="sccl_crf")
    term = measure(GatedCRF, data.masks, data.images, method="sccl_crf")
    assert term.sigma_image == pytest.approx(2 * typical_difference(data.images))
    assert term.weight * flat_cost(term, data.masks, OPS) == pytest.approx(config.crf.cost)
    given = CRFOptions(0.3, 1.0, 3, 2.0, 0.1)
    assert measure(GatedCRF, images=data.images, method="sccl", crf=given) == GatedCRF(
        0.3, 3, 2.0, 0.1
    )


# What is left to the data


def test_prior_and_shift_from_the_masks_by_hand():
    masks = torch.zeros(2, 10, 10, dtype=torch.uint8)
    masks[0, 2:6, 3:5] = 1  # 4 high, 2 wide
    masks[1, 0, 1:9] = 1  # 8 wide
    assert extent(masks) == pytest.approx((0.4 + 0.8) / 2)
    left = small_config(method="fs_ce", prior=None, image_moves=ImageMoves(shift=None, grey=0.1))
    config = measured(left, masks)
    assert config.prior == pytest.approx((8 + 8) / 200)
    assert config.image_moves.shift == pytest.approx(0.4 / 3)
    assert config.image_moves.grey == 0.1
    assert measured(left, masks[:, :1].repeat(1, 10, 1)[:1] * 0 + 1).prior == 0.5
    small = torch.zeros(1, 100, 100, dtype=torch.uint8)
    small[0, 50, 50] = 1
    assert (measured(left, small).prior, measured(left, small).image_moves.shift) == (0.005, 0.25)
    assert (measured(left, None).prior, measured(left, None).image_moves.shift) == (0.02, 0.25)
    given = small_config(prior=0.3, image_moves=ImageMoves(shift=0.1))
    assert measured(given, masks) == given


def test_the_default_training_is_measured_and_the_papers_is_not():
    default = make_config("small")
    assert (default.prior, default.image_moves.shift) == (None, None)
    for preset in ("paper", "demo"):
        config = make_config(preset)
        assert config.prior is not None
        assert config.image_moves == ImageMoves()
    data = small_dataset()
    config = small_config(method="fs_ce", prior=None, image_moves=ImageMoves(shift=None))
    trainer = small_trainer(data, method="fs_ce", prior=None, image_moves=config.image_moves)
    assert trainer.config == measured(config, data.masks)
    bias = trainer.step.generator.decoder[0][-1].bias.item()
    assert 1 / (1 + math.exp(-bias)) == pytest.approx(data.masks.float().mean().item())


# Soft size prior


def test_size_prior_by_hand():
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, 0, 0], masks[1, :2] = 1, 1
    prior = measure(SizePrior, masks, size_prior=0.5)
    low, high = math.log(2), math.log(9)
    assert (prior.means, prior.deviations) == (
        pytest.approx(((low + high) / 2,)),
        pytest.approx(((high - low) / 2,)),
    )
    assert measure(SizePrior, masks[:1], size_prior=0.5).deviations == (0.1,)
    sizes = torch.tensor([[math.exp(prior.means[0] + 2 * prior.deviations[0]) - 1], [1e4]])
    present = torch.tensor([[True], [False]])
    assert prior.penalty(sizes, present).item() == pytest.approx((0.5 * 2**2 + 0) / 2)


def test_size_prior_takes_the_masks_that_show_objects():
    data = small_dataset()
    data.masks[1] = 0
    bank = make_bank("unpaired", data)
    config = small_config(method="accl_crf")
    assert len(whole_objects(config, data, bank)) == 3
    weak = small_config(method="partial_accl", size_prior=0.1)
    own = reference_bank(weak, data)
    assert torch.equal(whole_objects(weak, data, own), data.masks[[0, 2, 3]])
    data.masks = None
    assert whole_objects(weak, data, own) is None
    empty = ReferenceBank(torch.zeros(2, 4, 4, dtype=torch.uint8), False)
    assert whole_objects(config, data, empty) is None
    with pytest.raises(UserError, match="size_balance, consistency and the default of crf"):
        needed(config, None)
    assert needed(small_config(method="fs_ce"), None) is None


def test_prior_of_painted_masks_alone():
    """The numbers come from the masks that are painted, not from all of the training's."""
    options = {"references": ReferenceOptions(kind="augmented", painted=1, count=20)}
    trainer = small_trainer(method="accl_crf", **options)
    masks = reference_bank(trainer.config, small_dataset()).masks
    assert measure(SizePrior, masks, size_prior=0.1) in trainer.step.terms
    assert len(masks) == 20


def test_sizes_count_as_before_the_move():
    """An image enlarged by a factor is asked for a mask enlarged by it."""
    trainer = small_trainer(method="accl_crf")
    pulls = []
    (prior,) = (term for term in trainer.step.terms if term.name == "size_prior")
    batch = next(iter(trainer.data.epoch(1)))
    head = OPS.segmentation_head(torch.zeros(1, 1, 32, 32), batch.labels)
    for factor in (None, torch.tensor([2.0])):
        batch.enlarged = factor
        pulls.append(prior.value(Pass(batch, None, head, None, trainer.step, {})).item())
    present = torch.tensor([[True]])
    for pull, size in zip(pulls, (512.0, 256.0), strict=True):
        assert pull == pytest.approx(
            prior.penalty(torch.tensor([[size]]), present).item(), rel=1e-5
        )


def test_moves_know_how_much_they_enlarge():
    moves = ImageMoves(shift=0.1, scale=1.5, rotation=30, flip=True)
    config = small_config(method="fs_ce", image_moves=moves, size=64)
    data = small_dataset(6, size=64)
    data.masks[:] = 0
    data.masks[:, 22:42, 22:42] = 1
    for batch in TrainingData(config, data, None, "cpu").epoch(1):
        assert batch.masks.sum() / batch.enlarged == pytest.approx(400, rel=0.06)
    still = config.replace(image_moves=ImageMoves(shift=0.1, rotation=30))
    assert all(b.enlarged is None for b in TrainingData(still, data, None, "cpu").epoch(1))


def test_size_bounds_are_those_of_the_moved_image():
    moves = ImageMoves(scale=1.5)
    config = small_config(method="sccl", image_moves=moves, size=64)
    data = small_dataset(6, size=64)
    batches = TrainingData(config, data, None, "cpu", bounds=[(20.0, 40.0)]).epoch(1)
    for batch in batches:
        wanted = batch.enlarged.view(-1, 1, 1) * torch.tensor([20.0, 40.0])
        torch.testing.assert_close(batch.bounds, wanted)
        assert (batch.enlarged != 1).all()


# Size balance


def alone(value):
    return value


def test_size_balance_by_hand():
    balance = SizeBalance(1.0, sizes=[10.0], images=4)
    present, predicted = torch.tensor([[True], [False]]), torch.tensor([[6.0], [99.0]])
    sizes = torch.tensor([[5.0], [7.0]], requires_grad=True)
    assert balance(predicted, sizes, present, alone).item() == 0
    # One image of four was 4 too small: the running mean falls by 1, to 0.9 of the right one.
    assert balance.seen.item() == 9
    loss = balance(predicted, sizes, present, alone)
    assert loss.item() == pytest.approx(-0.1 * (5 / 10 + 0) / 2)
    loss.backward()
    assert sizes.grad.flatten().tolist() == pytest.approx([-0.1 / 10 / 2, 0])
    assert balance.seen.item() == 9 - 3 / 4


def test_size_balance_holds_the_mean_and_not_the_single_size():
    """Two images whose other terms want 4 and 12 pixels, where the masks have 16 on average."""
    balance, wanted = SizeBalance(1.0, sizes=[16.0], images=50), torch.tensor([4.0, 12.0])
    sizes = wanted.clone().requires_grad_()
    optimizer = torch.optim.SGD([sizes], lr=1.0)
    for step in range(4000):
        part = sizes[step % 2 : step % 2 + 1]
        loss = 5e-4 * (part - wanted[step % 2]).square().sum()
        loss = loss + balance(part.detach()[:, None], part[:, None], torch.tensor([[True]]), alone)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # What is left is the price of a pull: 1e-3 * (mean - 8) = (1 - mean / 16) / 16.
    assert sizes.mean().item() == pytest.approx((1 / 16 + 8e-3) / (1e-3 + 1 / 256), rel=0.02)
    assert (sizes[1] - sizes[0]).item() == pytest.approx(8, rel=0.05)


def test_size_balance_is_part_of_the_checkpoint():
    trainer = small_trainer(method="accl_crf", size_balance=3.0)
    balance = trainer.state.terms["size_balance"]
    assert balance.seen == balance.target == small_dataset().masks.sum((1, 2)).double().mean()
    trainer.train_epoch(lambda: None)
    state = trainer.state_dict()
    other = small_trainer(method="accl_crf", size_balance=3.0)
    other.load_state_dict(state)
    assert other.state.terms["size_balance"].seen == state["size_balance"]["seen"] != balance.target


# Consistency of two views


def square(half, size=32):
    """A square about the centre, [1, 1, size, size]."""
    mask = torch.zeros(1, 1, size, size, dtype=torch.float64)
    mask[..., size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half] = 1
    return mask


def test_consistency_by_hand():
    """A view from half the distance: the 4 x 4 square is 8 x 8 there."""
    nearer = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])
    term = Consistency(1.0, sizes=(16.0,))
    shown = move(square(2), nearer, smooth=True)
    assert shown.sum() == 64
    assert term.penalty(square(2), shown, nearer).item() == pytest.approx(0, abs=1e-12)
    # A blob that stays 4 x 4. Along a line the nearer view has 0.25, 0.75, six times 1, 0.75, 0.25,
    # whose squares' sum is 7.25, and the blob's 4 pixels lie within the ones. A pixel there takes
    # a quarter of one here; the object's size is 16.
    blob = term.penalty(square(2), square(2), nearer).item()
    assert blob == pytest.approx((7.25**2 - 16) / 4 / 16)


def test_consistency_leaves_out_what_the_first_view_does_not_show():
    farther = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    term = Consistency(1.0, sizes=(1.0,))
    everywhere, inner = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    inner[..., 2:6, 2:6] = 1  # all that the first view has
    assert term.penalty(everywhere, inner, farther).item() == pytest.approx(0, abs=1e-6)
    # A pixel of the farther view is 4 of the first.
    nothing = term.penalty(everywhere, torch.zeros(1, 1, 8, 8), farther).item()
    assert nothing == pytest.approx(16 * 4)


def test_consistency_counts_each_class_in_its_own_size():
    still = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    first, second = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    second[:, 0, :4], second[:, 1, :2], second[:, 2] = 0.5, 1, 1
    term = Consistency(1.0, sizes=(16.0, 4.0, None))
    wanted = (32 * 0.25 / 16 + 16 / 4 + 0) / 3
    assert term.penalty(first, second, still).item() == pytest.approx(wanted)


def test_consistency_has_a_gradient_to_both_views():
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    view = torch.tensor([[[0.8, 0.0, 0.1], [0.0, 0.8, 0.0]], [[1.3, 0.0, 0.0], [0.0, 1.3, 0.2]]])
    for values in inputs:
        values.requires_grad_()
    term = Consistency(1.0, sizes=(5.0,))
    assert torch.autograd.gradcheck(lambda a, b: term.penalty(a, b, view), inputs)


def test_views_are_each_image_s_own_in_every_process():
    data = small_dataset(6)
    config = small_config(method="partial_ce", consistency=1.0, batch_size=2)
    whole = torch.cat([b.view for b in TrainingData(config, data, None, "cpu").epoch(1)])
    parts = [TrainingData(config, data, None, "cpu", rank, 2).epoch(1) for rank in (0, 1)]
    both = torch.cat([torch.cat([a.view, b.view]) for a, b in zip(*parts, strict=True)])
    assert torch.equal(whole, both)
    sizes = enlargement(whole)
    assert len(sizes.unique()) == 6
    assert (sizes.sqrt().log().abs() <= math.log(VIEW.scale) + 1e-6).all()
    assert (whole[:, :, 2].abs() <= 2 * VIEW.shift).all()
    again = torch.cat([b.view for b in TrainingData(config, data, None, "cpu").epoch(2)])
    assert not torch.equal(whole, again)
    off = config.replace(consistency=0.0)
    assert next(iter(TrainingData(off, data, None, "cpu").epoch(1))).view is None
