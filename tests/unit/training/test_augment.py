"""Augmentation: each strength does what it says, per image, and nothing at 0."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fer_ray.config.sections.augment import AugmentConfig
from fer_ray.training.augment import augment
from tests.small import small_data

OFF = {
    "flip_p": 0.0,
    "rotate_deg": 0.0,
    "zoom_frac": 0.0,
    "shift_frac": 0.0,
    "brightness_frac": 0.0,
    "contrast_frac": 0.0,
    "erase_p": 0.0,
}


def images() -> Tensor:
    return torch.from_numpy(small_data().train.images)


def augmented(crop_px: int = 24, seed: int = 0, batch: Tensor | None = None, **on: Any) -> Tensor:
    config = AugmentConfig.model_validate({**OFF, **on})
    generator = torch.Generator().manual_seed(seed)
    return augment(images() if batch is None else batch, config, crop_px, generator)


def unit() -> Tensor:
    return images().unsqueeze(1).float() / 255


def test_nothing_on_is_the_image_itself() -> None:
    found = augmented()
    assert found.dtype == torch.float32
    assert torch.allclose(found, unit(), atol=1e-5)


def test_a_flip_is_the_mirror_image() -> None:
    assert torch.allclose(augmented(flip_p=1.0), unit().flip(-1), atol=1e-5)


def test_half_the_images_are_flipped_each_on_its_own() -> None:
    found = augmented(flip_p=0.5)
    mirrored = (found - unit().flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    plain = (found - unit()).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (mirrored ^ plain).all()
    assert 16 < int(mirrored.sum()) < 48


def test_crops_are_windows_of_the_image_at_every_corner() -> None:
    batch = images()[:1].repeat(400, 1, 1)
    found = augmented(20, batch=batch)
    assert found.shape == (400, 1, 20, 20)
    windows = unit()[0, 0].unfold(0, 20, 1).unfold(1, 20, 1).reshape(-1, 20, 20)
    distance = (found[:, 0, None] - windows[None]).abs().amax(dim=(2, 3))
    assert float(distance.min(dim=1).values.max()) < 1e-4, "each crop is one of the windows"
    assert set(distance.argmin(dim=1).tolist()) == set(range(25)), "and all windows occur"


def test_a_rotation_turns_around_the_centre_within_its_bound() -> None:
    batch = torch.zeros(300, 24, 24, dtype=torch.uint8)
    batch[:, 11:13, 18:22] = 255  # east of the centre
    found = augmented(batch=batch, rotate_deg=30.0)[:, 0]
    axis = torch.arange(24) - 11.5
    mass = found.sum(dim=(1, 2))
    x = (found.sum(dim=1) * axis).sum(dim=1) / mass
    y = (found.sum(dim=2) * axis).sum(dim=1) / mass
    angle = torch.rad2deg(torch.atan2(y, x))
    assert float(angle.abs().max()) <= 31
    assert float(angle.min()) < -25
    assert float(angle.max()) > 25
    assert torch.allclose(x.hypot(y), torch.tensor(8.0), atol=0.2)


def test_a_zoom_scales_within_its_bound() -> None:
    batch = torch.zeros(300, 24, 24, dtype=torch.uint8)
    batch[:, 8:16, 8:16] = 255
    side = augmented(batch=batch, zoom_frac=0.3).sum(dim=(1, 2, 3)).sqrt() / 8
    assert 0.68 < float(side.min()) < 0.75
    assert 1.25 < float(side.max()) < 1.32


def test_a_shift_moves_within_its_bound() -> None:
    batch = torch.zeros(300, 24, 24, dtype=torch.uint8)
    batch[:, 11:13, 11:13] = 255
    found = augmented(batch=batch, shift_frac=0.25)[:, 0]
    axis = torch.arange(24) - 11.5
    for dim in (1, 2):
        centre = (found.sum(dim=dim) * axis).sum(dim=1) / found.sum(dim=(1, 2))
        assert 5 < float(centre.abs().max()) <= 6.05  # a quarter of 24 pixels


def test_brightness_is_a_factor_an_image() -> None:
    batch = torch.full((300, 24, 24), 100, dtype=torch.uint8)
    found = augmented(batch=batch, brightness_frac=0.2) / (100 / 255)
    assert float(found.std(dim=(1, 2, 3)).max()) < 1e-5
    assert 0.8 <= float(found.min()) < 0.82
    assert 1.18 < float(found.max()) <= 1.2 + 1e-5


def test_contrast_keeps_the_mean() -> None:
    batch = torch.full((300, 24, 24), 100, dtype=torch.uint8)
    batch[:, :, :12] = 140
    found = augmented(batch=batch, contrast_frac=0.5)
    assert torch.allclose(found.mean(dim=(1, 2, 3)), torch.tensor(120 / 255), atol=1e-5)
    spread = (found.amax(dim=(1, 2, 3)) - found.amin(dim=(1, 2, 3))) / (40 / 255)
    assert 0.5 <= float(spread.min()) < 0.53
    assert 1.47 < float(spread.max()) <= 1.5 + 1e-4


def test_light_stays_in_range() -> None:
    found = augmented(brightness_frac=1.0, contrast_frac=1.0)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@pytest.mark.parametrize("largest", [0.1, 0.5])
def test_erasing_covers_one_rectangle_of_at_most_its_share(largest: float) -> None:
    batch = torch.full((400, 24, 24), 255, dtype=torch.uint8)
    changed = augmented(batch=batch, erase_p=1.0, erase_frac=largest)[:, 0] != 1.0
    share = changed.float().mean(dim=(1, 2))
    # A row or column counts as soon as its line lies inside: one more each way.
    assert float(share.max()) < largest + 2 / 24 * 2
    assert float(share.max()) > largest * 0.8
    assert (share > 0).float().mean() > 0.99
    for mask in changed[:50]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns[None, :]), "it is a full rectangle"


def test_erasing_reaches_about_its_share_of_the_images() -> None:
    batch = torch.full((1000, 24, 24), 255, dtype=torch.uint8)
    erased = (augmented(batch=batch, erase_p=0.3) != 1.0).any(dim=(1, 2, 3))
    assert float(erased.float().mean()) == pytest.approx(0.3, abs=0.05)


def test_the_generator_alone_decides() -> None:
    strong = {"rotate_deg": 20.0, "flip_p": 0.5, "erase_p": 0.5, "brightness_frac": 0.2}
    torch.manual_seed(1)
    one = augmented(20, seed=5, **strong)
    torch.manual_seed(2)
    assert torch.equal(augmented(20, seed=5, **strong), one)
    assert not torch.equal(augmented(20, seed=6, **strong), one)


def test_images_of_a_batch_are_changed_differently() -> None:
    batch = images()[:1].repeat(8, 1, 1)
    found = augmented(20, batch=batch, rotate_deg=20.0, brightness_frac=0.2)
    assert len({image.numpy().tobytes() for image in found}) == 8
