from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cacheflow_ray.errors import SourceNotFound, UnsupportedMedia
from cacheflow_ray.media import open_source
from tests.media.clips import clip, number_of


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback that hands out tmp_path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_video_is_read_from_the_web(tmp_path: Path, address: str) -> None:
    clip(tmp_path / "a.mkv", 12)
    with open_source(f"{address}/a.mkv", fps=None) as source:
        assert [number_of(f.image) for f in source] == list(range(12))
    assert source.info.identity == f"uri:{address}/a.mkv"


def test_web_errors_are_told_apart(tmp_path: Path, address: str) -> None:
    (tmp_path / "page.html").write_text("<html>no video here</html>" * 50)
    with pytest.raises(SourceNotFound, match="nothing found"):
        open_source(f"{address}/gone.mp4", fps=1.0)
    with pytest.raises(UnsupportedMedia, match="not a video"):
        open_source(f"{address}/page.html", fps=1.0)
