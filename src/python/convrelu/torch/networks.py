"""The networks of the paper as the usual PyTorch code for CIFAR has them, with ReLU: `convert` makes ConvReLU networks of them.

Names of parameters are those of the crate's trainer, so `weights.safetensors` of a run loads into them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NETWORKS", "densenet_cifar", "resnet18", "small_cnn", "vgg16"]


class _DenseLayer(nn.Module):
    """Two convolutions, each behind its normalisation and activation; the new channels go before the old ones."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        y = self.conv2(functional.relu(self.bn2(y)))
        return torch.cat([y, x], 1)


class _Transition(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x))), 2)


class _DenseNet(nn.Module):
    def __init__(self, in_channels: int, classes: int, growth: int = 12) -> None:
        super().__init__()
        channels = 2 * growth
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for block, depth in enumerate((6, 12, 24, 16), 1):
            layers = [_DenseLayer(channels + growth * layer, growth) for layer in range(depth)]
            channels += growth * depth
            setattr(self, f"dense{block}", nn.Sequential(*layers))
            if block < 4:
                setattr(self, f"trans{block}", _Transition(channels))
                channels //= 2
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.trans2(self.dense2(x))
        x = self.trans3(self.dense3(x))
        x = functional.relu(self.bn(self.dense4(x)))
        return self.linear(x.mean((2, 3)))


class _BasicBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class _ResNet(nn.Module):
    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, (width, stride) in enumerate(((64, 1), (128, 2), (256, 2), (512, 2)), 1):
            blocks = nn.Sequential(_BasicBlock(channels, width, stride), _BasicBlock(width, width, 1))
            setattr(self, f"layer{stage}", blocks)
            channels = width
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


class _Vgg(nn.Module):
    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class _SmallCnn(nn.Module):
    def __init__(self, in_channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv3 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv4 = nn.Conv2d(32, 32, 3, padding=1)
        self.linear = nn.Linear(32 * (size // 4) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(functional.relu(self.conv1(x)))
        x = functional.max_pool2d(functional.relu(x), 2)
        x = self.conv4(functional.relu(self.conv3(x)))
        x = functional.max_pool2d(functional.relu(x), 2)
        return self.linear(x.flatten(1))


def densenet_cifar(classes: int = 100, in_channels: int = 3) -> nn.Module:
    """DenseNet with bottlenecks, blocks of 6, 12, 24 and 16 layers, growth 12, compression 0.5 (Table 6)."""
    return _DenseNet(in_channels, classes)


def resnet18(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """ResNet-18 for images of 32×32: a first convolution of 3×3, no pooling behind it."""
    return _ResNet(in_channels, classes)


def vgg16(classes: int = 10, in_channels: int = 3) -> nn.Module:
    """VGG-16 with batch normalisation and one linear layer."""
    return _Vgg(in_channels, classes)


def small_cnn(classes: int = 10, in_channels: int = 1, size: int = 8) -> nn.Module:
    """Four convolutions in two blocks, for small images of `size` × `size`."""
    return _SmallCnn(in_channels, classes, size)


#: The networks by name.
NETWORKS = {"densenet_cifar": densenet_cifar, "resnet18": resnet18, "vgg16": vgg16, "small_cnn": small_cnn}
