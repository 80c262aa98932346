"""What Ray raises, as our own errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from cacheflow_ray import errors
from cacheflow_ray.errors import CacheFlowError, ClusterUnavailable
from memory_store import errors as store_errors
from memory_store.errors import StoreError

T = TypeVar("T")


def unwrapped(error: BaseException, whom: str) -> BaseException:
    """What an actor raised, or ClusterUnavailable where it could not be reached; anything else as it is."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, CacheFlowError | StoreError):
            return cause
        return unwrapped(cause, whom) if isinstance(cause, RayError) else error
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return _raised_in_making(error, whom)
    if isinstance(error, RayError | TimeoutError):
        return ClusterUnavailable(f"{whom} does not answer ({type(error).__name__}): try again", actor=whom)
    return error


def _raised_in_making(error: RayActorError, whom: str) -> BaseException:
    """What an actor's `__init__` raised: Ray keeps its traceback only, whose last line is 'module.Class: message'."""
    last = str(error).rstrip().rpartition("\n")[2]
    path, _, message = last.partition(": ")
    module, _, name = path.rpartition(".")
    cls = next((getattr(home, name, None) for home in (errors, store_errors) if home.__name__ == module), None)
    return cls(message) if cls else ClusterUnavailable(f"{whom} could not be made ({last}): see its log", actor=whom)


def may_be_back(error: BaseException) -> bool:
    """Whether the same call may succeed later: the actor is away, not unwilling."""
    return isinstance(error, RayActorError | GetTimeoutError | TimeoutError)


@contextlib.contextmanager
def ours(whom: str) -> Iterator[None]:
    """Raise what is raised in the block as one of our own errors, where it is Ray's."""
    try:
        yield
    except (RayError, TimeoutError) as error:
        raise unwrapped(error, whom) from error


async def asked(reference: Any, whom: str, timeout_s: float) -> Any:
    """The result of an actor's call, waited for in an event loop. Raises: what it raised; ClusterUnavailable."""
    with ours(whom):
        return await asyncio.wait_for(reference, timeout_s)


def got(reference: Any, whom: str, timeout_s: float) -> Any:
    """The result of an actor's call, waited for in a thread. Raises: as `asked`."""
    with ours(whom):
        return ray.get(reference, timeout=timeout_s)
