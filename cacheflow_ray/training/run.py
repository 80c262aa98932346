"""The whole training, stage by stage; each leaves its result in a folder, and what is there already is not made again.

out/tower         vision tower and projector
out/bank.npz      streams, seen by the tower and thinned
out/free          language model, answers' loss alone        -> out/checkpoints/free
out/taught        goes on from it with losses on keys        -> out/checkpoints/taught
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cacheflow_ray.models.family import Loaded
from cacheflow_ray.models.prompt import Prompt
from cacheflow_ray.models.word_llava import Sizes, build_word_llava, save_checkpoint
from cacheflow_ray.training.bank import BankPlan, StreamTokens, make_bank
from cacheflow_ray.training.loop import Note
from cacheflow_ray.training.pictures import join, render_pictures
from cacheflow_ray.training.reader import ReaderPlan, train_reader
from cacheflow_ray.training.recipe import Recipe
from cacheflow_ray.training.tower import train_tower
from cacheflow_ray.world import vocabulary


def run(recipe: Recipe, out: Path, *, note: Note, workers: int | None = None) -> dict[str, Path]:
    """Make both checkpoints, going on from whatever is in `out`.

    Args:
        workers: processes that render; None takes one per core.

    Returns:
        name -> checkpoint folder, `free` and `taught`.
    """
    out.mkdir(parents=True, exist_ok=True)
    workers = workers or os.cpu_count() or 1
    loaded = build_word_llava(vocabulary(), recipe.sizes, seed=recipe.seed)
    note("vision tower: training")
    _tower(recipe, loaded, out / "tower", workers, note)
    bank = _bank(recipe.bank, loaded, recipe.sizes, out / "bank.npz", workers, note)
    exams = _bank(recipe.exam_bank, loaded, recipe.sizes, out / "exam-bank.npz", workers, note)
    made = {}
    for name, plan in (("free", recipe.free), ("taught", recipe.taught)):
        note(f"language model ({name}): training")
        _reader(loaded, bank, exams, plan, out / name, note)
        made[name] = out / "checkpoints" / name
        save_checkpoint(loaded, made[name], recipe.recommended)
    return made


def _tower(recipe: Recipe, loaded: Loaded, folder: Path, workers: int, note: Note) -> None:
    done = folder / "tower.pt"
    parts = {"vision": loaded.model.model.vision_tower, "projector": loaded.model.model.multi_modal_projector}
    if not done.exists():
        note(f"rendering {recipe.pictures} frames")
        pictures = join(list(render_pictures(recipe.seed + 1, recipe.pictures, recipe.sizes.image, workers=workers)))
        train_tower(loaded.model, pictures, recipe.tower, recipe.tower_batch, folder, note)
        torch.save({name: part.state_dict() for name, part in parts.items()}, done)
    state = torch.load(done, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])


def _bank(plan: BankPlan, loaded: Loaded, sizes: Sizes, path: Path, workers: int, note: Note) -> list[StreamTokens]:
    if not path.exists():
        streams = []
        for stream in make_bank(loaded, sizes, plan, workers=workers):
            streams.append(stream)
            if len(streams) % 40 == 0:
                note(f"bank: {len(streams)} of {plan.streams} streams")
        _save_bank(streams, path)
    return _load_bank(path)


def _save_bank(streams: Sequence[StreamTokens], path: Path) -> None:
    arrays = {}
    for number, stream in enumerate(streams):
        for name in ("features", "frame", "shows", "events"):
            arrays[f"{name}-{number}"] = getattr(stream, name)
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, num_frames=np.array([stream.num_frames for stream in streams]), **arrays)
    os.replace(temporary, path)


def _load_bank(path: Path) -> list[StreamTokens]:
    with np.load(path) as arrays:
        return [
            StreamTokens(
                num_frames=int(count),
                **{name: arrays[f"{name}-{number}"] for name in ("features", "frame", "shows", "events")},
            )
            for number, count in enumerate(arrays["num_frames"])
        ]


def _reader(
    loaded: Loaded, bank: list[StreamTokens], exams: list[StreamTokens], plan: ReaderPlan, folder: Path, note: Note
) -> None:
    prompt = Prompt(loaded.tokenizer, loaded.tokenizer.chat_template, "<video>")
    kept = sum(len(stream.frame) for stream in bank) / sum(16 * stream.num_frames for stream in bank)
    note(f"{len(bank)} streams in the bank, {100 * kept:.1f} % of their tokens kept")
    train_reader(loaded, prompt, bank, exams, plan, folder, note)
