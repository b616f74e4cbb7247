"""The files behind the window of ``accl mark``, without a window."""

import nibabel
import numpy as np
import pytest
from accl_harness.data.dataset import load_split
from accl_harness.data.formats import read_image
from accl_harness.errors import UserError
from accl_harness.marking.folder import MarkFolder, doubt, three_sizes
from accl_harness.marking.jobs import Training, predict_folder
from accl_harness.run import Run
from PIL import Image
from small_runs import phantom_folder


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train/images").mkdir(parents=True)
    for index, name in enumerate(("a.jpg", "b.png")):
        Image.fromarray(np.full((6, 8), 90 + index, np.uint8)).save(
            tmp_path / "train/images" / name
        )
    grey = np.arange(9 * 7 * 5, dtype=np.int16).reshape(9, 7, 5)
    nibabel.save(nibabel.Nifti1Image(grey, np.eye(4)), tmp_path / "train/images/v.nii.gz")
    return tmp_path


def test_a_layer_and_its_file(root):
    folder = MarkFolder(root)
    assert folder.names == ["a", "b", "v"]
    layer = folder.marks("a")
    assert layer.shape == (6, 8)
    assert not layer.any()
    layer[0], layer[2] = 1, 2
    folder.save_marks("a", layer)
    stored = read_image(root / "train/weak/a.png", "weak").array
    assert [row[0] for row in stored.tolist()] == [0, 255, 1, 255, 255, 255]
    assert np.array_equal(folder.marks("a"), layer)
    assert [p.name for p in (root / "train/weak").iterdir()] == ["a.png"]
    assert folder.marked() == ["a"]
    volume = folder.marks("v")
    volume[1, 2, 3] = 2
    folder.save_marks("v", volume)
    assert np.asarray(nibabel.load(root / "train/weak/v.nii.gz").dataobj)[1, 2, 3] == 1


def test_painted_masks(root):
    folder = MarkFolder(root)
    mask = folder.mask("b")
    mask[1:3, 1:3] = 1
    folder.save_mask("b", mask)
    assert folder.painted() == ["b"]
    assert np.array_equal(MarkFolder(root).mask("b"), mask)
    folder.save_mask("b", np.zeros_like(mask))
    assert folder.painted() == []


def test_several_classes(root):
    (root / "classes.yaml").write_text("0: background\n1: cell\n2: wall\n")
    folder = MarkFolder(root)
    assert (folder.classes, folder.class_names) == (3, ("background", "cell", "wall"))
    layer = folder.marks("a")
    layer[0], layer[1] = 3, 1
    folder.save_marks("a", layer)
    assert np.array_equal(folder.marks("a"), layer)
    mask = np.zeros((6, 8), np.uint8)
    mask[3] = 2
    folder.save_mask("a", mask)
    assert np.array_equal(folder.mask("a"), mask)
    with pytest.raises(UserError, match="names 3 classes, --classes is 4"):
        MarkFolder(root, 4)
    with pytest.raises(UserError, match=r"images: no such folder"):
        MarkFolder(root / "train")


def test_unmarked_images_get_files(root):
    folder = MarkFolder(root)
    layer = folder.marks("a")
    layer[0, 0], layer[1, 1] = 1, 2
    folder.save_marks("a", layer)
    folder.complete()
    (root / "train/images/v.nii.gz").unlink()
    (root / "train/weak/v.nii.gz").unlink()
    data = load_split(root, "train", size=16)
    assert data.annotation()["per_image"]["b"] == 0


def test_three_sizes():
    sizes = {f"i{k}": k for k in range(13)}
    assert three_sizes(sizes) == ["i3", "i7", "i11"]
    assert three_sizes({"a": 5, "b": 0, "c": 2}) == ["c", "a"]


def test_doubt():
    assert doubt(np.full((1, 2, 2), 0.5)) == 1
    assert doubt(np.array([[[0.0, 1.0]]])) == 0
    assert doubt(np.full((4, 1, 1), 0.25)) == 2
    assert doubt(np.array([[[0.25, 0.0]]])) == pytest.approx(0.811278 / 2, abs=1e-6)


@pytest.mark.slow
def test_training_stops_and_goes_on_from_its_weights(tmp_path):
    data = phantom_folder(tmp_path)
    folder = MarkFolder(data)
    options = "--width 2 --size 32 --backend reference --accelerator cpu --tensorboard false"
    options = [*options.split(), "--epochs", "1", "--method", "partial_ce"]
    training = Training(folder, tmp_path / "runs", options)
    with pytest.raises(UserError, match="no object is marked yet"):
        training.start()
    for name in folder.names[:2]:
        layer = folder.marks(name)
        layer[:2], layer[10:20, 10:20] = 1, 2
        folder.save_marks(name, layer)
    first = training.start()
    with pytest.raises(UserError, match="a training is running"):
        training.start()
    assert training._process.wait(120) == 0, training.last_line()
    assert training.finished() == [first]
    assert str(first) in training.last_line()
    training.options[training.options.index("1")] = "1000"
    second = training.start()
    assert Run(first).config().init is None
    while not Run(second).has_checkpoint and training.running:
        pass
    training.stop()
    assert not training.running
    assert Run(second).config().init == str(first)
    layers, doubts = predict_folder(training.finished()[-1], folder)
    assert set(layers) == set(doubts) == set(folder.names)
    assert layers[folder.names[0]].shape == (32, 32)
