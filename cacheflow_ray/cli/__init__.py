"""The command line: `cacheflow`. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `cacheflow` script."""
    from cacheflow_ray.cli.app import run

    sys.exit(run(sys.argv[1:]))
