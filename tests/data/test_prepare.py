import csv
import json
import re
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import data.prepare as preparation
from data.movielens import ARCHIVES, Archive
from data.prepare import prepare
from data.prepared import being_prepared
from errors import UserError
from load_csv_dataset import load_catalogue, load_queries, load_training

HEADER = "user_id,item_id,timestamp\n"
FILES = {"data.csv", "valid.csv", "test.csv", "items.csv", "cate_item.txt", "users.csv", "dataset.json"}


def rows(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def interactions(tmp_path) -> Path:
    """30 users with 6 to 11 of 15 items, ids as text, in time order."""
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = [f"u{u},i{(u + 4 * p) % 15},{p}\n" for u in range(30) for p in range(6 + u % 6)]
    (folder / "interactions.csv").write_text(HEADER + "".join(lines))
    return folder / "interactions.csv"


@pytest.fixture
def small_release(server, movielens_zip) -> bytes:
    """ml-1m is a small archive on a server of our own."""
    content = movielens_zip.read_bytes()
    server.files["ml-1m.zip"] = content
    return content


def test_archive_becomes_the_seven_files(tmp_path, movielens_zip, capsys):
    prepared = prepare("ml-1m", movielens_zip, tmp_path / "out", seed=3)
    assert prepared.folder.parent == tmp_path / "out" / "ml-1m"
    assert re.fullmatch("user-3-[0-9a-f]{12}", prepared.folder.name)
    assert f"preparing {prepared.folder}" in capsys.readouterr().out
    assert set(contents(prepared.folder)) == FILES
    assert (prepared.dataset, prepared.note) == ("ml-1m", "")
    assert prepared.label == "MovieLens-1M, file ml-1m.zip"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ml-1m"]
    assert list(prepared.folder.parent.iterdir()) == [prepared.folder]


def test_archive_and_unpacked_archive_give_the_same(tmp_path, movielens_zip, movielens_files):
    for name, content in movielens_files.items():
        (tmp_path / name).write_bytes(content)
    packed = contents(prepare("ml-1m", movielens_zip, tmp_path / "a").folder)
    unpacked = contents(prepare("ml-1m", tmp_path, tmp_path / "b").folder)
    del packed["dataset.json"], unpacked["dataset.json"]
    assert packed == unpacked


def test_ml_10m_layout_with_half_stars(tmp_path, movielens_files, monkeypatch):
    monkeypatch.setitem(ARCHIVES, "ml-10m", Archive("MovieLens-10M", "ml-10m.zip", "", 20, (160,)))
    path = tmp_path / "ml-10m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        ratings = movielens_files["ratings.dat"].replace(b"::4::", b"::4.5::")
        archive.writestr("ml-10M100K/ratings.dat", ratings)
        movies = movielens_files["movies.dat"].decode("latin-1").encode()
        archive.writestr("ml-10M100K/movies.dat", movies)
    prepared = prepare("ml-10m", path, tmp_path / "out")
    assert "\u00e9" in load_catalogue(prepared.folder).titles[1]
    assert prepared.label == "MovieLens-10M, file ml-10m.zip"


def test_only_movielens_is_called_movielens(tmp_path, interactions, movielens_files):
    (tmp_path / "ratings.dat").write_bytes(movielens_files["ratings.dat"])
    for source in (interactions, tmp_path / "ratings.dat"):
        for dataset in ("ml-1m", "ml-10m"):
            with pytest.raises(UserError, match="are not MovieLens-10?M, .* of its own with --dataset"):
                prepare(dataset, source, tmp_path / "out")
            assert not (tmp_path / "out" / dataset).exists()
    assert prepare("mine", interactions, tmp_path / "out").label == "mine, file interactions.csv"


def test_interactions_file_of_movielens_keeps_its_title(tmp_path, interactions, monkeypatch):
    rows = sum(6 + u % 6 for u in range(30))
    monkeypatch.setitem(ARCHIVES, "ml-1m", Archive("MovieLens-1M", "ml-1m.zip", "", 30, (999, rows)))
    assert prepare("ml-1m", interactions, tmp_path / "out").label == "MovieLens-1M, file interactions.csv"


def test_what_is_written_follows_the_source(tmp_path, interactions):
    prepared = prepare("mine", interactions, tmp_path / "out", split="leave-one-out")
    original = {int(row["id"]): row["original_id"] for row in rows(prepared.folder / "items.csv")}
    assert sorted(original) == list(range(1, 16))
    train = {
        row["user_id"]: [original[i] for i in json.loads(row["items"])] for row in rows(prepared.folder / "data.csv")
    }
    tests = rows(prepared.folder / "test.csv")
    assert list(tests[0]) == ["user_id", "hist_items", "target_items"]
    for user, test in zip(train, tests, strict=True):
        assert test["user_id"] == user
        number = int(user[1:])
        whole = [f"i{(number + 4 * p) % 15}" for p in range(6 + number % 6)]
        assert train[user] == whole[:-2]
        assert [original[i] for i in json.loads(test["hist_items"])] == whole[:-1]
        assert [original[i] for i in json.loads(test["target_items"])] == whole[-1:]


@pytest.mark.parametrize("split", ["user", "leave-one-out", "last-3"])
def test_loader_takes_what_preparation_writes(tmp_path, movielens_zip, split):
    folder = prepare("ml-1m", movielens_zip, tmp_path / "out", split).folder
    catalogue = load_catalogue(folder)
    statistics = json.loads((folder / "dataset.json").read_text())["statistics"]
    training = load_training(folder / "data.csv", catalogue.n_items)
    assert catalogue.n_items == statistics["items"]
    assert len(training.sequences) == statistics["train_users"]
    for name in ("valid", "test"):
        queries = load_queries(folder / f"{name}.csv", catalogue.n_items)
        assert len(queries) == statistics[f"{name}_queries"] > 0
        asked = {row["user_id"] for row in rows(folder / f"{name}.csv")}
        assert len(asked) == statistics[f"{name}_users"]


def test_titles_and_categories(tmp_path, movielens_zip):
    folder = prepare("ml-1m", movielens_zip, tmp_path / "out").folder
    catalogue = load_catalogue(folder)
    at = catalogue.original_ids.index("7")
    assert catalogue.titles[at] == "Film \u00e9 7 (1999)"
    assert catalogue.categories[at] == "Drama|War"
    lines = (folder / "cate_item.txt").read_text().splitlines()
    assert lines[at - 1] == f"{at},2"  # Comedy 1, Drama 2
    assert len(lines) == catalogue.n_items


def test_item_file_beside_the_source_or_named(tmp_path, interactions):
    assert set(load_catalogue(prepare("a", interactions, tmp_path).folder).titles) == {""}
    items = interactions.parent / "items.csv"
    items.write_text('item_id,title,categories\ni3,"Three, or so",Odd|Prime\n')
    catalogue = load_catalogue(prepare("b", interactions.parent, tmp_path).folder)
    at = catalogue.original_ids.index("i3")
    assert (catalogue.titles[at], catalogue.categories[at]) == ("Three, or so", "Odd|Prime")
    named = items.rename(tmp_path / "films.csv")
    again = prepare("c", interactions, tmp_path, item_file=named)
    assert load_catalogue(again.folder).titles == catalogue.titles


@pytest.mark.parametrize(("name", "text"), [("items.csv", "item_id,title\n3,A\n"), ("users.csv", "user_id,age\n3,7\n")])
def test_what_is_told_of_others_only_is_refused(name, text, tmp_path, interactions):
    """Such as ids that another program wrote otherwise: all titles would be gone without a word."""
    (interactions.parent / name).write_text(text)
    with pytest.raises(UserError, match=f"no {name[:4]} in it .* '3' .* '{name[0]}0'; write the ids alike"):
        prepare("mine", interactions.parent, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.csv"))


def test_statistics_say_what_was_left_out(tmp_path, interactions):
    with open(interactions, "a") as out:
        out.write("u0,i0,99\n")  # a repeat
        out.write("".join(f"new,rare{i},{i}\n" for i in range(6)))
    description = prepare("mine", interactions, tmp_path / "out").description
    statistics = description["statistics"]
    assert (statistics["users"], statistics["items"]) == (30, 15)
    assert statistics["interactions"] == sum(6 + u % 6 for u in range(30))
    assert statistics["density"] == statistics["interactions"] / (30 * 15)
    assert statistics["left_out"] == {
        "repeated_interactions": 1,
        "infrequent_items": 6,
        "infrequent_users": 1,
        "interactions_of_these": 6,
        "users_too_short_for_split": 0,
    }
    parts = [statistics[f"{part}_users"] for part in ("train", "valid", "test")]
    assert parts == [24, 3, 3]
    assert (description["split"], description["seed"]) == ("user", 0)
    assert str(tmp_path) not in json.dumps(description)


def test_again_is_a_no_op(tmp_path, interactions, monkeypatch):
    first = prepare("mine", interactions, tmp_path / "out")
    stamp = (first.folder / "data.csv").stat()
    monkeypatch.setattr(preparation, "_write", None)  # any writing would fail
    again = prepare("mine", interactions, tmp_path / "out")
    assert again == first
    assert prepare("mine", interactions, tmp_path / "out").folder.samefile(first.folder)
    assert (first.folder / "data.csv").stat() == stamp


def test_again_needs_no_source(tmp_path, interactions):
    first = prepare("mine", interactions, tmp_path / "out")
    assert prepare("mine", None, tmp_path / "out") == first
    before = contents(first.folder)
    for other in ({"seed": 1}, {"split": "leave-one-out"}):
        with pytest.raises(UserError, match="not prepared with split .* give it a --source"):
            prepare("mine", None, tmp_path / "out", **other)
    assert contents(first.folder) == before


def test_change_of_seed_split_or_source_prepares_anew(tmp_path, interactions):
    found = []

    def prepared(**options):
        found.append(prepare("mine", interactions, tmp_path / "out", **options).folder)
        return contents(found[-1])

    first = prepared()
    seeded = prepared(seed=1)
    assert seeded["test.csv"] != first["test.csv"]
    assert prepared(split="leave-one-out")["test.csv"] not in (
        first["test.csv"],
        seeded["test.csv"],
    )
    assert prepared() == first
    with open(interactions, "a") as out:
        out.write("u0,i14,99\n")
    assert prepared()["dataset.json"] != first["dataset.json"]
    assert contents(found[0]) == first and contents(found[1]) == seeded  # nothing was touched
    assert len(set(found)) == 4
    with pytest.raises(UserError, match="different sources; give --source"):
        prepare("mine", None, tmp_path / "out")


@pytest.mark.parametrize("name", ["data.csv", "test.csv", "cate_item.txt", "users.csv", "dataset.json"])
def test_full_disk_is_a_sentence_that_names_the_file(tmp_path, interactions, monkeypatch, name):
    first = prepare("mine", interactions, tmp_path / "out").folder
    before = contents(first)

    @contextmanager
    def on_a_full_disk(folder):
        with being_prepared(folder) as new:
            (new / name).symlink_to("/dev/full")
            yield new

    monkeypatch.setattr(preparation, "being_prepared", on_a_full_disk)
    with pytest.raises(UserError, match=f"no disk space left for .*out/.*/{name}; free some"):
        prepare("mine", interactions, tmp_path / "out", seed=1)
    assert contents(first) == before
    assert list(first.parent.iterdir()) == [first]


def test_ratings_are_carried_to_the_split_that_asks_for_them(tmp_path, movielens_files):
    """last-3: every target is rated above 2, and every rating above 2 among the last three is a target."""
    (tmp_path / "ratings.dat").write_bytes(more_ratings(movielens_files["ratings.dat"]))
    prepared = prepare("mine", tmp_path, tmp_path / "out", "last-3")
    assert prepared.label.startswith("mine, file ratings.dat (") and "rated above 2" in prepared.label
    number = {row["original_id"]: int(row["id"]) for row in rows(prepared.folder / "items.csv")}
    lines = (line.split("::") for line in (tmp_path / "ratings.dat").read_text().splitlines())
    due = {}
    for user, item, rating, time in sorted(lines, key=lambda fields: int(fields[3])):
        due.setdefault(user, []).append((number[item], int(rating), int(time)))
    for name, of_user in (("test", slice(-3, None)), ("valid", slice(-6, -3))):
        found = [(row["user_id"], *json.loads(row["target_items"])) for row in rows(prepared.folder / f"{name}.csv")]
        liked = {(user, item) for user, all in due.items() for item, rating, _ in all[of_user] if rating > 2}
        assert set(found) == liked and len(found) == len(liked) < 3 * len(due)


def more_ratings(ratings: bytes) -> bytes:
    """The same with distinct times, so that "the latest" is one thing only."""
    lines = ratings.decode().splitlines()
    return "\n".join(f"{line.rsplit('::', 1)[0]}::{10**9 + i}" for i, line in enumerate(lines)).encode()


def test_without_ratings_last_3_says_so(tmp_path, interactions):
    prepared = prepare("mine", interactions, tmp_path / "out", "last-3")
    assert "no ratings" in prepared.label and "no ratings" in prepared.description["source"]
    tests = rows(prepared.folder / "test.csv")
    assert len(tests) == 3 * prepared.description["statistics"]["test_users"]


def test_users_and_years_are_written(tmp_path, movielens_zip, interactions):
    folder = prepare("ml-1m", movielens_zip, tmp_path / "out").folder
    assert rows(folder / "users.csv")[0] == {"user_id": "1", "gender": "F", "age": "1", "occupation": "10"}
    assert {row["year"] for row in rows(folder / "items.csv")} == {"1999"}
    people = tmp_path / "people.csv"
    people.write_text("age,user_id\n7,u3\n8,stranger\n")
    given = prepare("mine", interactions, tmp_path / "out", user_file=people)
    assert rows(given.folder / "users.csv") == [{"user_id": "u3", "age": "7"}]
    without = prepare("mine", interactions, tmp_path / "out")
    assert without.folder != given.folder and rows(without.folder / "users.csv") == []
    people.rename(interactions.parent / "users.csv")  # found beside the source
    assert prepare("mine", interactions, tmp_path / "out").folder == given.folder


def test_folder_that_cannot_be_written(tmp_path, interactions):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="writing .*out/mine failed .* one you may write to"):
        prepare("mine", interactions, tmp_path / "out")


def test_environment_names_a_folder_of_datasets(tmp_path, interactions, monkeypatch):
    monkeypatch.setenv("SPARCODE_DATA", str(tmp_path))
    assert prepare("mine", None, tmp_path / "out").label == "mine, file interactions.csv"
    monkeypatch.setenv("SPARCODE_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="SPARCODE_DATA"):
        prepare("mine", None, tmp_path / "out")


def test_source_may_be_a_folder_of_datasets(tmp_path, interactions):
    assert prepare("mine", tmp_path, tmp_path / "out").label == "mine, file interactions.csv"
    lines = interactions.read_text().replace(",", "\t").splitlines()
    interactions.with_name("mine.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *lines[1:]])
    )
    rows = [line.split("\t")[:2] for line in lines[1:]]
    interactions.with_name("mine.txt").write_text("\n".join(" ".join(row) for row in rows))
    interactions.unlink()
    assert prepare("mine", tmp_path, tmp_path / "recbole").label == "mine, file mine.inter"
    interactions.with_name("mine.inter").unlink()
    assert prepare("mine", tmp_path, tmp_path / "sequences").label == "mine, file mine.txt"


def test_given_source_goes_before_the_environment(tmp_path, interactions, movielens_zip, monkeypatch):
    monkeypatch.setenv("SPARCODE_DATA", str(tmp_path))
    assert prepare("mine", movielens_zip, tmp_path / "out").label == "mine, file ml-1m.zip"


def test_prepared_copy_elsewhere_is_used_in_place(tmp_path, interactions):
    folder = prepare("mine", interactions, tmp_path / "shared", seed=3).folder
    for source in (folder, folder.parent, folder.parent.parent):
        assert prepare("mine", source, tmp_path / "out", seed=3).folder == folder
    with pytest.raises(UserError, match="is prepared; leave out --item_file"):
        prepare("mine", folder, tmp_path / "out", seed=3, item_file=tmp_path / "none")
    with pytest.raises(UserError, match="seed 3, not 4; give --split_seed 3"):
        prepare("mine", folder, tmp_path / "out", seed=4)
    assert not (tmp_path / "out").exists()


def test_a_copy_of_another_version_is_refused(tmp_path, interactions):
    folder = prepare("mine", interactions, tmp_path / "here").folder
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(about | {"format": about["format"] - 1}))
    with pytest.raises(UserError, match="another version; give the original data"):
        prepare("mine", folder, tmp_path / "out")


def test_files_that_stand_there_are_used_and_never_replaced(tmp_path, interactions):
    folder = tmp_path / "out" / "mine"
    folder.mkdir(parents=True)
    names = ["data.csv", "test.csv", "valid.csv", "cate_item.txt"]
    for name in names:
        (folder / name).write_text(name)
    found = prepare("mine", None, tmp_path / "out")
    assert found.folder == folder and "no dataset.json" in found.note
    (folder / "test.csv").write_text("others")
    assert prepare("mine", None, tmp_path / "out").description["sha256"] != found.description["sha256"]
    with pytest.raises(UserError, match="leave out --split"):
        prepare("mine", None, tmp_path / "out", split="leave-one-out")
    for name in names:
        with pytest.raises(UserError, match="move them away"):
            prepare("mine", interactions, tmp_path / "out")
        (folder / name).unlink()
    prepare("mine", interactions, tmp_path / "out")


@pytest.mark.parametrize(
    ("missing", "cure"),
    [
        ("data.csv", "user_id,items or hist_items,pos_items,neg_items"),
        ("test.csv", "hist_items,target_items"),
        ("valid.csv", "move some rows of test.csv .* headed hist_items,target_items"),
        ("cate_item.txt", "item_id,cate_id"),
    ],
)
def test_folder_as_found_that_lacks_a_file(tmp_path, missing, cure):
    """The release has no valid.csv."""
    folder = tmp_path / "out" / "mine"
    folder.mkdir(parents=True)
    for name in {"data.csv", "test.csv", "valid.csv", "cate_item.txt"} - {missing}:
        (folder / name).write_text("")
    with pytest.raises(UserError, match=f"holds no .*{missing}; .*{cure}"):
        prepare("mine", None, tmp_path / "out")


def test_text_may_hold_any_line_end(tmp_path):
    lines = [f'u{user},"i\r{(user + step) % 9}",{step}\n' for user in range(20) for step in range(8)]
    (tmp_path / "odd.csv").write_text("user_id,item_id,timestamp\n" + "".join(lines), newline="")
    (tmp_path / "titles.csv").write_text('item_id,title\n"i\r1","One\rtwo\nthree"\n', newline="")
    found = prepare("odd", tmp_path / "odd.csv", tmp_path / "out", item_file=tmp_path / "titles.csv")
    catalogue = load_catalogue(found.folder)
    assert catalogue.original_ids[1:] == [f"i\r{item}" for item in range(9)]
    assert catalogue.titles[2] == "One\rtwo\nthree"


def test_download_then_use_without_network(tmp_path, server, small_release):
    out = tmp_path / "out"
    prepared = prepare("ml-1m", None, out, base_url=server.url)
    assert prepared.label == "MovieLens-1M, file ml-1m.zip" and prepared.note == ""
    assert (out / "downloads" / "ml-1m.zip").read_bytes() == small_release
    assert prepare("ml-1m", None, out, seed=1).label == prepared.label
    assert len(server.ranges) == 1


def test_tampered_download_is_refused(tmp_path, server, small_release):
    server.files["ml-1m.zip"] = small_release[:-1] + b"x"
    with pytest.raises(UserError, match="MD5"):
        prepare("ml-1m", None, tmp_path / "out", base_url=server.url)
    assert not (tmp_path / "out" / "sample").exists()


def test_no_network_falls_back_to_the_sample_and_says_so(tmp_path, capsys):
    prepared = prepare("ml-1m", None, tmp_path / "out")
    assert (prepared.dataset, prepared.label) == ("sample", "built-in sample")
    assert prepared.folder.parent == tmp_path / "out" / "sample"
    assert "BUILT-IN SAMPLE, not ml-1m" in prepared.note
    shown = capsys.readouterr().out
    assert "BUILT-IN SAMPLE" in shown and "#" * 80 in shown
    assert json.loads((prepared.folder / "dataset.json").read_text())["source"] == "built-in sample"
    assert not (tmp_path / "out" / "ml-1m").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"dataset": "../evil"}, "plain name"),
        ({"dataset": ""}, "plain name"),
        ({"dataset": "unknown"}, "give it a --source"),
        ({"dataset": "unknown", "item_file": "x.csv"}, "--item_file"),
        ({"dataset": "sample", "sort_rows": True}, "--sort_rows"),
        ({"dataset": "unknown", "user_file": "x.csv"}, "--user_file"),
        ({"dataset": "sample", "source": "x.csv"}, "takes no source"),
        ({"dataset": "ml-1m", "source": "absent.zip"}, "does not exist"),
        ({"dataset": "ml-1m", "split": "random"}, "user, leave-one-out, last-3"),
        ({"dataset": "ml-1m", "seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, arguments, part):
    with pytest.raises(UserError, match=part):
        prepare(out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_sources_of_no_known_form_are_refused(tmp_path):
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(UserError, match="also .gz"):
        prepare("mine", tmp_path / "x.parquet", tmp_path / "out")
    with pytest.raises(UserError, match="interactions.csv"):
        prepare("mine", tmp_path, tmp_path / "out")


def test_too_little_data_is_refused(tmp_path):
    (tmp_path / "interactions.csv").write_text(HEADER + "1,2,3\n")
    with pytest.raises(UserError, match="5 interactions"):
        prepare("mine", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out" / "mine").exists()


def test_damaged_description_is_refused(tmp_path, interactions):
    folder = prepare("mine", interactions, tmp_path / "out").folder
    (folder / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        prepare("mine", interactions, tmp_path / "out")
    shutil.rmtree(folder)
    prepare("mine", interactions, tmp_path / "out")


def test_a_source_that_is_cut_already_says_where_it_belongs(tmp_path):
    (tmp_path / "data.csv").touch()
    with pytest.raises(UserError, match="put it at data/mine and leave out --source"):
        prepare("mine", tmp_path, tmp_path / "out")
