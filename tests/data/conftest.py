"""What the tests of the data share: a small archive like ml-1m.zip, a server on the loopback."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from data.movielens import ARCHIVES, Archive

SHARED = os.environ.get("SPARCODE_DATA")  # before the fixture below hides it


@pytest.fixture(autouse=True)
def closed_world(monkeypatch):
    """No test sees the developer's data or the network unless it asks for it."""
    monkeypatch.delenv("SPARCODE_DATA", raising=False)
    monkeypatch.setenv("SPARCODE_DOWNLOAD", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def shared_ml_1m() -> Path:
    """The real ML-1M; needs SPARCODE_DATA."""
    folder = Path(SHARED or "") / "ml-1m"
    if not SHARED or not folder.is_dir():
        pytest.skip("SPARCODE_DATA names no folder with ml-1m in it")
    return folder


def movielens_text(users: int = 20, items: int = 12, each: int = 8) -> dict[str, bytes]:
    """ratings.dat (in no order of time), movies.dat (Latin-1, with an accent) and users.dat."""
    rng = np.random.default_rng(7)
    rows = []
    for user in range(1, users + 1):
        for item in rng.permutation(items)[:each]:
            rows.append(f"{user}::{item + 1}::{rng.integers(1, 6)}::{rng.integers(10**9, 10**9 + 50)}")
    movies = [f"{i}::Film \u00e9 {i} (1999)::{'Drama|War' if i % 2 else 'Comedy'}" for i in range(1, items + 1)]
    people = [f"{i}::F::1::10::48067" for i in range(1, users + 1)]
    return {
        "ratings.dat": ("\n".join(rows) + "\n").encode(),
        "movies.dat": ("\n".join(movies) + "\n").encode("latin-1"),
        "users.dat": ("\n".join(people) + "\n").encode(),
    }


@pytest.fixture
def movielens_files() -> dict[str, bytes]:
    return movielens_text()


@pytest.fixture
def movielens_zip(tmp_path, movielens_files, monkeypatch) -> Path:
    """A small archive of the layout of ml-1m.zip, which passes for the real one."""
    path = tmp_path / "given" / "ml-1m.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in movielens_files.items():
            archive.writestr(f"ml-1m/{name}", content)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(ARCHIVES, "ml-1m", Archive("MovieLens-1M", "ml-1m.zip", md5, 20, (160,)))
    return path


class Server(ThreadingHTTPServer):
    """Serves `files`; breaks the connection off after cuts.pop(0) bytes while there are cuts."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []  # the Range header of every request
        self.resumes = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if not self.server.resumes:
            start = 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start : start + cut])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()
