import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits

from superpos.data import DataNotFound, load_images, nonempty_toy_features, toy_features
from superpos.data.images import SHAPES, check_classes

SPARSITIES = torch.tensor([0.0, 0.001, 0.3, 0.9, 0.999, 0.9999])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(images):
    return {tuple(image.flatten().tolist()) for image in images}


def write_idx(path, values):
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def write_mnist(root, folder="MNIST", count=20):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        pixels = np.arange(count)[:, None, None] + np.zeros((count, 28, 28), int)
        write_idx(raw / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)


def write_folder(root, counts, size=(4, 3)):
    """One gray image for each class and number, whose shade tells which it is."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", size, 50 * label + i).save(root / name / f"{i:03}.png")


def test_digits_are_the_embedded_ones():
    images = load_images("digits")
    assert images.shape == (1, 8, 8) and images.classes == tuple(range(10))
    assert images.x_train.dtype == torch.float32 and images.y_train.dtype == torch.int64
    assert (len(images.x_train), len(images.x_test)) == (1438, 359)
    x, y = torch.cat([images.x_train, images.x_test]), torch.cat([images.y_train, images.y_test])
    assert x.min() == 0 and x.max() == 1
    original = load_digits()
    expected = sorted(zip((original.data / 16).tolist(), original.target.tolist(), strict=True))
    assert sorted(zip(x.flatten(1).tolist(), y.tolist(), strict=True)) == expected


def test_the_split_is_stratified_and_fixed_by_the_seed():
    first, again, other = (load_images("digits", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.x_train, again.x_train) and torch.equal(first.y_test, again.y_test)
    assert not torch.equal(first.x_train, other.x_train)
    for counted in (first, other):
        train, test = counted.y_train.bincount(), counted.y_test.bincount()
        assert ((0.8 * (train + test) - train).abs() <= 1).all()


def test_classes_are_renumbered_in_the_order_given():
    everything, some = load_images("digits"), load_images("digits", classes=(7, 2, 5))
    assert some.classes == (7, 2, 5)
    for label, own in enumerate(some.classes):
        chosen, whole = (
            some.x_test[some.y_test == label],
            everything.x_test[everything.y_test == own],
        )
        assert torch.equal(chosen, whole)
    assert load_images("digits", classes=3).classes == (0, 1, 2)
    assert torch.equal(
        load_images("digits", classes=3).x_train, load_images("digits", classes=[0, 1, 2]).x_train
    )


@settings(deadline=None, max_examples=20)
@given(size=st.integers(1, 400), larger=st.integers(0, 400), seed=st.integers(0, 50))
def test_smaller_sizes_keep_stratified_subsets_of_larger_ones(size, larger, seed):
    whole = load_images("digits", classes=3, seed=seed)
    part = load_images("digits", classes=3, seed=seed, train_size=size, test_size=9)
    more = load_images("digits", classes=3, seed=seed, train_size=min(size + larger, 429))
    assert len(part.x_train) == len(part.y_train) == size and len(part.x_test) == 9
    assert rows(part.x_train) <= rows(more.x_train) <= rows(whole.x_train)
    share = whole.y_train.bincount(minlength=3) / len(whole.y_train)
    assert ((part.y_train.bincount(minlength=3) - size * share).abs() <= 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "has 10, so give 2 to 10"),
        ({"classes": 11}, "has 10"),
        ({"classes": [3, 3]}, "two different numbers from 0 to 9"),
        ({"classes": [0, 10]}, "from 0 to 9"),
        ({"train_size": 0}, "train_size is 0: the classes kept have 1438 images"),
        ({"test_size": 360}, "test_size is 360: the classes kept have 359 images"),
        ({"name": "nosuch"}, "Unknown data set 'nosuch': use digits, mnist"),
    ],
)
def test_wrong_choices_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        load_images(**({"name": "digits"} | options))


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_torchvision_sets_are_read_from_the_directory_or_the_environment(
    name, folder, tmp_path, monkeypatch
):
    write_mnist(tmp_path / "here", folder)
    monkeypatch.setenv("SUPERPOS_DATA", str(tmp_path / "here"))
    images = load_images(name, classes=(1, 4))
    assert images.shape == (1, 28, 28) and images.y_train.tolist() == [0, 1, 0, 1]
    assert torch.equal(images.x_train[:, 0, 0, 0] * 255, torch.tensor([1.0, 4.0, 11.0, 14.0]))
    monkeypatch.setenv("SUPERPOS_DATA", str(tmp_path / "elsewhere"))
    assert torch.equal(
        load_images(name, directory=tmp_path / "here", classes=2).y_test[:2], torch.tensor([0, 1])
    )
    with pytest.raises(DataNotFound, match="elsewhere"):
        load_images(name)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_missing_files_are_reported_with_both_ways_to_get_them(name, tmp_path, monkeypatch):
    monkeypatch.delenv("SUPERPOS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFound) as caught:
        load_images(name)
    message = str(caught.value)
    assert name in message and f'"{tmp_path / "data"}", download=True' in message
    assert "SUPERPOS_DATA" in message and "digits" in message
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not (tmp_path / "data").exists()


def test_damaged_cifar_files_count_as_missing(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"not the data")
    with pytest.raises(DataNotFound, match="No intact cifar10 files"):
        load_images("cifar10", directory=tmp_path)


def test_folders_of_images_are_read_in_the_order_of_class_names(tmp_path):
    write_folder(tmp_path / "train", {"ant": 3, "bee": 2, "cat": 4})
    write_folder(tmp_path / "test", {"ant": 1, "bee": 1, "cat": 1})
    images = load_images(tmp_path, classes=(2, 0))
    assert images.shape == (3, 3, 4) and images.name == str(tmp_path)
    shades = (images.x_train[:, 1, 0, 0] * 255).round().int().tolist()
    assert shades == [0, 1, 2, 100, 101, 102, 103]
    assert images.y_train.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert images.y_test.tolist() == [1, 0]


def test_a_folder_without_a_test_part_is_split_by_class(tmp_path):
    write_folder(tmp_path, {"ant": 20, "bee": 10})
    images = load_images(str(tmp_path))
    assert images.y_train.bincount().tolist() == [16, 8]
    assert images.y_test.bincount().tolist() == [4, 2]
    assert len(rows(images.x_train) | rows(images.x_test)) == 30


def test_inconsistent_folders_are_refused(tmp_path):
    write_folder(tmp_path / "a" / "train", {"ant": 2, "bee": 2})
    with pytest.raises(ValueError, match="only one of the folders train and test"):
        load_images(tmp_path / "a")
    write_folder(tmp_path / "a" / "test", {"ant": 2, "cow": 2})
    with pytest.raises(ValueError, match="Classes bee, cow are not in both"):
        load_images(tmp_path / "a")
    write_folder(tmp_path / "b" / "train", {"ant": 2, "bee": 2})
    write_folder(tmp_path / "b" / "test", {"ant": 2, "bee": 2}, size=(5, 5))
    with pytest.raises(ValueError, match="differ in shape"):
        load_images(tmp_path / "b")
    Image.new("RGB", (9, 9)).save(tmp_path / "b" / "train" / "ant" / "000.png")
    with pytest.raises(ValueError, match="resize the images to one size"):
        load_images(tmp_path / "b")


KNOWN = ["digits", "mnist", "fashion_mnist", "cifar10"]


def refused(call, *arguments, **options):
    """What a refusal says, which is one sentence."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.endswith(".") and ". " not in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", KNOWN)
def test_known_sets_have_ten_classes_whether_or_not_they_are_there(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERPOS_DATA", str(tmp_path))
    for classes in range(2, 11):
        assert check_classes(name, classes) == SHAPES[name]
    for classes in (-1, 0, 1, 11, 100):
        assert refused(check_classes, name, classes) == (
            f"classes is {classes}: the data set has 10, so give 2 to 10."
        )


def test_shapes_are_of_the_known_sets(tmp_path):
    assert sorted(SHAPES) == sorted(KNOWN)
    assert load_images("digits").shape == SHAPES["digits"]
    write_mnist(tmp_path)
    assert load_images("mnist", directory=tmp_path).shape == SHAPES["mnist"]


@pytest.mark.parametrize("name", ["nosuch", "Digits", "no/such/folder", "file"])
def test_an_unknown_set_is_refused_as_it_is_when_it_is_loaded(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    message = refused(check_classes, name, 3)
    assert message == refused(load_images, name, classes=3)
    assert repr(name) in message and "digits, mnist, fashion_mnist, cifar10 or the path" in message


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_folder_has_as_many_classes_as_folders(tmp_path, split, kind):
    counts = {"ant": 3, "bee": 3, "cat": 3}
    for part in ("train", "test") if split else (".",):
        write_folder(tmp_path / part, counts)
        (tmp_path / part / "notes.txt").write_text("not a class")
    for classes in (2, 3):
        images = load_images(kind(tmp_path), classes=classes)
        assert len(images.classes) == classes
        assert check_classes(kind(tmp_path), classes) == images.shape == (3, 3, 4)
    for classes in (1, 4):
        message = refused(check_classes, kind(tmp_path), classes)
        assert message == f"classes is {classes}: the data set has 3, so give 2 to 3."
        assert message == refused(load_images, kind(tmp_path), classes=classes)


@pytest.mark.parametrize(("name", "share"), [("mnist", 0.1307), ("fashion_mnist", 0.2860)])
def test_real_sets_have_their_published_mean(name, share):
    if not os.environ.get("SUPERPOS_DATA"):
        pytest.skip("SUPERPOS_DATA is not set: real data sets are not read")
    try:
        images = load_images(name, test_size=1000)
    except DataNotFound as error:
        pytest.skip(str(error))
    assert len(images.x_train) == 60000
    assert images.x_train.mean().item() == pytest.approx(share, abs=1e-4)
    assert images.y_test.bincount().tolist() == pytest.approx([100] * 10, abs=15)


def active_rate_bounds(probability, draws):
    """Interval that a rate over so many draws leaves with probability 1e-6."""
    low, high = stats.binom.interval(1 - 1e-6, draws, probability)
    return low / draws, high / draws


def test_toy_features_are_active_and_uniform_as_the_sparsity_says():
    features = toy_features(20000, 7, SPARSITIES, generator=seeded())
    assert features.shape == (6, 20000, 7)
    assert features.min() >= 0 and features.max() <= 1
    for sparsity, member in zip(SPARSITIES.tolist(), features, strict=True):
        active = member[member > 0]
        low, high = active_rate_bounds(1 - sparsity, member.numel())
        assert low <= len(active) / member.numel() <= high
        if len(active) > 100:
            assert stats.kstest(active.numpy(), "uniform").pvalue > 0.001


def test_nonempty_features_follow_the_conditional_distribution():
    count, number = 20000, 7
    features = nonempty_toy_features(count, number, SPARSITIES, generator=seeded())
    assert features.min() >= 0 and features.max() <= 1
    for sparsity, member in zip(SPARSITIES.double().tolist(), features, strict=True):
        active = member > 0
        assert active.any(-1).all()
        filled = 1 - sparsity**number
        low, high = active_rate_bounds((1 - sparsity) / filled, count)
        rates = active.double().mean(0)
        assert ((low <= rates) & (rates <= high)).all()
        pairs = (active[:, 1] & active[:, 5]).double().mean()
        low, high = active_rate_bounds((1 - sparsity) ** 2 / filled, count)
        assert low <= pairs <= high
        for feature in range(number):
            values = member[active[:, feature], feature]
            assert stats.kstest(values.numpy(), "uniform").pvalue > 1e-4


def test_nonempty_features_equal_rejection_sampling_in_distribution():
    sparsity, number = 0.8, 5
    plain = toy_features(60000, number, sparsity, generator=seeded(1))
    kept = plain[(plain > 0).any(-1)]
    drawn = nonempty_toy_features(len(kept), number, sparsity, generator=seeded(2))
    code = 2 ** torch.arange(number)
    patterns = [((part > 0) * code).sum(-1).bincount(minlength=32)[1:] for part in (kept, drawn)]
    assert stats.chi2_contingency(torch.stack(patterns).numpy()).pvalue > 0.001


@settings(deadline=None)
@given(
    sparsities=st.lists(st.floats(0, 0.9999), min_size=1, max_size=40),
    count=st.integers(1, 50),
    features=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_a_member_draws_among_others_what_it_draws_alone(sparsities, count, features, seed):
    for draw in (toy_features, nonempty_toy_features):
        together = draw(count, features, torch.tensor(sparsities), generator=seeded(seed))
        assert together.isfinite().all()
        for sparsity, member in zip(sparsities, together, strict=True):
            alone = draw(count, features, sparsity, generator=seeded(seed))
            assert torch.equal(alone, member)


@pytest.mark.parametrize("draw", [toy_features, nonempty_toy_features])
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan"), 1 - 1e-12])
def test_impossible_sparsities_are_refused(draw, sparsity):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        draw(3, 4, sparsity, generator=seeded())
