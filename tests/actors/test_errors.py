"""What comes out of Ray's exceptions; without a cluster."""

from __future__ import annotations

import traceback

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from cacheflow_ray import errors
from cacheflow_ray.actors.errors import unwrapped
from cacheflow_ray.actors.topology import connect
from cacheflow_ray.errors import ClusterUnavailable
from memory_store import errors as store_errors


def wrapped(error: Exception) -> RayTaskError:
    """As a task that raised it ends."""
    try:
        raise error
    except Exception:
        return RayTaskError("Store.__init__", traceback.format_exc(), error, ip="127.0.0.1")


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelLoadError("no weights at './nowhere': check the path", model="./nowhere"),
        store_errors.StoreLocked("process 7 writes '/data': stop it: or read only", pid=7),
    ],
)
def test_what_an_actor_raised_is_raised_here(error: Exception) -> None:
    called, made = unwrapped(wrapped(error), "store-0"), unwrapped(ActorDiedError(wrapped(error)), "store-0")
    assert called is error and type(made) is type(error) and str(made) == str(error)


def test_an_actor_whose_making_nobody_foresaw_is_away_and_says_why() -> None:
    away = unwrapped(ActorDiedError(wrapped(KeyError("x"))), "store-0")
    assert isinstance(away, ClusterUnavailable) and "store-0 could not be made (KeyError: 'x')" in str(away)


def test_an_actor_that_died_is_away_for_now() -> None:
    away = unwrapped(ActorDiedError(), "store-0")
    assert isinstance(away, ClusterUnavailable) and away.ids == {"actor": "store-0"}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379"])
def test_a_ray_cluster_that_is_not_there_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ClusterUnavailable, match=rf"no Ray cluster answers at '{address}' .*: is it running\?"):
        connect(address, "none")
