"""Image data sets: digits, those of torchvision, and folders of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.functional import pil_to_tensor

from ..device import usable_device
from ..given import MOST, is_whole, whole
from ..settings import data_root
from .ordering import stratified_order

_TORCHVISION = {
    "mnist": datasets.MNIST,
    "fashion_mnist": datasets.FashionMNIST,
    "cifar10": datasets.CIFAR10,
}
SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
}
"""Channels, height and width of the images of known sets, which have ten classes each."""
_TRAIN_SHARE = 0.8


class DataNotFound(FileNotFoundError):
    """A data set is not where it was looked for."""


class Images(NamedTuple):
    """An image data set, split into training and test images."""

    name: str
    """What the set was asked for by: a known name or a folder's path."""

    classes: tuple[int, ...]
    """The set's own numbers of the classes kept; label i stands for ``classes[i]``."""

    x_train: Tensor
    """Training images `[samples, channels, height, width]`, float32 in [0, 1]."""

    y_train: Tensor
    """Training labels `[samples]`, int64, 0 to ``len(classes) - 1``."""

    x_test: Tensor
    """Test images `[samples, channels, height, width]`, float32 in [0, 1]."""

    y_test: Tensor
    """Test labels `[samples]`, int64, 0 to ``len(classes) - 1``."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return tuple(self.x_train.shape[1:])


class _Split(NamedTuple):
    """Labels, and a way to read the images at some indices as `[samples, c, h, w]` in [0, 1]."""

    labels: Tensor
    read: Callable[[Tensor], Tensor]


def load_images(
    name: str | Path,
    *,
    classes: int | Sequence[int] | None = None,
    train_size: int | None = None,
    test_size: int | None = None,
    directory: str | Path | None = None,
    download: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Images:
    """Load an image data set, or some of its classes and images.

    Args:
        name: ``"digits"`` (8x8, comes with scikit-learn, split 80/20 by class), ``"mnist"``,
            ``"fashion_mnist"``, ``"cifar10"`` (read by torchvision), or the path of a folder
            with ``train/<class>/*`` and ``test/<class>/*``, or with ``<class>/*`` alone, which
            is split 80/20 by class. A folder's classes are numbered in the order of their names
            and its images, all of one size, are read as RGB.
        classes: The first so many classes, or the classes with these numbers, which get the
            labels 0, 1, ... in the order given; all if None.
        train_size: How many training images to keep; all if None. Kept images are drawn at
            random, with classes of about equal size each in its share to within one image, and
            a smaller size keeps a subset of what a larger one keeps.
        test_size: The same for the test images.
        directory: Where torchvision keeps its data; the environment variable SUPERPOS_DATA if
            None, and ``data`` in the current folder if that is not set.
        download: Let torchvision download what is missing.
        seed: Fixes the 80/20 split and the images kept.
        device: Where the tensors live.

    Returns:
        The images and labels of both splits.

    Raises:
        DataNotFound: If the files are missing or damaged.
        ValueError: If the name, the classes, a size or the device is not among what is allowed,
            or a folder's images are damaged or differ in size.
    """
    device, seed = usable_device(device), whole("seed", seed, -MOST)
    train, test, number = _splits(name, directory, download, seed)
    kept = _kept_classes(classes, number)
    x_train, y_train = _select(train, kept, train_size, seed, "train_size")
    x_test, y_test = _select(test, kept, test_size, seed, "test_size")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(
            f"Training images {tuple(x_train.shape[1:])} and test images "
            f"{tuple(x_test.shape[1:])} of {name} differ in shape: resize them to one size."
        )
    tensors = (tensor.to(device) for tensor in (x_train, y_train, x_test, y_test))
    return Images(str(name), kept, *tensors)


def check_classes(name: str | Path, classes: int) -> tuple[int, int, int]:
    """Refuse a data set that is not there, or more classes than it has, before it is read.

    Args:
        name: As for :func:`load_images`.
        classes: How many of its classes are wanted.

    Returns:
        Channels, height and width of its images; of a folder, those of the first one.

    Raises:
        ValueError: If the name or the number is not among what is allowed.
    """
    if isinstance(name, str) and name in SHAPES:
        _kept_classes(classes, 10)
        return SHAPES[name]
    if not _is_folder(name):
        raise ValueError(_unknown(name))
    inner = Path(name) / "train"
    folder = _image_folder(inner if inner.is_dir() else Path(name))
    _kept_classes(classes, len(folder.classes))
    return tuple(_image(folder, folder.samples[0][0]).shape)


def _splits(
    name: str | Path, directory: str | Path | None, download: bool, seed: int
) -> tuple[_Split, _Split, int]:
    """Find the training split, the test split and the number of classes."""
    if name == "digits":
        bunch = load_digits()
        images = torch.from_numpy(bunch.images).float().div_(16).unsqueeze(1)
        every = _Split(torch.from_numpy(bunch.target).long(), images.__getitem__)
        return *_divided(every, seed), 10
    if isinstance(name, str) and name in _TORCHVISION:
        train = _torchvision_split(name, directory, download, train=True)
        test = _torchvision_split(name, directory, download, train=False)
        return train, test, 10
    if _is_folder(name):
        return _folder_splits(Path(name), seed)
    raise ValueError(_unknown(name))


def _is_folder(name: Any) -> bool:
    return isinstance(name, (str, Path)) and bool(str(name)) and Path(name).is_dir()


def _image_folder(path: Path) -> datasets.ImageFolder:
    try:
        return datasets.ImageFolder(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is no data set: give each class a folder with images in it ({error})."
        ) from error


def _image(folder: datasets.ImageFolder, path: str) -> Tensor:
    try:
        return pil_to_tensor(folder.loader(path))
    except OSError as error:  # of which a file that is no image is one
        raise ValueError(f"{path} is no intact image: replace it or remove it.") from error


def _unknown(name: str | Path) -> str:
    return (
        f"Unknown data set {str(name)!r}: use digits, {', '.join(_TORCHVISION)} or the path of "
        "an existing folder of images."
    )


def _torchvision_split(
    name: str, directory: str | Path | None, download: bool, *, train: bool
) -> _Split:
    directory = data_root(directory).absolute()
    dataset_class = _TORCHVISION[name]
    try:
        dataset = dataset_class(directory, train=train, download=download)
    except Exception as error:  # files cut off or of another kind raise errors of many kinds
        loader = f"torchvision.datasets.{dataset_class.__name__}"
        raise DataNotFound(
            f"No intact {name} files for {loader} in {directory}: remove what is there of them, "
            f"run `python -c 'import torchvision; {loader}(\"{directory}\", download=True)'` to "
            "fetch them, or set SUPERPOS_DATA to a folder that has them. The data set digits needs "
            "no download."
        ) from error
    pixels = torch.as_tensor(dataset.data)
    images = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return _Split(torch.as_tensor(dataset.targets), lambda index: images[index] / 255)


def _folder_splits(folder: Path, seed: int) -> tuple[_Split, _Split, int]:
    parts = [folder / "train", folder / "test"]
    present = [part.is_dir() for part in parts]
    if not any(present):
        every = _image_folder(folder)
        return *_divided(_folder_split(every), seed), len(every.classes)
    if not all(present):
        raise ValueError(f"{folder} has only one of the folders train and test: give both.")
    train, test = (_image_folder(part) for part in parts)
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"Classes {', '.join(odd)} are not in both train and test of {folder}: give each "
            "class a folder in both."
        )
    return _folder_split(train), _folder_split(test), len(train.classes)


def _folder_split(folder: datasets.ImageFolder) -> _Split:
    def read(index: Tensor) -> Tensor:
        paths = [folder.samples[i][0] for i in index.tolist()]
        images = [_image(folder, path) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if image.shape != images[0].shape:
                raise ValueError(
                    f"{path} has height and width {tuple(image.shape[1:])}, {paths[0]} has "
                    f"{tuple(images[0].shape[1:])}: resize the images to one size."
                )
        return torch.stack(images) / 255

    return _Split(torch.tensor(folder.targets), read)


def _divided(every: _Split, seed: int) -> tuple[_Split, _Split]:
    order = stratified_order(every.labels, generator=torch.Generator().manual_seed(seed))
    cut = round(_TRAIN_SHARE * len(order))
    train, test = (
        _Split(every.labels[part], lambda index, part=part: every.read(part[index]))
        for part in (order[:cut], order[cut:])
    )
    return train, test


def _select(
    split: _Split, kept: tuple[int, ...], size: int | None, seed: int, argument: str
) -> tuple[Tensor, Tensor]:
    """Read the images of the classes kept, at most so many, and number their labels anew."""
    index = torch.isin(split.labels, torch.tensor(kept)).nonzero().squeeze(1)
    if len(index) == 0:
        raise ValueError(
            f"the classes kept leave no images for {argument.removesuffix('_size')}ing: give more."
        )
    if size is not None:
        if not is_whole(size) or not 1 <= size <= len(index):
            raise ValueError(
                f"{argument} is {size}: the classes kept have {len(index)} images, so give 1 to "
                f"{len(index)}, or None for all."
            )
        generator = torch.Generator().manual_seed(seed)
        index = index[stratified_order(split.labels[index], generator=generator)[:size]]
    labels = torch.empty_like(index)
    for label, own in enumerate(kept):
        labels[split.labels[index] == own] = label
    return split.read(index), labels


def _kept_classes(classes: int | Sequence[int] | None, number: int) -> tuple[int, ...]:
    if classes is None:
        return tuple(range(number))
    try:
        kept = None if isinstance(classes, str) else tuple(classes)
    except TypeError:
        kept = None
    if kept is None:
        if not is_whole(classes) or not 2 <= classes <= number:
            raise ValueError(
                f"classes is {classes}: the data set has {number}, so give 2 to {number}."
            )
        return tuple(range(classes))
    fit = all(map(is_whole, kept)) and set(kept) <= set(range(number))
    if not fit or len(kept) < 2 or len(set(kept)) < len(kept):
        raise ValueError(
            f"classes is {kept}: give at least two different numbers from 0 to {number - 1}."
        )
    return tuple(int(label) for label in kept)
