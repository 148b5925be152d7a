import gzip
import json

import pytest

from data.interactions import read_interactions
from data.itemfile import Item
from data.reviewfile import read_products, read_reviews
from data.source import find_source
from data.sourcefile import SourceFile
from errors import UserError

KINDS = {  # how the same rows are told
    "Amazon 2014": lambda user, item, time: {
        "reviewerID": user, "asin": item, "overall": 4.0, "unixReviewTime": time, "reviewText": "good, \"very\""
    },
    "Amazon 2023": lambda user, item, time: {
        "user_id": user, "asin": f"{item}, in red", "parent_asin": item, "rating": 4.0, "timestamp": time * 1000
    },
    "Yelp": lambda user, item, time: {
        "user_id": user, "business_id": item, "stars": 4, "date": f"2018-07-{time % 28 + 1:02d} 22:09:11"
    },
}  # fmt: skip
ROWS = [(f"u{user}", f"B00{at}", (7 * at + user) % 28) for at in range(9) for user in range(6) if at % 5 != user]


def write(path, objects):
    text = "".join(json.dumps(each) + "\n" for each in objects).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return SourceFile(path)


def told(found):
    return [(found.user_ids[user], found.item_ids[item]) for user, item in zip(found.users, found.items, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["reviews.json.gz", "reviews.jsonl"])
def test_reviews_are_the_same_as_a_table_sorted_by_time(tmp_path, kind, name):
    found = read_reviews(write(tmp_path / name, [KINDS[kind](*row) for row in ROWS]))
    for ending, comma in ((".csv", ","), (".tsv", "\t"), (".tsv.gz", "\t")):
        table = tmp_path / f"interactions{ending}"
        lines = [comma.join(map(str, row)) for row in [("user_id", "item_id", "timestamp"), *ROWS]]
        text = "\n".join(lines).encode()
        table.write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
        assert told(found) == told(read_interactions(SourceFile(table), sort_rows=True))
    assert (found.ratings == 4).all()
    assert told(found) != sorted(told(found))  # times and ids differ in order


def test_equal_times_keep_the_order_of_the_file_and_repeats_the_first(tmp_path):
    rows = [("u", "c", 5), ("u", "a", 5), ("u", "c", 9), ("u", "b", 1)]
    found = read_reviews(write(tmp_path / "reviews.json", [KINDS["Amazon 2014"](*row) for row in rows]))
    assert told(found) == [("u", "b"), ("u", "c"), ("u", "a")] and (found.repeats, found.ties) == (1, 1)


def test_ratings_that_some_reviews_lack_are_none(tmp_path):
    rows = [{"user_id": 1, "item_id": 2, "timestamp": 3, "rating": 5}, {"user_id": 1, "item_id": 4, "timestamp": 5}]
    found = read_reviews(write(tmp_path / "reviews.json", rows))
    assert found.ratings is None and told(found) == [("1", "2"), ("1", "4")]


@pytest.mark.parametrize(
    "line, message",
    [
        ("{'reviewerID': u}", "line 2: .* is no object in JSON"),
        ("[" * 9999, "line 2: .* is no object in JSON"),
        ("{'reviewerID': 'u'}", "line 2: no 'item_id'"),
        ("[1, 2]", "line 2: .* is no object in JSON"),
        ("", "line 2: '' is no object in JSON"),
        ('{"asin": "B", "unixReviewTime": 1}', "line 2: no 'user_id' or .*'reviewerID'"),
        ('{"user_id": "u", "asin": null, "date": "2018-07-07"}', "line 2: no 'item_id' or .*'parent_asin'"),
        (
            '{"user_id": "u", "asin": "B", "date": "yesterday"}',
            "line 2, column timestamp: .* is neither a number nor a date",
        ),
        (
            '{"user_id": "u", "asin": "B", "timestamp": NaN}',
            "line 2, column timestamp: .* is neither a number nor a date",
        ),
        (
            '{"user_id": "u", "asin": "B", "timestamp": true}',
            "line 2, column timestamp: .* is neither a number nor a date",
        ),
        (
            '{"user_id": "u", "asin": "B", "timestamp": 1' + 400 * "0" + "}",
            "line 2, column timestamp: .* is neither a number",
        ),
        (
            '{"user_id": "u", "asin": "B", "timestamp": 9223372036854775808}',
            "line 2, column timestamp: .* is neither a number nor",
        ),
        (
            '{"user_id": "u", "asin": "B", "timestamp": "2018-07-07"}',
            "line 2, column timestamp: some times are numbers",
        ),
        ('{"user_id": "u", "asin": ["B", "C"], "timestamp": 1}', "line 2, column item_id: .*'B', 'C'.* is no id"),
        ('{"user_id": NaN, "asin": "B", "timestamp": 1}', "line 2, column user_id: 'nan' is no id"),
        ('{"user_id": "u7 ", "asin": "B", "timestamp": 1}', "line 2, column user_id: .* would be two ids"),
        (r'{"user_id": "u\ud83d", "asin": "B", "timestamp": 1}', "line 2, column user_id: .* half a character"),
        (r'{"user_id": "u", "asin": "B\u0000", "timestamp": 1}', "line 2, column item_id: .* holds a NUL"),
    ],
)
def test_what_is_no_review_is_refused_with_its_line(tmp_path, line, message):
    first = json.dumps({"user_id": "u7", "asin": "A", "timestamp": 1})
    path = tmp_path / "reviews.json"
    path.write_text(f"{first}\n{line}\n{first}\n")
    with pytest.raises(UserError, match=message):
        read_reviews(SourceFile(path))


def test_a_number_may_be_written_as_text(tmp_path):
    reviews = [{"user_id": "u", "asin": item, "timestamp": time} for item, time in (("B", "1400006474"), ("A", 9))]
    found = read_reviews(write(tmp_path / "reviews.json", reviews))
    assert [found.item_ids[item] for item in found.items] == ["A", "B"]


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no rows"):
        read_reviews(write(tmp_path / "reviews.json", []))


def test_titles_and_categories_of_products(tmp_path):
    products = [
        {"parent_asin": "B1", "title": "A  train\n(1999)", "categories": ["Toys", "Trains"]},
        {"asin": "B2", "title": None, "category": []},
        {"business_id": "B3", "name": "Pizza", "categories": "Food, Pizza"},
        {"asin": "B1", "title": "another"},
        {"asin": "B4", "title": "Half \ud83d a\0 face", "categories": 5},
    ]
    assert read_products(write(tmp_path / "meta.jsonl", products)) == {
        "B1": Item("A train (1999)", "Toys|Trains", "1999"),
        "B2": Item(),
        "B3": Item("Pizza", "Food|Pizza"),
        "B4": Item("Half ? a face", "5"),
    }
    with pytest.raises(UserError, match="line 2: no 'item_id' or .*'asin'"):
        read_products(write(tmp_path / "bad.jsonl", [{"asin": "B"}, {"title": "t"}]))


def test_objects_in_words_of_python(tmp_path):
    path = tmp_path / "meta_Toys.json"
    path.write_text(
        """{'asin': 'B1', 'title': 'Al\\'s "train"', 'price': None, 'categories': [['Toys', 'Trains'], ['Toys']]}\n"""
    )
    assert read_products(SourceFile(path)) == {"B1": Item('Al\'s "train"', "Toys|Trains")}
    path.write_text("{u'reviewerID': u'u', 'asin': 'B1', 'unixReviewTime': 1}\n")
    assert told(read_reviews(SourceFile(path))) == [("u", "B1")]


def test_a_source_of_both(tmp_path):
    reviews = write(tmp_path / "Toys.jsonl.gz", [KINDS["Amazon 2023"](*row) for row in ROWS])
    products = write(tmp_path / "meta_Toys.jsonl.gz", [{"parent_asin": "B001", "title": "A train"}])
    for place in (reviews.path, tmp_path):  # in a folder, by the name of the dataset
        source = find_source("Toys", place, products.path)
        assert told(source.read()) == told(read_reviews(reviews)) and source.items() == {"B001": Item("A train")}
