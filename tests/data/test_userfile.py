import pytest

from data.sourcefile import SourceFile
from data.userfile import read_users
from errors import UserError


def read(tmp_path, text, name="users.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return read_users(SourceFile(path))


def test_any_columns_beside_the_id(tmp_path):
    found = read(tmp_path, "age,user_id,likes\n7,u1,War|Sea\n,u2,\n")
    assert found.columns == ("age", "likes")
    assert found.rows == {"u1": ("7", "War|Sea"), "u2": ("", "")}


def test_users_of_recbole_are_read(tmp_path):
    found = read(tmp_path, "user_id:token\tage:token\tgender:token\nu1\t7\tF\n", "ml-100k.user")
    assert found.columns == ("age", "gender") and found.rows == {"u1": ("7", "F")}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("id,age\n1,2\n", ["line 1", "'user_id'"]),
        ("user_id,\n1,2\n", ["line 1", "without a name"]),
        ("user_id,age,age\n1,2,3\n", ["line 1", "more than one", "'age'"]),
        ("user_id,age\n1,2\n1,3\n", ["line 3", "user_id", "'1'"]),
        ("user_id,age\n1,2\n,3\n", ["line 3", "user_id", "empty"]),
    ],
)
def test_bad_user_files_are_refused_with_the_place(tmp_path, text, parts):
    with pytest.raises(UserError) as refusal:
        read(tmp_path, text)
    for part in ["users.csv", *parts]:
        assert part in str(refusal.value)
