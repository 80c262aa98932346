"""Models with random weights: the real architectures at sizes from a toy to the published dimensions.

They answer nothing, but everything else about them is real, so they serve tests, demonstrations without a download, and
measurements of speed. `random:<preset>` as a model name builds one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from cacheflow_ray.errors import UnsupportedModel
from cacheflow_ray.models.family import Loaded

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

_TEMPLATE = (
    "{%% for m in messages %%}<|im_start|>{{ m['role'] }}\n"
    "{%% for c in m['content'] %%}{%% if c['type'] == 'video' %%}%s{%% else %%}{{ c['text'] }}{%% endif %%}"
    "{%% endfor %%}<|im_end|>\n{%% endfor %%}{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
_QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"

#: Wider than the usual 0.02: at toy sizes attention would be nearly uniform and tests of it blind.
_TOY_RANGE = 0.15

#: Tokens a toy takes: small enough to fill in a test.
_TOY_CONTEXT = 4096


def byte_tokenizer(video_text: str) -> Any:
    """A fast tokenizer that knows every byte and the special tokens of the families, with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = _TEMPLATE % video_text
    return fast


def _token_ids(tokenizer: Any, **names: str) -> dict[str, int]:
    return {key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()}


def _qwen2_text(tokenizer: Any, **sizes: Any) -> dict[str, Any]:
    eos = tokenizer.convert_tokens_to_ids("<|im_end|>")
    base = {"vocab_size": len(tokenizer), "max_position_embeddings": 32768, "bos_token_id": None}
    return base | {"eos_token_id": eos, "pad_token_id": None, "rope_parameters": {"rope_theta": 1e6}} | sizes


def _llava(tokenizer: Any, text: dict[str, Any], vision: dict[str, Any], tied: bool) -> Any:
    text_config = hf.Qwen2Config(**_qwen2_text(tokenizer, tie_word_embeddings=tied, **text))
    vision_config = hf.SiglipVisionConfig(patch_size=14, vision_use_head=False, **vision)
    ids = _token_ids(tokenizer, image_token_index="<image>", video_token_index="<video>")
    return hf.LlavaOnevisionConfig(
        vision_config=vision_config, text_config=text_config, tie_word_embeddings=tied, **ids
    )


def _tiny_llava(tokenizer: Any) -> Any:
    text: dict[str, Any] = {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    text |= {"intermediate_size": 256, "initializer_range": _TOY_RANGE, "max_position_embeddings": _TOY_CONTEXT}
    return _llava(tokenizer, text, vision | {"image_size": 112}, tied=True)


_SIGLIP_SO400M = {
    "hidden_size": 1152, "num_hidden_layers": 26, "num_attention_heads": 16, "intermediate_size": 4304,
    "image_size": 384,
}  # fmt: skip


def _llava_05b(tokenizer: Any) -> Any:
    text = {"hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2}
    return _llava(tokenizer, text | {"intermediate_size": 4864, "vocab_size": 152000}, _SIGLIP_SO400M, tied=True)


def _llava_7b(tokenizer: Any) -> Any:
    text = {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
    return _llava(tokenizer, text | {"intermediate_size": 18944, "vocab_size": 152128}, _SIGLIP_SO400M, tied=False)


def _tiny_qwen(config_class: Any, vision: dict[str, Any], mrope: dict[str, Any], **text: Any) -> Callable[[Any], Any]:
    def build(tokenizer: Any) -> Any:
        sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
        sizes |= {
            "intermediate_size": 128,
            "initializer_range": _TOY_RANGE,
            "max_position_embeddings": _TOY_CONTEXT,
        } | text
        text_config = _qwen2_text(tokenizer, **sizes)
        text_config["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6, **mrope}
        ids = _token_ids(
            tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>",
            vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>",
        )  # fmt: skip
        return config_class(text_config=text_config, vision_config=vision, tie_word_embeddings=True, **ids)

    return build


_QWEN2_VISION = {
    "depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "initializer_range": _TOY_RANGE,
}  # fmt: skip
_QWEN25_VISION = {
    "depth": 2, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 64,
    "fullatt_block_indexes": [1], "window_size": 56, "tokens_per_second": 2, "initializer_range": _TOY_RANGE,
}  # fmt: skip
_QWEN3_VISION = {
    "depth": 3, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 64,
    "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
    "initializer_range": _TOY_RANGE,
}  # fmt: skip

#: preset -> (configuration from a tokenizer, how its template writes a video, per-frame pixel budget or None)
PRESETS: dict[str, tuple[Callable[[Any], Any], str, tuple[int, int] | None]] = {
    "tiny-llava-onevision": (_tiny_llava, "<video>", None),
    "tiny-qwen2-vl": (
        _tiny_qwen(hf.Qwen2VLConfig, _QWEN2_VISION, {"mrope_section": [2, 3, 3]}),
        _QWEN_VIDEO,
        (28 * 28, 16 * 28 * 28),
    ),
    "tiny-qwen2.5-vl": (
        _tiny_qwen(hf.Qwen2_5_VLConfig, _QWEN25_VISION, {"mrope_section": [2, 3, 3]}),
        _QWEN_VIDEO,
        (28 * 28, 16 * 28 * 28),
    ),
    "tiny-qwen3-vl": (
        _tiny_qwen(
            hf.Qwen3VLConfig, _QWEN3_VISION, {"mrope_section": [4, 2, 2], "mrope_interleaved": True}, head_dim=16
        ),
        _QWEN_VIDEO,
        (32 * 32, 16 * 32 * 32),
    ),
    "llava-ov-0.5b": (_llava_05b, "<video>", None),
    "llava-ov-7b": (_llava_7b, "<video>", None),
}

#: Presets whose weights are drawn once, not first by every layer's constructor and then again by the model.
LARGE = ("llava-ov-0.5b", "llava-ov-7b")


def build_random(
    preset: str, *, device: torch.device, dtype: torch.dtype, attention: str = "sdpa", seed: int = 0
) -> Loaded:
    """The preset's architecture with weights drawn from `seed`, on `device`.

    Raises:
        UnsupportedModel: no such preset; the message lists them.
    """
    if preset not in PRESETS:
        raise UnsupportedModel(f"no random model {preset!r}: use one of {', '.join(PRESETS)}", preset=preset)
    make_config, video_text, pixels = PRESETS[preset]
    tokenizer = byte_tokenizer(video_text)
    config = make_config(tokenizer)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        build = _drawn_once if preset in LARGE else _drawn_by_constructor
        model = build(config, device, dtype=dtype, attn_implementation=attention)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    processor = {"size": {"shortest_edge": pixels[0], "longest_edge": pixels[1]}} if pixels else {}
    return Loaded(model=model.eval(), tokenizer=tokenizer, processor=processor)


def _drawn_by_constructor(config: Any, device: torch.device, **kwargs: Any) -> Any:
    with torch.device(device):
        return hf.AutoModelForImageTextToText.from_config(config, **kwargs)


def _drawn_once(config: Any, device: torch.device, **kwargs: Any) -> Any:
    """The same architecture and distributions in half the time: nothing is drawn before memory is there to keep it."""
    with torch.device("meta"):
        model = hf.AutoModelForImageTextToText.from_config(config, **kwargs)
    model = model.to_empty(device=device)
    model.init_weights()  # buffers and tied weights too
    return model
