"""JSON that is well-formed and wrong."""

from __future__ import annotations

import json
import random
from typing import Any

_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -1e308, float("inf"), float("nan"), "", "x", "7",
    "\ud800", "../x", "bfloat16", [], {}, [[]], [0, 1], [[0, 1]], {"": 0},
)  # fmt: skip
_DEEP = b'{"":['


def changed_json(text: bytes, rng: random.Random) -> bytes:
    """The text with one of its values replaced, removed or put elsewhere; nested beyond measure now and then."""
    if rng.random() < 0.02:
        return _DEEP * rng.choice((100, 1500))
    try:
        return json.dumps(_changed(json.loads(text), rng), separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return text


def _changed(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(_HOSTILE)
    places = list(value) if isinstance(value, dict) else range(len(value))
    at, other, action = rng.choice(places), rng.choice(places), rng.random()
    if action < 0.1:
        del value[at]
    elif action < 0.2:
        value[at] = value[other]
    elif action < 0.25 and isinstance(value, dict):
        value["more"] = rng.choice(_HOSTILE)
    else:
        value[at] = _changed(value[at], rng)
    return value
