"""Damaged and hostile files: refused with the place, in bounded memory, without echoing what they hold."""

import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from data.interactions import read_interactions
from data.movielens import read_ratings
from data.sourcefile import SourceFile, shown
from data.userfile import read_users
from errors import UserError

HEADER = "user_id,item_id,timestamp\n"


def refusal(tmp_path, text, read=read_interactions, name="interactions.csv") -> str:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as found:
        read(SourceFile(path))
    return str(found.value)


@pytest.mark.parametrize(
    ("row", "column"),
    [("4\0zz,2,3", "user_id"), ("4,\x00,3", "item_id"), ("4,2,3\0", "timestamp"), ("\0", "user_id")],
)
def test_nul_bytes_are_refused_with_line_and_column(tmp_path, row, column):
    """pandas would take user "4\\0zz" for 4."""
    message = refusal(tmp_path, HEADER + f"1,2,3\n{row}\n")
    assert f"line 3, column {column}: a NUL byte" in message


def test_nul_bytes_in_other_files(tmp_path):
    assert "line 2: a NUL byte" in refusal(tmp_path, "1::2::3::4\n1::\0::3::4\n", read_ratings, "ratings.dat")
    assert "line 1: a NUL byte" in refusal(tmp_path, "user_id,a\0ge\n1,2\n", read_users)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER + '1,2,3\n1,"3,4\n1,4,5\n1,5,6\n', 3),
        (HEADER + '1,2,3\n1,"3,4\n1,4,5\n"1","5",6\n', 3),  # a later quote closes it in the wrong place
        (HEADER + '1,"a\nb",3\n1,"c\nd","e\n1,4,5\n1,5,6\n', 5),  # opened on the second line of its row
        (HEADER + '1,"say ""hi""",3\n"\n1,5,6\n', 3),
        (HEADER + '1,2,3\n1,"3"x,4\n1,4,5\n', 3),
        (HEADER + '1,"",3\n1,"a ""b"" c","d,4\n1,4,5\n', 3),
    ],
)
def test_open_quote_is_named_where_it_opens(tmp_path, text, line):
    message = refusal(tmp_path, text, lambda file: list(file.body()))
    assert f"line {line}:" in message and "quotes" in message


@pytest.mark.parametrize("time", ["1" * 30, "1" * 5000, "1_000", "0x10", "\uff11", "1" * 500])
def test_odd_timestamps_keep_their_line(tmp_path, time):
    message = refusal(tmp_path, HEADER + f"1,2,3\n1,3,{time}\n")
    assert "line 3, column timestamp" in message and "18 digits" in message
    if time.isascii():
        message = refusal(tmp_path, f"1::2::3::4\n1::3::4::{time}\n", read_ratings, "ratings.dat")
        assert "line 2, column Timestamp" in message


def test_byte_order_mark_costs_no_row(tmp_path):
    path = tmp_path / "ratings.dat"
    path.write_bytes(b"\xef\xbb\xbf1::30::5::200\n1::20::3::100\n2::20::1::50\n")
    found = read_ratings(SourceFile(path))
    assert found.user_ids == ["1", "2"] and len(found) == 3


@pytest.mark.parametrize("row", ["{},2,3,4", "1,{},0", "{},2,3\n{},9,1", "{},2,3\n{} ,2,3"])
def test_messages_are_short_and_without_control_characters(tmp_path, row):
    hostile = "\x1b[2J\x1b]0;title\x07" + "x" * 10**7
    message = refusal(tmp_path, HEADER + "1,2,3\n" + row.replace("{}", hostile) + "\n")
    assert len(message) < 600 and message.isprintable()


def test_hostile_headers_and_users(tmp_path):
    hostile = "\x1b[2J" + "x" * 10**6
    messages = [
        refusal(tmp_path, f"user_id,{hostile}\n1,2\n"),
        refusal(tmp_path, f"user_id,age\n{hostile},2\n{hostile},2\n", read_users),
        refusal(tmp_path, f"1::2::3::4\n1::2::{hostile}::4\n", read_ratings, "ratings.dat"),
    ]
    assert all(len(message) < 600 and message.isprintable() for message in messages)


def test_shown():
    assert shown("a") == "'a'" and shown("\x1b") == "'\\x1b'"
    assert len(shown("x" * 10**6)) == len(shown("\U0001ffff" * 50)) == 80


BOMB = HEADER.encode() + b"1,2,3\n" + b"1,22222222,3\n" * 12_000_000  # 156 MB
READ = """
import resource, sys
from pathlib import Path
from data.interactions import read_interactions
from data.sourcefile import SourceFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_interactions(SourceFile(Path(sys.argv[1]), sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("packed", ["gz", "zip"])
def test_a_bomb_is_refused_in_bounded_memory(tmp_path, packed):
    if packed == "gz":
        path, member = tmp_path / "x.csv.gz", ""
        path.write_bytes(gzip.compress(BOMB, 6))
    else:
        path, member = tmp_path / "x.zip", "x.csv"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, BOMB)
    command = [sys.executable, "-c", READ, str(path), member]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    refused, used = done.stdout.splitlines()
    assert refused.startswith("UserError") and "unpacks to more than 50 times its size" in refused
    assert int(used) < 300  # MiB


def test_a_table_that_packs_well_is_read(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "".join(f"1,{i},1\n" for i in range(10**5))).encode()))
    assert len(read_interactions(SourceFile(path))) == 10**5
