"""deploy/constraints.txt, read."""

from __future__ import annotations

from packaging.requirements import Requirement
from packaging.version import Version

from tests.deploy.lines import DEPLOY


def pins() -> dict[str, Version]:
    """Versions by package, as it is spelt there. Raises: AssertionError: a line pins none."""
    found: dict[str, Version] = {}
    for line in (DEPLOY / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            found[pin.name] = Version(specifier.version)
    return found
