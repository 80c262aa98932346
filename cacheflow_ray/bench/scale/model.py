"""From unit costs and a workload to machines and money: arithmetic alone, every line of it in docs/scale.md."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from cacheflow_ray.bench.scale.costs import Costs
from cacheflow_ray.bench.scale.queueing import Queue, servers_for
from cacheflow_ray.bench.scale.workloads import Archive, Asking, Common, Live, Prices, Video
from cacheflow_ray.config import Reencoding
from cacheflow_ray.errors import UsageError
from memory_store.records import JsonValue

HOUR_S, DAY_S, HOURS_PER_MONTH = 3600.0, 86400.0, 730.0

#: Streams one encoder may have open, where memory does not say less (`EncoderOptions.max_streams`).
MAX_STREAMS = 256

#: Blocks encoded before each that a question has encoded again (`Reencoding.warm_up_blocks` where it is not set).
WARM_UP_BLOCKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Questions under load: seconds of one alone, quantiles with the others', and how many answerers that takes."""

    answerers: int
    service_s: float
    p50_s: float
    p95_s: float
    utilisation: float
    reencode_s: float
    fetched_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a workload takes.

    Args:
        encoders: processors (GPUs, or cores); bound_by: "compute" or "memory" of them.
        decode_cores: of CPUs.
        written_mb_per_s, read_mb_per_s: at the disks.
        ram_gb: indexes of summaries: of the library, and of the streams that are asked about.
        ingress_gbit_per_s: video that comes in; internal_gbit_per_s: KV to the stores and to the answerers.
        hourly: cost an hour by item, while it runs; one_time: of an archive's indexing, by item.
        per_video_hour: cost of an hour of video: a camera's hour; or of an archive its indexing.
        per_video_hour_month: of an archive's hour, kept and asked about for a month; None where video goes on.
    """

    encoders: int
    bound_by: str
    decode_cores: float
    disk_tb: float
    written_mb_per_s: float
    read_mb_per_s: float
    ram_gb: float
    ingress_gbit_per_s: float
    internal_gbit_per_s: float
    answers: Answers
    hourly: dict[str, float]
    one_time: dict[str, float]
    per_video_hour: float
    per_video_hour_month: float | None

    def as_json(self) -> dict[str, JsonValue]:
        return asdict(self)


def plan_live(costs: Costs, work: Live) -> Needs:
    """What cameras take."""
    video, blocks_per_s = work.video, work.streams * _blocks_per_s(costs, work.video)
    busy = blocks_per_s * costs.block_s(video.keep, video.megapixels) / work.utilisation
    by_room = work.streams / (costs.room_streams or MAX_STREAMS)
    encoders = math.ceil(max(busy, by_room) - 1e-9)
    cores = work.streams * _decode_cores(costs, video) / work.utilisation
    with_kv = blocks_per_s * work.kv_days * DAY_S
    bare = blocks_per_s * max(0.0, work.summary_days - work.kv_days) * DAY_S
    answers = _answers(costs, work, without_kv=0.0)
    disk_tb = (with_kv * costs.block_bytes[work.kv_codec] + bare * costs.summary_bytes) / 1e12
    each_kept = (with_kv + bare) / work.streams
    ram_gb = _ram_gb(costs, work, with_kv + bare, min(work.asking.streams, work.streams) * each_kept)
    ingress = work.streams * video.mbit_per_s / 1e3
    hourly = _hourly(costs, work.prices, encoders + answers.answerers, cores, disk_tb, ram_gb)
    hourly["network"] = ingress / 8 * HOUR_S * work.prices.network_gb
    return Needs(
        encoders=encoders,
        bound_by="compute" if busy >= by_room else "memory",
        decode_cores=cores,
        disk_tb=disk_tb,
        written_mb_per_s=blocks_per_s * costs.block_bytes[work.kv_codec] / 1e6,
        read_mb_per_s=work.asking.per_s * answers.fetched_bytes / 1e6,
        ram_gb=ram_gb,
        ingress_gbit_per_s=ingress,
        internal_gbit_per_s=_internal(costs, work, blocks_per_s, answers),
        answers=answers,
        hourly=hourly,
        one_time={},
        per_video_hour=sum(hourly.values()) / work.streams,
        per_video_hour_month=None,
    )


def plan_archive(costs: Costs, work: Archive) -> Needs:
    """What an archive takes: first to be indexed before the deadline, then to be kept and asked about."""
    video, wall_s = work.video, work.deadline_days * DAY_S
    blocks = work.hours * HOUR_S * _blocks_per_s(costs, video)
    encoders = math.ceil(blocks * costs.block_s(video.keep, video.megapixels) / (wall_s * work.utilisation) - 1e-9)
    cores = work.hours * HOUR_S / wall_s * _decode_cores(costs, video) / work.utilisation
    answers = _answers(costs, work, without_kv=work.summary_only)
    with_kv, bare = blocks * (1 - work.summary_only), blocks * work.summary_only
    disk_tb = (with_kv * costs.block_bytes[work.kv_codec] + bare * costs.summary_bytes) / 1e12
    asked_blocks = min(blocks, work.asking.streams * work.asking.hours * HOUR_S * _blocks_per_s(costs, video))
    ram_gb = _ram_gb(costs, work, blocks, asked_blocks)
    ingress = work.hours * HOUR_S / wall_s * video.mbit_per_s / 1e3
    hours = work.deadline_days * 24
    one_time = {
        "encoders": encoders * _processor_hour(costs, work.prices) * hours,
        "decoding": cores * work.prices.core_hour * hours,
        "network": ingress / 8 * wall_s * work.prices.network_gb,
    }
    again_s = work.asking.per_s * _reencoded(work.asking, work.summary_only) * _source_s(costs, video)
    again_cores = again_s * _decode_cores(costs, video) / work.utilisation
    hourly = _hourly(costs, work.prices, answers.answerers, again_cores, disk_tb, ram_gb)
    return Needs(
        encoders=encoders,
        bound_by="compute",
        decode_cores=cores,
        disk_tb=disk_tb,
        written_mb_per_s=disk_tb * 1e6 / wall_s,
        read_mb_per_s=work.asking.per_s * answers.fetched_bytes / 1e6,
        ram_gb=ram_gb,
        ingress_gbit_per_s=ingress,
        internal_gbit_per_s=_internal(costs, work, blocks / wall_s, answers),
        answers=answers,
        hourly=hourly,
        one_time=one_time,
        per_video_hour=sum(one_time.values()) / work.hours,
        per_video_hour_month=sum(hourly.values()) * HOURS_PER_MONTH / work.hours,
    )  # fmt: skip


def _blocks_per_s(costs: Costs, video: Video) -> float:
    """Of one stream."""
    return video.fps * video.keep * costs.patches / costs.block_tokens


def _source_s(costs: Costs, video: Video) -> float:
    """Seconds of video in one block."""
    return 1 / _blocks_per_s(costs, video)


def _decode_cores(costs: Costs, video: Video) -> float:
    """Cores that decode a second of video in a second; every source frame is decoded."""
    if video.codec not in costs.decode_s:
        raise UsageError(f"nothing is known of codec {video.codec!r}: use {', '.join(sorted(costs.decode_s))}")
    return video.source_fps * video.megapixels * costs.decode_s[video.codec]


def _answers(costs: Costs, work: Common, without_kv: float) -> Answers:
    """`without_kv`: the share of retrieved blocks that are encoded again; a window keeps its KV."""
    asking, video = work.asking, work.video
    held = asking.top_k + costs.window_blocks
    context = (held + 0.5) * costs.block_tokens
    vectors = asking.hours * HOUR_S * _blocks_per_s(costs, video) * costs.vectors
    reencode_s = 0.0
    if without_kv:
        decode_s = _source_s(costs, video) * _decode_cores(costs, video) / asking.cores
        each_s = costs.block_s(video.keep, video.megapixels) + decode_s
        reencode_s = min(_reencoded(asking, without_kv) * each_s, Reencoding().max_seconds)
    service_s = costs.question.seconds(vectors=vectors, context=context, tokens=asking.answer_tokens) + reencode_s
    answerers = servers_for(asking.per_s, service_s, work.utilisation)
    queue = Queue(rate=asking.per_s, service_s=service_s, servers=answerers, cv2=asking.cv2)
    return Answers(
        answerers=answerers,
        service_s=service_s,
        p50_s=queue.latency_s(0.5),
        p95_s=queue.latency_s(0.95),
        utilisation=queue.utilisation,
        reencode_s=reencode_s,
        fetched_bytes=(costs.window_blocks + asking.top_k * (1 - without_kv)) * costs.kv_bytes,
    )


def _reencoded(asking: Asking, without_kv: float) -> float:
    """Blocks that a question has encoded, each with its own warm-up (none of them neighbours)."""
    return without_kv * min(asking.top_k, Reencoding().max_blocks) * (1 + WARM_UP_BLOCKS)


def _ram_gb(costs: Costs, work: Common, blocks: float, asked_blocks: float) -> float:
    return (blocks * costs.library_bytes[work.library_codec] + asked_blocks * costs.flat_bytes) / 1e9


def _internal(costs: Costs, work: Common, blocks_per_s: float, answers: Answers) -> float:
    """Gbit/s where encoders, stores and answerers are on nodes of their own; codecs are applied by the store."""
    return (blocks_per_s * costs.kv_bytes + work.asking.per_s * answers.fetched_bytes) * 8 / 1e9


def _processor_hour(costs: Costs, prices: Prices) -> float:
    return prices.gpu_hour if costs.processor == "gpu" else prices.core_hour


def _hourly(
    costs: Costs, prices: Prices, processors: float, cores: float, disk_tb: float, ram_gb: float
) -> dict[str, float]:
    return {
        "processors": processors * _processor_hour(costs, prices),
        "decoding": cores * prices.core_hour,
        "disk": disk_tb * prices.disk_tb_month / HOURS_PER_MONTH,
        "memory": ram_gb * prices.ram_gb_month / HOURS_PER_MONTH,
    }
