"""The wire contract: generated code is that of the .proto files, nothing in them breaks a client, and all is told."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

ROOT = Path(__file__).resolve().parents[2]

#: A comment may speak of so many fields that stand together.
SHARED = 3


def _load() -> ModuleType:
    """The script, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("proto_generate", ROOT / "proto" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _load()


@pytest.fixture
def proto(tmp_path: Path) -> Path:
    """A copy of the .proto files, to be changed."""
    return Path(shutil.copytree(ROOT / "proto" / "cacheflow", tmp_path / "proto" / "cacheflow")).parent


def change(proto: Path, file: str, old: str, new: str) -> None:
    path = proto / "cacheflow" / "v1" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def lint(files: list[FileDescriptorProto], proto: Path) -> list[str]:
    """One line for everything that is not as buf's STANDARD rules want it, or that no comment explains."""
    return [line for file in files for line in _lint_file(file, proto)]


def _lint_file(file: FileDescriptorProto, proto: Path) -> Iterator[str]:
    if Path(file.name).parent.as_posix() != file.package.replace(".", "/"):
        yield f"{file.name}: package {file.package} lies elsewhere"
    for message in file.message_type:
        yield from _lint_message(f"{file.package}.{message.name}", message)
    for enum in file.enum_type:
        yield from _lint_enum(f"{file.package}.{enum.name}", enum)
    for service in file.service:
        if not service.name.endswith("Service"):
            yield f"{file.package}.{service.name}: no Service"
        for rpc in service.method:
            for kind, used in (("Request", rpc.input_type), ("Response", rpc.output_type)):
                if used not in (f".{file.package}.{rpc.name}{kind}", ".google.longrunning.Operation"):
                    yield f"{file.package}.{service.name}.{rpc.name}: takes or gives {used}"
    yield from _uncommented(file, (proto / file.name).read_text(encoding="utf-8").splitlines())


def _lint_message(name: str, message: DescriptorProto) -> Iterator[str]:
    for field in message.field:
        if field.name != field.name.lower() or not field.name.replace("_", "").isalnum():
            yield f"{name}.{field.name}: not lower_snake_case"
    for enum in message.enum_type:
        yield from _lint_enum(f"{name}.{enum.name}", enum)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _lint_message(f"{name}.{nested.name}", nested)


def _lint_enum(name: str, enum: EnumDescriptorProto) -> Iterator[str]:
    prefix = script_case(enum.name)
    if enum.value[0].name != f"{prefix}_UNSPECIFIED" or enum.value[0].number != 0:
        yield f"{name}: its zero is {enum.value[0].name}"
    yield from (f"{name}.{value.name}: lacks {prefix}_" for value in enum.value if not value.name.startswith(prefix))


def script_case(name: str) -> str:
    """KvCodec -> KV_CODEC."""
    return "".join("_" + letter if letter.isupper() else letter for letter in name).lstrip("_").upper()


#: Places of descriptor.proto that hold something to be told: numbers of the fields that lead to it.
_FIELDS = {(4, 2), (4, 3, 2)}
_TOLD = {(4,), (4, 8), (4, 3), (4, 4), (4, 4, 2), (5,), (5, 2), (6,), (6, 2)} | _FIELDS


def _uncommented(file: FileDescriptorProto, lines: list[str]) -> Iterator[str]:
    shared: dict[int, int] = {}  # line of a field -> fields its comment has spoken of so far
    for place in sorted(file.source_code_info.location, key=lambda place: place.span[0]):
        if tuple(place.path[::2]) not in _TOLD or len(place.path) % 2:
            continue
        line, is_field = place.span[0], tuple(place.path[::2]) in _FIELDS
        if place.leading_comments.strip() or place.trailing_comments.strip():
            shared[line] = 1 if is_field else SHARED
        elif is_field and shared.get(line - 1, SHARED) < SHARED:
            shared[line] = shared[line - 1] + 1
        else:
            yield f"{file.name}:{line + 1}: nothing is said of {lines[line].strip()!r}"


def test_the_generated_code_is_that_of_the_proto_files(tmp_path: Path) -> None:
    script.generate(tmp_path)

    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text(encoding="utf-8") for path in script.TARGET.glob("*_pb2.py*")}
    assert made.keys() == kept.keys()
    assert [name for name in made if made[name] != kept[name]] == [], "run make proto"


def test_code_of_a_file_that_is_gone_goes(tmp_path: Path) -> None:
    (tmp_path / "old_pb2.py").write_text("", encoding="utf-8")
    (tmp_path / "__init__.py").write_text("", encoding="utf-8")

    script.generate(tmp_path)

    assert not (tmp_path / "old_pb2.py").exists() and (tmp_path / "__init__.py").exists()


def test_nothing_clients_depend_on_has_changed() -> None:
    changes = script.compare(script.read_lock(), script.contract(script.describe()))

    assert changes.broken == ()
    assert changes.added == (), "make proto ACCEPT=--accept"


@pytest.mark.parametrize(
    ("file", "old", "new", "lines"),
    [
        (
            "ingest.proto",
            "uint64 seq = 1;",
            "uint64 seq = 9;",
            ["cacheflow.v1.Frame.seq: was field 1 uint64, is field 9 uint64"],
        ),
        (
            "ingest.proto",
            "uint64 seq = 1;",
            "int64 seq = 1;",
            ["cacheflow.v1.Frame.seq: was field 1 uint64, is field 1 int64"],
        ),
        ("ingest.proto", "  uint64 seq = 1;\n", "", ["cacheflow.v1.Frame.seq: was field 1 uint64, is gone"]),
        (
            "answer.proto",
            "optional uint64 after_seq",
            "uint64 after_seq",
            ["cacheflow.v1.AskRequest.after_seq: was field 6 optional uint64, is field 6 uint64"],
        ),
        (
            "answer.proto",
            "returns (stream AskResponse)",
            "returns (AskResponse)",
            [
                "cacheflow.v1.AnswerService.Ask: was rpc cacheflow.v1.AskRequest -> stream cacheflow.v1.AskResponse, "
                "is rpc cacheflow.v1.AskRequest -> cacheflow.v1.AskResponse"
            ],
        ),
        (
            "common.proto",
            "KIND_WINDOW = 2;",
            "KIND_WINDOW = 3;",
            ["cacheflow.v1.Evidence.Kind.KIND_WINDOW: was value 2, is value 3"],
        ),
        (
            "search.proto",
            "  rpc Search(SearchRequest) returns (SearchResponse);\n",
            "",
            [
                "cacheflow.v1.SearchService.Search: was rpc cacheflow.v1.SearchRequest -> cacheflow.v1.SearchResponse, "
                "is gone"
            ],
        ),
    ],
)
def test_a_broken_contract_is_named(proto: Path, file: str, old: str, new: str, lines: list[str]) -> None:
    change(proto, file, old, new)

    changes = script.compare(script.read_lock(), script.contract(script.describe(proto)))

    assert list(changes.broken) == lines


def test_what_is_new_must_be_recorded(proto: Path) -> None:
    change(proto, "ingest.proto", "uint64 seq = 1;", "uint64 seq = 1;\n  bool night = 9;")

    changes = script.compare(script.read_lock(), script.contract(script.describe(proto)))

    assert changes.broken == () and changes.added == ("cacheflow.v1.Frame.night: field 9 bool is new",)


def test_only_additions_can_be_accepted(proto: Path, tmp_path: Path) -> None:
    target = tmp_path / "v1"
    target.mkdir()
    change(proto, "ingest.proto", "uint64 seq = 1;", "uint64 seq = 1;\n  bool night = 9;")

    assert script.update(proto, target, accept=False).added == ("cacheflow.v1.Frame.night: field 9 bool is new",)
    assert script.update(proto, target, accept=True).added == ()
    assert script.update(proto, target, accept=False).added == ()
    change(proto, "ingest.proto", "uint64 seq = 1;", "uint64 seq = 7;")
    before = script.read_lock(proto)
    broken = ("cacheflow.v1.Frame.seq: was field 1 uint64, is field 7 uint64",)
    assert script.update(proto, target, accept=True).broken == broken
    assert script.read_lock(proto) == before


def test_the_proto_files_are_well_kept() -> None:
    assert lint(script.describe(), ROOT / "proto") == []


def test_the_lint_looks_at_everything() -> None:
    """Every message, field, value, service and rpc is at a place where comments are looked for."""
    files = script.describe()
    places = [tuple(place.path) for file in files for place in file.source_code_info.location]
    looked_at = Counter(len(path) for path in places if tuple(path[::2]) in _TOLD and not len(path) % 2)
    contract = script.contract(files)
    entries = [name for name in contract if "Entry" in name]  # of maps, which nobody wrote
    oneofs = sum(len(message.oneof_decl) for file in files for message in file.message_type)
    optional = sum(shape.split()[2:3] == ["optional"] for shape in contract.values())
    services = sum(len(file.service) for file in files)

    assert sum(looked_at.values()) == len(contract) - len(entries) + services + oneofs - optional


@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        ("stream.proto", "// Totals of a stream.\n", "\n", "nothing is said of 'message StreamTotals {'"),
        ("stream.proto", "  // Frames that are durable.\n", "", "nothing is said of 'uint64 frames = 1;'"),
        ("common.proto", "    // Not said.\n", "", "nothing is said of 'KIND_UNSPECIFIED = 0;'"),
        ("stream.proto", "  // Change labels or retention.\n", "", "nothing is said of 'rpc UpdateStream"),
        ("search.proto", "// Moments by text.\n", "", "nothing is said of 'service SearchService {'"),
        ("ingest.proto", "  // One step of the push.\n", "", "nothing is said of 'oneof message {'"),
        (
            "stream.proto",
            "  // Tokens that are not in a block yet.\n  uint64 tail_tokens = 8;",
            "  uint64 a = 91;\n  uint64 tail_tokens = 8;",
            "nothing is said of 'uint64 tail_tokens = 8;'",
        ),
        ("common.proto", "KIND_UNSPECIFIED", "KIND_NONE", "cacheflow.v1.Evidence.Kind: its zero is KIND_NONE"),
        ("common.proto", "KIND_WINDOW", "WINDOW", "cacheflow.v1.Evidence.Kind.WINDOW: lacks KIND_"),
        ("search.proto", "string text", "string someText", "cacheflow.v1.SearchRequest.someText: not lower_snake_case"),
        ("search.proto", "returns (SearchResponse)", "returns (Evidence)", "takes or gives .cacheflow.v1.Evidence"),
        ("search.proto", "service SearchService", "service Search", "cacheflow.v1.Search: no Service"),
        ("search.proto", "package cacheflow.v1;", "package cacheflow.v2;", "package cacheflow.v2 lies elsewhere"),
    ],
)
def test_the_lint_finds(proto: Path, file: str, old: str, new: str, line: str) -> None:
    change(proto, file, old, new)
    if "package" in new:
        change(proto, file, "TimeRange", "v1.TimeRange")
        change(proto, file, "  LibraryScope", "  v1.LibraryScope")
        change(proto, file, "repeated Evidence", "repeated v1.Evidence")

    assert [found for found in lint(script.describe(proto), proto) if line in found]
