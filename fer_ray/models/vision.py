"""The only door to torchvision.

Its wheel from the usual index is built against CUDA. Beside a CPU-only torch its C++ extension
cannot load, and the import dies because the operators it registers are missing ("operator
torchvision::nms does not exist"). Declaring their schemas first lets the Python part, which is
all that fer-ray uses, import. Nothing is declared where the extension loads.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[torch.library.Library] = []


def models() -> Any:
    """`torchvision.models`, whatever build of torchvision stands beside whatever torch."""
    if not _declared and not _extension_loads():
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for schema in _SCHEMAS.values():
            library.define(schema)  # type: ignore[no-untyped-call]
        _declared.append(library)  # a library that is collected takes its schemas along
    import torchvision.models

    return torchvision.models


def _extension_loads() -> bool:
    """Whether torchvision's own C++ library registers its operators here."""
    if hasattr(torch.ops.torchvision, "nms"):
        return True
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # let the import say what is wrong
    folder = Path(spec.origin).parent
    for library in sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return True
    return False
