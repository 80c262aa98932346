"""The engine's oracles, each on every family at toy size (float32; what is measured goes into the summary's table)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cacheflow_ray.config import AskOptions, ModelOptions
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.batch import StageTimes, commit, encode_frames
from cacheflow_ray.engine.opened import Backend, open_stream
from cacheflow_ray.engine.rehydration import Plan, rehydrate
from cacheflow_ray.models import Turn, VideoModel, load_model
from memory_store import Store
from memory_store.testing import MemoryStore
from tests.oracles import (
    FAMILIES,
    context_logits,
    distance,
    encode,
    moving_frames,
    native_logits,
    open_encoder,
    save_toy,
    settings,
    stored_kv,
    toy_model,
)

EXACT = 1e-5
Record = Callable[[str, str, float], None]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(family: str) -> VideoModel:
    return toy_model(family)


@pytest.fixture
def backend(model: VideoModel, tmp_path: Path) -> Iterator[Backend]:
    with Store.open(tmp_path / "data") as store:
        yield Backend(model=model, store=store)


def test_short_undropped_stream_equals_full_causal_attention(backend: Backend, family: str, oracle: Record) -> None:
    """Oracle 1: nothing dropped, everything in the window or tail: the unmodified model on the pixels says the same."""
    frames = moving_frames(7 if family == "tiny-llava-onevision" else 8)
    encode(backend, {"s": frames}, settings(tau=2.0, window_blocks=64), chunk=3)
    suffix = backend.model.prompt.suffix([Turn(question="what moves?")])
    opened = open_stream(backend, "s")
    assert len(opened.state.tail), "the tail is part of what is tested"
    plan = Plan(blocks=tuple(range(opened.num_blocks)), num_window=opened.num_blocks, with_tail=True, room=64)
    ready = rehydrate(backend, opened, plan)
    found = context_logits(backend.model, ready.context, suffix.ids, ready.text_start)
    wanted = native_logits(backend.model, frames, suffix.ids)
    measured = distance(found, wanted)
    oracle(family, "1 full attention", measured)
    assert measured < EXACT


def test_oracle_one_can_fail(backend: Backend, family: str) -> None:
    """A context that lacks one block does not pass for the full one."""
    frames = moving_frames(8)
    encode(backend, {"s": frames}, settings(tau=2.0, window_blocks=64), chunk=3)
    suffix = backend.model.prompt.suffix([Turn(question="what moves?")])
    opened = open_stream(backend, "s")
    plan = Plan(blocks=tuple(range(1, opened.num_blocks)), num_window=0, with_tail=True, room=64)
    ready = rehydrate(backend, opened, plan)
    found = context_logits(backend.model, ready.context, suffix.ids, ready.text_start)
    assert distance(found, native_logits(backend.model, frames, suffix.ids)) > 100 * EXACT


def test_kv_does_not_depend_on_chunks_or_company(backend: Backend, family: str, oracle: Record) -> None:
    """Oracle 2: one frame at a time, eight at a time, or among other streams: the same KV, tokens and tail."""
    frames, others = moving_frames(48), {f"other{n}": moving_frames(30 + 4 * n, seed=n) for n in (1, 2, 3)}
    encode(backend, {"one": frames}, settings(), chunk=1)
    encode(backend, {"eight": frames}, settings(), chunk=8)
    encode(backend, {"crowd": frames, **others}, settings(), chunk=5)
    assert backend.store.stats("one").num_blocks > 6, "the window has to slide"
    wanted = stored_kv(backend, "one")
    states = {name: open_stream(backend, name).state for name in ("one", "eight", "crowd")}
    measured = 0.0
    for name in ("eight", "crowd"):
        _same_tokens(backend, "one", name)
        assert torch.equal(states["one"].tail.inputs, states[name].tail.inputs)
        measured = max(measured, distance(stored_kv(backend, name), wanted))
    oracle(family, "2 chunks, company", measured)
    assert measured < EXACT


def test_a_question_changes_nothing(model: VideoModel, family: str, tmp_path: Path, oracle: Record) -> None:
    """Oracle 3: every stored byte of the stream is the same before and after."""
    with VideoMemory.open(tmp_path / "data", model=model) as memory:
        backend = Backend(model=model, store=memory.store)
        encode(backend, {"s": moving_frames(40)}, settings(), chunk=8)
        before = _everything(backend, "s")
        first = memory.ask("s", "what moves?", options=AskOptions(max_new_tokens=3, top_k=2)).result
        again = memory.ask("s", "what moves?", options=AskOptions(max_new_tokens=3, top_k=2)).result
        assert _everything(backend, "s") == before
        assert (first.text, first.evidence, first.usage) == (again.text, again.evidence, again.usage)
    oracle(family, "3 questions", 0.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_kv_survives_the_store_bit_for_bit(family: str, dtype: str, tmp_path: Path, oracle: Record) -> None:
    """Oracle 4: what the encoder gave == what a reopened store fetches."""
    model = toy_model(family, dtype)
    double = Backend(model=model, store=MemoryStore())
    with Store.open(tmp_path / "data") as store:
        encode(Backend(model=model, store=store), {"s": moving_frames(30)}, settings(), chunk=8)
    encode(double, {"s": moving_frames(30)}, settings(), chunk=8)
    with Store.open(tmp_path / "data", read_only=True) as store:
        found = stored_kv(Backend(model=model, store=store), "s")
    wanted = stored_kv(double, "s")
    assert found.numel() and found.dtype == wanted.dtype
    bits = torch.int32 if dtype == "float32" else torch.int16
    assert torch.equal(found.view(bits), wanted.view(bits))
    oracle(family, "4 reopened", 0.0)


def test_resumed_stream_equals_uninterrupted(backend: Backend, family: str, oracle: Record) -> None:
    """Oracle 5: an encoder lost after any commit, resumed elsewhere: KV identical to the byte (batches alike)."""
    frames, chosen, times = moving_frames(41), settings(), StageTimes()
    encode(backend, {"whole": frames}, chosen, chunk=3)
    encoder = open_encoder(backend, "broken", chosen)
    for start in range(0, len(frames), 3):
        encode_frames(backend.model, {encoder: frames[start : start + 3]}, times)
        if start % 2:  # work done and lost before its commit is done again
            encoder = open_encoder(backend, "broken", chosen)
            # An encoder recognises what it has by seq, so the source may well start anew.
            encode_frames(backend.model, {encoder: frames[: start + 3]}, times)
        commit(backend.store, [encoder], times)
        encoder = open_encoder(backend, "broken", chosen)
    encode_frames(backend.model, {encoder: ()}, times, last=True)
    encoder.finish()
    commit(backend.store, [encoder], times)
    _same_tokens(backend, "whole", "broken")
    whole, broken = (open_stream(backend, name).state for name in ("whole", "broken"))
    assert torch.equal(whole.tail.inputs, broken.tail.inputs)
    assert np.array_equal(whole.tail.tokens, broken.tail.tokens)
    assert torch.equal(stored_kv(backend, "whole"), stored_kv(backend, "broken"))
    counted = (whole.counters.frames, whole.counters.tokens_seen, whole.counters.tokens_kept)
    assert counted == (broken.counters.frames, broken.counters.tokens_seen, broken.counters.tokens_kept)
    oracle(family, "5 resumed", 0.0)


def test_the_tail_gets_the_kv_it_will_keep(backend: Backend, family: str) -> None:
    """A question sees the open tail with exactly the KV its tokens have once their block is full."""
    frames, chosen, times = moving_frames(40), settings(), StageTimes()
    encoder = open_encoder(backend, "s", chosen)
    encode_frames(backend.model, {encoder: frames[:30]}, times)
    commit(backend.store, [encoder], times)
    opened = open_stream(backend, "s")
    held = range(max(0, opened.num_blocks - opened.spec.window_blocks), opened.num_blocks)
    plan = Plan(blocks=tuple(held), num_window=len(held), with_tail=True, room=8)
    context = rehydrate(backend, opened, plan).context
    encode_frames(backend.model, {encoder: frames[30:]}, times)
    commit(backend.store, [encoder], times)
    length = len(opened.state.tail)
    assert length and backend.store.stats("s").num_blocks > opened.num_blocks
    block = stored_kv(backend, "s")[:, 1, :, opened.num_blocks * 15 :][:, :, :length]
    assert distance(context.values[:, :, context.length - length : context.length], block) < EXACT


def test_bfloat16_stays_near_float32(family: str, tmp_path: Path, oracle: Record) -> None:
    """KV of the same weights and frames, nothing dropped: within 5 % in norm after all layers of a toy model."""
    folder = str(save_toy(family, tmp_path))
    kv = []
    for dtype in ("float32", "bfloat16"):
        model = load_model(folder, ModelOptions.model_validate({"device": "cpu", "dtype": dtype}))
        backend = Backend(model=model, store=MemoryStore())
        encode(backend, {"s": moving_frames(12)}, settings(tau=2.0), chunk=4)
        kv.append(stored_kv(backend, "s").float())
    error = float((kv[1] - kv[0]).norm() / kv[0].norm())
    oracle(family, "bfloat16 (relative norm)", error)
    assert error < 0.05


def _same_tokens(backend: Backend, one: str, other: str) -> None:
    count = backend.store.stats(one).num_blocks
    assert count == backend.store.stats(other).num_blocks
    for left, right in zip(
        backend.store.read_tokens(one, range(count)), backend.store.read_tokens(other, range(count)), strict=True
    ):
        assert np.array_equal(left, right)


def _everything(backend: Backend, stream: str) -> tuple[object, ...]:
    store = backend.store
    count = store.stats(stream).num_blocks
    kv = stored_kv(backend, stream).numpy().tobytes()
    tokens = tuple(tokens.tobytes() for tokens in store.read_tokens(stream, range(count)))
    return store.get_stream(stream), store.load_state(stream), store.stats(stream), tokens, kv
