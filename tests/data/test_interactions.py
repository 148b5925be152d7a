import gzip
import time
import tracemalloc

import numpy as np
import pytest

from data.interactions import Interactions, read_interactions
from data.sourcefile import SourceFile
from errors import UserError

HEADER = "user_id,item_id,timestamp\n"


def read(tmp_path, text, sort_rows=False, name="interactions.csv", encoding="utf-8"):
    path = tmp_path / name
    raw = text if isinstance(text, bytes) else text.encode(encoding)
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return read_interactions(SourceFile(path), sort_rows)


def histories(found: Interactions) -> dict[str, list[str]]:
    result = {user: [] for user in found.user_ids}
    for user, item in zip(found.users, found.items, strict=True):
        result[found.user_ids[user]].append(found.item_ids[item])
    return result


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.csv.gz"])
def test_users_are_gathered_in_time_order(tmp_path, name):
    text = HEADER + "b,x,1\na,y,2\nb,z,3\na,x,4\n"
    found = read(tmp_path, text, name=name)
    assert histories(found) == {"a": ["y", "x"], "b": ["x", "z"]}
    assert found.users.dtype == np.int32 and found.items.dtype == np.int32


def test_tables_of_recbole_are_read(tmp_path):
    text = "item_id:token\tuser_id:token\trating:float\ttimestamp:float\na,x\tb\t3\t881250949\ny\tb\t1\t891717742.0\n"
    found = read(tmp_path, text, name="some.inter")
    assert histories(found) == {"b": ["a,x", "y"]} and found.ratings.tolist() == [3, 1]
    with pytest.raises(UserError, match="line 3, column timestamp: 'soon'"):
        read(tmp_path, text.replace("891717742.0", "soon"), name="some.inter")
    with pytest.raises(UserError, match="line 1: no column 'item_id'"):
        read(tmp_path, text.replace("item_id", "id"), name="some.inter")


def test_columns_may_have_the_names_of_amazon_reviews(tmp_path):
    text = "user_id,parent_asin,rating,timestamp\nAE,B07,5.0,1588687728923\nAE,B01,4.0,1588687728924\n"
    assert histories(read(tmp_path, text)) == {"AE": ["B07", "B01"]}
    both = text.replace("rating", "item_id", 1)  # then ours is meant
    assert histories(read(tmp_path, both)) == {"AE": ["5.0", "4.0"]}


@pytest.mark.parametrize(
    "header", ["reviewerID,asin,overall,unixReviewTime", "visitorid,itemid,stars,date", "user,item,rating,time"]
)
def test_columns_may_have_the_names_of_published_data(tmp_path, header):
    found = read(tmp_path, header + "\na,x,5,1\na,y,4,2\n")
    assert histories(found) == {"a": ["x", "y"]} and found.ratings.tolist() == [5, 4]
    assert read(tmp_path, ",user_id,item_id,timestamp\n5,a,x,1\n").ratings is None  # a column without a name stays one


def test_columns_that_are_not_read_may_share_a_name(tmp_path):
    text = "x,user_id,x,item_id,timestamp,x 2\n1,b,2,y,1,5\n"
    assert histories(read(tmp_path, text)) == {"b": ["y"]}


def test_columns_that_are_not_read_take_no_memory(tmp_path):
    path = tmp_path / "interactions.csv"
    path.write_text(HEADER[:-1] + ",review\n" + "".join(f"{user},7,1,{user:0700}\n" for user in range(20000)))
    tracemalloc.start()
    read_interactions(SourceFile(path))
    assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 2
    tracemalloc.stop()


def test_byte_order_mark_rating_and_column_order(tmp_path):
    text = "rating,timestamp,item_id,user_id\n5,1.5,x,a\n,2,y,a\n"
    assert histories(read(tmp_path, text, encoding="utf-8-sig")) == {"a": ["x", "y"]}


def test_ratings_follow_their_rows(tmp_path):
    text = "rating,timestamp,item_id,user_id\n5,1,x,b\n.5,3,y,a\n2,2,z,a\n1,4,y,a\n"
    found = read(tmp_path, text, sort_rows=True)
    assert histories(found) == {"a": ["z", "y"], "b": ["x"]}
    assert found.ratings.tolist() == [2, 0.5, 5] and found.ratings.dtype == np.float32  # of repeats the first
    assert found.frequent(1).ratings.tolist() == [2, 0.5, 5]
    assert read(tmp_path, text.replace("2,2,z", ",2,z"), sort_rows=True).ratings is None  # not all are rated
    assert read(tmp_path, HEADER + "a,x,1\n").ratings is None


def test_ids_are_text_and_numbers_sort_by_value(tmp_path):
    found = read(tmp_path, HEADER + "10,007,1\n9,7,2\n10,NA,3\n")
    assert found.user_ids == ["9", "10"]
    assert found.item_ids == ["007", "7", "NA"]


def test_equal_times_keep_the_order_of_the_file(tmp_path):
    found = read(tmp_path, HEADER + "u,9,5\nu,1,5\nu,7,5\nu,3,1\n", sort_rows=True)
    assert histories(found) == {"u": ["3", "9", "1", "7"]} and found.ties == 2


def test_repeats_keep_the_first_and_are_counted(tmp_path):
    found = read(tmp_path, HEADER + "u,a,1\nu,b,2\nu,a,3\nv,a,4\n")
    assert histories(found) == {"u": ["a", "b"], "v": ["a"]}
    assert found.repeats == 1


def test_the_same_row_twice_is_a_repeat(tmp_path):  # as data with a day for a time have
    found = read(tmp_path, HEADER + "u,a,1\nu,b,1\nu,a,1\nv,a,4\n")
    assert histories(found) == {"u": ["a", "b"], "v": ["a"]}
    assert found.repeats == 1


def test_ids_may_look_a_little_alike(tmp_path):
    ids = ["a", "A", "a b", "a.0", "1", "1.05", "v1.0", "v1"]
    found = read(tmp_path, HEADER + "".join(f"u,{each},{i}\n" for i, each in enumerate(ids)))
    assert histories(found) == {"u": ids}


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n\r\n\n"])
def test_empty_last_lines_are_no_rows(tmp_path, end):
    assert histories(read(tmp_path, HEADER + "u,a,1\nu,b,2" + end)) == {"u": ["a", "b"]}


def test_large_timestamps_are_not_rounded(tmp_path):
    base = 2**60
    rows = f"u,a,{base + 2}\nu,b,{base + 1}\n"
    assert histories(read(tmp_path, HEADER + rows, sort_rows=True)) == {"u": ["b", "a"]}


@pytest.fixture
def far_from_greenwich(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def test_timestamps_may_be_dates(tmp_path, far_from_greenwich):
    times = ["2020-01-31T23:59:59Z", "2020-01-31 09:00", "2020-02-01T00:30:00+02:00", "2020-01-31T22:30:00.5"]
    text = HEADER + "".join(f"u,{item},{time}\n" for item, time in zip("abcd", times, strict=True)) + "v,a,2020-01-31\n"
    assert histories(read(tmp_path, text, sort_rows=True)) == {"u": list("bcda"), "v": ["a"]}
    with pytest.raises(UserError, match="line 3, column timestamp.*goes back in time"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        (HEADER, ["no rows"]),
        ("user_id,item_id\n1,2\n", ["line 1", "'timestamp'"]),
        ("user_id,item_id,timestamp,item_id\n1,2,3,4\n", ["line 1", "more than one", "'item_id'"]),
        (HEADER + "1,2,3\n1,3\n", ["line 3", "2 fields"]),
        (HEADER + "1,2,3\n1,3,4,5\n", ["line 3", "4 fields"]),
        (HEADER + "1,2,3,4\n1,3,4,5\n", ["line 2", "4 fields"]),
        (HEADER + "1,2,3\n,3,4\n", ["line 3", "user_id"]),
        (HEADER + "1,2,3\n\n1,3,4\n", ["line 3"]),
        (HEADER + "1,2,3\n1,3,yesterday\n", ["line 3", "timestamp", "'yesterday'"]),
        (HEADER + "1,2,2020-01-31\n1,3,2020-02-30\n", ["line 3", "timestamp", "'2020-02-30'"]),
        (HEADER + "1,2,2020-01-31\n1,3,20200201\n", ["line 3", "timestamp", "'20200201' is a number", "dates"]),
        (HEADER + "1,2,3\n1,3,2020-01-31\n", ["line 3", "timestamp", "is a date", "numbers"]),
        (HEADER + "1,2,3\n1,3,nan\n", ["line 3", "timestamp"]),
        (HEADER + "1,2,3\n1,3,inf\n", ["line 3", "timestamp"]),
        (HEADER + "1,2,3\n1,3,\n", ["line 3", "timestamp"]),
        (HEADER + '1,2,3\n1,"3,4\n', ["line 3", "quotes"]),
        (HEADER[:-1] + ',t\n1,2,3,"ab\n2,2,3,ab\n3,2,3,c"d\n4,2,3,x\n', ["line 2", "quotes"]),
        (HEADER[:-1] + ",t\n1,2,3,x\n1,3,4\n", ["line 3", "3 fields"]),  # that t is not read changes nothing
        (HEADER[:-1] + ",rating\n1,2,3,5\n1,3,4\n", ["line 3", "3 fields"]),
        ("user_id,item_id,date,time\n1,2,2020-01-31,09:00\n", ["line 1", "date and time", "together"]),
        ("user_id,item_id,date,hour,time_ms,click\n1,2,20140516,22,1,1\n", ["columns date and hour, time_ms;"]),
        ("user_id;item_id;timestamp\n1;2;3\n", ["line 1", "parted by ';'; part them by ','"]),
        ('"user_id";"item_id";"timestamp"\n"1";"2";"3"\n', ["line 1", "parted by ';'; part them by ','"]),
        ("userId,item_id,date_\n1,2,3\n", ["(the header is 'userId,item_id,date_')", "without times, number the rows"]),
        (HEADER + "1,2, 3\n1,3,\n", ["line 3", "''"]),
        (HEADER + "1,2,5\n2,9,1\n1,3,4\n", ["line 4", "timestamp", "--sort_rows 1"]),
        (HEADER + "1,2,3\n1,3,4\n2,3 ,1\n", ["line 4", "item_id", "'3 '", "'3'"]),
        (HEADER + "1,2,3\n1.0,3,4\n", ["line 3", "user_id", "'1.0'", "'1'"]),
        (HEADER.encode() + b"1,2,3\n1,caf\xe9,4\n", ["line 3", "UTF-8"]),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path, text, parts):
    with pytest.raises(UserError) as refusal:
        read(tmp_path, text)
    for part in ["interactions.csv", *parts]:
        assert part in str(refusal.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b"PK" + b, lambda b: b[:-8] + b"00000000"])
def test_damaged_gzip_is_refused(tmp_path, damage):
    path = tmp_path / "interactions.csv.gz"
    rows = "".join(f"{i % 50},{i},{i}\n" for i in range(5000))
    path.write_bytes(damage(gzip.compress((HEADER + rows).encode())))
    with pytest.raises(UserError, match="damaged"):
        read_interactions(SourceFile(path))


def test_five_core_is_one_pass_items_first():
    # item 9 occurs 4 times: it goes, which leaves user 5 with 4 items and below 5 as well
    rows = [(u, i) for u in range(5) for i in range(5)] + [(5, i) for i in range(4)]
    rows += [(u, 9) for u in (0, 1, 2, 5)]
    rows.sort(key=lambda row: row[0])
    users, items = np.array(rows, dtype=np.int32).T
    everything = Interactions(users, items, list("ABCDEF"), list("0123456789"))
    kept = everything.frequent(5)
    assert kept.user_ids == list("ABCDE")
    assert kept.item_ids == list("01234")
    # user F is gone after the items were counted, and nothing is counted again
    assert np.bincount(kept.items).tolist() == [5, 5, 5, 5, 5]
    assert kept.histories()[0].tolist() == [1, 2, 3, 4, 5]
