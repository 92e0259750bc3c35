"""`data`: which images, and how they become network input."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fer_ray.config.sections.base import Section


class DataConfig(Section):
    """Which images, and how they become network input."""

    source: str | None = None
    """A prepared data set's directory, or `sample` for the built-in synthetic faces."""
    image_size: Annotated[int, Field(ge=16, le=256)] = 48
    """Pixels after the resize; a stored size that differs is resized on the device."""
    crop: Annotated[int, Field(ge=16, le=256)] = 44
    """Pixels: random in training, centre in evaluation; equal to image_size switches it off."""
    channels: Literal[1, 3] = 1
    """3 repeats the grey channel, as networks trained on ImageNet want."""
    equalize: Literal["none", "histogram", "clahe"] = "none"
    """Histogram equalisation of each image, in training and evaluation alike."""
    normalize: Literal["dataset", "imagenet", "unit"] = "dataset"
    """Mean and deviation of the training images, ImageNet's, or plain 0..1."""
    classes: str | dict[str, str | None] = "fer7"
    """fer7, fer4, valence, or a map such as {disgust: angry, fear: null}; null drops."""
    labels: Literal["hard", "ferplus"] = "hard"
    """ferplus: the annotators' votes as soft targets."""
    cache: Literal["auto", "memory", "stream"] = "auto"
    """Keep a worker's shard in memory, or stream it."""

    @model_validator(mode="after")
    def _crop_fits(self) -> DataConfig:
        if self.crop > self.image_size:
            raise ValueError(
                f"crop <= image_size must hold, but got (crop={self.crop}, "
                f"image_size={self.image_size})"
            )
        return self
