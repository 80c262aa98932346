"""The import table: dependencies point one way, and each heavy library has exactly one importer.

    cli -> service -> actors -> engine -> {core, models, media} -> config -> types, errors -> memory_store

Imports are read from the source with `ast`, so those inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What a package may import of this project, beside itself. Everything of `cacheflow_ray` may import these three:
LEAVES = {"types", "errors", "memory_store"}
INTERNAL: dict[str, set[str]] = {
    "memory_store": set(),
    "__init__": {"service"},
    "errors": set(),
    "types": {"memory_store"},
    "config": LEAVES,
    "published": {"memory_store"},
    "core": {"types", "errors"},
    "media": {"types", "errors"},
    "models": LEAVES | {"config", "core"},
    "engine": LEAVES | {"config", "core", "models", "media"},
    "archive": LEAVES | {"config", "media", "engine"},
    "actors": LEAVES | {"config", "models", "media", "engine", "archive"},
    "service": LEAVES | {"config", "engine", "archive", "actors", "media"},
    "world": LEAVES | {"media"},
    "bench": LEAVES
    | {"config", "core", "models", "media", "engine", "archive", "actors", "service", "world", "published"},
    "eval": LEAVES | {"config", "core", "models", "media", "engine", "world", "published"},
    "training": LEAVES | {"config", "core", "models", "media", "engine", "world"},
    "cli": LEAVES | {"config", "media", "engine", "archive", "actors", "service", "world", "training", "bench", "eval"},
}

#: Packages that import these libraries and no others.
CLOSED: dict[str, set[str]] = {
    "memory_store": {"numpy", "lmdb", "faiss", "xxhash", "ml_dtypes"},
    "core": {"numpy", "torch"},
    "types": {"numpy"},
    "errors": set(),
}

#: Libraries and their only importer.
EXCLUSIVE = {
    "transformers": "models",
    "av": "media",
    "ray": "actors",
    "grpc": "service",
    "grpc_status": "service",
    "grpc_health": "service",
    "grpc_reflection": "service",
    "google": "service",
    "lmdb": "memory_store",
    "faiss": "memory_store",
    "typer": "cli",
}

#: Used bare in measurements, beside what is made of it.
MEASURED = {("bench", "faiss"), ("bench", "grpc")}


def imported_modules(path: Path, package: str) -> Iterator[str]:
    """Dotted names of everything the file imports; `package` is the dotted package the file lies in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            parent = ".".join([*base, *([node.module] if node.module else [])])
            # `from cacheflow_ray import engine` imports a package too.
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def part_of(parts: tuple[str, ...]) -> str:
    """The row of the table a module belongs to: 'core' for cacheflow_ray.core.packing, 'types' for its types.py."""
    return parts[1] if parts[0] == "cacheflow_ray" and len(parts) > 1 else parts[0]


def breaches(root: Path) -> list[str]:
    """One line for every import under `root` that the table forbids."""
    found = []
    for path in sorted([*root.glob("cacheflow_ray/**/*.py"), *root.glob("memory_store/**/*.py")]):
        relative = path.relative_to(root)
        owner = part_of(relative.with_suffix("").parts)
        for module in imported_modules(path, ".".join(relative.parent.parts)):
            reason = breach(owner, module)
            if reason:
                found.append(f"{relative}: {module}: {reason}")
    return found


def breach(owner: str, module: str) -> str | None:
    """Why `owner` may not import `module`, or None."""
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if top in ("cacheflow_ray", "memory_store"):
        part = part_of(tuple(module.split(".")))
        if part in (owner, "__version__") or part in INTERNAL.get(owner, set()):
            return None
        return f"{owner} may import {sorted(INTERNAL.get(owner, set()))}"
    if EXCLUSIVE.get(top, owner) != owner and (owner, top) not in MEASURED:
        return f"only {EXCLUSIVE[top]} imports {top}"
    if owner in CLOSED and top not in CLOSED[owner]:
        return f"{owner} imports {sorted(CLOSED[owner])} only"
    return None


def test_every_import_is_in_the_table() -> None:
    assert breaches(ROOT) == []


def test_every_package_has_a_row() -> None:
    packages = {path.parent.name for path in ROOT.glob("cacheflow_ray/*/__init__.py")}
    assert packages <= INTERNAL.keys()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("memory_store/x.py", "import torch"),
        ("memory_store/x.py", "from cacheflow_ray import types"),
        ("cacheflow_ray/core/x.py", "import pydantic"),
        ("cacheflow_ray/core/x.py", "from memory_store.records import Hit"),
        ("cacheflow_ray/core/x.py", "def f():\n    import transformers"),
        ("cacheflow_ray/engine/x.py", "from transformers import AutoConfig"),
        ("cacheflow_ray/engine/x.py", "import av.container"),
        ("cacheflow_ray/engine/x.py", "from ..service import server"),
        ("cacheflow_ray/engine/x.py", "import ray"),
        ("cacheflow_ray/models/x.py", "from cacheflow_ray.engine import VideoMemory"),
        ("cacheflow_ray/media/x.py", "from cacheflow_ray import core"),
        ("cacheflow_ray/actors/x.py", "from grpc import aio"),
        ("cacheflow_ray/cli/x.py", "from google.protobuf import message"),
        ("cacheflow_ray/engine/x.py", "import lmdb"),
        ("cacheflow_ray/types.py", "import torch"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n", encoding="utf-8")

    assert [found.split(":")[0] for found in breaches(tmp_path)] == [file]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("memory_store/x.py", "import json, lmdb\nfrom memory_store.records import Hit\nfrom . import errors"),
        ("cacheflow_ray/models/x.py", "import torch\nfrom transformers import AutoConfig\nfrom . import llava"),
        ("cacheflow_ray/engine/x.py", "from ..core import packing\nfrom memory_store import errors"),
        ("cacheflow_ray/cli/x.py", "import typer\nfrom cacheflow_ray import __version__"),
    ],
)
def test_an_allowed_import_is_not_a_breach(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n", encoding="utf-8")

    assert breaches(tmp_path) == []
