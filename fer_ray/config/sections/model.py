"""`model`: the network families."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fer_ray.config.sections.base import Dropout, OneOf, Positive, Section, Units


class CnnConfig(Section):
    """A stack of convolution blocks, pooling, and a dense head."""

    channels: Units | None = None
    """Channels of each block, e.g. [16, 64, 128, 256]; else they follow from depth and width."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """Blocks; each halves the image but the last."""
    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """Channels of the first block; they double from block to block."""
    convs_per_block: Annotated[int, Field(ge=1, le=8)] = 2
    """3x3 convolutions in a block."""
    batchnorm: Literal["all", "none"] | Units = "all"
    """Blocks with batch normalisation: all, none, or their numbers from 1."""
    batchnorm_after: Literal["conv", "block"] = "conv"
    """After each convolution of those blocks, or once, after the last of a block."""
    block_dropout: Dropout = 0.0
    """Probability of dropping a channel after each block."""
    stem_stride: Literal[1, 2] = 1
    """Stride of the first convolution."""
    residual: bool = False
    """A shortcut around each block's convolutions (He et al. 2015, arXiv 1512.03385)."""
    pool: Literal["avg", "flatten"] = "avg"
    """Global average, or all positions flattened."""
    head: Units = ()
    """Hidden units of the dense head."""
    head_batchnorm: bool = False
    """Batch normalisation in the dense head."""
    head_dropout: Dropout = 0.3
    """Before each dense layer of the head."""

    @model_validator(mode="after")
    def _rules(self) -> CnnConfig:
        blocks = len(self.channels) if self.channels is not None else self.depth
        if self.channels is not None and not 1 <= blocks <= 8:
            raise ValueError(f"channels must name 1 to 8 blocks, but got {blocks}")
        if not isinstance(self.batchnorm, str):
            outside = [number for number in self.batchnorm if number > blocks]
            if outside:
                raise ValueError(
                    f"batchnorm names block {outside[0]}, but there are {blocks} blocks"
                )
        if self.head_batchnorm and not self.head:
            raise ValueError("head_batchnorm needs hidden units in head, but head is []")
        return self


ResNetPart = Annotated[str, Field(pattern=r"^(head|stem|layer[1-4](\.[0-9]+)?)$")]
RESNET_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}
"""Residual blocks in layer1 to layer4 (He et al. 2015, table 1)."""


class ResNetConfig(Section):
    """torchvision's ResNets (He et al. 2015) with a new head and partly frozen bodies."""

    arch: Literal["resnet18", "resnet34", "resnet50"] = "resnet18"
    """Which network."""
    weights: str = "imagenet"
    """imagenet, none, a .safetensors or .pth file, or a fer-ray bundle or run."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1, for small images."""
    unfreeze: Annotated[int, Field(ge=0, le=5)] = 5
    """0 = head only, 1 = + layer4, 2 = + layer3, 3 = + layer2, 4 = + layer1, 5 = + stem."""
    unfreeze_from: ResNetPart | None = None
    """Finer than unfreeze, and instead of it: train from this block on, e.g. layer3.2."""
    unfreeze_batchnorm: bool = True
    """Train the affine terms and move the statistics of frozen stages' batch norm."""
    body_lr_factor: Positive = 1.0
    """Learning rate of the body's trained parts, relative to the head's."""
    head: Units = ()
    """Hidden units of the dense head."""
    head_dropout: Dropout = 0.3
    """Before each dense layer of the head."""

    @model_validator(mode="after")
    def _frozen_random(self) -> ResNetConfig:
        first = self.unfreeze_from or ("stem" if self.unfreeze == 5 else None)
        if self.weights == "none" and first != "stem":
            raise ValueError(
                "weights: none with unfreeze below 5 trains behind a frozen random network; "
                "set unfreeze: 5 or give weights"
            )
        return self

    @model_validator(mode="after")
    def _block_is_there(self) -> ResNetConfig:
        stage, _, block = (self.unfreeze_from or "").partition(".")
        if block and int(block) >= RESNET_BLOCKS[self.arch][int(stage[-1]) - 1]:
            blocks = RESNET_BLOCKS[self.arch][int(stage[-1]) - 1]
            raise ValueError(
                f"unfreeze_from: {self.arch} has no {self.unfreeze_from}; its {stage} has blocks "
                f"{stage}.0 to {stage}.{blocks - 1}"
            )
        return self


class ModelConfig(OneOf):
    """One network family."""

    cnn: CnnConfig | None = None
    resnet: ResNetConfig | None = None

    @property
    def family(self) -> CnnConfig | ResNetConfig:
        """The network's own section."""
        family = self.cnn or self.resnet
        assert family is not None
        return family
