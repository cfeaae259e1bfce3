"""Data: images, toy features, sparse parity."""

from .images import DataNotFound, Images, load_images
from .parity import Parity, sparse_parity
from .toy import nonempty_toy_features, toy_features

__all__ = [
    "DataNotFound",
    "Images",
    "Parity",
    "load_images",
    "nonempty_toy_features",
    "sparse_parity",
    "toy_features",
]
