"""`augment`: random changes of training images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fer_ray.config.sections.base import Fraction, NonNegative, Section


class AugmentConfig(Section):
    """Random changes of training images, per sample, on the device. Evaluation has none."""

    flip_p: Fraction = 0.5
    """Probability of a mirror image."""
    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 10.0
    """Uniform in +- this."""
    zoom_frac: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Scale uniform in 1 +- this."""
    shift_frac: Fraction = 0.05
    """Of the image's side, uniform in +- this, each axis."""
    brightness_frac: Fraction = 0.2
    """Factor uniform in 1 +- this."""
    contrast_frac: Fraction = 0.2
    """Factor around the image's mean, uniform in 1 +- this."""
    erase_p: Fraction = 0.25
    """Probability of a random rectangle of noise (Zhong et al. 2017, arXiv 1708.04896)."""
    erase_frac: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """Largest share of the image that is erased."""
    mixup_alpha: NonNegative = 0.0
    """Beta parameter of mixup (Zhang et al. 2017, arXiv 1710.09412); 0 is off."""
    cutmix_alpha: NonNegative = 0.0
    """Beta parameter of CutMix (Yun et al. 2019, arXiv 1905.04899); 0 is off."""
