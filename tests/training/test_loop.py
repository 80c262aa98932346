"""Training that is interrupted ends as training that is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cacheflow_ray.training.loop import Schedule, train

SCHEDULE = Schedule(steps=12, rate=0.3, warm_up=2, evaluate_every=4, save_every=4)


class Cut(Exception):
    pass


def run(folder: Path, stop_at: int | None = None) -> Tensor:
    torch.manual_seed(0)
    module = nn.Linear(4, 1)

    def loss_of(step: int) -> Mapping[str, Tensor]:
        if step == stop_at:
            raise Cut
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": (module(x)[:, 0] - x.sum(-1)).square().mean()}

    train(module, loss_of, SCHEDULE, folder, evaluate=lambda: {"right": 0.5}, note=lambda text: None)
    return module.weight.detach()


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(Cut):
        run(tmp_path / "cut", stop_at=9)
    resumed = run(tmp_path / "cut")
    assert torch.equal(resumed, whole)
    assert (whole - 1).abs().max() < 0.9  # it learned something
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]


def test_a_finished_folder_is_loaded_not_trained_again(tmp_path: Path) -> None:
    assert torch.equal(run(tmp_path), run(tmp_path, stop_at=0))


def test_rate_rises_then_falls() -> None:
    rates = [SCHEDULE.rate_at(step) for step in range(12)]
    assert rates[1] == max(rates) == SCHEDULE.rate
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.1 * SCHEDULE.rate
