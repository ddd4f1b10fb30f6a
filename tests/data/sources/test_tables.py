"""Labels of files from tables."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from command import refused
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.errors import spelled

Make = Callable[..., Path]
NAMES = [f"{i}.png" for i in range(12)]
LABELS = ["ab"[i % 2] for i in range(12)]


def labels(pack: Pack) -> dict[str, str]:
    return {path: pack.classes[label] for path, label in zip(pack.paths(), pack.labels.tolist(), strict=True)}


EXPECTED = dict(zip(NAMES, LABELS, strict=True))
FRAMES = {
    "t.csv": pd.DataFrame({"file": NAMES, "label": LABELS}),
    "metadata.csv": pd.DataFrame({"file_name": NAMES, "text": ["x"] * 12, "label": LABELS}),
    "stems.csv": pd.DataFrame({"id": [name[:-4] for name in NAMES], "breed": LABELS}),
    "paths.tsv": pd.DataFrame(
        {"class": LABELS, "n": range(100, 112), "Path": [f"photos/{n}" for n in NAMES]}
    ),
    "longer.csv": pd.DataFrame({"label": LABELS, "x": [f"/data/photos/{n}" for n in NAMES], "n": range(12)}),
    "t.parquet": pd.DataFrame({"filename": NAMES, "species": LABELS}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_tables_of_many_kinds(photos: Make, tmp_path: Path, name: str) -> None:
    root = photos(*[f"photos/{n}" for n in NAMES])
    table, frame = tmp_path / name, FRAMES[name]
    if name.endswith("parquet"):
        frame.to_parquet(table)
    else:
        frame.to_csv(table, index=False, sep="\t" if name.endswith("tsv") else ",")
    pack = open_pack(root, DataConfig(labels=str(table)))
    assert labels(pack) == {f"photos/{n}": label for n, label in EXPECTED.items()} and pack.classes == (
        "a",
        "b",
    )
    assert f"of {name}, by the names in column" in pack.summary


def test_json_and_a_table_in_the_folder(photos: Make) -> None:
    root = photos(*NAMES)
    (root / "map.json").write_text(json.dumps(EXPECTED))
    assert labels(open_pack(root, DataConfig(labels="map.json"))) == EXPECTED
    records = [{"file_name": n, "label": label} for n, label in EXPECTED.items()]
    (root / "list.json").write_text(json.dumps(records))
    (root / "lines.jsonl").write_text("\n".join(map(json.dumps, records)))
    by_file = {n: {"label": label, "age": i} for i, (n, label) in enumerate(EXPECTED.items())}
    (root / "files.json").write_text(json.dumps(by_file))
    frame = pd.DataFrame(records)
    frame.to_json(root / "columns.json")
    frame.set_index("file_name").to_json(root / "index.json")
    for name in ("list.json", "lines.jsonl", "files.json", "columns.json", "index.json"):
        assert labels(open_pack(root, DataConfig(labels=name))) == EXPECTED


def test_numbers_are_no_names_of_files_where_another_column_names_them(photos: Make) -> None:
    root = photos(*NAMES)
    table = pd.DataFrame({"filename": [f"img/{n}" for n in NAMES], "label": [i % 3 for i in range(12)]})
    table.to_csv(root / "t.csv", index=False)
    pack = open_pack(root, DataConfig(labels="t.csv"))
    assert pack.classes == ("0", "1", "2") and labels(pack)["4.png"] == "1"
    table["filename"] = [f"other{n}" for n in NAMES]
    table.to_csv(root / "u.csv", index=False)
    refused("Column 'filename' names other0.png", open_pack, root, DataConfig(labels="u.csv"))


def test_rows_that_are_not_clear_are_said(photos: Make) -> None:
    root = photos(*[f"{folder}/{n}" for folder in ("p", "q") for n in NAMES[:6]])
    rows = [*zip(NAMES[:6], LABELS[:6], strict=True), ("2.png", "b")]
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(root / "t.csv", index=False)
    summary = open_pack(root, DataConfig(labels="t.csv")).summary
    assert "12 images share a row of t.csv, e.g. those named" in summary
    several = "1 file has rows with different values of 'label' in t.csv, e.g. 2.png: the last one counts."
    assert several in summary
    conditions = open_pack(root, DataConfig(labels="t.csv", condition="label")).summary
    assert "12 images share a row of t.csv" in conditions and several in conditions
    by_path = pd.DataFrame({"file": [f"{f}/{n}" for f in "pq" for n in NAMES[:6]], "label": LABELS})
    by_path.to_csv(root / "u.csv", index=False)
    clear = open_pack(root, DataConfig(labels="u.csv")).summary
    assert "share a row" not in clear and "different values" not in clear


def test_missing_and_numeric_labels(photos: Make) -> None:
    root = photos(*NAMES)
    (root / "t.csv").write_text("file,label\n" + "".join(f"{i}.png,{i % 3 or ''}\n" for i in range(11)))
    pack = open_pack(root, DataConfig(labels="t.csv"))
    assert pack.classes == ("1", "2", "(none)") and labels(pack)["4.png"] == "1"
    assert "5 images have no label in t.csv" in pack.summary
    before = pack.fingerprint
    (root / "t.csv").write_text("file,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(12)))
    assert open_pack(root, DataConfig(labels="t.csv")).fingerprint != before


def test_tables_that_do_not_fit_are_refused(photos: Make) -> None:
    root = photos(*NAMES)
    pd.DataFrame({"file": ["x.png"], "label": ["a"]}).to_csv(root / "other.csv", index=False)
    pd.DataFrame({"file": NAMES, "age": range(12), "sex": LABELS}).to_csv(root / "two.csv", index=False)
    refused("names files of this folder, such as 0.png", open_pack, root, DataConfig(labels="other.csv"))
    refused("not clear which column .*: age, sex", open_pack, root, DataConfig(labels="two.csv"))
    assert open_pack(root, DataConfig(labels="two.csv", label_column="sex")).classes == ("a", "b")
    photos(*[f"{i}.png" for i in range(12, 30)])
    ages = pd.DataFrame({"file": [f"{i}.png" for i in range(30)], "age": range(30)})
    ages.to_csv(root / "age.csv", index=False)
    refused("30 different labels for 30 images", open_pack, root, DataConfig(labels="age.csv"))
    refused("has no column 'size'", open_pack, root, DataConfig(labels="two.csv", label_column="size"))
    refused("does not exist", open_pack, root, DataConfig(labels="none.csv"))


def test_a_table_that_is_not_read_is_named(photos: Make) -> None:
    root = photos(*NAMES)
    FRAMES["metadata.csv"].to_csv(root / "metadata.csv", index=False)
    pack = open_pack(root, DataConfig())
    line = "metadata.csv is not read. To take classes from it: labels='metadata.csv'."
    assert line in spelled(pack.summary)
    assert "is not read" not in open_pack(root, DataConfig(labels="metadata.csv")).summary
    (root / "more.csv").write_text("file,label\n")
    (root / "metadata.csv").rename(root / "other.csv")
    assert "is not read" not in open_pack(root, DataConfig(validation="0.2")).summary


LISTS = {
    "celeba.txt": "12\nSmiling Young\n" + "".join(f"{i:>6}.png  {i % 2 * 2 - 1:2d}  1\n" for i in range(12)),
    "identity.txt": "".join(f"{i}.png {'ab'[i % 2]}\n" for i in range(12)),
    "plain.csv": "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(12)),
    "numbers.csv": "".join(f"{i},{'ab'[i % 2]}\n" for i in range(12)),
    "three.tsv": "".join(f"x\t{i}.png\t{'ab'[i % 2]}\n" for i in range(12)),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_without_names_of_columns(photos: Make, name: str) -> None:
    root = photos(*NAMES)
    (root / name).write_text(LISTS[name])
    column = {"celeba.txt": "Smiling", "three.tsv": "column 3"}.get(name)
    pack = open_pack(root, DataConfig(labels=name, label_column=column))
    meaning = {"-1": "a", "1": "b"} if name == "celeba.txt" else {"a": "a", "b": "b"}
    assert {path: meaning[label] for path, label in labels(pack).items()} == EXPECTED
    assert ("has no names of columns" in pack.summary) == (name != "celeba.txt")


def test_a_header_that_is_the_name_of_a_file_is_one(photos: Make) -> None:
    root = photos(*[f"{name}.png" for name in ("file", "label", "a", "b")])
    (root / "t.csv").write_text("file,label\na,x\nb,y\nfile,x\nlabel,y\n")
    assert labels(open_pack(root, DataConfig(labels="t.csv")))["label.png"] == "y"


def test_a_column_of_splits_is_used_and_said(photos: Make) -> None:
    root = photos(*NAMES)
    splits = ["train"] * 8 + ["valid"] * 2 + ["test"] * 2
    table = pd.DataFrame({"file": NAMES, "breed": LABELS, "split": splits})
    table.to_csv(root / "t.csv", index=False)
    pack = open_pack(root, DataConfig(labels="t.csv"))
    assert [pack.count(split) for split in ("train", "validation", "test")] == [8, 2, 2]
    assert labels(pack) == EXPECTED
    assert "Splits by column 'split' of t.csv: 8 train, 2 validation, 2 test images." in pack.summary
    assert open_pack(root, DataConfig(labels="t.csv", condition="breed")).count("test") == 2
    ignored = open_pack(root, DataConfig(labels="t.csv", split_folders="never"))
    assert ignored.count("test") == 0 and "Splits by column" not in ignored.summary
    chosen = open_pack(root, DataConfig(labels="t.csv", label_column="split"))
    assert chosen.classes == ("test", "train", "valid") and chosen.count("test") == 0


def test_tables_in_the_folders_of_the_splits(photos: Make) -> None:
    root = photos(*[f"{folder}/{name}" for folder in ("train", "validation") for name in NAMES[:6]])
    for folder, text in (("train", "ab"), ("validation", "ba")):
        rows = "".join(f"{name},{text[i % 2]}\n" for i, name in enumerate(NAMES[:6]))
        (root / folder / "metadata.csv").write_text(f"file_name,label\n{rows}")
    line = "metadata.csv is not read. To take classes from it: labels='metadata.csv'."
    assert line in spelled(open_pack(root, DataConfig()).summary)
    got = labels(open_pack(root, DataConfig(labels="metadata.csv")))
    assert got["train/0.png"] == "a" and got["validation/0.png"] == "b" and len(got) == 12


def test_rows_of_metadata_name_the_images(photos: Make) -> None:
    """As they do for Hugging Face's imagefolder, in each folder of a split and at any depth."""
    root = photos(*NAMES, "sheet.png", "more/1.png", "test/a/1.png", "test/b.png", "test/b_mask.png")
    rows = [{"file_name": name, "label": label} for name, label in EXPECTED.items()]
    rows += [{"file_name": "./more/1.png", "label": "b"}, {"file_name": "test/a/1.png", "label": "a"}]
    lines = "\n".join(map(json.dumps, [*rows, {"file_name": "test/b.png", "label": "b"}]))
    (root / "metadata.jsonl").write_text(lines)
    pack = open_pack(root, DataConfig(labels="metadata.jsonl"))
    assert labels(pack) == EXPECTED | {"more/1.png": "b", "test/a/1.png": "a", "test/b.png": "b"}
    reason = "not named in metadata.jsonl"
    assert pack.skipped == [("sheet.png", reason), ("test/b_mask.png", reason)]
    note = f"2 images are left out, e.g. sheet.png: {reason}. To read all: include='*'."
    assert note in spelled(pack.summary)
    assert open_pack(root, DataConfig()).skipped == pack.skipped  # without labels too
    assert len(open_pack(root, DataConfig(include="*")).paths()) == 17
    other = root / "metadata.csv"
    for text in ("file_name,label\nelsewhere.png,a\n", "id,label\n0,a\n", "\n"):
        other.write_text(text)  # of other files, without the column, empty: names no image
        assert open_pack(root, DataConfig()).skipped == pack.skipped


def test_rows_name_the_images_of_each_split(photos: Make) -> None:
    splits = ("train", "validation")
    root = photos(*[f"{folder}/{name}" for folder in splits for name in NAMES[:6]], "train/grid.png")
    for folder in splits:
        rows = "".join(f"{name},{label}\n" for name, label in list(EXPECTED.items())[:6])
        (root / folder / "metadata.csv").write_text(f"file_name,label\n{rows}")
    pack = open_pack(root, DataConfig(labels="metadata.csv"))
    assert [pack.count(split) for split in ("train", "validation")] == [6, 6]
    assert pack.skipped == [("train/grid.png", "not named in train/metadata.csv")]
    assert labels(pack)["validation/1.png"] == "b" and pack.classes == ("a", "b")


def test_labels_are_texts_as_they_stand(photos: Make) -> None:
    root = photos(*[f"{i:05d}.png" for i in range(6)])
    rows = [f"{i:05d}, {('None', 'NA', '007')[i % 3]}" for i in range(6)]
    (root / "t.csv").write_text("id, label\n" + "\n".join(rows))
    pack = open_pack(root, DataConfig(labels="t.csv"))
    assert set(pack.classes) == {"None", "NA", "007"} and labels(pack)["00002.png"] == "007"
    photos(*[f"{i}.png" for i in range(6)])
    assert labels(open_pack(root, DataConfig(labels="t.csv", copies="keep")))["2.png"] == "(none)"


@pytest.mark.parametrize("mark", ["|", ";", "\t", ","])
def test_cells_are_separated_by_the_mark_of_the_first_line(photos: Make, mark: str) -> None:
    root = photos(*NAMES)
    rows = [mark.join((name, "-", label)) for name, label in EXPECTED.items()]
    (root / "t.txt").write_text("\n".join([mark.join(("file", "note", "label")), *rows]))
    assert labels(open_pack(root, DataConfig(labels="t.txt"))) == EXPECTED


def test_labels_of_several_words_between_spaces(photos: Make) -> None:
    root = photos(*NAMES)
    text = "\n".join(f"{name} {('poodle', 'golden retriever')[i % 2]}" for i, name in enumerate(NAMES))
    (root / "t.txt").write_text(text)
    assert set(labels(open_pack(root, DataConfig(labels="t.txt"))).values()) == {"poodle", "golden retriever"}


@pytest.mark.parametrize("folder", ["annotations", "set", "old"])
def test_a_table_in_another_folder_than_the_images(photos: Make, folder: str) -> None:
    root = photos(*[f"set/images/{name}" for name in NAMES])
    (root / folder).mkdir(exist_ok=True)
    FRAMES["t.csv"].to_csv(root / folder / "t.csv", index=False)
    assert "t.csv is not read" in open_pack(root, DataConfig()).summary
    pack = open_pack(root, DataConfig(labels="t.csv"))
    assert labels(pack) == {f"set/images/{name}": label for name, label in EXPECTED.items()}


def test_a_column_of_numbers_is_no_column_of_files_if_it_has_labels(photos: Make) -> None:
    root = photos(*NAMES)
    table = pd.DataFrame({"id": [f"img_{i:03d}" for i in range(12)], "label": range(12)})
    table.to_csv(root / "t.csv", index=False)
    refused("names files of this folder", open_pack, root, DataConfig(labels="t.csv"))


def test_columns_that_are_no_splits_or_no_labels_are_said(photos: Make) -> None:
    root = photos(*NAMES)
    table = pd.DataFrame({"file": NAMES, "label": LABELS, "partition": [0, 1, 2] * 4})
    table.to_csv(root / "t.csv", index=False)
    text = "Column 'partition' of t.csv (0, 1, 2) is not taken for splits."
    assert text in open_pack(root, DataConfig(labels="t.csv")).summary
    table["data set"] = ["train"] * 9 + ["test"] * 2 + [""]
    table[["file", "data set"]].to_csv(root / "u.csv", index=False)
    pack = open_pack(root, DataConfig(labels="u.csv"))
    assert pack.classes == () and pack.count("test") == 2
    (root / "v.txt").write_text("\n".join(NAMES))
    refused("has no column of labels", open_pack, root, DataConfig(labels="v.txt"))


def test_a_table_in_an_archive_is_said(photos: Make, tmp_path: Path) -> None:
    root = photos(*NAMES)
    FRAMES["t.csv"].to_csv(root / "t.csv", index=False)
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", root)
    assert (
        "t.csv is not read. For classes from a table, extract it" in open_pack(archive, DataConfig()).summary
    )
