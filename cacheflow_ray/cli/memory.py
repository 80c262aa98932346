"""Opening the store and the model behind a command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cacheflow_ray.cli.options import ModelChoice, Place
from cacheflow_ray.cli.output import Output, err_console
from cacheflow_ray.cli.remote import Link, Remote

if TYPE_CHECKING:
    from cacheflow_ray.cli.served import ServedMemory
    from cacheflow_ray.config import StoreOptions
    from cacheflow_ray.engine import VideoMemory


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


def open_to_search(place: Place, model: ModelChoice, remote: Remote, stream: str) -> VideoMemory | ServedMemory:
    """As `open_to_look`, with the stream's own model where the user names none."""
    link = remote.chosen(place, model)
    return open_memory(place, of_stream(place, model, stream), read_only=True) if link is None else _served(link)


def open_to_ask(
    place: Place, model: ModelChoice, remote: Remote, stream: str, output: Output, *, thumbnails: bool = False
) -> VideoMemory | ServedMemory:
    """As `open_to_search`; a service sends `thumbnails` along with answers.

    While another process writes the store it is opened read-only: one can ask, but the conversation is not kept.
    """
    from memory_store.errors import StoreLocked

    link = remote.chosen(place, model)
    if link is not None:
        return _served(link, thumbnails=thumbnails)
    chosen = of_stream(place, model, stream)
    try:
        return open_memory(place, chosen)
    except StoreLocked as locked:
        output.note(f"{locked}; asking all the same, but this conversation is not kept")
        return open_memory(place, chosen, read_only=True)


def _served(link: Link, *, thumbnails: bool = False) -> ServedMemory:
    with err_console().status("connecting"):  # shown on a terminal only
        from cacheflow_ray.cli.served import ServedMemory

        return ServedMemory(link, thumbnails=thumbnails)


def of_stream(place: Place, model: ModelChoice, stream: str) -> ModelChoice:
    """`model`, naming the one the stream was made with unless it or the environment names another.

    The stream is looked up in any case: a wrong name costs no loading of a model, a wrong folder is not made.

    Raises:
        StreamNotFound, InvalidConfig, StoreError.
    """
    from cacheflow_ray.config import Defaults

    with open_memory(place, model, read_only=True) as memory:
        made_with = memory.stream(stream).model
    if model.model is not None or "model" in Defaults.from_environment().model_fields_set:
        return model
    return replace(model, model=made_with)
