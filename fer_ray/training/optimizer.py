"""Optimizers over the parameters that train; batch norm and biases are not decayed."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fer_ray.config.schema import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build the optimizer of a config; frozen parameters get no state."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2]
    plain = [p for p in trained if p.ndim < 2]
    fused = trained[0].device.type in ("cpu", "cuda")
    groups: list[dict[str, object]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.sgd is not None:
        sgd = config.sgd
        return SGD(
            groups,
            lr=sgd.lr,
            momentum=sgd.momentum,
            nesterov=sgd.nesterov,
            weight_decay=sgd.weight_decay,
            fused=fused,
        )
    if config.adam is not None:
        adam = config.adam
        return Adam(groups, lr=adam.lr, weight_decay=adam.weight_decay, fused=fused)
    assert config.adamw is not None
    adamw = config.adamw
    return AdamW(groups, lr=adamw.lr, weight_decay=adamw.weight_decay, fused=fused)


def learning_rate(config: OptimizerConfig) -> float:
    """The config's learning rate, before any schedule."""
    return float(getattr(config, config.branch).lr)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def clip_gradients(model: nn.Module, max_norm: float) -> None:
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm)
