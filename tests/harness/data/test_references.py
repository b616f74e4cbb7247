"""Reference masks: each bank gives what it says, ``unpaired`` tells D nothing about the image."""

import json

import numpy as np
import pytest
import torch
from accl_harness.data.dataset import Dataset
from accl_harness.data.formats import read_image, write_mask
from accl_harness.data.mask_bank import MaskBankOptions
from accl_harness.data.references import ReferenceBank, make_bank, read_masks, write_references
from accl_harness.data.topology import count_parts
from accl_harness.errors import UserError
from scipy import stats
from shapes import disc, ring

N = 12


@pytest.fixture
def dataset(tmp_path):
    """Mask i is a row of i + 1 pixels, so that a drawn mask tells where it comes from."""
    masks = torch.zeros(N, 16, 16, dtype=torch.uint8)
    weak = torch.full((N, 16, 16), 255, dtype=torch.uint8)
    for i in range(N):
        masks[i, 5, : i + 1] = 1
        weak[i, 5, 0] = 1
        weak[i, 9, : i + 1] = 0
    return Dataset(
        images=torch.zeros(N, 1, 16, 16),
        masks=masks,
        weak_labels=weak,
        names=[f"i{i}" for i in range(N)],
        folder=tmp_path / "train",
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(bank, indices, gen):
    """Which of the fixture's masks came."""
    return bank.draw(indices, gen).sum((1, 2, 3)).long() - 1


def test_own_weak_and_paired_follow_the_image(dataset):
    indices = torch.tensor([7, 0, 7, 3])
    own = make_bank("own_weak", dataset).draw(indices, generator())
    assert (own.shape, own.dtype) == ((4, 1, 16, 16), torch.float32)
    assert own.sum((1, 2, 3)).tolist() == [1, 1, 1, 1]  # background scribbles are 0, as the rest
    paired = make_bank("paired", dataset)
    assert drawn(paired, indices, generator()).tolist() == [7, 0, 7, 3]


def leak(bank, draws=600):
    """Two gauges of dependence on the image: p-value of a chi-squared test of independence over
    (image, mask), and by how many standard deviations an image's own mask comes too often."""
    gen = generator(11)
    table = np.zeros((N, N))
    for _ in range(draws):
        indices = torch.randperm(N, generator=gen)
        for i, j in zip(indices.tolist(), drawn(bank, indices, gen).tolist(), strict=True):
            table[i, j] += 1
    total, chance = table.sum(), 1 / N
    excess = (np.trace(table) - total * chance) / np.sqrt(total * chance * (1 - chance))
    return stats.chi2_contingency(table).pvalue, excess, table


class Leaking(ReferenceBank):
    """Hands out the image's own mask one time in ten more often than chance."""

    def draw(self, indices, generator):
        other = super().draw(indices, generator)
        own = torch.rand(len(indices), generator=generator) < 0.1
        return torch.where(own[:, None, None, None], self.masks[indices][:, None].float(), other)


def test_unpaired_does_not_leak_the_images_own_mask(dataset):
    bank = make_bank("unpaired", dataset)
    p_value, excess, table = leak(bank)
    assert p_value > 1e-3
    assert excess < 3.5
    assert stats.chisquare(table.sum(0)).pvalue > 1e-3  # every mask as often
    p_value, excess, _ = leak(Leaking(bank.masks, matched=False))
    assert p_value < 1e-6
    assert excess > 10


def test_unpaired_ignores_the_indices_and_repeats_by_generator(dataset):
    bank = make_bank("unpaired", dataset)
    a = drawn(bank, torch.zeros(50, dtype=torch.long), generator(3))
    b = drawn(bank, torch.arange(50) % N, generator(3))
    assert torch.equal(a, b)
    assert not torch.equal(a, drawn(bank, torch.arange(50) % N, generator(4)))
    gen = generator(3)
    first, second = (drawn(bank, torch.arange(N), gen) for _ in range(2))
    assert not torch.equal(first, second)  # drawn anew each step


def test_folder_bank_resizes_and_leaves_empty_masks_out(dataset, tmp_path):
    write_mask(tmp_path / "painted/a.png", disc(32, 8, (16, 16)))
    write_mask(tmp_path / "painted/b.npy", np.dstack([ring(16 * 3), np.zeros((48, 48))]))
    bank = make_bank("folder", dataset, folder=tmp_path / "painted")
    assert bank.masks.shape == (2, 16, 16)
    assert set(read_masks(tmp_path / "painted")) == {"a", "b_z000"}
    masks = bank.draw(torch.arange(40), generator())
    assert masks.unique().tolist() == [0, 1]
    assert len(masks.sum((1, 2, 3)).unique()) == 2
    with pytest.raises(UserError, match=r"train.references: no such folder"):
        make_bank("folder", dataset)
    write_mask(tmp_path / "train/references/c.png", ring())
    assert len(make_bank("folder", dataset)) == 1


def test_images_without_masks_take_those_beside_them(dataset):
    """A few painted masks in ``references/`` need no option."""
    dataset.masks = None
    with pytest.raises(UserError, match="lay some of any images into references/ beside them"):
        make_bank("unpaired", dataset)
    folder = dataset.folder / "references"
    write_mask(folder / "a.png", disc(32, 8, (16, 16)))
    bank = make_bank("unpaired", dataset, n=7)
    assert not bank.matched
    assert torch.equal(bank.masks, make_bank("augmented", dataset, folder=folder, n=7).masks)


def test_few_masks_of_a_folder_become_many_and_many_stay(dataset, tmp_path):
    folder = tmp_path / "painted"
    for i in range(19):
        write_mask(folder / f"{i:02d}.png", disc(16, 5, (8, 8)))
    few = make_bank("auto", dataset, folder=folder, n=40)
    assert torch.equal(few.masks, make_bank("augmented", dataset, folder=folder, n=40).masks)
    write_mask(folder / "19.png", disc(16, 5, (8, 8)))
    enough = make_bank("auto", dataset, folder=folder, n=40)
    assert torch.equal(enough.masks, make_bank("folder", dataset, folder=folder).masks)
    assert len(enough) == 20


def test_augmented_bank_sees_only_the_painted_masks(dataset):
    none = MaskBankOptions(
        shift=0, flip=False, scale_min=1, scale_max=1, rotation=0, warp=0, warp_smoothness=1
    )
    bank = make_bank("augmented", dataset, painted=2, n=30, mask_bank=none, seed=5)
    sizes = bank.masks.sum((1, 2)).tolist()
    assert len(bank) == 30
    assert len(set(sizes)) == 2


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [7]), (2, [4, 10]), (3, [3, 7, 11]), (12, list(range(1, 13)))]
)
def test_painted_masks_are_spread_over_the_sizes(dataset, count, sizes):
    """The middle one of each part of the objects, which have 1 to 12 pixels and no order."""
    dataset.masks = dataset.masks[[6, 1, 10, 3, 0, 5, 2, 11, 7, 4, 9, 8]]
    still = MaskBankOptions(shift=0, flip=False, scale_min=1, scale_max=1, rotation=0, warp=0)
    bank = make_bank("augmented", dataset, painted=count, n=count, mask_bank=still)
    assert [int(mask.sum()) for mask in bank.masks] == sizes


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("unpaird", {}, "unpaird"),
        ("own_weak", {"weak_labels": None}, "no weak labels"),
        ("paired", {"masks": None}, "no masks"),
        ("augmented", {"masks": None}, "name a folder"),
        ("folder", {"folder": None}, "name the folder"),
    ],
)
def test_banks_that_cannot_be(dataset, kind, change, words):
    for name, value in change.items():
        setattr(dataset, name, value)
    with pytest.raises(UserError, match=words):
        make_bank(kind, dataset)


def test_painted_count_is_checked(dataset):
    with pytest.raises(UserError, match="1 to 12 painted"):
        make_bank("augmented", dataset, painted=13)


def test_write_references(tmp_path):
    write_mask(tmp_path / "masks/one.png", disc())
    write_mask(tmp_path / "masks/two.png", ring())
    report = write_references(tmp_path / "masks", tmp_path / "bank", n=7, seed=2)
    assert (report["count"], report["painted"]) == (7, 2)
    manifest = json.loads((tmp_path / "bank/manifest.json").read_text())
    assert manifest["seed"] == 2
    assert manifest["mask_bank"]["rotation"] == 180
    assert [entry["source"] for entry in manifest["masks"]] == ["one", "two"] * 3 + ["one"]
    bank = read_masks(tmp_path / "bank")
    assert len(bank) == 7
    first = manifest["masks"][0]
    assert bank["reference_00000"].sum() == first["pixels"]
    assert set(np.unique(read_image(tmp_path / "bank" / first["file"]).array)) == {0, 255}
    with pytest.raises(UserError, match="not empty"):
        write_references(tmp_path / "masks", tmp_path / "bank")
    write_references(tmp_path / "masks/two.png", tmp_path / "again", n=2)
    assert all(count_parts(mask) == (1, 1) for mask in read_masks(tmp_path / "again").values())
    write_mask(tmp_path / "empty/a.png", disc() * 0)
    with pytest.raises(UserError, match="all masks are empty"):
        write_references(tmp_path / "empty", tmp_path / "none")
    assert not (tmp_path / "none").exists()
