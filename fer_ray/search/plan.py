"""`fer-ray plan`: what a search will do and cost, before anything is spent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_ray.config.advice import advice
from fer_ray.config.duration import parse_duration_s
from fer_ray.config.schema import Config
from fer_ray.config.space import SearchSpace
from fer_ray.errors import FerRayError
from fer_ray.search.asha import rungs_of
from fer_ray.search.corners import NUM_DRAWS, Sized, corner_of, draws_of
from fer_ray.search.planning import (
    DiskPlan,
    Expectation,
    TimePlan,
    disk_plan,
    epoch_seconds,
    expectation,
    time_plan,
)
from fer_ray.search.points import num_trials
from fer_ray.search.probe import Probe
from fer_ray.search.watching import clock

NUM_SHOWN = 5


@dataclass(frozen=True)
class Corner:
    """The cheapest or the dearest configuration, and what its probe found."""

    name: str
    sized: Sized
    probe: Probe | None


@dataclass(frozen=True)
class Plan:
    """What a search will do and cost.

    Attributes:
        slots: trials at once, and where the number comes from.
        corners: the cheapest and the dearest that may be trained.
        time: None where a probe failed or none was made.
        gpu_hours: None without a GPU a trial.
        rejected: of `NUM_DRAWS` random draws, how many would never be trained.
    """

    name: str
    trials: int
    epochs: int
    slots: int
    slots_from: str
    expected: Expectation
    corners: tuple[Corner, ...]
    time: TimePlan | None
    gpu_hours: float | None
    disk: DiskPlan
    free_bytes: int
    rejected: int
    samples: tuple[Sized, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        document = asdict(self)
        document["disk"]["total"] = self.disk.total
        return document

    def lines(self) -> list[str]:
        """For a terminal."""
        expected = self.expected
        lines = [f"{self.name}: {self.trials} trials of up to {self.epochs} epochs"]
        lines.append(f"slots: {self.slots} ({self.slots_from})")
        if expected.rungs:
            lines.append("  rung  arrive  go on   (expected)")
            for rung in expected.rungs:
                lines.append(f"  {rung.rung:>4}  {rung.arrive:>6.1f}  {rung.go_on:>5.1f}")
        lines.append(
            f"expected: {expected.complete:.1f} complete trials, {expected.epochs:.0f} epochs of "
            f"{expected.full_epochs} without stopping "
            f"({100 * expected.epochs / expected.full_epochs:.0f} %)"
        )
        for corner in self.corners:
            lines += _corner_lines(corner)
        lines += self._time_lines()
        need, free = self.disk.total / 1e6, self.free_bytes / 1e6
        lines.append(
            f"disk: up to {need:,.0f} MB (bundles {self.disk.bundles / 1e6:,.0f}, checkpoints "
            f"{self.disk.checkpoints / 1e6:,.0f}) of {free:,.0f} MB free"
        )
        lines.append(f"{len(self.samples)} sampled configurations:")
        lines += [f"  {sized.text()}" for sized in self.samples]
        lines += [f"warning: {text}" for text in self.warnings]
        return lines

    def _time_lines(self) -> list[str]:
        if self.time is None:
            return ["time: not known, for want of both probes"]
        time = self.time
        line = (
            f"time: about {clock(time.expected_s)} ({clock(time.low_s)} if all were the cheapest, "
            f"{clock(time.high_s)} the dearest), {time.slot_hours:.1f} slot-hours"
        )
        if self.gpu_hours is not None:
            line += f", {self.gpu_hours:.1f} GPU-hours"
        alone = "  from probes that ran alone: side by side, trials share memory and take longer"
        return [line, alone]


def _corner_lines(corner: Corner) -> list[str]:
    lines = [f"{corner.name}: {corner.sized.text()}"]
    found = corner.probe
    if found is None:
        return lines
    if found.epoch_s is None:
        return [*lines, f"  probe failed: {found.error}"]
    text = (
        f"  probe on {found.device}: {found.epoch_s:.2f} s an epoch ({found.low_s:.2f} to "
        f"{found.high_s:.2f}), {found.images_per_s:,.0f} images/s, "
        f"{found.peak_bytes / 1e6:,.0f} MB"
    )
    return [*lines, text]


def make_plan(
    space: SearchSpace,
    out: Path,
    *,
    slots: int | None,
    probe: Callable[[Config, int], Probe] | None,
) -> Plan:
    """Plan a search.

    Args:
        space: checked.
        out: where the run would be; its disk counts.
        slots: trials at once; what this machine offers where it is None.
        probe: measures a configuration with so many threads; None to leave time unknown.

    Raises:
        FerRayError: no configuration of this space may be trained.
    """
    base = space.base
    count, source = (slots, "as given") if slots is not None else _slots_here(base)
    draws = draws_of(space)
    allowed = [sized for sized in draws if sized.why_not is None]
    if not allowed:
        raise FerRayError(
            f"none of {NUM_DRAWS} random configurations may be trained: {draws[0].why_not}",
            "Widen `limits` or `forbid`, or narrow the ranges that break them.",
        )
    corners = tuple(
        Corner(name, sized, _probed(space, sized, probe))
        for name, sized in (
            ("cheapest", corner_of(space, allowed, -1)),
            ("dearest", corner_of(space, allowed, 1)),
        )
    )
    trials = num_trials(space)
    expected = _expectation(base, trials)
    time = _time(base, expected, corners, allowed, count)
    dearest = max(sized.num_params for sized in [*allowed, *(c.sized for c in corners)])
    disk = disk_plan(
        dearest,
        trials=trials,
        epochs=expected.epochs,
        slots=count,
        keep=base.keep.top,
    )
    free = shutil.disk_usage(_existing(out)).free
    gpus = _gpus_a_trial(base)
    return Plan(
        name=base.name,
        trials=trials,
        epochs=base.train.epochs,
        slots=count,
        slots_from=source,
        expected=expected,
        corners=corners,
        time=time,
        gpu_hours=time.slot_hours * gpus if time is not None and gpus else None,
        disk=disk,
        free_bytes=free,
        rejected=len(draws) - len(allowed),
        samples=tuple(draws[1 : NUM_SHOWN + 1]),
        warnings=tuple(_warnings(space, count, corners, time, disk, free, draws, expected)),
    )


def _expectation(base: Config, trials: int) -> Expectation:
    rungs: tuple[int, ...] = ()
    reduction = 2
    if base.scheduler != "none":
        reduction = base.scheduler.asha.reduction
        rungs = rungs_of(base.scheduler.asha.grace_epochs, reduction, base.train.epochs)
    return expectation(trials, rungs, reduction, base.train.epochs)


def _time(
    base: Config,
    expected: Expectation,
    corners: tuple[Corner, ...],
    allowed: list[Sized],
    slots: int,
) -> TimePlan | None:
    measured = []
    for corner in corners:
        if corner.probe is None or corner.probe.epoch_s is None:
            return None
        measured.append((float(corner.sized.macs), corner.probe.epoch_s))
    cheap, dear = measured
    mean = sum(epoch_seconds(s.macs, cheap, dear) for s in allowed) / len(allowed)
    low, high = min(cheap[1], dear[1]), max(cheap[1], dear[1])
    return time_plan(
        expected.epochs,
        expected.trials,
        slots,
        epoch_s=(low, mean, high),
        overhead_s=max(corner.probe.setup_s for corner in corners if corner.probe),
        last_epochs=base.train.epochs,
    )


def _slots_here(base: Config) -> tuple[int, str]:
    """Trials at once on this machine alone."""
    wanted = base.resources
    cpus, gpus = os.cpu_count() or 1, _gpus_here()
    cpu = 1.0 if wanted.per_trial.cpu == "auto" else wanted.per_trial.cpu
    gpu = _gpus_a_trial(base)
    workers = wanted.per_trial.workers
    slots = int(cpus / (cpu * workers) + 1e-9)
    if gpu:
        slots = min(slots, int(gpus / gpu + 1e-9))
    source = f"this machine: {cpus} CPUs, {gpus} GPUs; --slots N plans for a cluster"
    if wanted.max_concurrent != "auto":
        slots = min(slots, wanted.max_concurrent)
    return max(1, slots), source


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _gpus_a_trial(base: Config) -> float:
    per_trial = base.resources.per_trial
    if per_trial.gpu != "auto":
        return per_trial.gpu * per_trial.workers
    return float(per_trial.workers) if _gpus_here() else 0.0


def _probed(
    space: SearchSpace, sized: Sized, probe: Callable[[Config, int], Probe] | None
) -> Probe | None:
    if probe is None:
        return None
    cpu = space.base.resources.per_trial.cpu
    return probe(space.resolve(sized.params), 1 if cpu == "auto" else max(1, int(cpu)))


def _existing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


# --- warnings -------------------------------------------------------------------------------------


def _warnings(
    space: SearchSpace,
    slots: int,
    corners: tuple[Corner, ...],
    time: TimePlan | None,
    disk: DiskPlan,
    free: int,
    draws: list[Sized],
    expected: Expectation,
) -> list[str]:
    warnings = advice(space, slots)
    rejected = [sized for sized in draws if sized.why_not is not None]
    if len(rejected) > len(draws) // 2:
        warnings.append(
            f"{len(rejected)} of {len(draws)} random configurations would never be trained, such "
            f"as one {rejected[0].why_not}: the sampler wastes its asks; narrow the ranges"
        )
    for corner in corners:
        if corner.probe is not None and corner.probe.error is not None:
            warnings.append(f"the {corner.name} configuration fails: {corner.probe.error}")
    warnings += _memory_warnings(slots, corners)
    budget = space.base.stop.time_budget
    if budget is not None and time is not None:
        budget_s = parse_duration_s(budget)
        if time.expected_s > 1.2 * budget_s:
            reach = round(expected.trials * budget_s / time.expected_s)
            warnings.append(
                f"stop.time_budget {budget} is spent before the trials are: about {reach} of "
                f"{expected.trials} trials fit"
            )
    if disk.total > 0.9 * free:
        warnings.append(
            f"the run may need {disk.total / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free: lower "
            "keep.top, or choose another --out"
        )
    return warnings


def _memory_warnings(slots: int, corners: tuple[Corner, ...]) -> list[str]:
    probes = [c.probe for c in corners if c.probe is not None and c.probe.device == "cpu"]
    peak = max((probe.peak_bytes for probe in probes), default=0)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if peak * slots <= 0.9 * memory:
        return []
    text = (
        f"{slots} of the dearest at once take up to {peak * slots / 1e9:.1f} GB of this machine's "
        f"{memory / 1e9:.1f} GB: lower resources.max_concurrent"
    )
    return [text]
