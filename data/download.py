"""Fetch a file over HTTP: with a bar, resumed where it broke off, in place only if whole."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from data.disk import writing
from data.progress import progress
from errors import UserError

ATTEMPTS = 3
TIMEOUT = 15.0  # seconds without a byte
BLOCK = 1 << 16


class UnreachableError(UserError):
    """The file could not be fetched: no network, a server that is away, or no such file there."""


def download(url: str, path: Path, md5: str, pause: float = 1.0) -> None:
    """Fetch url to path.

    What has arrived stays in path + ".part", where the next attempt or the next call goes on. The MD5 sum is checked
    before the file takes its name: with another sum it is thrown away, fetched once more from the start, then refused.

    Args:
        url: where the file is.
        path: where it goes; its folder is made.
        md5: the sum that it must have.
        pause: seconds between two attempts.

    Raises:
        UnreachableError: it cannot be had.
        UserError: it has another sum, or the disk is full.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for _ in range(2):
        _fetch(url, part, pause)
        if _md5(part) == md5:
            os.replace(part, path)
            return
        part.unlink()
    raise UserError(
        f"{url} sent another file than it should (MD5 is not {md5}); "
        "try another network, or fetch it yourself and give it as source."
    )


def _fetch(url: str, part: Path, pause: float) -> None:
    """Fill part until the server has nothing more to send."""
    for attempt in range(ATTEMPTS):
        had = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, had)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416 and had:  # nothing after what is here; the sum will tell
                return
            reason = f"HTTP {error.code} {error.reason}"
            if error.code < 500:
                break
        except urllib.error.URLError as error:
            reason = str(error.reason)
            if not isinstance(error.reason, TimeoutError):
                break  # no such host, or nobody listens: to try again would keep the user waiting
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        if attempt + 1 < ATTEMPTS:
            time.sleep(pause * 2**attempt)
    raise UnreachableError(f"{url} cannot be fetched ({reason}); check the network, or give the file as source.")


def _receive(url: str, part: Path, offset: int) -> None:
    """One request, which goes on at offset if the server agrees to, else starts over."""
    request = urllib.request.Request(url, headers={"User-Agent": "SparCode"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if not (answer.status == 206 and goes_on):
            offset = 0
        length = answer.headers.get("Content-Length")
        total = offset + int(length) if length else None
        with writing(part):
            part.touch()
        with (
            open(part, "ab" if offset else "wb", buffering=0) as out,
            progress(f"fetching {part.stem}", total, "B", offset) as reached,
        ):
            while block := answer.read(BLOCK):
                with writing(part):
                    if out.write(block) < len(block):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                reached(out.tell())
    arrived = part.stat().st_size
    if total is not None and arrived < total:
        raise ConnectionError(f"the connection broke off after {arrived} of {total} bytes")


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # what GroupLens publishes; it guards accidents
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
