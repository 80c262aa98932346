"""The vision tower and projector, trained alone: every token says what it shows.

Linear heads read colour, shape, digit and place of the thing a token shows, and the family of the background, from the
token as the language model will receive it. Heads that linear can be read by attention, too; without the place "where"
cannot be answered, and without the background the tower ignores it and every drop threshold drops the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cacheflow_ray.training.loop import Note, Schedule, train
from cacheflow_ray.training.pictures import NOTHING, TARGETS, UNCLEAR, Pictures
from cacheflow_ray.world import COLOURS, DIGITS, FAMILIES, PLACES, SHAPES

_CLASSES = (len(COLOURS), len(SHAPES), len(DIGITS), len(PLACES))

#: Root mean square of what the projector gives once training is over.
FEATURE_RMS = 0.5

#: Digits are the finest thing to see and the last to be learned.
_WEIGHTS = {"colour": 1.0, "shape": 1.0, "digit": 2.0, "place": 1.0, "family": 0.2}
_HELD_OUT = 512


class Tower(nn.Module):
    """Vision tower and projector of a LLaVA-OneVision, with the heads it is trained by."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision, self.projector = model.model.vision_tower, model.model.multi_modal_projector
        width = model.config.text_config.hidden_size
        # One class more than there are names: nothing is to be seen there.
        self.heads = nn.ModuleList([nn.Linear(width, count + 1) for count in _CLASSES])
        self.family = nn.Linear(width, len(FAMILIES))
        self._features = model.model.get_video_features

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [N, side, side, 3] -> [N, tokens, C]."""
        pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        out: Tensor = self._features(pixels[None], return_dict=True).pooler_output
        tokens: Tensor = out[0, :-1].unflatten(0, (len(images), -1)).float()
        return tokens


def train_tower(model: Any, pictures: Pictures, schedule: Schedule, batch: int, folder: Path, note: Note) -> None:
    """Train vision tower and projector of `model` in place.

    Args:
        pictures: the last 512 are kept for measuring.
        batch: frames per step.
    """
    tower = Tower(model).train()
    count = len(pictures) - _HELD_OUT
    noise = torch.from_numpy(np.random.default_rng(53).standard_normal(1 << 22, np.float32))

    def loss_of(step: int) -> Mapping[str, Tensor]:
        rng = np.random.default_rng((52, step))
        chosen = rng.integers(0, count, batch)
        images = _jittered(torch.from_numpy(pictures.images[chosen]), rng, noise)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = tower(images)
        return _losses(tower, features, pictures, chosen)

    @torch.no_grad()
    def evaluate() -> Mapping[str, float]:
        held = np.arange(count, len(pictures))
        features = torch.cat(
            [tower(torch.from_numpy(pictures.images[held[i : i + 64]])) for i in range(0, _HELD_OUT, 64)]
        )
        return _accuracies(tower, features, pictures, held)

    train(tower, loss_of, schedule, folder, evaluate=evaluate, note=note)
    _rescale(tower, pictures)
    model.eval()


def _jittered(images: Tensor, rng: np.random.Generator, noise: Tensor) -> Tensor:
    """Other light and noise each time a frame is seen.

    Args:
        noise: [n] standard normal; each frame's is a stretch of it, for drawing it anew would take longer than a step.
    """
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (len(images), 1, 1, 3)).astype(np.float32))
    size = images[0].numel()
    starts = rng.integers(0, len(noise) - size, len(images)).tolist()
    added = torch.stack([noise[start : start + size] for start in starts]).view(images.shape)
    return (images.float() * gain + float(rng.uniform(0, 4)) * added).clamp(0, 255)


def _scaled(features: Tensor) -> Tensor:
    return F.rms_norm(features, features.shape[-1:])


def _losses(tower: Tower, features: Tensor, pictures: Pictures, chosen: np.ndarray) -> Mapping[str, Tensor]:
    scaled, losses = _scaled(features), dict[str, Tensor]()
    targets = torch.from_numpy(pictures.targets[chosen]).long()
    clear = targets[..., 0] != UNCLEAR
    for number, (name, head) in enumerate(zip(TARGETS, tower.heads, strict=True)):
        wanted = targets[..., number].where(targets[..., number] != NOTHING, _CLASSES[number])
        losses[name] = F.cross_entropy(head(scaled[clear]), wanted[clear])
    family = torch.from_numpy(pictures.family[chosen]).long()[:, None].expand(scaled.shape[:2])
    losses["family"] = F.cross_entropy(tower.family(scaled).flatten(0, 1), family.flatten())
    total = torch.stack([weight * losses[name] for name, weight in _WEIGHTS.items()]).sum()
    return {"loss": total, **losses}


def _accuracies(tower: Tower, features: Tensor, pictures: Pictures, held: np.ndarray) -> dict[str, float]:
    scaled, right = _scaled(features), dict[str, float]()
    targets = torch.from_numpy(pictures.targets[held]).long()
    shown = targets[..., 0] >= 0
    for number, (name, head) in enumerate(zip(TARGETS, tower.heads, strict=True)):
        guess = head(scaled[shown]).argmax(-1)
        right[f"{name}_right"] = float((guess == targets[..., number][shown]).float().mean())
    bare = targets[..., 0] == NOTHING
    family = torch.from_numpy(pictures.family[held]).long()[:, None].expand(bare.shape)
    right["family_right"] = float((tower.family(scaled[bare]).argmax(-1) == family[bare]).float().mean())
    return right


@torch.no_grad()
def _rescale(tower: Tower, pictures: Pictures) -> None:
    """Scale the projector's last layer so that tokens have FEATURE_RMS; directions, and with them cosines, stay."""
    features = tower(torch.from_numpy(pictures.images[-_HELD_OUT:]))
    scale = FEATURE_RMS / features.pow(2).mean().sqrt()
    last = tower.projector.linear_2
    last.weight.mul_(scale)
    last.bias.mul_(scale)
