"""Opening the store and the model behind a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.cli.output import err_console

if TYPE_CHECKING:
    from cacheflow_ray.engine import VideoMemory


def open_memory(place: Place, model: ModelChoice, *, read_only: bool = False) -> VideoMemory:
    """The memory a command's options name; a context manager.

    Raises:
        InvalidConfig, ModelError, StoreError: as `VideoMemory.open`.
    """
    from cacheflow_ray.config import Defaults

    defaults = Defaults.from_environment()
    options = model.options(defaults)
    with err_console().status("starting"):  # shown on a terminal only
        from cacheflow_ray.engine import VideoMemory

        return VideoMemory.open(
            place.folder(defaults), model=model.name(defaults), options=options, read_only=read_only
        )
