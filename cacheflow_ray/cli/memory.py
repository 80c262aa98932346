"""Opening the store and the model behind a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.cli.output import Output, err_console
from cacheflow_ray.cli.remote import Link, Remote
from cacheflow_ray.errors import UsageError

if TYPE_CHECKING:
    from cacheflow_ray.cli.served import ServedMemory
    from cacheflow_ray.config import StoreOptions
    from cacheflow_ray.engine import VideoMemory
    from cacheflow_ray.engine.scope import Where
    from memory_store.errors import StoreLocked


def folder_of(place: Place) -> Path:
    """The store's folder. Raises InvalidConfig."""
    from cacheflow_ray.config import Defaults

    return place.folder(Defaults.from_environment())


def open_memory(
    place: Place, model: ModelChoice | None = None, *, store: StoreOptions | None = None, read_only: bool = False
) -> VideoMemory:
    """The memory a command's options name; a context manager. The model is loaded when it is first needed.

    Raises:
        InvalidConfig, StoreError.
    """
    from cacheflow_ray.config import Defaults

    model = model or ModelChoice()
    defaults = Defaults.from_environment()
    options = model.options(defaults)
    with err_console().status("starting"):  # shown on a terminal only
        from cacheflow_ray.engine import VideoMemory

        name = model.name(defaults)
        return VideoMemory.open(place.folder(defaults), model=name, options=options, store=store, read_only=read_only)


def open_to_look(place: Place, remote: Remote) -> VideoMemory | ServedMemory:
    """The memory a command reads streams of: of a folder, without a model, or a service's. Raises: as `open_memory`."""
    link = remote.chosen(place)
    return open_memory(place, read_only=True) if link is None else _served(link)


def open_to_write(place: Place, remote: Remote) -> VideoMemory | ServedMemory:
    """As `open_to_look`, to change streams."""
    link = remote.chosen(place)
    return open_memory(place) if link is None else _served(link)


def open_to_search(
    place: Place, model: ModelChoice, remote: Remote, where: Where, *, thumbnails: bool = False
) -> VideoMemory | ServedMemory:
    """As `open_to_look`, with the streams' own model where the user names none; a service sends `thumbnails` along.

    The index over many streams is kept once it is made, unless another process writes the store.
    """
    from cacheflow_ray.engine.scope import parted

    link = remote.chosen(place, model)
    if link is not None:
        return _served(link, thumbnails=thumbnails)
    chosen = of_streams(place, model, where)
    if len(parted(where)[0]) == 1:
        return open_memory(place, chosen, read_only=True)
    return _open_to_keep(place, chosen, told=lambda locked: None)


def open_to_ask(
    place: Place, model: ModelChoice, remote: Remote, where: Where, output: Output, *, thumbnails: bool = False
) -> VideoMemory | ServedMemory:
    """As `open_to_search`. While another process writes the store one can ask, but the conversation is not kept."""
    link = remote.chosen(place, model)
    if link is not None:
        return _served(link, thumbnails=thumbnails)
    return _open_to_keep(
        place,
        of_streams(place, model, where),
        told=lambda locked: output.note(f"{locked}; asking all the same, but this conversation is not kept"),
    )


def _open_to_keep(place: Place, chosen: ModelChoice, *, told: Callable[[StoreLocked], None]) -> VideoMemory:
    """For writing, or read-only while another process writes the store; who locked it is told then."""
    from memory_store.errors import StoreLocked

    try:
        return open_memory(place, chosen)
    except StoreLocked as locked:
        told(locked)
        return open_memory(place, chosen, read_only=True)


def _served(link: Link, *, thumbnails: bool = False) -> ServedMemory:
    with err_console().status("connecting"):  # shown on a terminal only
        from cacheflow_ray.cli.served import ServedMemory

        return ServedMemory(link, thumbnails=thumbnails)


def of_streams(place: Place, model: ModelChoice, where: Where) -> ModelChoice:
    """`model`, naming the one the streams were made with unless it or the environment names another.

    They are looked up in any case: a wrong name costs no loading of a model, a wrong folder is not made.

    Raises:
        StreamNotFound, InvalidConfig, StoreError; NothingToAnswer: no such streams; UsageError: of several models.
    """
    from cacheflow_ray.config import Defaults

    with open_memory(place, model, read_only=True) as memory:
        made_with = memory.models(where)
    if model.model is not None or "model" in Defaults.from_environment().model_fields_set:
        return model
    if len(made_with) > 1:
        raise UsageError(
            f"these streams were made with models {' and '.join(made_with)}: name one of them with --model, or fewer "
            "streams"
        )
    return replace(model, model=made_with[0])
