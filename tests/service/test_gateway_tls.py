"""TLS and mTLS with certificates made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from cacheflow_ray.config import TlsOptions
from cacheflow_ray.errors import InvalidConfig
from cacheflow_ray.service.tls import server_credentials
from cacheflow_ray.service.v1.stream_pb2 import ListStreamsRequest
from tests.service.serving import in_loop, serving

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed: it makes certificates"
)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_EXPIRED = ("-startdate", "20200101000000Z", "-enddate", "20200102000000Z")
_CONFIG = """
[ca]
default_ca = own
[own]
database = {name}.index
new_certs_dir = .
rand_serial = yes
certificate = {name}.pem
private_key = {name}.key
default_md = sha256
policy = any
x509_extensions = named
[any]
commonName = supplied
[named]
subjectAltName = DNS:localhost
"""


class Authority:
    """Signs certificates for localhost, each in two files: NAME.pem and NAME.key."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        (folder / f"{name}.cnf").write_text(_CONFIG.format(name=name))
        (folder / f"{name}.index").touch()
        self._openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"
        )

    @property
    def pem(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def sign(self, name: str, *validity: str) -> tuple[Path, Path]:
        """Certificate and key; `validity` as openssl takes it."""
        subject = f"/CN={name}"
        self._openssl("req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        signing = ("ca", "-batch", "-notext", "-config", f"{self.name}.cnf", *(validity or ("-days", "1")))
        self._openssl(*signing, "-in", f"{name}.csr", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def client(authority: Authority, certificate: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    cert, key = (None, None) if certificate is None else (path.read_bytes() for path in certificate)
    return grpc.ssl_channel_credentials(authority.pem.read_bytes(), private_key=key, certificate_chain=cert)


async def reaches(tls: TlsOptions, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a call is answered; else it is because there is no connection."""
    async with serving(tls=tls, credentials=credentials) as served:
        call = served.call("ListStreams", ListStreamsRequest(), timeout=5)
        try:
            await call
            return True
        except grpc.aio.AioRpcError as error:
            assert error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
            return False


@in_loop
async def test_a_server_shows_who_it_is(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.sign("server")
    tls = TlsOptions(cert=cert, key=key)
    stranger = Authority(tmp_path, "stranger")
    assert await reaches(tls, client(authority))
    assert not await reaches(tls, client(stranger))
    assert not await reaches(tls, None)


@in_loop
async def test_a_client_shows_who_it_is(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.sign("server")
    tls = TlsOptions(cert=cert, key=key, client_ca=authority.pem)
    stranger = Authority(tmp_path, "stranger")
    assert await reaches(tls, client(authority, authority.sign("client")))
    assert not await reaches(tls, client(authority))
    assert not await reaches(tls, client(authority, stranger.sign("imposter")))


@in_loop
async def test_an_expired_certificate_is_refused_by_either_side(authority: Authority) -> None:
    expired = authority.sign("expired", *_EXPIRED)
    cert, key = authority.sign("server")
    fresh = authority.sign("client")
    assert not await reaches(TlsOptions(cert=expired[0], key=expired[1]), client(authority))
    assert not await reaches(TlsOptions(cert=cert, key=key, client_ca=authority.pem), client(authority, expired))
    assert await reaches(TlsOptions(cert=cert, key=key, client_ca=authority.pem), client(authority, fresh))


def test_a_file_that_is_missing_or_no_pem_is_named(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.sign("server")
    text = tmp_path / "text.txt"
    text.write_text("hello")
    for bad, named in (
        (TlsOptions(cert=tmp_path / "none.pem", key=key), "tls.cert"),
        (TlsOptions(cert=cert, key=text), "tls.key"),
        (TlsOptions(cert=cert, key=key, client_ca=text), "tls.client_ca"),
    ):
        with pytest.raises(InvalidConfig) as raised:
            server_credentials(bad)
        assert raised.value.ids["key"] == named


@in_loop
async def test_a_key_of_another_certificate_does_not_serve(authority: Authority) -> None:
    cert, _ = authority.sign("server")
    _, key = authority.sign("client")
    with pytest.raises(InvalidConfig):
        async with serving(tls=TlsOptions(cert=cert, key=key)):
            pass
