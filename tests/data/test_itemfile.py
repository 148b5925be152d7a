import pytest

from data.itemfile import read_items
from data.sourcefile import SourceFile
from errors import UserError


def read(tmp_path, text, name="items.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_items(SourceFile(path))


def test_titles_with_and_without_categories(tmp_path):
    assert read(tmp_path, "title,item_id\nA,7\n") == {"7": ("A", "", "")}
    assert read(tmp_path, "movieId,name,genres\n7,A,War\n") == {"7": ("A", "War", "")}
    text = 'item_id,categories,title\n7,Drama|War,"A, B"\nx,,C\n'
    assert read(tmp_path, text) == {"7": ("A, B", "Drama|War", ""), "x": ("C", "", "")}


def test_items_of_recbole_are_read(tmp_path):
    text = 'item_id:token\tmovie_title:token_seq\trelease_year:token\n7\t"A", B\t1999\n8\t"C\t\n'
    assert read(tmp_path, text, "ml-100k.item") == {"7": ('"A", B', "", "1999"), "8": ('"C', "", "")}


def test_year_of_the_title_or_of_a_column(tmp_path):
    titles = {"A (1999)": "1999", "A (1999) ": "1999", "(1999) A": "", "A (19999)": "", "1984": ""}
    text = "item_id,title\n" + "".join(f"{i},{title}\n" for i, title in enumerate(titles))
    assert [item.year for item in read(tmp_path, text).values()] == list(titles.values())
    text = "item_id,year,title\n1,2001,A (1999)\n2,,B (1999)\n"
    assert [item.year for item in read(tmp_path, text).values()] == ["2001", ""]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("id,title\n1,A\n", ["line 1", "'item_id'"]),
        ("item_id,title\n1,A\n2\n", ["line 3", "1 fields"]),
        ("item_id,title\n1,A\n,B\n", ["line 3", "item_id", "empty"]),
        ("item_id,title\n1,A\n1,B\n", ["line 3", "item_id", "'1'"]),
    ],
)
def test_bad_item_files_are_refused_with_the_place(tmp_path, text, parts):
    with pytest.raises(UserError) as refusal:
        read(tmp_path, text)
    for part in ["items.csv", *parts]:
        assert part in str(refusal.value)
