"""A small LLaVA-OneVision over a vocabulary of whole words: the architecture of the bundled model, before training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from cacheflow_ray.config import RECOMMENDED, Recommended
from cacheflow_ray.models.family import Loaded

#: Special tokens, behind the words in the vocabulary.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")

UNKNOWN = "<unk>"
ROLES = ("user", "assistant")

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<video>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

#: Spellings of a word in the vocabulary.
SPELLINGS = (("colour", "color"), ("colours", "color"), ("centre", "center"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Dimensions of both halves, in the terms of their Hugging Face configurations.

    Args:
        hidden: C, of the language model and of what the projector gives.
        layers, heads, kv_heads, mlp: of the language model; head_dim is hidden / heads.
        context: positions the language model is trained on.
        vision_hidden, vision_layers, vision_heads, vision_mlp: of the SigLIP tower.
        image: side of the square picture, pixels; 14 pixels per patch, 2 x 2 patches per token.
    """

    hidden: int = 128
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 384
    context: int = 4096
    vision_hidden: int = 128
    vision_layers: int = 2
    vision_heads: int = 4
    vision_mlp: int = 384
    image: int = 112


def word_tokenizer(words: Sequence[str]) -> Any:
    """A fast tokenizer of whole words, blind to case and punctuation ("top-left" is one word)."""
    vocabulary = {word: number for number, word in enumerate((UNKNOWN, *ROLES, *words))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    spellings = [normalizers.Replace(Regex(rf"\b{spelt}\b"), word) for spelt, word in SPELLINGS if word in vocabulary]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\p{L}\p{N}\s-]"), " "), *spellings]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token=UNKNOWN
    )
    fast.chat_template = TEMPLATE
    return fast


def build_word_llava(words: Sequence[str], sizes: Sizes, *, seed: int) -> Loaded:
    """Float32 on the CPU, weights drawn from `seed`."""
    tokenizer = word_tokenizer(words)
    end, pad, image, video = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>", "<image>", "<video>"])
    text = hf.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=sizes.hidden, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads, intermediate_size=sizes.mlp,
        max_position_embeddings=sizes.context, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=end, pad_token_id=pad,
    )  # fmt: skip
    vision = hf.SiglipVisionConfig(
        hidden_size=sizes.vision_hidden, num_hidden_layers=sizes.vision_layers, intermediate_size=sizes.vision_mlp,
        num_attention_heads=sizes.vision_heads, image_size=sizes.image, patch_size=14, vision_use_head=False,
    )  # fmt: skip
    config = hf.LlavaOnevisionConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_index=image,
        video_token_index=video,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hf.LlavaOnevisionForConditionalGeneration._from_config(config, dtype=torch.float32)
    model.generation_config = hf.GenerationConfig(eos_token_id=end, pad_token_id=pad)
    processor = {
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": sizes.image, "width": sizes.image},
        "do_resize": True, "do_normalize": True, "do_rescale": True, "resample": 3,
        "video_processor_type": "LlavaOnevisionVideoProcessor",
    }  # fmt: skip
    return Loaded(model=model.eval(), tokenizer=tokenizer, processor=processor)


def save_checkpoint(loaded: Loaded, folder: Path, recommended: Recommended | None = None) -> None:
    """Write a folder `from_pretrained` reads: weights (safetensors), configuration, tokenizer, processor.

    Args:
        recommended: written beside them, for this package to read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    # The library's own class insists on torchvision to write this.
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(loaded.processor), indent=2))
    if recommended is not None:
        (folder / RECOMMENDED).write_text(recommended.model_dump_json(indent=2, exclude_unset=True) + "\n")
