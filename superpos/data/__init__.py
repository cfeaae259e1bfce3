"""Data: images, toy features, sparse parity, modular arithmetic."""

from .images import DataNotFound, Images, load_images
from .modular import Modular, modular
from .parity import Parity, sparse_parity
from .toy import nonempty_toy_features, toy_features

__all__ = [
    "DataNotFound",
    "Images",
    "Modular",
    "Parity",
    "load_images",
    "modular",
    "nonempty_toy_features",
    "sparse_parity",
    "toy_features",
]
