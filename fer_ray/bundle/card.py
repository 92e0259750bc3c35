"""The model card: a bundle's README, with Hugging Face's front matter."""

from __future__ import annotations

from typing import Any

from fer_ray.bundle.contents import Contents

_CARD = """\
---
library_name: fer-ray
pipeline_tag: image-classification
tags: [facial-expression-recognition]
model-index:
- name: {name}
  results:
  - task: {{type: image-classification}}
    dataset: {{name: {data_name}, type: {data_name}, split: validation}}
    metrics:
    - {{type: accuracy, value: {accuracy:.4f}}}
    - {{type: f1, name: macro F1, value: {macro_f1:.4f}}}
---

# {name}

Classifies a grey {source_px}x{source_px} face crop into {num_classes} facial expressions:
{class_list}.

{synthetic}Trained by fer-ray {version} on `{data_name}` (fingerprint `{fingerprint}`).
{params:,} parameters, {macs:,} multiply-adds an image.

## Results on the validation split

Accuracy **{accuracy_pct:.1f} %** (95 % interval {low:.1f} to {high:.1f}, {count:,} images),
macro F1 {macro_f1:.3f}, balanced accuracy {balanced:.3f}; always answering the commonest class
gives {majority:.1f} %. The epoch was chosen on this split, so the figure leans to the good side.
Expected calibration error {ece:.3f} at temperature {temperature:.2f}. Answers with a score below
{threshold:.2f} are marked uncertain; {coverage:.0f} % are not.

| expression | images | precision | recall | F1 |
|---|---|---|---|---|
{rows}

## Limits

- A facial expression is what a face shows, not what a person feels.
- FER2013's labels are noisy: people agree with them on about 65 % of the images.
- The data name no age, sex or skin colour: how the errors fall on groups of people is unknown.
- Meant for study and for sorting images of consenting people, not for decisions about a person.
  Laws restrict emotion recognition, at work and in schools above all: ask a lawyer.
"""


def model_card(contents: Contents) -> str:
    """Write the card from what the bundle says."""
    validation: dict[str, Any] = contents.metrics["validation"]
    lineage = contents.lineage
    synthetic = lineage["data"]["fingerprint"] == "sample"
    rows = "\n".join(
        f"| {row['label']} | {row['count']:,} | {row['precision']:.3f} | {row['recall']:.3f} "
        f"| {row['f1']:.3f} |"
        for row in validation["classes"]
    )
    return _CARD.format(
        name=contents.name,
        data_name=lineage["data"]["name"],
        accuracy=validation["accuracy"],
        accuracy_pct=100 * validation["accuracy"],
        macro_f1=validation["macro_f1"],
        balanced=validation["balanced_accuracy"],
        majority=100 * validation["majority_accuracy"],
        low=100 * validation["accuracy_interval"][0],
        high=100 * validation["accuracy_interval"][1],
        count=validation["count"],
        source_px=contents.recipe.source_px,
        num_classes=len(contents.class_names),
        class_list=", ".join(contents.class_names),
        synthetic="**The faces it was trained on are synthetic drawings.** " if synthetic else "",
        version=lineage["versions"]["fer_ray"],
        fingerprint=lineage["data"]["fingerprint"][:16],
        params=contents.metrics["params"],
        macs=contents.metrics["macs"],
        ece=validation["ece"],
        temperature=contents.calibration.temperature,
        threshold=contents.calibration.threshold,
        coverage=100 * contents.calibration.coverage,
        rows=rows,
    )
