"""Make `cacheflow_ray/service/v1` from the .proto files, and hold these to what clients out there were built against.

`v1.lock.json` names every message, field, enum value and rpc of the package with all that a client depends on. What is
in it stays as it is for good; what is new goes into it with --accept. Another shape is another package: cacheflow.v2.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from google import longrunning
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
TARGET = PROTO.parent / "cacheflow_ray" / "service" / "v1"
LOCK = "cacheflow/v1.lock.json"
PACKAGE = "cacheflow.v1"


class ProtoError(Exception):
    """The .proto files do not compile, or break the lock; the message has a line for each thing wrong."""


def generate(target: Path, proto: Path = PROTO) -> None:
    """Write the *_pb2.py and *_pb2.pyi of every .proto file into `target`, and remove those of files that are gone."""
    with tempfile.TemporaryDirectory() as folder:
        _protoc(proto, [f"--python_out={folder}", f"--pyi_out={folder}"])
        made = {path.name: _at_home(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("*_pb2.py*")}
    for path in target.glob("*_pb2.py*"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (target / name).write_text(text, encoding="utf-8")


def _at_home(text: str) -> str:
    """Generated code as a part of this project: protoc names Python modules after the package on the wire."""
    home = "cacheflow_ray.service.v1"
    return text.replace(f"from {PACKAGE} import", f"from {home} import").replace(f"'{PACKAGE}.", f"'{home}.")


def describe(proto: Path = PROTO) -> list[FileDescriptorProto]:
    """The package's files as protoc reads them, comments included."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set.binpb"
        _protoc(proto, [f"--descriptor_set_out={out}", "--include_source_info"])
        return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def _protoc(proto: Path, options: list[str]) -> None:
    files = sorted(str(path) for path in proto.glob("cacheflow/v1/*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with importlib.resources.as_file(well_known) as known, _common() as common:
        if protoc.main(["protoc", f"-I{proto}", f"-I{known}", f"-I{common}", *options, *files]):
            raise ProtoError(f"protoc refused {proto}: see above")


@contextmanager
def _common() -> Iterator[Path]:
    """Folder of the google.* files that googleapis-common-protos brings, each under the name it is imported by."""
    (installed,) = map(Path, longrunning.__path__)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("api", "rpc", "longrunning"):
            shutil.copytree(installed.parent / name, Path(folder, "google", name), ignore=_not_proto)
        operations = Path(folder, "google", "longrunning", "operations_proto.proto")
        operations.rename(operations.with_name("operations.proto"))
        yield Path(folder)


def _not_proto(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".proto") and not Path(folder, name).is_dir()]


def contract(files: Sequence[FileDescriptorProto]) -> dict[str, str]:
    """What clients depend on: full name -> shape, of every message, field, enum value and rpc."""
    found: dict[str, str] = {}
    for file in files:
        for message in file.message_type:
            found.update(_message(f"{file.package}.{message.name}", message))
        for enum in file.enum_type:
            found.update(_enum(f"{file.package}.{enum.name}", enum))
        for service in file.service:
            for rpc in service.method:
                found[f"{file.package}.{service.name}.{rpc.name}"] = _rpc(rpc)
    return dict(sorted(found.items()))


def _message(name: str, message: DescriptorProto) -> Iterator[tuple[str, str]]:
    yield name, "message"
    for field in message.field:
        yield f"{name}.{field.name}", _field(field, message)
    for nested in message.nested_type:
        yield from _message(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from _enum(f"{name}.{enum.name}", enum)


def _field(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    kind = field.type_name.lstrip(".") or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    words = [f"field {field.number}", kind]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        words.insert(1, "repeated")
    elif field.proto3_optional:
        words.insert(1, "optional")
    elif field.HasField("oneof_index"):
        words.append(f"in oneof {message.oneof_decl[field.oneof_index].name}")
    return " ".join(words)


def _enum(name: str, enum: EnumDescriptorProto) -> Iterator[tuple[str, str]]:
    yield name, "enum"
    for value in enum.value:
        yield f"{name}.{value.name}", f"value {value.number}"


def _rpc(rpc: MethodDescriptorProto) -> str:
    asks = ("stream " if rpc.client_streaming else "") + rpc.input_type.lstrip(".")
    gets = ("stream " if rpc.server_streaming else "") + rpc.output_type.lstrip(".")
    return f"rpc {asks} -> {gets}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How the files differ from the lock, a line each."""

    broken: tuple[str, ...]
    added: tuple[str, ...]


def compare(lock: dict[str, str], now: dict[str, str]) -> Changes:
    """What became of all that is in `lock`, and what is new beside it."""
    gone = [f"{name}: was {shape}, is gone" for name, shape in lock.items() if name not in now]
    changed = [f"{name}: was {shape}, is {now[name]}" for name, shape in lock.items() if now.get(name, shape) != shape]
    added = [f"{name}: {shape} is new" for name, shape in now.items() if name not in lock]
    return Changes(broken=(*gone, *changed), added=tuple(added))


def read_lock(proto: Path = PROTO) -> dict[str, str]:
    """The lock; nothing where there is none yet."""
    path = proto / LOCK
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def update(proto: Path, target: Path, *, accept: bool) -> Changes:
    """Generate, and compare with the lock; `accept` puts what is new into it, unless something is broken.

    Returns what the lock does not have, then.
    """
    generate(target, proto)
    now = contract(describe(proto))
    changes = compare(read_lock(proto), now)
    if not accept or changes.broken:
        return changes
    (proto / LOCK).write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    return Changes(broken=(), added=())


def main() -> int:
    """1 when something is broken, or new and not accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="put what is new into the lock")
    changes = update(PROTO, TARGET, accept=parser.parse_args().accept)
    for line in (*changes.broken, *changes.added):
        print(line, file=sys.stderr)
    if changes.added and not changes.broken:
        print("new and not in the lock: make proto ACCEPT=--accept", file=sys.stderr)
    return 1 if changes.broken or changes.added else 0


if __name__ == "__main__":
    sys.exit(main())
