"""What the project needs, one requirement a line, so that an image can install it before the project's own files.

python deploy/dependencies.py pyproject.toml [EXTRA...]
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def dependencies(pyproject: Path, *extras: str) -> list[str]:
    """Those of the project, and of its extras. Raises: KeyError: there is no such extra."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(line for name in extras for line in project["optional-dependencies"][name])]


if __name__ == "__main__":
    print("\n".join(dependencies(Path(sys.argv[1]), *sys.argv[2:])))
