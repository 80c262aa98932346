"""What the evaluations share: their model, lists of numbers as options, shares as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheflow_ray.errors import InvalidConfig

if TYPE_CHECKING:
    from cacheflow_ray.cli.options import ModelChoice
    from cacheflow_ray.eval.loading import VideoModel


def loaded(choice: ModelChoice) -> VideoModel:
    """The chosen model, or the default. Raises as `models.load_model`."""
    from cacheflow_ray.config import Defaults
    from cacheflow_ray.eval.loading import load

    defaults = Defaults.from_environment()
    return load(choice.name(defaults), choice.options(defaults))


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def numbers(name: str, text: str, least: int = 1) -> tuple[int, ...]:
    """Raises InvalidConfig."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < least:
        raise InvalidConfig(
            f"{name}: {text!r} is not allowed; allowed: whole numbers from {least}, with commas", key=name
        )
    return numbers
