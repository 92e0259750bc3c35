"""The JSON documents of a bundle: every field, its type and its rule.

What decides an answer is closed: an unknown key is refused, and where Hugging Face's or timm's
field says the same as ours, the two must agree. `metrics.json` and `lineage.json` are open.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from fer_ray.bundle import limits
from fer_ray.config.sections.model import ModelConfig
from fer_ray.errors import BundleError
from fer_ray.images.preprocess import Recipe

T = TypeVar("T")


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("a name is printable and has no space around it")
    return text


Name = Annotated[
    str, Field(min_length=1, max_length=limits.MAX_NAME_CHARS), AfterValidator(_printable)
]


class Document(BaseModel):
    """Frozen; unknown keys, other types and NaN are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


class NetworkDocument(Document):
    """Ours, in `config.json`."""

    name: Name
    model: dict[str, Any]


class ConfigDocument(Document):
    """`config.json`. Fields without a default stand in every bundle of format 1."""

    model_type: Literal["fer_ray"]
    architecture: Literal["cnn", "resnet", "ensemble"]
    num_classes: int
    label_names: Annotated[list[Name], Field(min_length=2, max_length=limits.MAX_CLASSES)]
    id2label: dict[str, str]
    label2id: dict[str, int]
    input_size: list[int]
    fer_ray: NetworkDocument
    image_size: int | None = None
    num_channels: int | None = None
    problem_type: Literal["single_label_classification"] | None = None
    pretrained_cfg: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ConfigDocument:
        names = self.label_names
        if len(set(names)) != len(names):
            raise ValueError("label_names holds a name twice")
        said = (self.num_classes, self.id2label, self.label2id)
        wanted = (
            len(names),
            {str(index): name for index, name in enumerate(names)},
            {name: index for index, name in enumerate(names)},
        )
        if said != wanted:
            raise ValueError("num_classes, id2label and label2id must agree with label_names")
        if list(self.fer_ray.model) != [self.architecture]:
            raise ValueError("fer_ray.model must have one branch, the architecture's")
        return self


def read_config(document: dict[str, Any], place: str) -> ConfigDocument:
    """Check `config.json`.

    Raises:
        BundleError: the first field that breaks its rule.
    """
    try:
        return ConfigDocument.model_validate(document)
    except ValidationError as error:
        raise BundleError(f"{place}: {first_fault(error)}") from error


def read_model(config: ConfigDocument, place: str) -> ModelConfig:
    """The network of a `config.json` that is no ensemble's.

    Raises:
        BundleError: it breaks a rule of the schema, or a limit.
    """
    try:
        model = ModelConfig.model_validate(config.fer_ray.model)
    except ValidationError as error:
        raise BundleError(f"{place}: fer_ray.model.{first_fault(error)}") from error
    num_layers = len(model.family.head)
    if num_layers > limits.MAX_HEAD_LAYERS:
        raise BundleError(
            f"{place}: the head has {num_layers} layers; at most {limits.MAX_HEAD_LAYERS} are built"
        )
    return model


def first_fault(error: ValidationError) -> str:
    """`field: rule, but got value` of pydantic's first complaint, in one short line."""
    fault = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part)[:40] for part in fault["loc"][:6])
    text = fault["msg"].removeprefix("Value error, ")
    given = repr(fault["input"])[:60] if not isinstance(fault["input"], dict | list) else ""
    return f"{where}: {text}"[:300] + (f", but got {given}" if given else "")


def read_fields(cls: type[T], document: object, place: str) -> T:
    """A dataclass of ours from JSON: exactly its fields, each of its type.

    Raises:
        BundleError: a field is missing, unknown, of another type or not finite.
    """
    if not isinstance(document, dict):
        raise BundleError(f"{place} must be a JSON object")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    needed = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    if wrong := sorted((needed - set(document)) | (set(document) - set(fields))):
        raise BundleError(f"{place}: {wrong[0][:80]!r} is missing or unknown")
    types = get_type_hints(cls)
    for name, value in document.items():
        adapter = TypeAdapter(types[name], config=ConfigDict(strict=True, allow_inf_nan=False))
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            raise BundleError(f"{place}: {name}{first_fault(error)}") from error
    return cls(**document)


def read_recipe(document: dict[str, Any], place: str) -> Recipe:
    """Check `preprocessor_config.json`: ours under `fer_ray`, the rest repeats it.

    Raises:
        BundleError: a rule is broken, or the two do not agree.
    """
    recipe = read_fields(Recipe, document.get("fer_ray"), f"{place}: fer_ray")
    sides = (recipe.source_px, recipe.image_size_px, recipe.crop_px)
    if not all(1 <= side <= limits.MAX_SIDE_PX for side in sides):
        raise BundleError(f"{place}: image sides {sides} must lie in 1..{limits.MAX_SIDE_PX}")
    if recipe.crop_px > recipe.image_size_px:
        raise BundleError(
            f"{place}: crop_px {recipe.crop_px} exceeds image_size_px {recipe.image_size_px}"
        )
    if recipe.channels not in (1, 3):
        raise BundleError(f"{place}: channels must be 1 or 3, but got {recipe.channels}")
    if recipe.equalize not in ("none", "histogram", "clahe"):
        raise BundleError(f"{place}: equalize {recipe.equalize[:40]!r} is unknown")
    if not (0 <= recipe.mean <= 1 and 1e-6 <= recipe.std <= 1):
        raise BundleError(
            f"{place}: mean must lie in 0..1 and std in 1e-6..1, "
            f"but got {recipe.mean:g} and {recipe.std:g}"
        )
    expected = preprocessor_document(recipe)
    for key, value in document.items():
        if key not in expected:
            raise BundleError(f"{place} has the unknown key {key[:80]!r}")
        if value != expected[key]:
            raise BundleError(f"{place}: {key} does not agree with fer_ray")
    return recipe


def preprocessor_document(recipe: Recipe) -> dict[str, Any]:
    """`preprocessor_config.json`: Hugging Face's names, ours under `fer_ray`."""
    size, crop = recipe.image_size_px, recipe.crop_px
    return {
        "do_convert_grayscale": True,
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": 2,  # PIL's and Hugging Face's number of bilinear
        "do_center_crop": True,
        "crop_size": {"height": crop, "width": crop},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [recipe.mean] * recipe.channels,
        "image_std": [recipe.std] * recipe.channels,
        "fer_ray": recipe.as_dict(),
    }


def timm_document(recipe: Recipe, num_classes: int) -> dict[str, Any]:
    """`pretrained_cfg` of `config.json`, in timm's words."""
    crop = recipe.crop_px
    return {
        "input_size": [recipe.channels, crop, crop],
        "fixed_input_size": True,
        "interpolation": "bilinear",
        "crop_pct": crop / recipe.image_size_px,
        "crop_mode": "center",
        "mean": [recipe.mean] * recipe.channels,
        "std": [recipe.std] * recipe.channels,
        "num_classes": num_classes,
    }


def check_agreement(config: ConfigDocument, recipe: Recipe, place: str) -> None:
    """What `config.json` says of the input must be what the preprocessing gives.

    Raises:
        BundleError: it is not.
    """
    crop = recipe.crop_px
    said: dict[str, tuple[Any, Any]] = {
        "input_size": (config.input_size, [recipe.channels, crop, crop]),
        "image_size": (config.image_size, crop),
        "num_channels": (config.num_channels, recipe.channels),
        "pretrained_cfg": (config.pretrained_cfg, timm_document(recipe, config.num_classes)),
    }
    for field, (given, expected) in said.items():
        if given is not None and given != expected:
            raise BundleError(f"{place}: {field} does not agree with the preprocessing")


class _Validation(BaseModel):
    accuracy: Annotated[float, Field(ge=0, le=1)]
    count: Annotated[int, Field(ge=1)]


class Metrics(BaseModel):
    """What is read of `metrics.json`; the rest is free."""

    validation: _Validation | None = None
    params: Annotated[int, Field(ge=0)] = 0
    macs: Annotated[int, Field(ge=0)] = 0


class _LineageData(BaseModel):
    classes: str | dict[str, str | None]


class _LineageConfig(BaseModel):
    data: _LineageData


class _LineageSet(BaseModel):
    name: str
    fingerprint: str


class Lineage(BaseModel):
    """What is read of `lineage.json`; the rest is free."""

    config: _LineageConfig
    data: _LineageSet


def check_open(kind: type[BaseModel], document: dict[str, Any], place: str) -> None:
    """Check the few fields of an open document that are read.

    Raises:
        BundleError: one is of another type.
    """
    try:
        kind.model_validate(document, strict=True)
    except ValidationError as error:
        raise BundleError(f"{place}: {first_fault(error)}") from error
