"""The loop both halves are trained by: steps from a seed, a curve on disk, checkpoints to resume from."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

#: Step number -> losses of that step, the first of which is minimised.
StepLoss = Callable[[int], Mapping[str, Tensor]]
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast.

    Args:
        steps: in all.
        rate: highest learning rate, reached after `warm_up` steps, then down a half cosine to a fiftieth of it.
        decay: weight decay of matrices.
        evaluate_every, save_every: steps between.
    """

    steps: int
    rate: float
    warm_up: int = 100
    decay: float = 0.02
    evaluate_every: int = 200
    save_every: int = 200

    def rate_at(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def train(
    module: nn.Module,
    loss_of: StepLoss,
    schedule: Schedule,
    folder: Path,
    *,
    evaluate: Callable[[], Mapping[str, float]],
    note: Note,
) -> None:
    """Train in place, or go on from `folder`'s checkpoint; what a finished folder holds is loaded.

    Every evaluation is a line of `curve.jsonl`: {"step", "seconds", "loss", ...}.

    Args:
        module: every parameter that requires a gradient is trained.
        loss_of: the losses of one step, a function of its number alone.
        evaluate: measures the module as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(_groups(module, schedule.decay), lr=schedule.rate, betas=(0.9, 0.98))
    first, seconds = _load(folder / "state.pt", module, optimizer)
    started, running = perf_counter() - seconds, dict[str, float]()
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        losses = loss_of(step)
        next(iter(losses.values())).backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in losses.items():
            now = float(value.detach())
            running[name] = 0.95 * running.get(name, now) + 0.05 * now
        done = step + 1
        if done % schedule.evaluate_every == 0 or done == schedule.steps:
            line = {"step": done, "seconds": round(perf_counter() - started, 1), **running, **evaluate()}
            _append(folder / "curve.jsonl", line)
            note(_told(line, schedule.steps))
        if done % schedule.save_every == 0 or done == schedule.steps:
            _save(folder / "state.pt", module, optimizer, done, perf_counter() - started)


def _groups(module: nn.Module, decay: float) -> list[dict[str, object]]:
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    others = [parameter for parameter in trained if parameter.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _load(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["seconds"])


def _save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int, seconds: float) -> None:
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def _append(path: Path, line: Mapping[str, object]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _told(line: Mapping[str, float], steps: int) -> str:
    left_s = line["seconds"] / line["step"] * (steps - line["step"])
    rest = "  ".join(f"{name} {value:.3f}" for name, value in line.items() if name not in ("step", "seconds"))
    return f"step {line['step']:.0f} of {steps}, {line['seconds']:.0f} s, {left_s:.0f} s left  {rest}"
