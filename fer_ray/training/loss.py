"""Cross-entropy on hard, smoothed or mixed targets; weights and priors of unequal classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def class_weights(counts: Tensor, how: str) -> Tensor | None:
    """Loss weights a class, with mean 1 over the training images.

    Args:
        counts: int64 [C], training images a class.
        how: `none`, `balanced` (inverse frequency) or `sqrt` (its square root).

    Returns:
        float32 [C], or None for `none`.
    """
    if how == "none":
        return None
    count = counts.float()
    weight = 1.0 / count.clamp(min=1)
    if how == "sqrt":
        weight = weight.sqrt()
    return weight * count.sum() / (weight * count).sum()


def log_prior(counts: Tensor, tau: float) -> Tensor | None:
    """What logit adjustment (Menon et al. 2020, arXiv 2007.07314, equation 10) adds to logits.

    The loss of a row is -log softmax(f + tau * log(pi))[y], with pi the classes' shares of the
    training images. A network f that minimises it for tau = 1 ranks classes by p(x | y) and not by
    p(y | x): its plain logits, without the term, aim at balanced accuracy.

    Args:
        counts: int64 [C], training images a class; a class without images counts as one.
        tau: strength, >= 0.

    Returns:
        float32 [C], tau * log(pi); None for tau = 0.
    """
    if tau == 0:
        return None
    count = counts.float().clamp(min=1)
    return tau * (count / count.sum()).log()


@dataclass(frozen=True)
class Loss:
    """The training loss of a batch: a mean over rows.

    Attributes:
        label_smoothing: share of each target spread over all classes.
        weight: float32 [C] of `class_weights`, or None.
        shift: float32 [C] of `log_prior`, or None.
    """

    label_smoothing: float
    weight: Tensor | None = None
    shift: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """float [N, C] and int64 [N] or float [N, C] to the mean loss."""
        wide = logits.float()
        if self.shift is not None:
            wide = wide + self.shift
        return cross_entropy(wide, targets, self.label_smoothing, self.weight)


def cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float, weight: Tensor | None
) -> Tensor:
    """Mean over the batch; targets are int64 [N] or probabilities float [N, C].

    Class weights are not divided out of a batch again: each row counts as much in any batch.
    """
    wide = logits.float()
    if weight is None:
        return F.cross_entropy(wide, targets, label_smoothing=label_smoothing)
    rows = F.cross_entropy(
        wide, targets, weight=weight, label_smoothing=label_smoothing, reduction="none"
    )
    return rows.mean()


def mix(
    x: Tensor,
    targets: Tensor,
    num_classes: int,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of a batch with itself, in another order; one of them a batch by lot.

    Args:
        x: float [N, 1, H, W].
        targets: int64 [N] class indices, or float32 [N, C] probabilities.

    Returns:
        x mixed, and targets float32 [N, C]; both unchanged where both alphas are 0.
    """
    if mixup_alpha == 0 and cutmix_alpha == 0:
        return x, targets
    device = x.device
    order = torch.randperm(len(x), generator=generator, device=device)
    both = mixup_alpha > 0 and cutmix_alpha > 0
    coin = float(torch.rand((), generator=generator, device=device))
    use_cutmix = cutmix_alpha > 0 and (not both or coin < 0.5)
    share = _beta(cutmix_alpha if use_cutmix else mixup_alpha, generator)
    if use_cutmix:
        x, share = _paste(x, order, share, generator)
    else:
        x = share * x + (1 - share) * x[order]
    soft = targets if targets.ndim == 2 else F.one_hot(targets, num_classes).float()
    return x, share * soft + (1 - share) * soft[order]


def _beta(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), as the ratio of two gamma draws."""
    shape = torch.full((2,), alpha, device=generator.device)
    first, second = torch._standard_gamma(shape, generator=generator).tolist()
    return first / (first + second) if first + second > 0 else 1.0


def _paste(
    x: Tensor, order: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    side = x.shape[-1]
    half = side * (1 - share) ** 0.5 / 2
    cx, cy = (torch.rand(2, generator=generator, device=x.device) * side).tolist()
    left, right = max(0, round(cx - half)), min(side, round(cx + half))
    top, bottom = max(0, round(cy - half)), min(side, round(cy + half))
    x = x.clone()
    x[:, :, top:bottom, left:right] = x[order, :, top:bottom, left:right]
    return x, 1 - (right - left) * (bottom - top) / (side * side)
