"""Names of streams: bare on the wire, `tenant:name` inside, so that two tenants may give the same name.

Without tenants ("") both are the same.
"""

from __future__ import annotations

import re

from cacheflow_ray.errors import UsageError

#: What a tenant may be called.
TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def qualified(tenant: str, name: str, *, field: str = "name") -> str:
    """The stream's id. A name holds no colon, so none reaches into another tenant.

    Raises:
        UsageError: no such name is allowed; it names `field`.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{field}: {name!r:.160} is no name of a stream; allowed: 1 to 128 letters, digits, '.', '_' or '-', the "
            "first a letter or digit",
            field=field,
        )
    return f"{tenant}:{name}" if tenant else name


def bare(tenant: str, stream_id: str) -> str:
    """The name its tenant knows the stream by; an id that is not the tenant's stays as it is."""
    return stream_id.removeprefix(f"{tenant}:") if tenant else stream_id


def without_tenant(tenant: str, text: str) -> str:
    """A message as the tenant may read it: ids in it become bare names."""
    return re.sub(rf"(?<![\w.:-]){re.escape(tenant)}:(?=[A-Za-z0-9])", "", text) if tenant else text
