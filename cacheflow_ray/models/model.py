"""A loaded model as the engine sees it: frames in, KV out; questions in, queries and answers out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor

from cacheflow_ray.config import Recommended
from cacheflow_ray.core.rehydrate import rotate_
from cacheflow_ray.models import ragged
from cacheflow_ray.models.batching import Batcher, Growing
from cacheflow_ray.models.context import Context
from cacheflow_ray.models.decoder import Decoder, Reading
from cacheflow_ray.models.encoder import Encoder
from cacheflow_ray.models.family import Loaded, Parts
from cacheflow_ray.models.generation import Generation, TokenSink
from cacheflow_ray.models.positions import Positions
from cacheflow_ray.models.prompt import Prompt, Suffix
from cacheflow_ray.models.rotary import Rotary
from cacheflow_ray.models.window import Prefix, Window

#: Raised whenever the KV an adapter produces for the same weights and frames changes.
ADAPTER_VERSION = 1

#: Configuration the weights do not show and KV depends on. Named one by one: a library update may add others.
UNSEEN = (
    *("rope_parameters", "num_attention_heads", "num_heads", "num_key_value_heads", "head_dim", "hidden_act"),
    *("rms_norm_eps", "layer_norm_eps", "projector_hidden_act", "vision_feature_layer"),
    *(
        "vision_feature_select_strategy",
        "image_size",
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
        "tokens_per_second",
    ),
    *("window_size", "fullatt_block_indexes", "deepstack_visual_indexes"),
)

#: Tokens a window spans where the user sets none (the paper's and ReKV's; W = 76 at B = 196).
WINDOW_TOKENS = 15_000


class VideoModel:
    """A frozen vision-language model taken apart.

    Attributes:
        name: what it was loaded by.
        fingerprint: identity of weights, dtype, prefix and adapter version.
        vision, prompt, encoder, batcher: its parts.
        summary_layers: the layers whose keys and queries retrieval compares (first and last).
        max_context: positions it was trained on.
        recommended: settings it was made for.
    """

    def __init__(self, name: str, loaded: Loaded, parts: Parts, recommended: Recommended | None = None) -> None:
        self.name, self._loaded, self._parts = name, loaded, parts
        self.recommended = recommended or Recommended()
        self.vision = parts.vision
        self.prompt = Prompt(loaded.tokenizer, loaded.tokenizer.chat_template, parts.video_text)
        self._rotary = Rotary(parts.text_model.rotary_emb, loaded.device)
        layers, head = ragged.sharing_copy(parts.text_model.layers), loaded.model.get_output_embeddings()
        self.encoder = Encoder(layers, parts.text_model.config, self._rotary)
        self._decoder = Decoder(layers, parts.text_model.norm, head, self._rotary)
        self.batcher = Batcher(self._decoder, self._embed_text)
        self.summary_layers = (0, self.encoder.num_layers - 1)
        self.max_context = int(parts.text_model.config.max_position_embeddings)
        self.fingerprint = _fingerprint(loaded, parts, self.prompt)
        self.prefix = Prefix(kv=self.encoder.encode_text(self.embed(self.prompt.prefix_ids))[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, token inputs and KV."""
        return self._loaded.dtype

    @property
    def device(self) -> torch.device:
        """Where everything happens."""
        return self._loaded.device

    @property
    def default_block_size(self) -> int:
        """B where the user sets none."""
        return self._parts.default_block_size

    @property
    def default_window_tokens(self) -> int:
        """What a window spans where the user sets none: the paper's, or half of what a smaller model takes."""
        return min(WINDOW_TOKENS, self.max_context // 2)

    @property
    def token_width(self) -> int:
        """C * (1 + num_deepstack), channels of a token input."""
        return int(self._parts.text_model.config.hidden_size) * (1 + self.vision.num_deepstack)

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that a step of generation reads, however many answers share it."""
        return self._decoder.weight_bytes

    @property
    def num_after_video(self) -> int:
        """Inputs between the last frame and the question that are no token ids."""
        return len(self._parts.after_video)

    def positions(self, fps: float | None) -> Positions:
        """The position rule of a stream sampled at `fps` frames per second."""
        return self._parts.positions(fps)

    @torch.no_grad()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """Token ids -> [T, C * (1 + num_deepstack)] token inputs; text has zero DeepStack inputs."""
        text = self._embed_text(ids)
        return torch.nn.functional.pad(text, (0, text.shape[1] * self.vision.num_deepstack))

    @torch.no_grad()
    def _embed_text(self, ids: Sequence[int]) -> Tensor:
        """[T, C]."""
        text: Tensor = self._parts.text_model.embed_tokens(torch.tensor(ids, dtype=torch.long, device=self.device))
        return text

    def window(self, positions: Positions, *, num_blocks: int, block_size: int) -> Window:
        """An empty window for one stream."""
        return Window(self.prefix, self._rotary, positions, num_blocks=num_blocks, block_size=block_size)

    def queries(self, suffix: Suffix, layers: tuple[int, ...] | None = None) -> Tensor:
        """Un-rotated queries of the question's own tokens, computed on prefix + question, heads averaged per group.

        Args:
            layers: whose queries; None takes the summarised ones, first and last.

        Returns:
            [S, H, T, D] float32. CacheFlow §3.3.
        """
        inputs = self.embed((*self.prompt.prefix_ids, *suffix.ids))
        _, queries = self.encoder.encode_text(inputs, queries_of=self.summary_layers if layers is None else layers)
        asked = torch.tensor(suffix.question, device=self.device)
        own = queries[:, :, self.prefix.length :][:, :, asked].float()
        averaged: Tensor = own.unflatten(1, (self.encoder.num_kv_heads, -1)).mean(dim=2)
        return averaged

    def context(self, capacity: int) -> Context:
        """An empty context for `capacity` tokens, the prefix already in it."""
        encoder = self.encoder
        shape = (encoder.num_layers, encoder.num_kv_heads, capacity, encoder.head_dim)
        context = Context(shape, self._rotary, self.dtype, self.device)
        context.append(self.prefix.kv, torch.arange(self.prefix.length)[None])
        return context

    def generate(self, context: Context, suffix: Suffix, start: int, max_new_tokens: int) -> Generation:
        """Answer greedily from a filled context, as the model's own `generate()` would; begins when iterated.

        Answers that are generated at the same time share their steps: see `models.batching`.

        Args:
            context: filled; columns for what follows the video, the question and the answer are free.
            suffix: everything after the video.
            start: position of the first token after the video.
            max_new_tokens: stop here at the latest.
        """
        reading = Reading(context=context, inputs=self._after_video(suffix), position=start)
        return Generation(self._loaded.tokenizer, lambda sink: self._generate(reading, suffix, max_new_tokens, sink))

    def next_logits(self, context: Context, suffix: Suffix, start: int) -> Tensor:
        """What `generate` chooses the answer's first token by, float32 [vocabulary]; the context can be used again."""
        length = context.length
        logits = self._decoder.read([Reading(context=context, inputs=self._after_video(suffix), position=start)])[0]
        context.length = length
        return logits

    @torch.no_grad()
    def layer_by_layer(
        self, context: Context, suffix: Suffix, num_tokens: int, fill: Callable[[int, Tensor, Context], None]
    ) -> None:
        """Run what follows the video through the layers one by one, each over video its own queries have chosen.

        Args:
            context: with columns free for `num_tokens` of video and for the question.
            fill: called with layer, its un-rotated queries [Hq, T, D] of `suffix` and the context, before the layer
                runs; writes un-rotated KV of that layer into the next `num_tokens` columns.
        """
        model, start = self._parts.text_model, context.length
        cos, sin = self._rotary(torch.arange(start, start + num_tokens)[None])
        hidden = self._after_video(suffix)[None]
        length = hidden.shape[1]
        row = torch.arange(start + num_tokens, start + num_tokens + length, device=self.device)[None]
        num_axes = self._parts.positions(None).num_axes
        positions = row if num_axes == 1 else row.expand(num_axes, 1, -1)
        embeddings = model.rotary_emb(hidden, positions)
        mask = hidden.new_zeros((length, start + num_tokens + length))
        mask[:, start + num_tokens :] = torch.full((length, length), -torch.inf).triu(diagonal=1)
        context.length += num_tokens
        cache = context.as_cache()
        for number, layer in enumerate(model.layers):
            queries = layer.self_attn.q_proj(layer.input_layernorm(hidden))[0].unflatten(
                -1, (self.encoder.num_heads, -1)
            )
            fill(number, queries[self.num_after_video :].transpose(0, 1), context)
            columns = slice(start, start + num_tokens)
            rotate_(context.keys[number : number + 1, :, columns], cos, sin)
            out = layer(hidden, position_embeddings=embeddings, attention_mask=mask[None, None], past_key_values=cache)
            hidden = out[0] if isinstance(out, tuple) else out

    def _after_video(self, suffix: Suffix) -> Tensor:
        """[T, C] token inputs of what follows the last frame."""
        return torch.cat([self._parts.after_video, self._embed_text(suffix.ids)])

    def _generate(self, reading: Reading, suffix: Suffix, max_new_tokens: int, sink: TokenSink) -> None:
        ids = torch.tensor([suffix.ids])

        def join(model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, **_: Any) -> Tensor:
            """Where `generate()` would begin its loop, with all it has made of the model's generation config."""
            self.batcher.join(
                Growing(reading=reading, ids=ids, processors=logits_processor, criteria=stopping_criteria, sink=sink)
            )
            return input_ids

        self._loaded.model.generate(
            input_ids=ids.to(self.device),
            attention_mask=ids.new_ones(ids.shape, device=self.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            custom_generate=join,
        )


def _fingerprint(loaded: Loaded, parts: Parts, prompt: Prompt) -> str:
    """xxh3-128 of every weight, and of all else that KV depends on."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(loaded.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    config = loaded.model.config
    about = [ADAPTER_VERSION, config.model_type, prompt.prefix_ids, dict(parts.preprocessing)]
    about += [
        [getattr(part, key, None) for key in UNSEEN] for part in (config, config.text_config, config.vision_config)
    ]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()
