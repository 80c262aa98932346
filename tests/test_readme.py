"""Every code block of the README runs as it stands (the two make commands are run by continuous integration itself)."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from cacheflow_ray.cli.app import run
from cacheflow_ray.config import ServiceOptions
from cacheflow_ray.media import write_video
from cacheflow_ray.service.gateway import Gateway
from tests.actors.running import Running
from tests.oracles import moving_frames

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:50051"
COMMANDS = [text for kind, text in BLOCKS if kind == "console"]
PYTHON = [text for kind, text in BLOCKS if kind == "python"]


@pytest.fixture
def lobby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the video the README speaks of."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "lobby.mp4", [frame.image for frame in moving_frames(20)], fps=2.0)
    return tmp_path


@pytest.fixture(scope="module")
def served(live: Running) -> Iterator[None]:
    """A service where the README has one."""
    live.topology.serve(partial(Gateway, options=ServiceOptions(port=int(ADDRESS.rpartition(":")[2]))))
    yield
    live.topology.drain(5.0)


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {kind for kind, _ in BLOCKS} == {"", "console", "python"}
    assert [text for kind, text in BLOCKS if not kind] == ["make demo\nmake test\n"]
    assert "cacheflow serve" in COMMANDS[2]  # served, with another model, by the fixture


def test_commands_run(lobby: Path) -> None:
    run_all(COMMANDS[0])
    assert (lobby / "evidence.png").read_bytes().startswith(b"\x89PNG")
    assert (lobby / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_an_archive_is_indexed_and_searched(lobby: Path) -> None:
    """In processes of their own: each starts a Ray."""
    (lobby / "videos").mkdir()
    for number in range(3):
        write_video(lobby / f"videos/{number}.mp4", [frame.image for frame in moving_frames(8, seed=number)], fps=2.0)
    (lobby / "videos/3.mp4").write_bytes((lobby / "videos/0.mp4").read_bytes())
    told = ""
    for line in COMMANDS[1].splitlines():
        command = [sys.executable, "-m", "cacheflow_ray.cli", *shlex.split(line)[2:]]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        told += ran.stdout
    assert "done     3" in told and "the same content as stream" in told


def test_commands_to_a_server_and_its_client_run(lobby: Path, served: None, capsys: pytest.CaptureFixture[str]) -> None:
    run_all(COMMANDS[3])
    exec(compile(PYTHON[1], "README.md", "exec"), {})
    assert "of tokens kept" in capsys.readouterr().out
    for line in COMMANDS[4].splitlines():
        run_by_reflection(shlex.split(line))


def test_python_runs(lobby: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    assert "of tokens kept" in capsys.readouterr().out


def run_all(text: str) -> None:
    for line in text.splitlines():
        prompt, program, *args = shlex.split(line)
        assert (prompt, program) == ("$", "cacheflow")
        assert run(args) == 0, line


def run_by_reflection(line: list[str]) -> None:
    """What grpcurl does with such a line."""
    assert line[:3] == ["$", "grpcurl", "-plaintext"]
    with grpc.insecure_channel(ADDRESS) as channel:
        services = ProtoReflectionDescriptorDatabase(channel)
        if line[3:] == [ADDRESS, "list"]:
            assert "cacheflow.v1.IngestService" in services.get_services()
            return
        assert (line[3], line[5]) == ("-d", ADDRESS)
        service, _, name = line[6].partition("/")
        method = DescriptorPool(services).FindServiceByName(service).FindMethodByName(name)
        request = Parse(line[4], GetMessageClass(method.input_type)())
        answer = GetMessageClass(method.output_type)
        call = channel.unary_unary(f"/{line[6]}", lambda own: own.SerializeToString(), answer.FromString)
        assert call(request, timeout=30).stream.name == "porch"
