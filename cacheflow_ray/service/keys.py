"""Who calls: API keys, and the tenant each belongs to.

The keys file is TOML, a table a tenant. A key stands there as it is, or as the SHA-256 of it:

    [tenants.acme]
    keys = ["s3cret", "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]
    max_streams = 100     # these two override the service's limits
    max_questions = 4

The tenant "admin" may also see and scale the service.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from cacheflow_ray.config import Section
from cacheflow_ray.errors import InvalidConfig, Unauthenticated
from cacheflow_ray.service.tenants import TENANT

ADMIN = "admin"

_Limit = Annotated[int | None, Field(ge=1, description="1 or more, or None")]
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")


class Tenant(Section):
    """Who calls. `max_streams`, `max_questions`: None, as the service's limits say."""

    name: str = ""
    max_streams: _Limit = None
    max_questions: _Limit = None

    @property
    def is_admin(self) -> bool:
        """Without keys, everybody is."""
        return self.name in ("", ADMIN)


class _Entry(Section):
    """A tenant as the file has it."""

    keys: Annotated[list[str], Field(min_length=1, description="a list of one key or more")]
    max_streams: _Limit = None
    max_questions: _Limit = None


class KeyRing:
    """All keys. `tenants` maps a key's SHA-256 to whose it is; None: there are none, and whoever calls is ""."""

    def __init__(self, tenants: Mapping[bytes, Tenant] | None) -> None:
        self._tenants = tenants

    @classmethod
    def load(cls, path: Path | None) -> KeyRing:
        """Raises: InvalidConfig: no such file, or something in it is not as it has to be."""
        if path is None:
            return cls(None)
        tenants: dict[bytes, Tenant] = {}
        for name, entry in _read(path).items():
            tenant = Tenant(name=name, max_streams=entry.max_streams, max_questions=entry.max_questions)
            for digest in map(_digest, entry.keys):
                if digest in tenants:
                    raise InvalidConfig(f"{path}: a key of {name!r} is there twice: give each key once", key="keys")
                tenants[digest] = tenant
        return cls(tenants)

    def tenant_of(self, metadata: Iterable[tuple[str, str | bytes]]) -> Tenant:
        """Whose key the call brings, as `authorization: Bearer KEY` or `x-api-key: KEY`.

        Raises:
            Unauthenticated: no key, or one nobody has.
        """
        if self._tenants is None:
            return Tenant()
        key = _key_in(dict(metadata))
        if key is None:
            raise Unauthenticated("no API key: send one as `authorization: Bearer KEY` or `x-api-key: KEY`")
        given = hashlib.sha256(key.encode()).digest()
        # Every key is compared, so that the time taken tells nothing of which one was near.
        found = [tenant for digest, tenant in self._tenants.items() if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthenticated("this API key is nobody's: ask the service's operator for one")
        return found[0]


def _key_in(metadata: Mapping[str, str | bytes]) -> str | None:
    scheme, _, key = str(metadata.get("authorization", "")).partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return str(metadata.get("x-api-key", "")) or None


def _digest(key: str) -> bytes:
    hashed = _HASHED.fullmatch(key)
    return bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(key.encode()).digest()


def _read(path: Path) -> dict[str, _Entry]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"keys: {path} cannot be read: {error.strerror}", key="keys") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"keys: {path} is no TOML: {error}", key="keys") from None
    tenants = content.get("tenants")
    if content.keys() != {"tenants"} or not isinstance(tenants, dict):
        raise InvalidConfig(f"keys: {path} has to hold [tenants.NAME] tables, and nothing else", key="keys")
    return {name: _entry(path, name, entry) for name, entry in tenants.items()}


def _entry(path: Path, name: str, entry: object) -> _Entry:
    if not TENANT.fullmatch(name):
        raise InvalidConfig(
            f"keys: {path}: {name!r} is no tenant's name; allowed: up to 63 small letters, digits or '-', the first "
            "no '-'",
            key="keys",
        )
    try:
        made = _Entry.model_validate(entry)
    except InvalidConfig as error:
        raise InvalidConfig(f"keys: {path}: tenants.{name}.{_without_value(error)}", key="keys") from None
    bad = [key for key in made.keys if not key or (key.startswith("sha256:") and not _HASHED.fullmatch(key))]
    if bad:
        raise InvalidConfig(f"keys: {path}: tenants.{name}.keys: one is empty, or no SHA-256 in hex", key="keys")
    return made


def _without_value(error: InvalidConfig) -> str:
    """What is wrong, but not the keys themselves: logs are read by many."""
    return f"{error.ids.get('key')}: allowed: {str(error).rpartition('allowed: ')[2]}"
