import hashlib

import pytest

from data.download import UnreachableError, download
from errors import UserError

CONTENT = bytes(range(256)) * 2000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@pytest.fixture
def url(server) -> str:
    server.files["x.zip"] = CONTENT
    return f"{server.url}/x.zip"


def test_whole_file_arrives_under_its_name_only(server, url, tmp_path):
    download(url, tmp_path / "new" / "x.zip", MD5)
    assert (tmp_path / "new" / "x.zip").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.zip"]


def test_broken_connection_is_resumed_where_it_broke(server, url, tmp_path):
    server.cuts = [100_000, 50_000]
    download(url, tmp_path / "x.zip", MD5, pause=0)
    assert (tmp_path / "x.zip").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_next_call_goes_on_where_the_last_one_gave_up(server, url, tmp_path):
    server.cuts = [1000, 1000, 1000]
    with pytest.raises(UnreachableError, match="3000 of 512000"):
        download(url, tmp_path / "x.zip", MD5, pause=0)
    assert not (tmp_path / "x.zip").exists()
    download(url, tmp_path / "x.zip", MD5, pause=0)
    assert server.ranges[-1] == "bytes=3000-"
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_server_that_cannot_resume_starts_over(server, url, tmp_path):
    server.resumes, server.cuts = False, [100_000]
    download(url, tmp_path / "x.zip", MD5, pause=0)
    assert server.ranges == [None, "bytes=100000-"]
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_complete_part_is_not_fetched_again(server, url, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(CONTENT)
    download(url, tmp_path / "x.zip", MD5, pause=0)
    assert len(server.ranges) == 1 and (tmp_path / "x.zip").read_bytes() == CONTENT


def test_foreign_part_is_thrown_away(server, url, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(b"something else")
    download(url, tmp_path / "x.zip", MD5, pause=0)
    assert server.ranges == ["bytes=14-", None]
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_wrong_sum_is_refused_and_nothing_stays(server, url, tmp_path):
    with pytest.raises(UserError, match="MD5") as refusal:
        download(url, tmp_path / "x.zip", "0" * 32, pause=0)
    assert not isinstance(refusal.value, UnreachableError)
    assert list(tmp_path.iterdir()) == []


def test_absent_file_and_absent_server(server, url, tmp_path):
    with pytest.raises(UnreachableError, match="404"):
        download(f"{server.url}/y.zip", tmp_path / "y.zip", MD5, pause=0)
    with pytest.raises(UnreachableError, match="cannot be fetched"):
        download("http://127.0.0.1:9/x.zip", tmp_path / "x.zip", MD5, pause=0)


def test_full_disk_names_the_file(server, url, tmp_path):
    (tmp_path / "x.zip.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="no disk space left for .*x.zip.part"):
        download(url, tmp_path / "x.zip", MD5, pause=0)
