"""A file is there whole or not at all, and an error says which file it was about."""

import errno
import hashlib
import os

import pytest

import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_whole_and_replaces_what_was_there(tmp_path):
    target = tmp_path / "deep" / "table.csv"
    for text in ("a,b\r\n", "ü\n"):
        with files.fresh(target, "w") as file:
            file.write(text)
            assert not target.exists() or target.read_bytes() == b"a,b\r\n"  # nothing of the new one yet
        assert target.read_bytes() == text.encode()
    assert names(target.parent) == ["table.csv"]
    assert os.stat(target).st_mode & 0o777 == 0o644


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "kept"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), files.fresh(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old" and names(tmp_path) == ["kept"]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    target = tmp_path / "metrics.csv"
    told = r"metrics.csv could not be written: No space left on device\."
    with pytest.raises(OSError, match=told) as caught, files.fresh(target) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC and names(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_disk_that_is_full_when_flushed_is_told_too(tmp_path):
    target, told = tmp_path / "named", "named could not be written: No space left"
    with pytest.raises(OSError, match=told), files.writing(target), open("/dev/full", "wb") as file:
        file.write(b"x")
        files.flush(file)


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="table could not be written"), files.fresh(tmp_path / "file" / "table"):
        pass


def test_a_file_within_a_folder_is_told_once(tmp_path):
    told = r"^\[Errno 28\] \S*table could not be written: full\.$"
    with pytest.raises(OSError, match=told), files.writing(tmp_path), files.fresh(tmp_path / "table"):
        raise OSError(errno.ENOSPC, "full")


def test_the_error_of_another_file_stays_what_it_is(tmp_path):
    (tmp_path / "place").mkdir()
    with pytest.raises(FileNotFoundError, match="elsewhere"), files.fresh(tmp_path / "place" / "new"):
        (tmp_path / "place" / "elsewhere").read_bytes()
    assert names(tmp_path / "place") == []


def test_the_digest_is_sha256(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "some").write_bytes(content)
    assert files.digest(tmp_path / "some") == hashlib.sha256(content).hexdigest()
