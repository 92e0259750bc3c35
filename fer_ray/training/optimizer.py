"""Optimizers over the parameters that train; batch norm and biases are not decayed."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from fer_ray.config.sections.train import OptimizerConfig

FACTOR = "lr_factor"
"""In a group of parameters: its learning rate relative to the config's."""


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, body_lr_factor: float = 1.0
) -> Optimizer:
    """Build the optimizer of a config; frozen parameters get no state.

    Args:
        model: its part `body`, where it has one, may learn at another rate than the rest.
        config: one optimizer.
        body_lr_factor: learning rate of the body relative to the rest.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fused = next(iter(trained.values())).device.type in ("cpu", "cuda")
    groups: list[dict[str, object]] = []
    for of_body, factor in ((True, body_lr_factor), (False, 1.0)):
        part = [p for name, p in trained.items() if name.startswith("body.") == of_body]
        lr = learning_rate(config) * factor
        weights, rest = [p for p in part if p.ndim >= 2], [p for p in part if p.ndim < 2]
        groups.append({"params": weights, "lr": lr, FACTOR: factor})
        groups.append({"params": rest, "lr": lr, FACTOR: factor, "weight_decay": 0.0})
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
    """Set the rate of every group to its factor of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group[FACTOR]


def clip_gradients(model: nn.Module, max_norm: float) -> None:
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], max_norm)
