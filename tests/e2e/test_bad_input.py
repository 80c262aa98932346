"""Whatever is wrong with input, model, store or machine: one line that names it and the mend, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cacheflow_ray.core.summary import default_summary, make_summary
from cacheflow_ray.media import Encoding, Frame, write_video
from memory_store import Store
from memory_store.folder import FORMAT
from tests.e2e.commands import MODEL, SMALL, Command, Ran, Stored, stored
from tests.media.clips import audio_only
from tests.oracles import moving_frames, save_toy

H264 = Encoding(options={"preset": "ultrafast", "crf": "20", "bf": "0"})
FRAMES = 24


def clip(path: Path, count: int = FRAMES, *, size: tuple[int, int] = (84, 112), start_s: float = 0.0) -> Path:
    """A video of `count` frames, 8 to the second, of that height and width."""
    frames = moving_frames(count, height=max(size[0], 42), width=max(size[1], 42))
    images = [np.ascontiguousarray(frame.image[: size[0], : size[1]]) for frame in frames]
    timed = (Frame(seq=i, timestamp_s=start_s + i / 8, image=image) for i, image in enumerate(images))
    write_video(path, timed, codec=H264)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clips") / "kept.mp4")


@pytest.fixture
def data(tmp_path: Path, video: Path, cacheflow: Command) -> Path:
    """A store with one stream, 'kept'."""
    cacheflow("ingest", video, "--model", MODEL, "--data", tmp_path / "data", *SMALL).said  # noqa: B018
    return tmp_path / "data"


@pytest.fixture
def kept(data: Path) -> Iterator[Stored]:
    """What that stream holds; it must be the same after the test."""
    before = stored(data, "kept")
    assert len(before.tokens)
    yield before
    assert stored(data, "kept") == before


def splice(path: Path, first: Path, second: Path, *, gap_s: float) -> Path:
    """One transport stream: the pictures of the first, and `gap_s` seconds later those of the second."""
    with av.open(str(first)) as a, av.open(str(second)) as b, av.open(str(path), "w") as out:
        stream, end = out.add_stream_from_template(a.streams.video[0]), 0
        for source, shift_s in ((a, 0.0), (b, gap_s)):
            start = round(end + shift_s * 90_000)
            for packet in source.demux(video=0):
                if packet.dts is not None and packet.pts is not None:
                    packet.pts, packet.dts, packet.stream = packet.pts + start, packet.dts + start, stream
                    end = packet.pts
                    out.mux(packet)
    return path


def ask(cacheflow: Command, data: Path, *args: object, stream: str = "kept", question: str = "What moves?") -> Ran:
    return cacheflow("ask", stream, question, "--data", data, "--max-new-tokens", "4", *args)


# ---- sources


def test_what_is_no_video_is_refused_by_name(
    data: Path, kept: Stored, video: Path, tmp_path: Path, cacheflow: Command
) -> None:
    sources = {
        "zero.mp4": (b"", "UnsupportedMedia", "empty"),
        "notes.txt": (b"dear diary\n" * 200, "UnsupportedMedia", "text"),
        "notes.mp4": (b"dear diary\n" * 200, "UnsupportedMedia", "not a video"),
        "stub.mp4": (video.read_bytes()[:900], "BrokenMedia", "copy or record it again"),
        "song.m4a": (audio_only(tmp_path / "a.m4a").read_bytes(), "UnsupportedMedia", "only audio"),
    }
    for name, (content, kind, word) in sources.items():
        (tmp_path / name).write_bytes(content)
        ran = cacheflow("ingest", tmp_path / name, "--model", MODEL, "--data", data, *SMALL)
        ran.refused(kind, 1, repr(str(tmp_path / name)), word)
    two = (clip(tmp_path / "fine.mp4", 3), tmp_path / "zero.mp4")
    cacheflow("ingest", *two, "--model", MODEL, "--data", data).refused("UnsupportedMedia", 1, repr(str(two[1])))
    assert streams(cacheflow, data) == ["kept"]


def streams(cacheflow: Command, data: Path) -> list[str]:
    return [info["stream"] for info in cacheflow("streams", "list", "--data", data).said["streams"]]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.mp4", ("'nowhere.mp4'", "check the path")),
        ("http://127.0.0.1:1/x.mp4", ("'http://127.0.0.1:1/x.mp4'", "cannot be reached", "check the address")),
    ],
)
def test_a_source_that_is_not_there_is_named(
    source: str, words: tuple[str, ...], data: Path, kept: Stored, cacheflow: Command
) -> None:
    cacheflow("ingest", source, "--model", MODEL, "--data", data, *SMALL).refused("SourceNotFound", 1, *words)
    assert streams(cacheflow, data) == ["kept"]


def test_a_video_cut_anywhere_is_kept_as_far_as_it_goes(tmp_path: Path, cacheflow: Command) -> None:
    data, whole = tmp_path / "data", clip(tmp_path / "whole.mkv").read_bytes()
    line = ("--model", MODEL, "--data", data, *SMALL)
    assert cacheflow("ingest", tmp_path / "whole.mkv", *line).said["streams"][0]["warning"] is None
    everything, seen = stored(data, "whole"), set()
    for size in np.linspace(1, len(whole) - 1, 25).astype(int):
        cut = tmp_path / f"cut{size}.mkv"
        cut.write_bytes(whole[:size])
        ran = cacheflow("ingest", cut, *line)
        if ran.code:
            assert ran.code == 1 and ran.err.count("\n") == 1 and repr(str(cut)) in ran.err
            cacheflow("streams", "show", cut.stem, "--data", data).refused("StreamNotFound", 2)
            continue
        report = ran.said["streams"][0]
        seen.add(report["frames"])
        assert everything.starts_with(stored(data, cut.stem))
        if report["frames"] < FRAMES:
            last_s = (report["frames"] - 1) / 8
            assert f"broke off at {last_s:.2f} s" in report["warning"] and report["warning"] in ran.err
            assert cacheflow("streams", "show", cut.stem, "--data", data).said["warning"] == report["warning"]
    assert min(seen) < FRAMES / 2 and len(seen) > 5
    assert stored(data, "whole") == everything


def test_damaged_pieces_within_a_video_are_left_out_and_told(video: Path, tmp_path: Path, cacheflow: Command) -> None:
    write_video(tmp_path / "whole.mp4", [f.image for f in moving_frames(10)], codec=Encoding(options={"g": "1"}))
    with av.open(str(tmp_path / "whole.mp4")) as container:
        at, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][4]
    content = bytearray((tmp_path / "whole.mp4").read_bytes())
    content[at : at + size] = b"\xff" * size
    (tmp_path / "hole.mp4").write_bytes(content)
    ran = cacheflow("ingest", tmp_path / "hole.mp4", "--model", MODEL, "--data", tmp_path / "data", *SMALL)
    assert ran.said["streams"][0]["frames"] == 9
    assert "1 damaged piece was left out" in ran.err


@pytest.mark.parametrize("model", [MODEL, "random:tiny-qwen2.5-vl"])
@pytest.mark.parametrize(
    ("count", "size"), [(1, (84, 112)), (2, (16, 16)), (2, (4320, 7680))], ids=["1-frame", "16x16", "8K"]
)
def test_the_shortest_smallest_and_largest_videos_are_answered_about(
    model: str, count: int, size: tuple[int, int], tmp_path: Path, cacheflow: Command
) -> None:
    clip(tmp_path / "odd.mp4", count, size=size)
    report = cacheflow("ingest", tmp_path / "odd.mp4", "--model", model, "--data", tmp_path / "data", *SMALL).said
    assert (report["streams"][0]["frames"], report["streams"][0]["warning"]) == (count, None)
    usage = ask(cacheflow, tmp_path / "data", stream="odd").said["usage"]
    assert usage["tail_tokens"] + usage["window_blocks"] > 0


@pytest.mark.parametrize(
    ("model", "kept"),
    # One patch of each frame (pair of frames), but all 16 (12) of the first, and of the first of a new shape.
    [(MODEL, 16 + 17), ("random:tiny-qwen2.5-vl", 2 * (12 + 4))],
)
def test_a_video_may_change_its_size_on_the_way(model: str, kept: int, tmp_path: Path, cacheflow: Command) -> None:
    first, second = clip(tmp_path / "a.ts", 9), clip(tmp_path / "b.ts", 9, size=(112, 84))
    spliced = splice(tmp_path / "ab.ts", first, second, gap_s=1)
    line = ("--model", model, "--data", tmp_path / "data", *SMALL, "--tau", "-1", "--block-size", "5")
    report = cacheflow("ingest", spliced, *line).said["streams"][0]
    assert (report["frames"], report["tokens_kept"], report["warning"]) == (18, kept, None)
    assert (np.diff(stored(tmp_path / "data", "ab").tokens["timestamp_s"]) >= 0).all()
    assert ask(cacheflow, tmp_path / "data", stream="ab").said["usage"]["context_tokens"]


def test_frames_whose_time_runs_back_are_left_out_and_told(tmp_path: Path, cacheflow: Command) -> None:
    first, again = clip(tmp_path / "a.ts", 16), clip(tmp_path / "b.ts", 20)
    (tmp_path / "ab.ts").write_bytes(first.read_bytes() + again.read_bytes())
    ran = cacheflow("ingest", tmp_path / "ab.ts", "--model", MODEL, "--data", tmp_path / "data", *SMALL)
    assert ran.said["streams"][0]["frames"] == 19  # of the first file's 16, the one at the seam is damaged
    warning = "1 damaged piece was left out; 16 frames were left out: their timestamps run back"
    assert ran.said["streams"][0]["warning"] == warning and warning in ran.err
    tokens = stored(tmp_path / "data", "ab").tokens
    assert (np.diff(tokens["timestamp_s"]) >= 0).all()


# ---- models


def nan_model(folder: Path, weight: str) -> Path:
    """A toy checkpoint with one NaN in that weight."""
    from safetensors.torch import load_file, save_file

    save_toy(MODEL.removeprefix("random:"), folder)
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if name.endswith(weight) and "vision_tower" not in name]
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ("projector.linear_2.bias", ("vision tower", "frame 0", "check the model's weights")),
        ("layers.0.self_attn.v_proj.bias", ("language model", "block 0", "check the model's weights")),
        ("layers.3.self_attn.v_proj.bias", ("language model", "block 0", "check the model's weights")),
    ],
)
def test_a_model_that_gives_nan_is_stopped_before_anything_is_kept(
    weight: str,
    words: tuple[str, ...],
    data: Path,
    kept: Stored,
    video: Path,
    tmp_path: Path,
    cacheflow: Command,
) -> None:
    folder = nan_model(tmp_path / "nan", weight)
    line = ("--data", data, "--stream", "bad", *SMALL)
    cacheflow("ingest", video, "--model", folder, *line).refused("InvalidFeatures", 1, "'bad'", *words)
    assert not len(stored(data, "bad").tokens)


def test_a_stream_of_another_model_is_refused_naming_both(
    data: Path, kept: Stored, video: Path, cacheflow: Command
) -> None:
    other = "random:tiny-qwen2-vl"
    for line in (("ask", "kept", "What?"), ("search", "kept", "a ball"), ("ingest", video, *SMALL)):
        cacheflow(*line, "--model", other, "--data", data).refused("FingerprintMismatch", 1, MODEL, other, "'kept'")


def test_a_model_without_an_adapter_or_without_files_is_named(
    data: Path, kept: Stored, video: Path, tmp_path: Path, cacheflow: Command
) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "bare").mkdir()
    for name, kind, word in (
        ("bert", "UnsupportedModel", "there are adapters for"),
        ("bare", "ModelLoadError", "give a folder saved with"),
    ):
        for line in (("ingest", video, "--stream", "new"), ("ask", "kept", "What?")):
            ran = cacheflow(*line, "--model", tmp_path / name, "--data", data)
            ran.refused(kind, 1, repr(str(tmp_path / name)), word)
    assert streams(cacheflow, data) == ["kept"]


# ---- questions


def test_a_question_that_makes_no_sense_is_refused(data: Path, kept: Stored, cacheflow: Command) -> None:
    long = "why? " * 2000
    for words in ("", "  \n"):
        ask(cacheflow, data, question=words).refused("EmptyQuestion", 2, "ask something")
        cacheflow("search", "kept", words, "--data", data).refused("EmptyQuestion", 2, "empty")
    ask(cacheflow, data, question=long).refused("QuestionTooLong", 2, "4096", MODEL, "shorten the question")
    cacheflow("search", "kept", long, "--data", data).refused("QuestionTooLong", 2, "4096", "shorten")
    ask(cacheflow, data, "--from", "9:00", "--to", "9:30").refused("NothingToAnswer", 1, "'kept'", "540 s and 570 s")
    ask(cacheflow, data, "--from", "2", "--to", "1").refused("InvalidRecord", 2, "2.0..1.0 s", "swap")
    ask(cacheflow, data, "--from", "noon").refused("InvalidConfig", 2, "--from", "'noon'", "H:MM:SS")
    ask(cacheflow, data, stream="other").refused("StreamNotFound", 2, "'other'", "list the streams")
    ask(cacheflow, data, "--session", "nope").refused("UsageError", 2, "'nope'", "leave --session out")


def test_a_stream_without_video_yet_is_named(data: Path, video: Path, tmp_path: Path, cacheflow: Command) -> None:
    folder = nan_model(tmp_path / "nan", "projector.linear_2.bias")
    assert cacheflow("ingest", video, "--model", folder, "--data", data, "--stream", "bad").code == 1
    ask(cacheflow, data, stream="bad").refused("NothingToAnswer", 1, "'bad'", "holds no video yet: ingest some")


# ---- streams and settings


def test_settings_no_stream_can_have_are_refused_and_leave_nothing(
    data: Path, kept: Stored, video: Path, cacheflow: Command
) -> None:
    line = ("ingest", video, "--model", MODEL, "--data", data)
    cacheflow(*line, "--stream", "new", "--summary", "best").refused("InvalidConfig", 2, "'best'", "mean")
    cacheflow(*line, "--stream", "new", "--tau", "7").refused("InvalidConfig", 2, "tau", "-1 to 2")
    cacheflow(*line, "--stream", "a/b").refused("InvalidRecord", 2, "'a/b'", "letters, digits")
    assert streams(cacheflow, data) == ["kept"]


def test_a_stream_goes_on_only_with_its_own_source_and_settings(
    data: Path, kept: Stored, video: Path, tmp_path: Path, cacheflow: Command
) -> None:
    line = ("--model", MODEL, "--data", data, "--stream", "kept")
    changed = [("--tau" if option == "--tau" else option) for option in SMALL]
    changed[changed.index("--tau") + 1] = "0.3"
    cacheflow("ingest", video, *line, *changed).refused("SettingsMismatch", 2, "'kept'", "tau is 2.0, not 0.3")
    other = clip(tmp_path / "other.mp4", 10)
    for settings in (SMALL, ()):
        cacheflow("ingest", other, *line, *settings).refused("SettingsMismatch", 2, "'kept'", "another --stream name")


# ---- the store


def test_a_store_of_a_newer_format_is_left_alone(data: Path, kept: Stored, video: Path, cacheflow: Command) -> None:
    manifest = data / "manifest.json"
    written = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(written) | {"format": FORMAT + 1}))
    before = (data / "shard-0000" / "data.mdb").read_bytes()
    for line in (("ask", "kept", "What?"), ("ingest", video, *SMALL), ("streams", "list"), ("search", "kept", "x")):
        cacheflow(*line, "--data", data).refused(
            "UnsupportedFormat", 1, str(data), f"format {FORMAT + 1}", "version that made it"
        )
    assert (data / "shard-0000" / "data.mdb").read_bytes() == before
    manifest.write_text(written)


_HOLD = "import sys; from memory_store import Store\nwith Store.open(sys.argv[1]):\n print('open', flush=True); input()"


def test_a_second_writer_is_refused_naming_the_first(data: Path, kept: Stored, video: Path, cacheflow: Command) -> None:
    line = ("ingest", video, "--model", MODEL, "--stream", "second", "--data", data, *SMALL)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "open\n"
        cacheflow(*line).refused("StoreLocked", 1, str(data), f"process {first.pid}", "stop it")
        first.communicate("done\n")
    assert cacheflow(*line).said["streams"][0]["frames"] == FRAMES


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_named(video: Path, tmp_path: Path, cacheflow: Command) -> None:
    (tmp_path / "file").touch()
    line = ("ingest", video, "--model", MODEL, *SMALL)
    cacheflow(*line, "--data", tmp_path / "file").refused("StoreUnavailable", 1, str(tmp_path / "file"), "check")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        with as_nobody():
            ran = cacheflow(*line, "--data", Path(name) / "data")
        ran.refused("StoreUnavailable", 1, f"{name}/data", "Permission denied", "may be written")


@contextmanager
def limited_files(path: Path) -> Iterator[Callable[[], None]]:
    """No file may grow above 2.5 MB until the function given is called."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, hard))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(path: Path) -> Iterator[Callable[[], None]]:
    """A file system of 2.5 MB at `path`, which grows when the function given is called."""
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", path], check=True) and None
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("full", [limited_files, small_disk])
def test_a_full_disk_ends_cleanly_and_ingest_goes_on_when_there_is_space(
    full: Callable[[Path], contextmanager], video: Path, tmp_path: Path, cacheflow: Command
) -> None:
    line = ("--model", MODEL, *SMALL)
    clip(tmp_path / "long.mp4", 160)
    whole = cacheflow("ingest", tmp_path / "long.mp4", *line, "--data", tmp_path / "whole").said["streams"][0]
    data = tmp_path / "data"
    with full(data) as make_space:
        ran = cacheflow("ingest", tmp_path / "long.mp4", *line, "--data", data)
        ran.refused("StoreFull", 1, str(data), "free some", "stays readable")
        before = stored(data, "long")
        assert 0 < len(before.tokens) < len(stored(tmp_path / "whole", "long").tokens)
        assert ask(cacheflow, data, stream="long").said["usage"]["window_blocks"]
        make_space()
        resumed = cacheflow("ingest", tmp_path / "long.mp4", *line, "--data", data).said["streams"][0]
        assert resumed["resumed_from_seq"] > 0 and resumed["frames"] == whole["frames"] == 160
        assert stored(data, "long").starts_with(before)
        assert stored(data, "long") == stored(tmp_path / "whole", "long")


def flip(data: Path, content: bytes) -> None:
    """Change one bit in the middle of these bytes wherever a store's file has them (pages let go keep a copy)."""
    path = data / "shard-0000" / "data.mdb"
    raw = path.read_bytes()
    assert content in raw
    middle = len(content) // 2
    path.write_bytes(raw.replace(content, content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]))


def test_a_question_is_never_answered_from_a_corrupt_block(data: Path, video: Path, cacheflow: Command) -> None:
    before = stored(data, "kept")
    size = 24
    bad = before.kv[2, 1, 0, 4 * size : 5 * size]  # values of block 4, in layer 2
    flip(data, np.ascontiguousarray(bad)[:16].tobytes())
    first = ask(cacheflow, data, "--top-k", "99")
    first.refused("CorruptRecord", 1, "'kept'", "block 4", "layer 2", "verify --repair")
    again = ask(cacheflow, data, "--top-k", "99", "--no-reencode").said  # it is quarantined now, and left out
    assert any("4 (corrupt)" in warning for warning in again["warnings"])
    assert 4 not in [at for seen in again["evidence"] for at in seen["block_idxs"]]
    alone = ["--from", "0.75", "--to", "0.8"]
    ask(cacheflow, data, *alone, "--no-reencode").refused("NothingToAnswer", 1, "'kept'", "re-encode needed")
    mended = ask(cacheflow, data, *alone).said["reencoded"]  # its neighbours are whole, and so is the video
    assert mended["block_idxs"] == mended["exact_idxs"] == [4] and mended["source"] == str(video)
    assert ask(cacheflow, data, "--from", "2.5").said["text"]
    with Store.open(data, read_only=True) as store:
        others = [at for at in range(store.stats("kept").num_blocks) if at != 4]
        fingerprint = store.get_stream("kept").fingerprint
        with store.reader("kept", others, fingerprint=fingerprint) as reader:
            out = np.empty((4, 2, 2, len(others) * size, 32), np.float32)
            reader.read(range(4), out[:, 0], out[:, 1])
    assert np.array_equal(out, np.delete(before.kv, slice(4 * size, 5 * size), axis=3))


@pytest.mark.parametrize("part", ["summary", "tokens", "state"])
def test_other_corrupt_values_name_their_stream(part: str, data: Path, cacheflow: Command) -> None:
    before = stored(data, "kept")
    assert before.state is not None
    keys = torch.from_numpy(before.kv[[0, -1], 0, :, 3 * 24 : 4 * 24])[None]  # of block 3, in the first and last layer
    contents = {
        "summary": make_summary(default_summary(24), 32).summarise(keys).numpy()[0, 0, 0].tobytes(),
        "tokens": before.tokens[3 * 24 : 4 * 24].tobytes(),
        "state": before.state.payload,
    }
    flip(data, contents[part])
    whose = "'kept'" if part == "state" else "block 3 of stream 'kept'"
    ask(cacheflow, data, "--top-k", "99").refused("CorruptRecord", 1, whose, "verify --repair")
    assert cacheflow("streams", "delete", "kept", "--yes", "--data", data).said == {"deleted": "kept"}
