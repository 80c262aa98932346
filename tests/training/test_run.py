"""The whole training at the size of seconds, by its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cacheflow_ray.cli.app import run
from cacheflow_ray.models import load_model
from cacheflow_ray.training.recipe import RECOMMENDED

Capture = pytest.CaptureFixture[str]


def trained(out: Path, capsys: Capture) -> dict[str, Any]:
    assert run(["train", "--out", str(out), "--quick", "--workers", "2", "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def weights(folder: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_model(folder)._loaded.model.state_dict()
    return state


@pytest.mark.slow
def test_a_quick_training_leaves_two_checkpoints_and_goes_on_where_it_stopped(tmp_path: Path, capsys: Capture) -> None:
    made = trained(tmp_path, capsys)["checkpoints"]
    assert set(made) == {"free", "taught"}
    free, taught = (weights(made[name]) for name in ("free", "taught"))
    vision = [name for name in free if "vision_tower" in name]
    assert all(torch.equal(free[name], taught[name]) for name in vision)  # frozen once it is trained
    assert any(not torch.equal(free[name], taught[name]) for name in free)
    assert load_model(made["taught"]).recommended == RECOMMENDED
    for part in ("tower", "free", "taught"):
        assert (tmp_path / part / "curve.jsonl").read_text().strip()

    # The second half is gone: it is made again from what is there, to the same bits.
    (tmp_path / "taught" / "state.pt").unlink()
    again = weights(trained(tmp_path, capsys)["checkpoints"]["taught"])
    assert all(torch.equal(again[name], taught[name]) for name in taught)
