"""torchvision's ResNets with a head of ours, a choice of stem, and a frozen part that is frozen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from fer_ray.errors import UserError
from fer_ray.models import vision
from fer_ray.models.cnn import dense_head

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


class ResNet(nn.Module):
    """A ResNet whose first parts can be frozen.

    Args:
        arch: `resnet18`, `resnet34` or `resnet50`.
        in_channels: 1 or 3.
        num_classes: logits.
        stem: `imagenet` (7x7, stride 2, max-pool) or `small` (3x3, stride 1, no pool).
        unfreeze_from: first trained part: `stem`, `layer3`, `layer3.2`, ... or `head`.
        unfreeze_batchnorm: frozen parts still train batch norm's affine terms and statistics.
        head, head_dropout: see `dense_head`.
        state: torchvision's state dict for this arch, or None for a random start.
    """

    def __init__(
        self,
        *,
        arch: str,
        in_channels: int,
        num_classes: int,
        stem: str,
        unfreeze_from: str,
        unfreeze_batchnorm: bool,
        head: Sequence[int],
        head_dropout: float,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        net = getattr(vision.models(), arch)(weights=None)
        features = net.fc.in_features
        if stem == "small":
            net.conv1 = nn.Conv2d(in_channels, 64, 3, 1, padding=1, bias=False)
            net.maxpool = nn.Identity()
        elif in_channels != 3:
            net.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
        nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
        net.fc = nn.Identity()
        if state is not None:
            load_body(net, state)
        self.body = net
        self.head = dense_head(features, head, num_classes, head_dropout, batchnorm=False)
        if unfreeze_from != "head" and unfreeze_from not in {
            name for part, _ in _parts(net) for name in (part, part.split(".")[0])
        }:
            known = ", ".join(name for name, _ in _parts(net))
            raise UserError(f"unfreeze_from: {arch} has no {unfreeze_from!r}; it has {known}")
        self._frozen = [module for name, module in _parts(net) if _is_before(name, unfreeze_from)]
        self._freeze_batchnorm = not unfreeze_batchnorm
        for part in self._frozen:
            for module in part.modules():
                trained = isinstance(module, nn.BatchNorm2d) and unfreeze_batchnorm
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(trained)

    def train(self, mode: bool = True) -> ResNet:
        """As in torch, but frozen batch norm stays in evaluation, so its statistics stay."""
        super().train(mode)
        if mode and self._freeze_batchnorm:
            for part in self._frozen:
                part.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """float [N, C, px, px] to logits [N, num_classes]."""
        logits: Tensor = self.head(self.body(x))
        return logits


def unfreeze_name(unfreeze: int, unfreeze_from: str | None) -> str:
    """The first trained part for `unfreeze` 0..5, or the finer name where one is given."""
    if unfreeze_from is not None:
        return unfreeze_from
    return ("head", *reversed(STAGES))[unfreeze]


def load_body(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a torchvision state dict into a body; its stem is fitted to one or three channels.

    A grey image and the same image repeated three times give the same answers: a grey stem takes
    the sum over the three channels, and three channels take a third each of a grey stem.

    Raises:
        UserError: the state dict is of another network.
    """
    wanted = net.state_dict()
    given = {name: value for name, value in state.items() if not name.startswith("fc.")}
    stem, our_stem = given.get("conv1.weight"), wanted["conv1.weight"]
    if stem is not None and stem.shape != our_stem.shape:
        if (stem.shape[1], our_stem.shape[1]) == (3, 1):
            given["conv1.weight"] = stem.sum(dim=1, keepdim=True)
        elif (stem.shape[1], our_stem.shape[1]) == (1, 3):
            given["conv1.weight"] = stem.expand(-1, 3, -1, -1) / 3
    missing = sorted(set(wanted) - set(given))
    surplus = sorted(set(given) - set(wanted))
    shapes = sorted(n for n in set(wanted) & set(given) if wanted[n].shape != given[n].shape)
    if shapes == ["conv1.weight"] and not missing and not surplus:
        theirs, ours = given["conv1.weight"].shape[-1], our_stem.shape[-1]
        raise UserError(
            f"the weights have another stem: filters of {theirs}x{theirs}, not {ours}x{ours}",
            f"Set model.resnet.stem to {'imagenet' if theirs == 7 else 'small'}.",
        )
    if missing or surplus or shapes:
        raise UserError(
            "the weights are of another network: "
            f"{len(missing)} tensors missing {missing[:2]}, {len(surplus)} unknown "
            f"{surplus[:2]}, {len(shapes)} of another shape {shapes[:2]}"
        )
    with torch.no_grad():
        net.load_state_dict(given)


def _parts(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    yield "stem", nn.ModuleList([net.get_submodule("conv1"), net.get_submodule("bn1")])
    for stage in STAGES[1:]:
        for name, block in net.get_submodule(stage).named_children():
            yield f"{stage}.{name}", block


def _is_before(part: str, first_trained: str) -> bool:
    if first_trained == "head":
        return True

    def key(name: str) -> tuple[int, int]:
        stage, _, block = name.partition(".")
        return STAGES.index(stage) if stage in STAGES else 0, int(block or 0)

    return key(part) < key(first_trained)
