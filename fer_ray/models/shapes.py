"""Networks of shapes alone: built, and run forward, without memory and without torch's compiler.

On torch's `meta` device a tensor has a shape and no values. But torch 2.13 imports its compiler
and SymPy for the shape of a convolution or a ReLU there, and to fill a `meta` tensor at random:
three of the five seconds of `fer-ray predict`. What our networks consist of is answered here. A
ResNet (by torchvision), OpenVINO's conversion and every optimizer import the compiler all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """Build modules within it: their weights have no memory, and nothing fills them."""
    with torch.device("meta"), ShapesOnly():
        yield


class ShapesOnly(TorchFunctionMode):
    """Answers operators on `meta` tensors; unknown ones, and real tensors, are torch's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SHAPE_AFTER and args[0].is_meta:
            return args[0].new_empty(_SHAPE_AFTER[func](*args, **kwargs))
        return func(*args, **kwargs)


Pair = int | tuple[int, int]


def _same(x: Tensor, *rest: Any, **options: Any) -> torch.Size:
    return x.shape


def _sum(x: Tensor, y: Tensor) -> torch.Size:
    if x.shape != y.shape:
        raise RuntimeError(f"{tuple(x.shape)} and {tuple(y.shape)} cannot be added")
    return x.shape


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> tuple[int, ...]:
    if x.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(f"{x.shape[1]} channels, but weights for {weight.shape[1] * groups}")
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    return (x.shape[0], weight.shape[0], *_windows(x, kernel, stride, padding, dilation))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[int, ...]:
    if x.shape[-1] != weight.shape[1]:
        raise RuntimeError(f"{x.shape[-1]} features, but weights for {weight.shape[1]}")
    return (*x.shape[:-1], weight.shape[0])


def _max_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[int, ...]:
    assert not ceil_mode
    assert not return_indices
    stride = kernel_size if stride is None else stride
    return (*x.shape[:2], *_windows(x, kernel_size, stride, padding, dilation))


def _adaptive_avg_pool2d(x: Tensor, output_size: Pair) -> tuple[int, ...]:
    return (*x.shape[:2], *_pair(output_size))


def _windows(x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> list[int]:
    """Places of a sliding window along height and width of [N, C, H, W].

    Raises:
        RuntimeError: the image is smaller than the window.
    """
    steps = zip(_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), strict=True)
    sides = [
        (side + 2 * edge - gap * (width - 1) - 1) // step + 1
        for side, (width, step, edge, gap) in zip(x.shape[2:], steps, strict=True)
    ]
    if min(sides) < 1:
        raise RuntimeError(f"{tuple(x.shape[2:])} pixels are fewer than the window {kernel}")
    return sides


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


_SHAPE_AFTER: dict[Callable[..., Any], Callable[..., tuple[int, ...]]] = {
    Tensor.normal_: _same,
    Tensor.add: _sum,
    Tensor.__iadd__: _sum,
    torch.relu_: _same,
    F.relu: _same,
    F.batch_norm: _same,
    F.dropout: _same,
    F.dropout2d: _same,
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.max_pool2d: _max_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
}
