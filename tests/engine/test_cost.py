"""Oracle 6: what a question costs does not grow with what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from cacheflow_ray.config import AskOptions, StreamSettings
from cacheflow_ray.core.packing import Tail
from cacheflow_ray.engine import VideoMemory
from cacheflow_ray.engine.about import Counters
from cacheflow_ray.engine.spec import StreamSpec
from cacheflow_ray.engine.state import EncoderState
from cacheflow_ray.models import VideoModel
from cacheflow_ray.types import TOKEN_DTYPE, StreamRecord
from memory_store import Block, Commit, Store, StreamState
from memory_store.records import Array
from tests.oracles import FAMILIES, toy_model

Record = Callable[[str, str, float], None]

BLOCK_SIZE, WINDOW, TAIL = 4, 3, 2
BLOCK_S = 4.0
LENGTHS_S = {"minutes": 600.0, "hours": 36_000.0}


@pytest.fixture(scope="module", params=FAMILIES)
def memory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VideoMemory]:
    """Streams 'minutes' and 'hours', a block every four seconds, in one store."""
    data, model = tmp_path_factory.mktemp("data"), toy_model(request.param)
    with Store.open(data) as store:
        for stream, length_s in LENGTHS_S.items():
            fill(store, model, stream, num_blocks=round(length_s / BLOCK_S))
    with VideoMemory.open(data, model=model) as opened:
        yield opened


def tokens_of(block_idx: int, count: int) -> Array:
    """One kept token per frame and second."""
    tokens = np.zeros(count, TOKEN_DTYPE)
    tokens["frame_idx"] = tokens["timestamp_s"] = tokens["pos"] = block_idx * BLOCK_SIZE + np.arange(count)
    return tokens


def fill(store: Store, model: VideoModel, stream: str, *, num_blocks: int) -> None:
    """A stream of blocks of random KV, and the state an encoder would have left."""
    rng = np.random.default_rng(num_blocks)
    settings = StreamSettings(block_size=BLOCK_SIZE, window_blocks=WINDOW)
    spec = StreamSpec.resolve(settings, model, "")
    store.create_stream(
        StreamRecord(stream_id=stream, fingerprint=model.fingerprint, settings=spec.as_settings(), created_s=1.0)
    )
    encoder = model.encoder
    shape = (encoder.num_layers, 2, encoder.num_kv_heads, BLOCK_SIZE, encoder.head_dim)
    for start in range(0, num_blocks, 500):
        part = range(start, min(start + 500, num_blocks))
        kv = rng.standard_normal((len(part), *shape), dtype=np.float32)
        blocks = tuple(
            Block(
                stream_id=stream,
                block_idx=block_idx,
                tokens=tokens_of(block_idx, BLOCK_SIZE),
                kv=kv[place],
                summary=kv[place, [0, -1], 0].mean(axis=2)[:, None],
            )
            for place, block_idx in enumerate(part)
        )
        state = StreamState(epoch=0, num_blocks=part.stop, payload=state_after(model, part.stop).to_bytes())
        store.commit([Commit(stream_id=stream, state=state, blocks=blocks)])


def state_after(model: VideoModel, num_blocks: int) -> EncoderState:
    seen = num_blocks * BLOCK_SIZE + TAIL
    return EncoderState(
        tail=Tail(inputs=torch.zeros(TAIL, model.token_width), tokens=tokens_of(num_blocks, TAIL)),
        next_seq=seen,
        next_pos=seen,
        last_timestamp_s=float(seen - 1),
        grid=model.vision.grid(84, 112),
        counters=Counters(frames=seen, units=seen, tokens_seen=seen, tokens_kept=seen),
    )


@pytest.mark.parametrize("options", [AskOptions(), AskOptions(top_k=20, merge="rrf", ranking="votes", window_blocks=1)])
def test_ten_hours_cost_a_question_no_more_than_ten_minutes(
    memory: VideoMemory, options: AskOptions, oracle: Record
) -> None:
    spent = {}
    for stream, length_s in LENGTHS_S.items():
        assert memory.stream(stream).end_s == length_s - 1
        few_words = options.model_copy(update={"max_new_tokens": 1})
        spent[stream] = memory.ask(stream, "what happened?", options=few_words).result.usage
    assert spent["minutes"] == spent["hours"]
    usage, window = spent["hours"], WINDOW if options.window_blocks is None else options.window_blocks
    assert (usage.retrieved_blocks, usage.window_blocks, usage.tail_tokens) == (options.top_k, window, TAIL)
    blocks = options.top_k + window
    assert usage.context_tokens == memory.model.prefix.length + blocks * BLOCK_SIZE + TAIL
    encoder = memory.model.encoder
    block_bytes = encoder.num_layers * 2 * encoder.num_kv_heads * BLOCK_SIZE * encoder.head_dim * 4
    # The tail is encoded under the stream's own window, which is fetched apart where the question has another.
    fetched = blocks if window == WINDOW else blocks + WINDOW
    assert usage.fetched_bytes == fetched * block_bytes
    oracle(memory.model.name.removeprefix("random:"), "6 cost", 0.0)
