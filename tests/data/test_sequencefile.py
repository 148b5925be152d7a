import gzip

import pytest

from data.interactions import read_interactions
from data.sequencefile import read_sequences
from data.sourcefile import SourceFile
from errors import UserError


def read(tmp_path, text, **options):
    path = tmp_path / "Beauty.txt"
    path.write_text(text)
    return read_sequences(SourceFile(path), **options)


def histories(found):
    return [(found.user_ids[user], found.item_ids[item]) for user, item in zip(found.users, found.items, strict=True)]


def test_a_line_for_each_user_or_for_each_item(tmp_path):
    expected = [("2", "b"), ("2", "a"), ("2", "c"), ("10", "c"), ("10", "a")]
    assert histories(read(tmp_path, "10 c a\n2 b a c\n")) == expected
    assert histories(read(tmp_path, "10 c\n2 b\n2\ta\n10 a\n2 c\n\n")) == expected


def test_the_same_as_a_table_in_this_order(tmp_path):
    rows = [(user, item) for user in range(8) for item in range(12) if item % (user + 2)]
    table = tmp_path / "interactions.csv.gz"
    lines = [f"{user},{item},{time}" for time, (user, item) in enumerate(rows)]
    table.write_bytes(gzip.compress("\n".join(["user_id,item_id,timestamp", *lines]).encode()))
    sequences = {user: " ".join(str(item) for other, item in rows if other == user) for user, _ in rows}
    found = read(tmp_path, "\n".join(f"{user} {items}" for user, items in sequences.items()))
    assert histories(found) == histories(read_interactions(SourceFile(table)))
    assert found.ratings is None and found.ties == 0


def test_an_item_that_comes_again_is_left_out(tmp_path):
    found = read(tmp_path, "u a b a\nv a\n")
    assert histories(found) == [("u", "a"), ("u", "b"), ("v", "a")] and found.repeats == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("u a b\nv\n", "line 2: 'v' is not a user and items"),
        ("u,a,5\n", "line 1: 'u,a,5' is not a user and items"),
        ("u a b\n\nv a\n", "line 2: '' is not a user and items"),
        ("", "no lines"),
        ("u a 5\nu b 3\nv a 1\n", "every line has 3 fields, so these are rows"),
        ("u a Toy Story\nv a Toy Story\nu b Heat\n", "user 'u' has several lines, .* so these are rows"),
        ("u 1, 48, 14\n", "line 1: '1,' would be an id"),
        ("u [1 48 14]\n", r"line 1: '\[1' would be an id"),
        ("u a b c\nv a\n7 a\n7.0 a\n", "line 4, column user_id: '7.0' and '7' would be two ids"),
    ],
)
def test_what_is_no_sequence_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_there_is_no_time_to_sort_by(tmp_path):
    with pytest.raises(UserError, match="leave out --sort_rows"):
        read(tmp_path, "u a b\nv a\n", sort_rows=True)
