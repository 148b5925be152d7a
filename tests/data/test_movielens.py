import zipfile

import pytest

from data.movielens import open_archive, read_movies, read_people, read_ratings
from data.source import find_source
from data.sourcefile import SourceFile
from errors import UserError


def write(tmp_path, name, content) -> SourceFile:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SourceFile(path)


def test_ratings_are_sorted_by_time_and_ties_keep_file_order(tmp_path):
    text = "1::30::5::200\n1::20::3::100\n1::10::4.5::200\n2::20::1::50\n"
    found = read_ratings(write(tmp_path, "ratings.dat", text))
    assert found.user_ids == ["1", "2"]
    # by item id the tie would be 10 before 30: that order leaks
    assert [found.item_ids[i] for i in found.items] == ["20", "30", "10", "20"]
    assert found.ratings.tolist() == [3, 5, 4.5, 1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["no rows"]),
        ("1::2::3::4\n1::3::3\n", ["line 2", "3 fields"]),
        ("1::2::3::4\n1::3::3::4::5\n", ["line 2", "5 fields"]),
        ("1::2::3::4::5\n", ["line 1", "5 fields"]),
        ("1::2::3::4\n1:5:3::3::4\n", ["line 2"]),
        ("1::2::3::4\n1:5::3::3:4\n", ["line 2"]),
        ("1::2::3::4\n::3::3::4\n", ["line 2", "UserID"]),
        ("1::2::3::4\n1::3::good::4\n", ["line 2", "Rating", "'good'"]),
        ("1::2::3::4\n1::3::3::now\n", ["line 2", "Timestamp", "'now'"]),
    ],
)
def test_bad_ratings_are_refused_with_the_place(tmp_path, text, parts):
    with pytest.raises(UserError) as refusal:
        read_ratings(write(tmp_path, "ratings.dat", text))
    for part in ["ratings.dat", *parts]:
        assert part in str(refusal.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_titles_in_either_encoding(tmp_path, encoding):
    text = "1::Les Mis\u00e9rables (1995)::Drama|Musical\n7::B::(no genres listed)\n"
    movies = read_movies(write(tmp_path, "movies.dat", text.encode(encoding)))
    assert movies == {"1": ("Les Mis\u00e9rables (1995)", "Drama|Musical", "1995"), "7": ("B", "", "")}


@pytest.mark.parametrize("text", ["1::A::Drama\n1::B::War\n", "1::A::Drama\nA film\n"])
def test_bad_movies_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="line 2"):
        read_movies(write(tmp_path, "movies.dat", text))


def test_users_without_their_zip_codes(tmp_path):
    users = read_people(write(tmp_path, "users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n"))
    assert users.columns == ("gender", "age", "occupation")
    assert users.rows == {"1": ("F", "1", "10"), "2": ("M", "56", "16")}


@pytest.mark.parametrize("text", ["1::F::1::10::4\n2::M::5\n", "1::F::1::10::4\n1::M::1::2::3\n"])
def test_bad_users_are_refused(tmp_path, text):
    with pytest.raises(UserError, match="users.dat, line 2"):
        read_people(write(tmp_path, "users.dat", text))


def test_archive_is_read_without_unpacking(movielens_zip, movielens_files):
    ratings, movies, people = open_archive(movielens_zip)
    assert len(read_ratings(ratings)) == movielens_files["ratings.dat"].count(b"\n")
    assert read_people(people).rows["3"] == ("F", "1", "10")
    assert read_movies(movies)["1"][0] == "Film \u00e9 1 (1999)"
    assert [path.name for path in movielens_zip.parent.iterdir()] == ["ml-1m.zip"]


@pytest.mark.parametrize("packed", [True, False])
def test_later_editions_are_tables(tmp_path, packed):
    files = {
        "links.csv": "movieId,imdbId,tmdbId\n1,0114709,862\n",
        "movies.csv": 'movieId,title,genres\n10,"Heat, again (1995)",Action|Crime\n20,B,(no genres listed)\n',
        "ratings.csv": "userId,movieId,rating,timestamp\n1,10,2.5,200\n1,20,3.0,100\n2,20,0.5,50\n",
    }
    if packed:
        with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(f"ml/{name}", text)
    else:
        for name, text in files.items():
            write(tmp_path, name, text)
    source = find_source("mine", tmp_path / "ml.zip" if packed else tmp_path)
    found = source.read()
    assert [found.item_ids[i] for i in found.items] == ["20", "10", "20"]  # by time: the file has them by id
    assert found.ratings.tolist() == [3, 2.5, 0.5]
    assert source.items() == {"10": ("Heat, again (1995)", "Action|Crime", "1995"), "20": ("B", "", "")}
    assert not source.users().rows


MOVIE_100K = "10|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?a%20b|" + "|".join(
    "0" * 9 + "1001" + "0" * 6
)
FILES_100K = {
    "u.data": "1\t10\t2\t200\n1\t20\t3\t100\n2\t20\t1\t50\n",
    "u.item": MOVIE_100K + "\n20|unknown||||1" + "|0" * 18 + "\n",
    "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n",
}


@pytest.mark.parametrize("packed", [True, False])
def test_the_oldest_edition_has_columns_of_its_own(tmp_path, packed):
    if packed:
        with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
            for name, text in FILES_100K.items():
                archive.writestr(f"ml-100k/{name}", text.encode("latin-1"))
            archive.writestr("ml-100k/u1.base", FILES_100K["u.data"])
    else:
        for name, text in FILES_100K.items():
            write(tmp_path, name, text.encode("latin-1"))
        write(tmp_path, "users.csv", "user_id,gender\n1,X\n")  # of another source
    source = find_source("mine", tmp_path / "ml.zip" if packed else tmp_path)
    found = source.read()
    assert [found.item_ids[i] for i in found.items] == ["20", "10", "20"]  # by time: the file is in no order
    assert found.ratings.tolist() == [3, 2, 1]
    assert source.items() == {"10": ("Misérables, Les (1995)", "Fantasy|Musical", "1995"), "20": ("unknown", "", "")}
    assert source.users().columns == ("gender", "age", "occupation")
    assert source.users().rows == {"1": ("M", "24", "technician"), "2": ("F", "53", "other")}


@pytest.mark.parametrize(
    ("name", "line", "parts"),
    [
        ("u.data", "1 10 3 200", ["line 4", "1 fields"]),
        ("u.data", "1\t10\t3\t200\t5", ["line 4", "5 fields"]),
        ("u.data", "1\t\t3\t200", ["line 4", "MovieID"]),
        ("u.data", "1\t10\tgood\t200", ["line 4", "Rating", "'good'"]),
        ("u.data", "1\t10\t3\tnow", ["line 4", "Timestamp", "'now'"]),
        ("u.item", MOVIE_100K, ["line 3", "movie '10'", "earlier line"]),
        ("u.item", "30|A film (1990)|0|0", ["line 3", "not a line of u.item"]),
        ("u.user", "2|53|F|other|94043", ["line 3", "user '2'", "earlier line"]),
        ("u.user", "3|53|F|other", ["line 3", "not a line of u.user"]),
    ],
)
def test_bad_lines_of_the_oldest_edition_are_refused(tmp_path, name, line, parts):
    read = {"u.data": read_ratings, "u.item": read_movies, "u.user": read_people}[name]
    with pytest.raises(UserError) as refusal:
        read(write(tmp_path, name, FILES_100K[name] + line + "\n"))
    for part in [name, *parts]:
        assert part in str(refusal.value)


def test_films_of_the_oldest_edition_do_not_go_with_other_tables(tmp_path):
    for name, text in FILES_100K.items():
        write(tmp_path, name, text.encode("latin-1"))
    write(tmp_path, "interactions.csv", "user_id,item_id,timestamp\n1,10,200\n")
    assert not find_source("mine", tmp_path / "interactions.csv").items()
    assert find_source("mine", tmp_path / "u.data").items()


@pytest.mark.parametrize("name", ["../ratings.dat", "/etc/ratings.dat", "a/../../x", "..\\x", "C:\\x"])
def test_paths_that_escape_are_refused(tmp_path, movielens_zip, name):
    with zipfile.ZipFile(movielens_zip, "a") as archive:
        archive.writestr(name, "1::2::3::4\n")
    with pytest.raises(UserError, match="leaves its folder"):
        open_archive(movielens_zip)


def test_truncated_archive_is_refused(movielens_zip):
    raw = movielens_zip.read_bytes()
    movielens_zip.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="truncated or damaged"):
        open_archive(movielens_zip)


def test_tampered_member_is_refused(tmp_path, movielens_files):
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("ml-1m/ratings.dat", movielens_files["ratings.dat"])
    raw = bytearray(path.read_bytes())
    at = raw.index(movielens_files["ratings.dat"][:20])
    raw[at] = ord("9")  # the user of the first rating
    path.write_bytes(raw)
    with pytest.raises(UserError, match="damaged"):
        read_ratings(open_archive(path)[0])


def test_other_archives_are_refused(tmp_path, movielens_zip):
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="no ratings.dat"):
        open_archive(other)
    with zipfile.ZipFile(movielens_zip, "a") as archive:
        archive.writestr("copy/ratings.csv", "userId,movieId,rating,timestamp\n")
    with pytest.raises(UserError, match="holds .*ratings.dat and copy/ratings.csv"):
        open_archive(movielens_zip)
