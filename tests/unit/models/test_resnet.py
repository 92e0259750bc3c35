"""ResNets: torchvision's own answers, the grey stem, and a frozen part that is frozen."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fer_ray.config.sections.model import RESNET_BLOCKS, ResNetConfig
from fer_ray.errors import UserError
from fer_ray.models import vision
from fer_ray.models.resnet import ResNet, unfreeze_name


def reference(arch: str = "resnet18") -> nn.Module:
    """torchvision's network with random weights and used batch-norm statistics."""
    torch.manual_seed(3)
    network = getattr(vision.models(), arch)(weights=None)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, 3, 32, 32) * 2 + 1)
    return network.eval()


def resnet(**changes: Any) -> ResNet:
    values: dict[str, Any] = {
        "arch": "resnet18",
        "in_channels": 3,
        "num_classes": 7,
        "stem": "imagenet",
        "unfreeze_from": "stem",
        "unfreeze_batchnorm": True,
        "head": [],
        "head_dropout": 0.0,
        "state": None,
    }
    torch.manual_seed(0)
    return ResNet(**{**values, **changes})


def test_the_door_to_torchvision_opens() -> None:
    assert vision.models().resnet18 is vision.models().resnet18


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
def test_the_forward_pass_is_torchvisions(arch: str) -> None:
    theirs = reference(arch)
    ours = resnet(arch=arch, num_classes=1000, state=theirs.state_dict())
    with torch.no_grad():
        ours.head[-1].weight.copy_(theirs.fc.weight)
        ours.head[-1].bias.copy_(theirs.fc.bias)
        images = torch.randn(2, 3, 64, 64)
        wanted = theirs(images)
        assert wanted.std() > 1e-3, "else anything agrees"
        assert (ours.eval()(images) - wanted).abs().max() <= 1e-6


def test_a_grey_stem_equals_the_grey_image_repeated() -> None:
    state = reference().state_dict()
    three = resnet(state=state).eval()
    one = resnet(state=state, in_channels=1).eval()
    one.head.load_state_dict(three.head.state_dict())
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        difference = (one(images) - three(images.expand(-1, 3, -1, -1))).abs().max()
    assert difference <= 1e-4


def test_three_channels_take_a_third_each_of_a_grey_stem() -> None:
    grey = resnet(in_channels=1)
    three = resnet(in_channels=3, state=grey.body.state_dict()).eval()
    three.head.load_state_dict(grey.head.state_dict())
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        difference = (grey.eval()(images) - three(images.expand(-1, 3, -1, -1))).abs().max()
    assert difference <= 1e-4


def test_weights_of_another_stem_are_refused_with_the_one_to_set() -> None:
    state = resnet(stem="small").body.state_dict()
    with pytest.raises(UserError, match="filters of 3x3, not 7x7") as caught:
        resnet(stem="imagenet", state=state)
    assert caught.value.remedy == "Set model.resnet.stem to small."


def test_the_small_stem_keeps_the_image_large() -> None:
    assert isinstance(resnet(stem="small").body.maxpool, nn.Identity)
    assert resnet(stem="small", in_channels=1).body.conv1.weight.shape == (64, 1, 3, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("layer1.0.conv1.weight"),
        lambda state: state.update(extra=torch.zeros(1)),
        lambda state: state.update({"layer1.0.conv1.weight": torch.zeros(1, 64, 3, 3)}),
    ],
    ids=["missing", "surplus", "shape"],
)
def test_weights_of_another_network_are_refused(change: Any) -> None:
    state = dict(reference().state_dict())
    change(state)
    with pytest.raises(UserError, match="of another network"):
        resnet(state=state)


# --- frozen means frozen --------------------------------------------------------------------------


def one_step(network: ResNet) -> tuple[set[str], set[str]]:
    """Names of the parameters and of the buffers that a training step changes."""
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()
    after: dict[str, Tensor] = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parameters = {name for name, _ in network.named_parameters()}
    return changed & parameters, changed - parameters


def stages(names: set[str]) -> set[str]:
    return {
        "head" if name.startswith("head") else name.split(".")[1].replace("bn1", "conv1")
        for name in names
    }


ORDER = ("head", "layer4", "layer3", "layer2", "layer1", "conv1")


ARCHS = [
    "resnet18",
    pytest.param("resnet34", marks=pytest.mark.long),
    pytest.param("resnet50", marks=pytest.mark.long),
]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("unfreeze", range(6))
def test_without_batch_norm_exactly_the_unfrozen_stages_change(unfreeze: int, arch: str) -> None:
    network = resnet(
        arch=arch, unfreeze_from=unfreeze_name(unfreeze, None), unfreeze_batchnorm=False
    )
    parameters, buffers = one_step(network)
    assert stages(parameters) == set(ORDER[: unfreeze + 1])
    expected = {
        name
        for name, _ in network.named_parameters()
        if stages({name}) <= set(ORDER[: unfreeze + 1])
    }
    assert parameters == expected, "all of an unfrozen stage, nothing of a frozen one"
    assert stages(buffers) == set(ORDER[1 : unfreeze + 1]), "frozen statistics stay bit-equal"


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("unfreeze", range(6))
def test_with_batch_norm_it_alone_moves_in_frozen_stages(unfreeze: int, arch: str) -> None:
    network = resnet(
        arch=arch, unfreeze_from=unfreeze_name(unfreeze, None), unfreeze_batchnorm=True
    )
    batchnorms = {name for name, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    parameters, buffers = one_step(network)
    trained_stages = set(ORDER[: unfreeze + 1])
    expected = {
        name
        for name, _ in network.named_parameters()
        if stages({name}) <= trained_stages or name.rpartition(".")[0] in batchnorms
    }
    assert parameters == expected
    assert {name.rpartition(".")[0] for name in buffers} == batchnorms


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("batchnorm", [False, True])
def test_trainable_parameters_strictly_rise(batchnorm: bool, arch: str) -> None:
    with torch.device("meta"):
        networks = [
            resnet(
                arch=arch,
                unfreeze_from=unfreeze_name(unfreeze, None),
                unfreeze_batchnorm=batchnorm,
            )
            for unfreeze in range(6)
        ]
    counts = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in networks]
    assert counts == sorted(set(counts))
    assert counts[-1] == sum(parameter.numel() for parameter in networks[-1].parameters())


def test_a_finer_name_freezes_up_to_its_block() -> None:
    parameters, _ = one_step(resnet(unfreeze_from="layer3.1", unfreeze_batchnorm=False))
    blocks = {".".join(name.split(".")[1:3]) for name in parameters if name.startswith("body")}
    assert blocks == {"layer3.1", "layer4.0", "layer4.1"}


def test_a_random_start_trains_every_part() -> None:
    for leaves in ({}, {"unfreeze_from": "stem"}, {"unfreeze_from": "stem", "unfreeze": 0}):
        ResNetConfig.model_validate({"weights": "none", **leaves})
    for leaves in ({"unfreeze": 4}, {"unfreeze_from": "layer1"}, {"unfreeze_from": "head"}):
        with pytest.raises(ValidationError, match="behind a frozen random network"):
            ResNetConfig.model_validate({"weights": "none", **leaves})


@pytest.mark.parametrize("arch", RESNET_BLOCKS)
def test_the_schema_knows_every_block(arch: str) -> None:
    with torch.device("meta"):
        body = resnet(arch=arch).body
    found = tuple(len(body.get_submodule(f"layer{number}")) for number in range(1, 5))
    assert RESNET_BLOCKS[arch] == found


@pytest.mark.parametrize("name", ["layer3.2", "layer4.7", "layer5", "layer3.", "fc", "stem.0"])
def test_a_part_that_is_not_there_is_refused_by_the_schema(name: str) -> None:
    with pytest.raises(ValidationError, match="unfreeze_from"):
        ResNetConfig.model_validate({"unfreeze_from": name})
    assert ResNetConfig.model_validate({"unfreeze_from": "layer3.1"}).unfreeze_from == "layer3.1"
    deep = {"arch": "resnet50", "unfreeze_from": "layer3.5"}
    assert ResNetConfig.model_validate(deep).unfreeze_from == "layer3.5"


@pytest.mark.parametrize("name", ["layer5", "layer3.9", "layer3.x", "layer3.", "fc", ""])
def test_an_unknown_part_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UserError, match=r"resnet18 has no .*; it has stem, layer1\.0, layer1\.1"):
        resnet(unfreeze_from=name)


def test_the_finer_name_wins() -> None:
    names = [unfreeze_name(unfreeze, None) for unfreeze in range(6)]
    assert names == ["head", "layer4", "layer3", "layer2", "layer1", "stem"]
    assert unfreeze_name(0, "layer3.2") == "layer3.2"


def test_evaluation_mode_reaches_frozen_parts() -> None:
    network = resnet(unfreeze_from="head", unfreeze_batchnorm=False)
    network.train()
    assert not network.body.bn1.training
    assert network.head.training
    network.eval()
    assert not any(module.training for module in network.modules())
