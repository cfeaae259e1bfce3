"""ResNet-18 for small images at any width, every ReLU a site of its own (paper section 7)."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from .networks import check_sizes, logit_count


class Block(nn.Module):
    """Two 3x3 convolutions and a skip around them (He et al. 2016); sites `relu1` and `relu2`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Make a block, its convolutions not yet drawn.

        Args:
            inputs: channels of its input.
            outputs: channels of its output.
            stride: of the first convolution; the image shrinks by it.
        """
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(outputs, outputs, 3)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.skip.append(_conv(inputs, outputs, 1, stride))
            self.skip.append(nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """From `[batch, inputs, h, w]` to `[batch, outputs, h / stride, w / stride]`."""
        inner = self.relu1(self.norm1(self.conv1(x)))
        return self.relu2(self.norm2(self.conv2(inner)) + self.skip(x))


def resnet18(
    channels: int,
    size: int,
    width: int,
    classes: int,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> nn.Sequential:
    """Make a ResNet-18 with a 3x3 stem and no maxpool (He et al. 2016; paper section 7).

    The stem is followed by four stages of two blocks with 1, 2, 4 and 8 times its filters; each
    stage after the first halves the image. Convolutions start from Kaiming's normal distribution
    (fan-out), batch norms as the identity, the linear layer as PyTorch does by default.

    Args:
        channels: Channels of the input images.
        size: Height and width of the input images, at least 8; all sizes have the same weights.
        width: Filters of the stem; 64 is the ordinary network, the paper's are 16, 32, 64, 128.
        classes: Number of classes, at least 2; two classes share a single logit.
        seed: Fixes the initial weights, whatever the device.
        device: Where the parameters live.

    Returns:
        A network from `[batch, channels, size, size]` to logits `[batch, classes]` (`[batch, 1]`
        for two classes). Its 17 sites are ``stem.relu``, ``layer1.0.relu1``, ``layer1.0.relu2``,
        ``layer1.1.relu1``, ... ``layer4.1.relu2``: the stage is what precedes the first dot.

    Raises:
        ValueError: If a size is too small or there are fewer than two classes.
    """
    check_sizes(channels=channels, width=width, size=size // 8)
    layers: dict[str, nn.Module] = {
        "stem": nn.Sequential(
            OrderedDict(conv=_conv(channels, width, 3), norm=nn.BatchNorm2d(width), relu=nn.ReLU())
        )
    }
    previous = width
    for stage in range(4):
        outputs = width * 2**stage
        first = Block(previous, outputs, stride=2 if stage else 1)
        layers[f"layer{stage + 1}"] = nn.Sequential(first, Block(outputs, outputs, stride=1))
        previous = outputs
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["linear1"] = skip_init(nn.Linear, previous, logit_count(classes))
    network = nn.Sequential(OrderedDict(layers))
    _draw(network, torch.Generator().manual_seed(seed))
    return network.to(device)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    options = {"stride": stride, "padding": kernel // 2, "bias": False}
    return skip_init(nn.Conv2d, inputs, outputs, kernel, **options)


def _draw(network: nn.Module, generator: torch.Generator) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(
                layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            for value in layer.parameters():
                nn.init.uniform_(value, -bound, bound, generator=generator)
