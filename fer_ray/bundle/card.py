"""The model card: a bundle's README, with Hugging Face's front matter.

Fields: https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Sections follow Mitchell et
al. 2018, "Model Cards for Model Reporting", arXiv 1810.03993.
"""

from __future__ import annotations

from typing import Any

from fer_ray.bundle.contents import Contents
from fer_ray.bundle.markdown import escaped, quoted
from fer_ray.errors import BundleError
from fer_ray.metrics import wilson_interval


def model_card(contents: Contents) -> str:
    """Write the card from what the bundle says.

    Raises:
        BundleError: its `metrics.json` or `lineage.json`, which are open, lack what the card says.
    """
    try:
        return _card(contents)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"no model card can be written from the metrics and lineage of {contents.name}: "
            f"{type(error).__name__}: {str(error)[:100]}"
        ) from error


def _card(contents: Contents) -> str:
    validation = contents.metrics.get("validation")
    parts = [
        _front_matter(contents, validation),
        f"# {escaped(contents.name)}",
        _what_it_is(contents),
        _results(validation) if validation else _NO_RESULTS,
        _calibration(contents, validation),
        _data(contents.lineage),
        _USE,
        _limits(contents.lineage),
        _LICENSE,
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _front_matter(contents: Contents, validation: dict[str, Any] | None) -> str:
    lines = [
        "---",
        "license: other",
        "license_name: fer-ray-weights",
        "license_link: LICENSE-weights",
        "library_name: fer-ray",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- facial-expression-recognition",
        "metrics:",
        "- accuracy",
        "- f1",
    ]
    if validation:
        data_name = quoted(contents.lineage["data"]["name"])
        figures = (
            ("accuracy", "accuracy", "accuracy"),
            ("f1", "macro F1", "macro_f1"),
            ("accuracy", "balanced accuracy", "balanced_accuracy"),
        )
        lines += [
            "model-index:",
            f"- name: {quoted(contents.name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "      name: Facial expression recognition",
            "    dataset:",
            f"      name: {data_name}",
            f"      type: {data_name}",
            "      split: validation",
            "    metrics:",
        ]
        for kind, name, key in figures:
            lines += [
                f"    - type: {kind}",
                f"      name: {name}",
                f"      value: {validation[key]:.4f}",
            ]
    return "\n".join([*lines, "---"])


_SYNTHETIC = (
    "**The faces it was trained on are synthetic drawings: it knows nothing of real ones.**"
)


def _what_it_is(contents: Contents) -> str:
    recipe, names = contents.recipe, contents.class_names
    kind = contents.model.branch if contents.model is not None else None
    form = {
        "cnn": "A convolutional network",
        "resnet": "A residual network",
        None: "An ensemble of networks, whose probabilities are averaged,",
    }[kind]
    text = (
        f"{form} that sorts a grey {recipe.source_px}x{recipe.source_px} face crop into "
        f"{len(names)} facial expressions: {', '.join(escaped(name) for name in names)}.\n\n"
        f"It has {contents.metrics['params']:,} parameters and makes "
        f"{contents.metrics['macs']:,} multiply-adds an image. "
        f"Made by fer-ray {escaped(str(contents.lineage['versions']['fer_ray']))}."
    )
    if contents.lineage["data"]["fingerprint"] == "sample":
        text = f"{_SYNTHETIC}\n\n{text}"
    if members := contents.lineage.get("members"):
        text += "\n\n| member | bundle | validation accuracy |\n|---|---|---|\n"
        text += "\n".join(_member_row(member) for member in members)
    return text


def _member_row(member: dict[str, Any]) -> str:
    accuracy = member.get("accuracy")
    shown = "-" if accuracy is None else f"{100 * accuracy:.1f} %"
    return (
        f"| {escaped(str(member['name']))} | {escaped(str(member['bundle_id'])[:12])} | {shown} |"
    )


_NO_RESULTS = """\
## Results

None were measured when this bundle was made: `fer-ray evaluate` does.
"""


def _results(validation: dict[str, Any]) -> str:
    low, high = validation["accuracy_interval"]
    rows = "\n".join(_class_row(row) for row in validation["classes"])
    return f"""\
## Results on the validation split

| figure | value |
|---|---|
| accuracy | **{100 * validation["accuracy"]:.1f} %** |
| its 95 % interval (Wilson) | {100 * low:.1f} to {100 * high:.1f} % |
| images | {validation["correct"]:,} right of {validation["count"]:,} |
| always the commonest class | {100 * validation["majority_accuracy"]:.1f} % |
| right class among the best two | {100 * validation["top2_accuracy"]:.1f} % |
| macro F1 | {validation["macro_f1"]:.3f} |
| balanced accuracy | {validation["balanced_accuracy"]:.3f} |
| log loss | {validation["log_loss"]:.3f} nats |
| Brier score | {validation["brier"]:.3f} |

Epoch and configuration were chosen on this split, so the figures lean to the good side. A test
split that nobody has looked at says more: `fer-ray evaluate --split test`.

| expression | images | precision | recall | 95 % of recall | F1 |
|---|---|---|---|---|---|
{rows}
"""


def _class_row(row: dict[str, Any]) -> str:
    low, high = wilson_interval(round(row["recall"] * row["count"]), row["count"])
    return (
        f"| {escaped(str(row['label']))} | {row['count']:,} | {row['precision']:.3f} | "
        f"{row['recall']:.3f} | {low:.3f} to {high:.3f} | {row['f1']:.3f} |"
    )


def _calibration(contents: Contents, validation: dict[str, Any] | None) -> str:
    calibration = contents.calibration
    lines = [
        "## Calibration",
        "",
        f"Probabilities are softmax(logits / {calibration.temperature:.3g}).",
    ]
    if validation:
        lines.append(
            f"Expected calibration error on validation: {validation['ece']:.3f} "
            f"({validation['ece_before_temperature']:.3f} at temperature 1)."
        )
    precision = f"{100 * calibration.target_precision:.0f} %"
    if calibration.threshold <= 0:
        lines.append("No threshold was fitted: no answer is marked uncertain.")
    elif calibration.coverage <= 0:
        lines.append(
            f"No threshold makes {precision} of the answers above it right: nearly every answer is "
            "marked uncertain."
        )
    else:
        lines.append(
            f"Answers with a score below {calibration.threshold:.3f} are marked uncertain, so that "
            f"{precision} of the others are right; on validation these are "
            f"{100 * calibration.coverage:.0f} % of the images."
        )
    return "\n".join(lines)


def _data(lineage: dict[str, Any]) -> str:
    data = lineage["data"]
    prints = data.get("fingerprints") or [data["fingerprint"]]
    shown = ", ".join(escaped(str(value)[:16]) for value in prints)
    images = f", {data['images']:,} training images" if type(data.get("images")) is int else ""
    return (
        "## Data\n\n"
        f"{escaped(data['name'])}{images}; fingerprint {shown}.\n"
        "`lineage.json` holds the whole configuration, the seed and the versions that made it."
    )


_USE = """\
## Intended use

Study, and sorting images of faces whose owners know of it and agree, where a wrong answer does no
harm and a person looks at what matters.

Not intended: decisions about a person; judging feelings, character, honesty, health or attention;
people who do not know of it; faces unlike those it was trained on. Laws restrict systems that infer
emotions, at work and in education above all: read fer-ray's `docs/responsible-use.md` and ask a
lawyer.

```
fer-ray predict face.jpg --bundle DIRECTORY
fer-ray evaluate DIRECTORY --data YOUR_DATA
```
"""

_LICENSE = """\
## Licence

See `LICENSE-weights`: the rights in the training images are not fer-ray's to give.
"""


def _limits(lineage: dict[str, Any]) -> str:
    if str(lineage["data"]["name"]).casefold().startswith("fer2013"):
        noise = (
            "- FER2013's labels are noisy: people agree with them on about 65 % of the images\n"
            "  (Goodfellow et al. 2013, arXiv 1307.0414). Answers are guesses at those labels.\n"
            "- FER2013 names no age, sex, skin colour or origin of the people it shows: how the\n"
            "  errors fall on groups of people is unknown, and cannot be measured with it."
        )
    else:
        noise = (
            "- Labels of expressions are opinions: people disagree about many faces, and the "
            "network\n  learns the opinions of those who labelled its data.\n"
            "- How its errors fall on groups of people is unknown unless someone measured it."
        )
    return (
        "## Limits\n\n"
        "- An expression is what a face shows, not what a person feels. People smile without joy\n"
        "  and are angry without a scowl; how faces move differs between people, situations and\n"
        "  cultures (Barrett et al. 2019, doi 10.1177/1529100619832930).\n"
        f"{noise}\n"
        "- It answers for every image, also for one without a face, and its probabilities hold "
        "for\n  images like those of its validation split only."
    )
