"""Settings for all tests."""

import pytest
import torch
from hypothesis import Phase, settings

from superpos.data import load_images
from superpos.networks import classification_loss, mlp

# No test may fail because the machine is busy.
settings.register_profile("untimed", deadline=None)
# What `make mutants` asks for: always the same examples, and no search for smaller ones.
settings.register_profile(
    "mutants",
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def digits_network():
    """A small network that was trained on the digits, and the images."""
    images, network = load_images("digits"), mlp(64, 32, 10, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        batch = torch.randint(len(images.x_train), (256,), generator=generator)
        optimizer.zero_grad()
        losses = classification_loss(network(images.x_train[batch]), images.y_train[batch])
        losses.mean().backward()
        optimizer.step()
    return network, images
