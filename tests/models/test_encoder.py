"""Many streams in one call, and the model they share left as it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from cacheflow_ray.models import Segment, Turn, VideoModel, Window
from cacheflow_ray.models.encoder import CPU_TOKENS, Encoder, _calls
from cacheflow_ray.models.ragged import ATTENTION, sharing_copy
from cacheflow_ray.models.rotary import Rotary
from tests.models.streams import BLOCK, FPS, Stream, make_stream
from tests.oracles import distance, toy_model

#: window, blocks encoded before, tokens now
COMPANY = [(0, 0, BLOCK), (1, 4, BLOCK), (2, 7, 5), (4, 2, BLOCK), (8, 1, BLOCK), (2, 0, 3), (3, 5, BLOCK)]


def ready(model: VideoModel, number: int) -> Segment:
    """Stream `number` of the company with all but its newest block encoded."""
    window_blocks, before, size = COMPANY[number]
    stream = make_stream(model, before + 1, seed=number)
    window = model.window(model.positions(FPS), num_blocks=window_blocks, block_size=BLOCK)
    for block_idx in range(before):
        model.encoder.encode([segment(stream, window, block_idx)])
    return segment(stream, window, before, size)


def segment(stream: Stream, window: Window, block_idx: int, size: int = BLOCK) -> Segment:
    inputs, tokens = stream.block(block_idx, size)
    return Segment(inputs=inputs, tokens=tokens, block_idx=block_idx, window=window)


def test_ragged_call_equals_separate_calls(model: VideoModel) -> None:
    """Different windows, block numbers and lengths, a tail among full blocks."""
    alone = [model.encoder.encode([ready(model, number)])[0] for number in range(len(COMPANY))]
    together = [ready(model, number) for number in range(len(COMPANY))]
    found = model.encoder.encode(together)
    assert [kv.shape[3] for kv in found] == [size for *_, size in COMPANY]
    assert max(distance(kv, wanted) for kv, wanted in zip(found, alone, strict=True)) < 1e-5


def test_windows_after_a_ragged_call_go_on_as_after_separate_ones(model: VideoModel) -> None:
    alone, together = ([ready(model, number) for number in (1, 3, 6)] for _ in range(2))
    for each in alone:
        model.encoder.encode([each])
    model.encoder.encode(together)
    for number, one, other in zip((1, 3, 6), alone, together, strict=True):
        following = make_stream(model, 1, seed=90 + number)
        tokens = following.tokens.copy()
        tokens["pos"] += one.tokens["pos"][-1] + 1
        later = [
            Segment(inputs=following.inputs, tokens=tokens, block_idx=one.block_idx + 1, window=each.window)
            for each in (one, other)
        ]
        assert distance(*(model.encoder.encode([each])[0] for each in later)) < 1e-5


def test_one_stream_cannot_be_twice_in_a_call(model: VideoModel) -> None:
    first = ready(model, 0)
    with pytest.raises(ValueError, match="share a window"):
        model.encoder.encode([first, first])


def test_kv_is_the_callers_to_keep(model: VideoModel) -> None:
    kv = model.encoder.encode([ready(model, 1), ready(model, 2)])
    assert len({each.untyped_storage().data_ptr() for each in kv}) == 2
    assert all(not each.requires_grad and each.is_contiguous() for each in kv)


def logits(model: VideoModel) -> Tensor:
    with torch.no_grad():
        return model._loaded.model(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).logits


def test_the_unmodified_model_stays_as_it_was(family: str) -> None:
    model = toy_model(family)
    text_model, loaded = model._parts.text_model, model._loaded.model
    before, names = logits(model), [name for name, _ in loaded.named_modules()]
    implementation = loaded.config._attn_implementation, text_model.config._attn_implementation
    layers = sharing_copy(text_model.layers)
    encoder = Encoder(layers, text_model.config, Rotary(text_model.rotary_emb, model.device))
    encoder.encode_text(model.embed([3, 1, 4]))
    assert torch.equal(logits(model), before)
    assert [name for name, _ in loaded.named_modules()] == names
    assert (loaded.config._attn_implementation, text_model.config._attn_implementation) == implementation
    assert ATTENTION not in implementation
    assert all(layer.self_attn.config._attn_implementation == implementation[1] for layer in text_model.layers)
    assert layers[0].self_attn.config._attn_implementation == ATTENTION


def test_parameters_are_shared_not_copied(model: VideoModel) -> None:
    own = dict(model._parts.text_model.layers.named_parameters())
    shared = dict(torch.nn.ModuleList(model.encoder._layers).named_parameters())
    assert shared and set(shared) < set(own), "the last layer needs only norm and projections"
    for name, parameter in shared.items():
        assert parameter.data_ptr() == own[name].data_ptr(), name
    last = len(model._parts.text_model.layers) - 1
    assert {name for name in set(own) - set(shared) if not name.startswith(f"{last}.")} == set()


def test_queries_are_those_of_the_questions_own_words(model: VideoModel) -> None:
    """[S, H, T, D], averaged over the query heads of a group, equal to the projections of the unmodified model."""
    suffix = model.prompt.suffix([Turn(question="what moves?")])
    found = model.queries(suffix)
    encoder = model.encoder
    assert found.shape == (2, encoder.num_kv_heads, sum(suffix.question), encoder.head_dim)
    assert found.dtype == torch.float32
    native = native_queries(model, (*model.prompt.prefix_ids, *suffix.ids))[:, :, model.prefix.length :]
    own = native[:, :, torch.tensor(suffix.question)]
    wanted = own.unflatten(1, (encoder.num_kv_heads, -1)).mean(2)
    assert distance(found, wanted) < 1e-5


def native_queries(model: VideoModel, ids: tuple[int, ...]) -> Tensor:
    """[2, Hq, T, D] un-rotated, of the first and last layer, overheard while the unmodified model runs."""
    text_model, heard, hooks = model._parts.text_model, [], []
    for layer in (text_model.layers[0], text_model.layers[-1]):
        source = getattr(layer.self_attn, "q_norm", None) or layer.self_attn.q_proj
        hooks.append(source.register_forward_hook(lambda module, args, output: heard.append(output)))
    try:
        with torch.no_grad():
            text_model(input_ids=torch.tensor([ids]))
    finally:
        for hook in hooks:
            hook.remove()
    queries = [each.reshape(len(ids), -1, model.encoder.head_dim).transpose(0, 1) for each in heard]
    return torch.stack(queries)


def test_a_cpu_takes_as_many_segments_at_a_time_as_its_cache_holds() -> None:
    """Order is kept, nothing is lost, and a segment that is larger than the limit goes alone."""
    sizes = [200, 200, 200, CPU_TOKENS + 1, 100, 1]
    segments = [SimpleNamespace(inputs=torch.empty(size, 1)) for size in sizes]
    calls = list(_calls(segments))  # type: ignore[arg-type]
    assert [[len(segment.inputs) for segment in call] for call in calls] == [[200, 200], [200], [513], [100, 1]]
    assert [segment for call in calls for segment in call] == segments
