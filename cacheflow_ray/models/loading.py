"""Models by name: a Hugging Face id, a local folder, `bundled:<name>`, or `random:<preset>`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.utils import cached_file
from transformers.video_processing_utils import BaseVideoProcessor

from cacheflow_ray.config import RECOMMENDED, ModelOptions, Recommended
from cacheflow_ray.errors import ModelError, ModelLoadError, UnsupportedModel
from cacheflow_ray.models.family import Family, Loaded
from cacheflow_ray.models.llava_onevision import llava_onevision
from cacheflow_ray.models.model import VideoModel
from cacheflow_ray.models.qwen_vl import qwen2_5_vl, qwen2_vl, qwen3_vl
from cacheflow_ray.models.random_weights import build_random

#: model_type of config.json -> how to take such a model apart.
FAMILIES: dict[str, Family] = {
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}

RANDOM, BUNDLED = "random:", "bundled:"

#: A folder per bundled model.
CHECKPOINTS = Path(__file__).parent / "checkpoints"


def load_model(name: str, options: ModelOptions | None = None) -> VideoModel:
    """Load a model and take it apart for encoding and answering.

    Args:
        name: Hugging Face id, a local folder, `bundled:<name>`, or `random:<preset>`.
        options: device, dtype and attention implementation.

    Raises:
        UnsupportedModel: no adapter for its kind, or it lacks what the method needs; the message says what.
        ModelLoadError: weights, tokenizer or configuration cannot be read.
    """
    options = options or ModelOptions()
    device = _device(options.device)
    dtype = _dtype(options.dtype, device)
    if name.startswith(RANDOM):
        loaded = build_random(name.removeprefix(RANDOM), device=device, dtype=dtype, attention=options.attention)
        recommended = None
    else:
        source = str(_bundled(name)) if name.startswith(BUNDLED) else name
        loaded = _from_pretrained(source, device, dtype, options.attention)
        recommended = _recommended(source)
    family = FAMILIES[loaded.model.config.model_type]
    return VideoModel(name, loaded, family(loaded), recommended)


def _bundled(name: str) -> Path:
    """The model's folder. Raises ModelLoadError naming what is bundled."""
    known = sorted(folder.name for folder in CHECKPOINTS.glob("*/"))
    chosen = name.removeprefix(BUNDLED)
    if chosen not in known:
        listed = ", ".join(BUNDLED + each for each in known)
        raise ModelLoadError(f"no model {name!r} is bundled; there are: {listed}", model=name)
    return CHECKPOINTS / chosen


def _recommended(name: str) -> Recommended | None:
    """Of the checkpoint. Raises InvalidConfig where its file holds what no setting is."""
    path = cached_file(
        name,
        RECOMMENDED,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Recommended.model_validate_json(Path(path).read_text()) if path else None


def _from_pretrained(name: str, device: torch.device, dtype: torch.dtype, attention: str) -> Loaded:
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    if (Path(name).is_absolute() or name.startswith(".")) and not Path(name).is_dir():
        raise _cannot_load(name, "there is no such folder")
    try:
        config = hf.AutoConfig.from_pretrained(name)
        _check_supported(name, config)
        model = _weights(name, dtype, attention)
        tokenizer = hf.AutoTokenizer.from_pretrained(name)
        # AutoProcessor would insist on torchvision; its configuration and the tokenizer's template are all it holds.
        processor, _ = BaseVideoProcessor.get_video_processor_dict(name)
        tokenizer.chat_template = tokenizer.chat_template or _legacy_template(name)
    except ModelError:
        raise
    except (
        Exception
    ) as error:  # whatever safetensors, tokenizers, json and the hub client raise for what they cannot read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(" .:;")
        raise _cannot_load(name, reason) from error
    return Loaded(model=model.to(device).eval(), tokenizer=tokenizer, processor=processor)


def _cannot_load(name: str, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"cannot load model {name!r}: {reason}; give a folder saved with save_pretrained (weights, tokenizer, "
        "processor), a Hugging Face id that can be reached, bundled:<name>, or random:<preset>",
        model=name,
    )


def _weights(name: str, dtype: torch.dtype, attention: str) -> Any:
    model, report = hf.AutoModelForImageTextToText.from_pretrained(
        name, dtype=dtype, attn_implementation=attention, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would go on with random ones
        raise ModelLoadError(
            f"cannot load model {name!r}: {len(missing)} of its weights are missing, {missing[0]!r} among them; "
            "fetch or save the checkpoint again",
            model=name,
        )
    return model


def _check_supported(name: str, config: Any) -> None:
    if config.model_type not in FAMILIES:
        raise UnsupportedModel(
            f"model {name!r} is of kind {config.model_type!r}, which has no adapter (vision tower, positions and "
            f"prompt of the family); there are adapters for {', '.join(FAMILIES)}",
            model=name,
        )
    layer_types = set(getattr(config.text_config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"}:
        raise UnsupportedModel(
            f"model {name!r} has layers of type {', '.join(sorted(layer_types - {'full_attention'}))}: only layers "
            "with full attention have keys that can be kept and rotated later",
            model=name,
        )


def _legacy_template(name: str) -> str | None:
    path = cached_file(name, "chat_template.json", _raise_exceptions_for_missing_entries=False)
    return json.loads(Path(path).read_text())["chat_template"] if path else None


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"device {name!r} was asked for, but this machine has no CUDA device: use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelLoadError(
            f"device {name!r} was asked for, but this machine has {torch.cuda.device_count()} CUDA devices: use cuda:0"
        )
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, name)
    return dtype
