"""What an actor imports that computes nothing itself."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import cacheflow_ray.actors.director, cacheflow_ray.actors.topology, cacheflow_ray.service.gateway
loaded = [name for name in ("torch", "transformers") if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


def test_director_and_gateway_start_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
