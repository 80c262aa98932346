"""Shared by the oracle tests: the families at toy size, moving pictures, and the table of measured differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cacheflow_ray.config import ModelOptions, StreamSettings
from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.opened import Backend
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.stream import StreamEncoder
from cacheflow_ray.engine.windows import read_blocks
from cacheflow_ray.media import Frame
from cacheflow_ray.models import VideoModel, load_model
from cacheflow_ray.models.pixels import to_pixels
from memory_store.records import StreamRecord

FAMILIES = ("tiny-llava-onevision", "tiny-qwen2-vl", "tiny-qwen2.5-vl", "tiny-qwen3-vl")
FPS = 2.0


def toy_model(family: str, dtype: str = "float32") -> VideoModel:
    """A family at toy size with random weights, on the CPU."""
    return load_model(f"random:{family}", ModelOptions.model_validate({"device": "cpu", "dtype": dtype}))


def moving_frames(count: int, *, seed: int = 0, height: int = 84, width: int = 112) -> list[Frame]:
    """A textured background with a patch wandering over it: some tokens change from frame to frame, most do not."""
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    frames = []
    for seq in range(count):
        image = background.copy()
        top, left = (seq * 9) % (height - 28), (seq * 17) % (width - 28)
        image[top : top + 28, left : left + 28] = rng.integers(0, 255, 3, dtype=np.uint8)
        frames.append(Frame(seq=seq, timestamp_s=seq / FPS, image=image))
    return frames


def settings(**changes: Any) -> StreamSettings:
    """Small blocks and a window that spans a few of them."""
    base = {"fps": FPS, "tau": 0.98, "block_size": 15, "window_blocks": 3}
    return StreamSettings.model_validate(base | changes)


def open_encoder(backend: Backend, stream: str, chosen: StreamSettings) -> StreamEncoder:
    """Create the stream if it is new, and an encoder that goes on with it."""
    spec = StreamSpec.resolve(chosen, backend.model, "")
    record = StreamRecord(stream_id=stream, fingerprint=backend.model.fingerprint, settings=spec.as_settings())
    backend.store.create_stream(record)
    return StreamEncoder(backend, stream, spec)


def encode(
    backend: Backend, streams: dict[str, Sequence[Frame]], chosen: StreamSettings, *, chunk: int, last: bool = True
) -> None:
    """Feed every stream `chunk` frames at a time, all streams in one batch, a commit after every step."""
    encoders = {open_encoder(backend, name, chosen): list(frames) for name, frames in streams.items()}
    times = StageTimes()
    for start in range(0, max(len(frames) for frames in encoders.values()), chunk):
        encode_frames(backend.model, {e: frames[start : start + chunk] for e, frames in encoders.items()}, times)
        commit(backend.store, list(encoders), times)
    encode_frames(backend.model, {encoder: () for encoder in encoders}, times, last=last)
    for encoder in encoders:
        encoder.finish()
    commit(backend.store, list(encoders), times)


def stored(backend: Backend, stream: str) -> tuple[npt.NDArray[Any], Tensor]:
    """Tokens, and un-rotated KV [L, 2, H, N * B, D], of all blocks of a stream."""
    tokens, kv = read_blocks(backend, stream, range(backend.store.stats(stream).num_blocks))
    return np.concatenate(tokens), kv


def stored_kv(backend: Backend, stream: str) -> Tensor:
    """Un-rotated KV of all blocks of a stream, [L, 2, H, N * B, D]."""
    return stored(backend, stream)[1]


def distance(found: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference, in units of the wanted tensor's own scale where that is above 1."""
    return float((found.double() - wanted.double()).abs().max() / max(1.0, float(wanted.double().abs().max())))


def native_inputs(model: VideoModel, frames: Sequence[Frame], suffix_ids: Sequence[int]) -> dict[str, Any]:
    """What the unmodified model's own forward and generate take for the whole video and the question."""
    loaded, vision = model._loaded, model.vision
    rows, cols = vision.grid(*frames[0].image.shape[:2])
    units = [frames[i : i + vision.frames_per_unit] for i in range(0, len(frames), vision.frames_per_unit)]
    config = loaded.model.config
    video_id = getattr(config, "video_token_id", None) or config.video_token_index
    if config.model_type == "llava_onevision":
        images = [frame.image for frame in frames]
        pixels = to_pixels(images, vision._side, vision._side, vision._normalise, loaded.device)[None]
        inner = [video_id] * (rows * cols * len(frames) + 1)
        extra: dict[str, Any] = {"pixel_values_videos": pixels}
    else:
        patches = [vision._patches([f.image for f in unit], (rows, cols), loaded.device) for unit in units]
        inner = []
        for unit in units:
            times = [frame.timestamp_s for frame in unit]
            before, after = vision.frame_text((times[0] + times[-1]) / 2)
            inner += [*before, *[video_id] * (rows * cols), *after]
        merge = vision._merge
        extra = {
            "pixel_values_videos": torch.cat(patches),
            "video_grid_thw": torch.tensor([[len(units), rows * merge, cols * merge]]),
        }
        if config.model_type == "qwen2_5_vl":
            extra["second_per_grid_ts"] = torch.tensor([vision.frames_per_unit / FPS])
    ids = torch.tensor([[*model.prompt.prefix_ids, *inner, *suffix_ids]])
    if config.model_type != "llava_onevision":
        extra["mm_token_type_ids"] = (ids == video_id).int() * 2
        loaded.model.model.rope_deltas = None
    return {"input_ids": ids, **extra}


def native_logits(model: VideoModel, frames: Sequence[Frame], suffix_ids: Sequence[int]) -> Tensor:
    """Logits of the question's tokens by the unmodified model's own forward on pixels, [T, vocabulary]."""
    with torch.no_grad():
        out = model._loaded.model(**native_inputs(model, frames, suffix_ids))
    logits: Tensor = out.logits[0, -len(suffix_ids) :]
    return logits


def context_logits(model: VideoModel, context: Any, suffix_ids: Sequence[int], start: int) -> Tensor:
    """Logits of the question's tokens over a rehydrated context, by the ordinary model, [T, vocabulary]."""
    cache, after = context.as_cache(), model._parts.after_video
    rows = torch.arange(start, start + len(after) + len(suffix_ids))[None]
    axes = model._parts.positions(None).num_axes
    positions = rows if axes == 1 else rows.expand(axes, 1, -1)
    with torch.no_grad():
        if len(after):
            own = positions[..., : len(after)]
            model._parts.text_model(inputs_embeds=after[None], past_key_values=cache, position_ids=own)
        own, ids = positions[..., len(after) :], torch.tensor([list(suffix_ids)])
        out = model._loaded.model(input_ids=ids, past_key_values=cache, position_ids=own)
    logits: Tensor = out.logits[0]
    return logits


def save_toy(family: str, folder: Path) -> Path:
    """A toy model as a checkpoint folder, the way Hugging Face checkpoints look."""
    loaded = toy_model(family)._loaded
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(loaded.processor)))
    return folder
