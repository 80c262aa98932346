"""Commands that speak to a service: the real gateway, over a cluster in memory."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cacheflow_ray.actors.api import ActorStatus, ClusterStatus, LiveStream, PayloadKind
from cacheflow_ray.cli.app import run
from cacheflow_ray.config import StreamSettings, TlsOptions
from cacheflow_ray.engine import AnswerResult, IngestReport, StreamInfo
from cacheflow_ray.engine.position import Overload, Position
from cacheflow_ray.media import write_video
from memory_store.records import Retention
from tests.cli.asked import asked
from tests.service.mortal import MortalCluster, served

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds."""
    path = tmp_path_factory.mktemp("clip") / "door.mp4"
    write_video(path, (np.full((48, 64, 3), 10 * idx, np.uint8) for idx in range(24)), fps=4)
    return path


@pytest.fixture
def cluster() -> MortalCluster:
    return MortalCluster()


@pytest.fixture
def server(cluster: MortalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served(cluster) as address:
        monkeypatch.setenv("CACHEFLOW_SERVER", address)
        yield address


def names(kind: type) -> set[str]:
    return {own.name for own in fields(kind)}


def test_sources_are_sent_at_once_and_reported_as_in_this_process(
    server: str, cluster: MortalCluster, clip: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = Path(shutil.copy(clip, tmp_path / "gate.mp4"))
    line = ("ingest", str(clip), str(other), "--label", "room=3", "--tau", "0.4")

    first, again = (asked(capsys, *line)["streams"] for _ in range(2))

    assert [report["stream"] for report in first] == ["door", "gate"]
    assert all(set(report) == names(IngestReport) | {"keep_rate"} for report in first)
    assert [(own["frames"], own["already_complete"], own["resumed_from_seq"]) for own in first] == [(6, False, 0)] * 2
    assert [(own["frames"], own["already_complete"], own["resumed_from_seq"]) for own in again] == [(6, True, 6)] * 2
    assert cluster.streams["door"].new.settings == StreamSettings(tau=0.4)
    assert cluster.streams["door"].new.labels == {"room": "3"} and cluster.seqs("gate") == list(range(6))


@pytest.mark.parametrize(
    ("send", "kind"), [("jpeg", PayloadKind.IMAGE), ("rgb", PayloadKind.RGB), ("file", PayloadKind.CONTAINER)]
)
def test_it_is_sent_as_the_user_says(
    send: str, kind: PayloadKind, server: str, cluster: MortalCluster, clip: Path, capsys: Capture
) -> None:
    asked(capsys, "ingest", str(clip), "--send", send, "--overload", "drop-oldest")
    (session,) = cluster.sessions
    assert (session.kind, session.overload) == (kind, Overload.DROP_OLDEST)


def test_frames_left_out_are_told(server: str, cluster: MortalCluster, clip: Path, capsys: Capture) -> None:
    cluster.shed = 3
    assert run(["ingest", str(clip)]) == 0
    printed = capsys.readouterr()
    assert "door: 6 frames" in printed.out and "warning: door: 3 frames were left out" in printed.err


def test_a_missing_file_makes_no_stream(server: str, cluster: MortalCluster, capsys: Capture) -> None:
    assert run(["ingest", "nowhere.mp4"]) == 1
    assert "no file or folder at 'nowhere.mp4'" in capsys.readouterr().err and not cluster.streams


def test_ctrl_c_keeps_what_was_sent_and_says_how_to_go_on(cluster: MortalCluster, clip: Path, capsys: Capture) -> None:
    cluster.pace_s = 1.0
    with served(cluster, limits={"max_calls": 8}) as address:
        line = ("ingest", str(clip), "--fps", "all", "--server", address)
        command = [sys.executable, "-m", "cacheflow_ray.cli", *line]
        sending = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(cluster.seqs("door")) < 2 and sending.poll() is None:
            time.sleep(0.02)
        sending.send_signal(signal.SIGINT)
        out, err = sending.communicate(timeout=30)
        assert (sending.returncode, out) == (130, "")
        assert err.splitlines()[-1].startswith("error: interrupted") and "goes on with door" in err
        assert "Traceback" not in err and "chttp2" not in err

        cluster.pace_s = 0.0
        (report,) = asked(capsys, *line)["streams"]
        assert 2 <= report["resumed_from_seq"] < 6 and report["frames"] == 6


def test_an_answer_is_printed_with_its_evidence(server: str, clip: Path, tmp_path: Path, capsys: Capture) -> None:
    asked(capsys, "ingest", str(clip))
    picture = tmp_path / "evidence.png"

    assert run(["ask", "door", "How many?", "--evidence", str(picture)]) == 0
    text = capsys.readouterr().out
    told = asked(capsys, "ask", "door", "How many?", "--session", "s-1", "--from", "1", "--top-k", "3")

    assert text.startswith("two red cars\n") and "0:01.0  0:02.5  retrieved  0.750  3-4" in text
    assert "--session s-1" in text and "10 tokens of context: 2 retrieved blocks" in text
    assert set(told) == names(AnswerResult) | {"stream", "question", "picture"} and told["text"] == "two red cars"
    with Image.open(picture) as image:
        assert image.format == "PNG"


def test_options_of_a_question_reach_the_service(
    server: str, cluster: MortalCluster, clip: Path, capsys: Capture
) -> None:
    asked(capsys, "ingest", str(clip))
    line = ("ask", "door", "Who?", "--top-k", "3", "--window", "5", "--max-new-tokens", "9", "--to", "5")
    asked(capsys, *line, "--stop-ratio", "0.5")
    (call,) = cluster.asked
    options = call.options
    assert (options.top_k, options.window_blocks, options.max_new_tokens, options.stop_ratio) == (3, 5, 9, 0.5)
    assert options.time_range is not None and options.time_range.end_s == 5.0 and not call.thumbnails

    assert run(["ask", "door", "Who?", "--merge", "rrf"]) == 2
    assert "error: merge: " in capsys.readouterr().err


def test_moments_are_found(server: str, clip: Path, capsys: Capture) -> None:
    asked(capsys, "ingest", str(clip))
    told = asked(capsys, "search", "door", "a car", "--top-k", "2")
    assert told["evidence"] == [
        {"start_s": 1.0, "end_s": 2.5, "block_idxs": [3, 4], "score": 0.75, "kind": "retrieved"}
    ]


def test_streams_are_listed_shown_limited_and_deleted(
    server: str, cluster: MortalCluster, clip: Path, capsys: Capture
) -> None:
    asked(capsys, "ingest", str(clip))
    listed = asked(capsys, "streams", "list")["streams"]
    shown = asked(capsys, "streams", "show", "door")
    assert listed == [shown] and set(shown) == names(StreamInfo) | {"keep_rate"} and shown["complete"]

    assert asked(capsys, "streams", "retain", "door", "--max-blocks", "5")["retention"]["max_blocks"] == 5
    assert run(["streams", "retain", "door"]) == 0
    assert capsys.readouterr().out == "door: at most 5 blocks\n"
    asked(capsys, "streams", "retain", "door", "--keep-all")
    assert cluster.streams["door"].new.retention == Retention()

    assert asked(capsys, "streams", "delete", "door", "--yes") == {"deleted": "door"}
    assert run(["streams", "delete", "door", "--yes"]) == 2
    assert "no stream 'door'" in capsys.readouterr().err


def test_top_shows_a_moment_with_rates(server: str, cluster: MortalCluster, capsys: Capture) -> None:
    encoder = ActorStatus(
        name="encoder-0", role="encoder", alive=True, pid=7, resident_bytes=2_000_000, node="abcdef0123",
        exposition="cacheflow_encoder_frames_total 40.0\ncacheflow_encoder_open_streams 1.0\n",
    )  # fmt: skip
    position = Position(next_seq=40, frames=40, tokens_seen=400, tokens_kept=100, blocks=5)
    live = LiveStream(stream_id="door", encoder="encoder-0", position=position, queued=3)
    lost = ActorStatus(name="store-0", role="store", alive=False)
    cluster.state = ClusterStatus(actors=(encoder, lost), streams=(live,))

    assert run(["top", "--once", "--interval", "0.1"]) == 0
    text = capsys.readouterr().out
    told = asked(capsys, "top", "--interval", "0.1")

    assert text.startswith("1 stream · 0.0 frames/s · 25 % of tokens kept · 3 frames waiting · 1 of 2 actors up\n")
    assert "door    encoder-0      40       0.0  25.0 %       5        3         0" in text
    assert "encoder-0  encoder  up     2.0 MB  abcdef01  1 stream, 0.0 frames/s" in text and "DOWN" in text
    assert told["streams"][0]["frames_per_s"] == 0 and told["actors"][0]["rates"] == {
        "cacheflow_encoder_frames_total": 0
    }


def test_scaling_says_what_there_is_now(server: str, capsys: Capture) -> None:
    assert asked(capsys, "scale", "--encoders", "3") == {"encoders": 3, "answerers": 1}
    assert run(["scale", "--answerers", "2"]) == 0
    assert capsys.readouterr().out == "3 encoders, 2 answerers\n"


def test_a_folder_on_the_command_line_outdoes_the_environment(server: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(["streams", "list", "--data", str(tmp_path / "typo")]) == 1
    assert "holds no store" in capsys.readouterr().err


def test_nobody_at_the_address_is_told_in_one_line(capsys: Capture) -> None:
    began = time.monotonic()
    assert run(["streams", "list", "--server", "127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: no service answers at 127.0.0.1:1") and err.endswith("is it running?\n")
    assert err.count("\n") == 1 and time.monotonic() - began < 10


def test_a_key_opens_the_streams_of_its_tenant(
    cluster: MortalCluster, tmp_path: Path, clip: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('[tenants.acme]\nkeys = ["s3cret"]\n', encoding="utf-8")
    with served(cluster, keys=keys) as address:
        line = ("--server", address)
        assert run(["streams", "list", *line]) == 1
        assert "no API key" in capsys.readouterr().err
        asked(capsys, "ingest", str(clip), *line, "--api-key", "s3cret")
        monkeypatch.setenv("CACHEFLOW_API_KEY", "s3cret")
        assert [own["stream"] for own in asked(capsys, "streams", "list", *line)["streams"]] == ["door"]
        assert run(["top", "--once", *line]) == 1
        assert "admin" in capsys.readouterr().err
    assert list(cluster.streams) == ["acme:door"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: it makes certificates")
def test_certificates_of_both_sides(cluster: MortalCluster, tmp_path: Path, capsys: Capture) -> None:
    from tests.service.test_gateway_tls import Authority

    authority = Authority(tmp_path)
    (cert, key), (own_cert, own_key) = authority.sign("server"), authority.sign("client")
    with served(cluster, tls=TlsOptions(cert=cert, key=key, client_ca=authority.pem)) as address:
        line = ("streams", "list", "--server", address.replace("127.0.0.1", "localhost"), "--ca", str(authority.pem))
        assert asked(capsys, *line, "--cert", str(own_cert), "--key", str(own_key)) == {"streams": []}
        assert run([*line]) == 1
        assert "no service answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("streams list --server x:1 --data d", "--data is of this machine"),
        ("ask a q --server x:1 --model m", "--model is of this machine"),
        ("ask a q --server x:1 --cert c.pem", "go together"),
        ("streams list --api-key k", "name it with --server"),
        ("ingest a.mp4 --send rgb", "name it with --server"),
        ("ingest a.mp4 --server x:1 --shards 2", "--shards and --durability are the service's own"),
        ("ingest a.mp4 --server x:1 --send png", "--send: 'png' is not allowed; allowed: jpeg, rgb, file"),
        ("ingest a.mp4 --server x:1 --overload flee", "allowed: block, drop-oldest, lower-fps"),
        ("ingest a.mp4 --server x:1 --quality 0", "quality: 0 is not allowed"),
        ("scale --server x:1", "nothing to change"),
        ("scale --encoders 0", "--encoders"),
        ("serve --tls-cert c.pem", "--tls-cert and --tls-key go together"),
        ("serve --client-ca c.pem", "takes --tls-cert"),
        ("serve --detached", "--ray-address"),
        ("serve --port 70000", "port: 70000 is not allowed; allowed: 0 to 65535"),
        ("serve --encoders 0", "encoders: 0 is not allowed; allowed: 1 to 1024"),
        ("serve --durability none", "durability: 'none' is not allowed"),
        ("serve --namespace a/b", "namespace: 'a/b' is not allowed"),
        ("serve --keys nowhere.toml", "nowhere.toml cannot be read"),
        ("serve --tls-cert nowhere.pem --tls-key nowhere.key", "nowhere.key cannot be read"),
        ("serve --host no.such.host.invalid", "port: no.such.host.invalid:50051 cannot be used"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(line: str, said: str, capsys: Capture) -> None:
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and said in err and err.count("\n") == 1


def test_a_port_that_is_taken_is_told_before_anything_starts(capsys: Capture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "cannot be used: Address already in use" in capsys.readouterr().err


def test_speaking_to_a_service_loads_no_model_library() -> None:
    code = """
import sys
from cacheflow_ray.cli.app import run
run(["streams", "list", "--server", "127.0.0.1:1"])
loaded = [name for name in ("torch", "transformers", "ray", "av", "matplotlib") if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
