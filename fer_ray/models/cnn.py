"""The CNN family: blocks of 3x3 convolutions, pooling, a dense head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fer_ray.errors import UserError


class ConvBlock(nn.Module):
    """Convolutions with ReLU, an optional shortcut around them, max-pool, dropout."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        *,
        num_convs: int,
        batchnorm: bool,
        batchnorm_after: str,
        stride: int,
        residual: bool,
        pool: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for position in range(num_convs):
            source = channels_in if position == 0 else channels
            step = stride if position == 0 else 1
            last = position == num_convs - 1
            normed = batchnorm and (batchnorm_after == "conv" or last)
            layers.append(nn.Conv2d(source, channels, 3, step, padding=1, bias=not normed))
            if normed:
                layers.append(nn.BatchNorm2d(channels))
            if not last:
                layers.append(nn.ReLU(inplace=True))
        self.body = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if residual:
            project: list[nn.Module] = [
                nn.Conv2d(channels_in, channels, 1, stride, bias=not batchnorm)
            ]
            if batchnorm:
                project.append(nn.BatchNorm2d(channels))
            same = channels_in == channels and stride == 1
            self.shortcut = nn.Identity() if same else nn.Sequential(*project)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        y = torch.relu_(y)
        out: Tensor = self.dropout(self.pool(y))
        return out


class Cnn(nn.Module):
    """See `fer_ray.config.schema.CnnConfig` for the meaning of the arguments.

    With `pool="avg"` the last block keeps its size and is averaged; with `flatten` every block
    halves the image.

    Raises:
        UserError: the image vanishes before the last block.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        input_px: int,
        num_classes: int,
        channels: Sequence[int],
        convs_per_block: int,
        batchnorm: Sequence[int],
        batchnorm_after: str,
        block_dropout: float,
        stem_stride: int,
        residual: bool,
        pool: str,
        head: Sequence[int],
        head_batchnorm: bool,
        head_dropout: float,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        side = input_px
        source = in_channels
        for number, width in enumerate(channels, start=1):
            last = number == len(channels)
            stride = stem_stride if number == 1 else 1
            halves = pool == "flatten" or not last
            blocks.append(
                ConvBlock(
                    source,
                    width,
                    num_convs=convs_per_block,
                    batchnorm=number in batchnorm,
                    batchnorm_after=batchnorm_after,
                    stride=stride,
                    residual=residual,
                    pool=halves,
                    dropout=block_dropout,
                )
            )
            source = width
            side = -(-side // stride) // (2 if halves else 1)
            if side < 1:
                raise UserError(
                    f"{len(channels)} blocks shrink {input_px} pixels to nothing at block {number}",
                    "Use fewer blocks, a larger crop, or stem_stride: 1.",
                )
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1) if pool == "avg" else nn.Identity()
        features = source if pool == "avg" else source * side * side
        self.head = dense_head(features, head, num_classes, head_dropout, head_batchnorm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, px, px] to logits [N, num_classes]."""
        logits: Tensor = self.head(self.pool(self.blocks(x)).flatten(1))
        return logits


def dense_head(
    features: int, hidden: Sequence[int], num_classes: int, dropout: float, batchnorm: bool
) -> nn.Sequential:
    """Dropout before each dense layer; hidden layers with ReLU, and batch norm when asked."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Dropout(dropout), nn.Linear(features, units, bias=not batchnorm)]
        if batchnorm:
            layers.append(nn.BatchNorm1d(units))
        layers.append(nn.ReLU(inplace=True))
        features = units
    layers += [nn.Dropout(dropout), nn.Linear(features, num_classes)]
    return nn.Sequential(*layers)
