"""Conditions of files from columns of tables."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command import refused
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import Pack, open_pack

Make = Callable[..., Path]
NAMES = [f"{i}.png" for i in range(12)]
AGES = [20 + i for i in range(12)]
HAIR = ["black", "blond", "brown"] * 4


def opened(root: Path, frame: pd.DataFrame, condition: str | None, name: str = "t.csv") -> Pack:
    table = root.parent / name
    if name.endswith("parquet"):
        frame.to_parquet(table)
    elif name.endswith("json"):
        table.write_text(json.dumps(frame.to_dict("records")))
    else:
        frame.to_csv(table, index=False)
    return open_pack(root, DataConfig(labels=str(table), condition=condition))


def vectors(pack: Pack) -> dict[str, list[float]]:
    assert pack.conditions is not None
    return dict(zip(pack.paths(), np.asarray(pack.conditions).round(4).tolist(), strict=True))


def test_numbers_are_standardized_and_texts_are_one_hot(photos: Make) -> None:
    root = photos(*NAMES)
    frame = pd.DataFrame({"file": NAMES, "age": AGES, "hair": HAIR, "glasses": [-1, 1] * 6})
    pack = opened(root, frame, "age,glasses,hair")
    age, glasses, hair = pack.columns
    assert (age.kind, glasses.kind, hair.kind) == ("number", "yes or no", "category")
    standardized = (np.array(AGES) - np.mean(AGES)) / np.std(AGES)
    expected = {
        name: [round(float(standardized[i]), 4), float(i % 2), *(float(i % 3 == k) for k in range(3))]
        for i, name in enumerate(NAMES)
    }
    of_files = vectors(pack)
    assert all(of_files[name] == pytest.approx(expected[name], abs=1e-3) for name in NAMES)
    assert pack.classes == () and (pack.labels == -1).all()
    note = "age (number, 20 to 31), glasses (yes or no), hair (one of black, blond, brown)."
    assert f"Conditions from t.csv: {note}" in pack.summary
    _, y = pack.read("train", np.array([2, 0]))
    np.testing.assert_array_equal(y, pack.split_labels("train")[[2, 0]])


@pytest.mark.parametrize(
    "pair", [("0", "1"), ("No", "yes"), ("FALSE", "true"), (False, True), (-1.0, 1.0)], ids=str
)
@pytest.mark.parametrize("name", ["t.csv", "t.json"])
def test_two_values_are_yes_or_no(photos: Make, pair: tuple[object, object], name: str) -> None:
    frame = pd.DataFrame({"file": NAMES, "smiling": [pair[i % 3 == 0] for i in range(12)]})
    pack = opened(photos(*NAMES), frame, "smiling", name)
    assert pack.columns[0].kind == "yes or no"
    assert vectors(pack) == {name: [float(i % 3 == 0)] for i, name in enumerate(NAMES)}
    assert pack.columns[0].average == pytest.approx([1 / 3])


@pytest.mark.parametrize("name", ["bars.csv", "semicolons.csv", "lists.json", "lists.parquet"])
def test_several_values_are_multi_hot(photos: Make, name: str) -> None:
    tags = [["cat"], ["dog", "cat"], ["10", "dog"]] * 4
    cells = tags
    if name.endswith("csv"):
        cells = [("|" if name == "bars.csv" else "; ").join(one) for one in tags]  # type: ignore[misc]
    elif name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"file": NAMES, "tags": cells})
    pack = opened(photos(*NAMES), frame, "tags", name)
    assert pack.columns[0].kind == "list" and pack.columns[0].values == ("10", "cat", "dog")
    expected = [[0, 1, 0], [0, 1, 1], [1, 0, 1]] * 4
    assert vectors(pack) == {name: expected[i] for i, name in enumerate(NAMES)}


def test_json_of_a_list_of_values_per_file(photos: Make) -> None:
    root = photos(*NAMES)
    tags = {name: [["cat"], ["dog", "cat"], "10"][i % 3] for i, name in enumerate(NAMES)}
    (root / "tags.json").write_text(json.dumps(tags))
    pack = open_pack(root, DataConfig(labels="tags.json", condition="label"))
    assert vectors(pack) == {name: [[0, 1, 0], [0, 1, 1], [1, 0, 0]][i % 3] for i, name in enumerate(NAMES)}


def test_missing_values_and_rows_are_counted(photos: Make) -> None:
    frame = pd.DataFrame(
        {"file": NAMES[:10], "age": [None, None, *AGES[2:10]], "hair": ["", *HAIR[1:10]], "old": [0, 1] * 5}
    )
    frame["old"] = frame["old"].astype(object)
    frame.loc[3, "old"] = None
    pack = opened(photos(*NAMES), frame, "age,hair,old")
    of_files, old = vectors(pack), pytest.approx(4 / 9, abs=1e-3)
    assert of_files["0.png"][:4] == [0, 0, 0, 0] and of_files["3.png"][4] == old
    assert of_files["10.png"] == of_files["11.png"] == [0, 0, 0, 0, old]
    assert "2 images have no row in t.csv; in rows of images, 2 no age, 1 no hair, 1 no old." in pack.summary
    assert "counts as the average" in pack.summary


def test_columns_that_cannot_be_used_are_refused(photos: Make) -> None:
    root = photos(*[f"{i}.png" for i in range(30)])
    frame = pd.DataFrame(
        {"file": [f"{i}.png" for i in range(30)], "one": 5, "id": [f"x{i}" for i in range(30)]}
    )
    frame["age"] = range(30)
    refused("no column 'size'. It has one, id, age", opened, root, frame, "age,size")
    refused("'one' of t.csv has only the value '5'", opened, root, frame, "one")
    refused("'id' of t.csv has 30 different values for 30 images", opened, root, frame, "id")
    with pytest.raises(ValueError, match="different names of columns"):
        DataConfig(condition="age,,id")


def test_conditions_need_a_table_and_files(photos: Make) -> None:
    root = photos("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    refused(r"condition`: needs a table .*`labels`", open_pack, root, DataConfig(condition="age"))
    (root / "metadata.csv").write_text("file_name,age\na/1.png,1\na/2.png,2\nb/3.png,3\nb/4.png,4\n")
    refused("Add labels='metadata.csv'", open_pack, root, DataConfig(condition="age"))
    pack = open_pack(root, DataConfig(condition="age", labels="metadata.csv"))
    assert pack.classes == () and "Folders are not classes" in pack.summary
    both = DataConfig(condition="age", labels="metadata.csv", label_column="age")
    refused("`condition` and `label_column` exclude each other", open_pack, root, both)
    settings = DataConfig(condition="age", labels="metadata.csv")
    refused("needs image files", open_pack, np.zeros((9, 4, 4), np.uint8), settings)


def test_other_conditions_are_other_data(photos: Make) -> None:
    root = photos(*NAMES)
    frame = pd.DataFrame({"file": NAMES, "age": AGES, "size": AGES[::-1]})
    one, other = (opened(root, frame, name) for name in ("age", "size"))
    assert one.fingerprint != other.fingerprint
    changed = frame.assign(age=[*AGES[:-1], 99])
    assert opened(root, changed, "age").fingerprint != one.fingerprint
    assert opened(root, frame, "age").fingerprint == one.fingerprint


def test_equal_images_with_different_conditions_are_both_read(photos: Make, tmp_path: Path) -> None:
    root = photos(*NAMES)
    for name in ("0.png", "1.png"):
        (root / f"copy_of_{name}").write_bytes((root / name).read_bytes())
    names = [*NAMES, "copy_of_0.png", "copy_of_1.png"]
    pack = opened(root, pd.DataFrame({"file": names, "age": [*AGES, 70, AGES[1]]}), "age")
    assert len(pack.labels) == 13 and "copy_of_0.png" in pack.paths()
    assert "14 images, 12 distinct: of copies one is read with the same conditions." in pack.summary
    note = "1 image is equal to another with different conditions, e.g. 0.png and copy_of_0.png."
    assert note in pack.summary
