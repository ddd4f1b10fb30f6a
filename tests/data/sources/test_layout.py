"""Splits, classes and masks are found in paths."""

import pytest

from vaekit.data.sources.layout import BESIDE_SPLITS, OUTSIDE, Layout, read_layout, split_of
from vaekit.data.sources.masks import MASK, THUMBNAIL
from vaekit.data.splits import TEST, TRAIN, VALIDATION


def files(*folders: str, count: int = 2) -> list[str]:
    return [f"{folder}/{i}.png".lstrip("/") for folder in folders for i in range(count)]


def places(paths: list[str], layout: Layout) -> set[tuple[str, int, str]]:
    """(folder, split, class) of the files that are read."""
    rows = [row for row in range(len(paths)) if row not in layout.left_out]
    return {(paths[row].rpartition("/")[0], layout.splits[row], layout.classes[row]) for row in rows}


NAMES = {TRAIN: "train Train TRAINING train_images training_set seg_train train2017 trainset"}
NAMES |= {
    VALIDATION: "val valid Validation dev eval val2017 valid_set",
    TEST: "test Testing test_set TESTSET",
}


@pytest.mark.parametrize(
    ("name", "split"), [(n, split) for split, names in NAMES.items() for n in names.split()]
)
def test_usual_names_of_splits(name: str, split: int) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    "name", ["trainA", "cat", "testament", "train test", "contest", "images", "1", "tests of b"]
)
def test_other_names_are_not_splits(name: str) -> None:
    assert split_of(name) is None


def test_splits_and_classes_by_folder() -> None:
    paths = files("Training/cat", "Training/dog", "valid/cat", "Testing/dog/old")
    layout = read_layout(paths)
    assert places(paths, layout) == {
        ("Training/cat", TRAIN, "cat"),
        ("Training/dog", TRAIN, "dog"),
        ("valid/cat", VALIDATION, "cat"),
        ("Testing/dog/old", TEST, "dog"),
    }
    assert layout.notes == [
        "Splits by folder: train from Training/ (4 images), validation from valid/ (2 images), "
        "test from Testing/ (2 images)."
    ]


@pytest.mark.parametrize("outer", ["set", "set/archive-1", "images"])
def test_one_outer_folder_is_looked_through(outer: str) -> None:
    paths = files(f"{outer}/train/cat", f"{outer}/val/cat")
    layout = read_layout(paths)
    assert places(paths, layout) == {
        (f"{outer}/train/cat", TRAIN, "cat"),
        (f"{outer}/val/cat", VALIDATION, "cat"),
    }
    assert layout.notes[0].startswith(f"All images are in {outer}/")


def test_a_single_folder_of_files_is_a_class_but_in_an_archive() -> None:
    assert read_layout(files("cat")).classes == ["cat", "cat"]
    assert read_layout(files("cat"), archive=True).classes == ["(none)", "(none)"]
    assert read_layout(files("images")).classes == ["(none)", "(none)"]
    nested = files("rain/2023")
    assert read_layout(nested).classes == ["2023", "2023"]
    assert read_layout(nested, known_classes=("rain", "sun")).classes == ["rain", "rain"]


@pytest.mark.parametrize("name", ["test", "train"])
def test_a_class_with_the_name_of_a_split_stays_one(name: str) -> None:
    paths = files("bus", "car", name)
    layout = read_layout(paths)
    assert set(layout.classes) == {"bus", "car", name} and set(layout.splits) == {TRAIN}
    assert layout.notes[0].startswith(f"{name}/ is a class here, like bus/ and car/.")
    expected = {"train": TRAIN, "test": TEST}[name]
    assert expected in read_layout(paths, "always").splits[-2:]


def test_folders_beside_train_and_test_are_left_out_and_said() -> None:
    paths = [*files("train/a", "test/a", "extra"), "sheet.png"]
    layout = read_layout(paths)
    assert {paths[row] for row in layout.left_out} == {"extra/0.png", "extra/1.png", "sheet.png"}
    assert set(layout.left_out.values()) == {BESIDE_SPLITS} and "3 images outside" in layout.notes[1]
    never = read_layout(paths, "never")
    assert not never.left_out and set(never.classes) == {"train", "test", "extra", "(none)"}
    loose = read_layout([*files("test"), "1.png"])
    assert loose.splits == [TEST, TEST, TRAIN] and not loose.left_out


def test_splits_inside_classes() -> None:
    paths = files("cat/train", "cat/test", "dog/train", "dog/test", "fish")
    layout = read_layout(paths)
    assert ("cat/test", TEST, "cat") in places(paths, layout) and ("fish", TRAIN, "fish") in places(
        paths, layout
    )
    assert "such as cat/train: 6 train, 4 test images" in layout.notes[0]
    assert set(read_layout(paths, "never").splits) == {TRAIN}


MASKS = [f"ground_truth/broken/{i}_mask.png" for i in range(2)]
INSPECTION = [*files("train/good", "test/broken"), *MASKS]


@pytest.mark.parametrize("product", ["", "cup/"])
def test_inspection_sets(product: str) -> None:
    paths = [product + path for path in INSPECTION]
    paths += [path.replace("cup/", "cable/") for path in paths] if product else []
    layout = read_layout(paths)
    assert {paths[row].split("/")[-3] for row in layout.left_out} == {"ground_truth"}
    assert set(layout.left_out.values()) == {MASK}
    splits = {split for folder, split, _ in places(paths, layout) if "train" in folder}
    assert splits == {TRAIN} and layout.splits.count(TEST) == (4 if product else 2)
    alone = "Classes are the first folders, cable/ and cup/: cable/broken/ and cable/good/ are read together."
    assert any(note.startswith(alone) for note in layout.notes) == bool(product)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}.jpg", "{}_mask.png"),
        ("{}.png", "{}-gt.png"),
        ("img_{}.png", "mask_{}.png"),
        ("images/pet_{}.jpg", "annotations/trimaps/pet_{}.png"),
        ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
        ("leftImg8bit/a_00{}_leftImg8bit.png", "gtFine/a_00{}_gtFine_labelIds.png"),
        ("images/train/{}.png", "labels/train/{}.png"),
    ],
)
def test_masks_of_other_images_are_left_out(images: str, masks: str) -> None:
    paths = [name.format(i) for name in (images, masks) for i in range(5)]
    layout = read_layout(paths)
    assert sorted(layout.left_out) == list(range(5, 10)), layout.left_out
    assert "5 files left out as masks" in layout.notes[0] and "include" in layout.notes[0]
    assert not read_layout(paths, keep_masks=True).left_out


def test_folders_that_only_sound_like_masks_are_read_and_said() -> None:
    paths = [*[f"hats/top hat {i}.png" for i in range(4)], *[f"masks/venice {9 - i}.png" for i in range(4)]]
    layout = read_layout(paths)
    assert not layout.left_out and layout.notes[0].startswith("4 files in masks/ may be masks")
    assert not read_layout(files("masks", "masks/more")).left_out


def test_no_paths() -> None:
    assert read_layout([]) == Layout([], [])


THUMBNAILS = [
    ("{}.jpg", "{}_thumb.jpg"),
    ("{}.jpg", "thumb_{}.jpg"),
    ("{}.jpg", "thumbs/{}.png"),
    ("a/{}.jpg", "a/Thumbnails/{}.jpg"),
    ("images/{}.jpg", "thumbnails/{}.jpg"),
]


@pytest.mark.parametrize(("images", "thumbnails"), THUMBNAILS)
def test_thumbnails_of_other_images_are_left_out(images: str, thumbnails: str) -> None:
    paths = [name.format(i) for name in (images, thumbnails) for i in range(5)]
    layout = read_layout(paths)
    assert layout.left_out == dict.fromkeys(range(5, 10), THUMBNAIL)
    assert layout.notes[0].startswith("5 files left out as thumbnails of other images, by name: ")
    assert not read_layout(paths, keep_masks=True).left_out


def test_a_class_of_thumbs_is_read_and_said() -> None:
    paths = files("thumb", "palm", "fist")
    layout = read_layout(paths)
    assert not layout.left_out and {"thumb", "palm", "fist"} == set(layout.classes)
    assert layout.notes[0].startswith("2 files in thumb/ may be thumbnails, by name, and are read as images.")


@pytest.mark.parametrize("folders", [("data/train/cat", "data/TEST/cat"), ("data/cat", "data/dog")])
def test_a_file_outside_of_the_outer_folder_does_not_make_it_a_class(folders: tuple[str, ...]) -> None:
    paths = ["preview.png", *files(*folders, count=6)]
    layout = read_layout(paths)
    assert layout.left_out == {0: OUTSIDE} and "data" not in layout.classes
    assert layout.notes[0] == "The images are in data/, which is read as the folder of the images."
    assert layout.notes[1].startswith("1 file outside of data/ left out, e.g. preview.png.")


def test_more_files_or_a_folder_of_files_only_are_read_as_before() -> None:
    few = [*files("", count=4), *files("data/cat", "data/dog", count=6)]
    assert set(read_layout(few).classes) == {"(none)", "data"} and not read_layout(few).left_out
    flat = ["preview.png", *files("cat", count=30)]
    assert read_layout(flat).classes[1] == "cat" and not read_layout(flat).left_out


CLASSES = [
    ["train/Ford GT Coupe 2006", "train/Audi S4 2007", "test/Ford GT Coupe 2006", "test/Audi S4 2007"],
    ["surgical mask", "n95", "cloth"],
    ["mask", "nomask"],
    ["with_mask", "without_mask"],
    ["food label", "price tag"],
]


@pytest.mark.parametrize("folders", CLASSES)
def test_classes_with_a_word_for_masks_are_read(folders: list[str]) -> None:
    paths = files(*folders, count=5)
    layout = read_layout(paths)
    assert not layout.left_out
    assert set(layout.classes) == {folder.split("/")[-1] for folder in folders}


@pytest.mark.parametrize("outer", ["Kvasir-SEG", "lung segmentation/data", "masks of hands"])
def test_an_outer_folder_with_a_word_for_masks_says_nothing(outer: str) -> None:
    paths = files(f"{outer}/images", f"{outer}/masks", count=5)
    layout = read_layout(paths)
    assert layout.left_out == dict.fromkeys(range(5, 10), MASK)
    assert layout.notes[0].startswith(f"5 files left out as masks of other images, by name: {outer}/masks/.")


def test_folders_of_one_name_are_counted_together() -> None:
    paths = [f"stage/{i}/{what}/{i}.png" for i in range(6) for what in ("images", "masks")]
    layout = read_layout(paths)
    assert len(layout.left_out) == 6
    assert [note for note in layout.notes if "masks" in note] == [
        note
        for note in layout.notes
        if note.startswith("6 files left out as masks of other images, by name: */masks/.")
    ]


def test_thumbnails_with_their_size_in_the_name() -> None:
    paths = [f"{i}{size}.jpg" for i in range(5) for size in ("", "-150x150", "-300x200")]
    assert read_layout(paths).left_out == dict.fromkeys([i for i in range(15) if i % 3], THUMBNAIL)
    assert not read_layout([f"wall-{i}-100x{i}.jpg" for i in range(5)]).left_out


def test_names_that_are_nearly_those_of_splits_are_said() -> None:
    notes = read_layout(files("trainA", "trainB", "testA", "testB")).notes
    assert notes[0].startswith(
        "testA/, testB/, trainA/ and trainB/ are classes here, though their names tell"
    )
    assert not read_layout(files("trains", "cars")).notes
    assert not read_layout(files("carnival", "trainer", "contest")).notes
    assert split_of("PrivateTest") == TEST and split_of("PublicTest") == VALIDATION


def test_folders_inside_of_classes_that_are_read_together_are_said() -> None:
    notes = read_layout(
        files("seg_a/seg_a/forest", "seg_a/seg_a/sea", "seg_b/seg_b/forest", "seg_b/seg_b/sea")
    ).notes
    assert notes == [
        "Classes are the first folders, seg_a/ and seg_b/: seg_a/seg_a/forest/ and seg_a/seg_a/sea/ are read "
        "together. To read those inside as classes, give one folder alone, such as seg_a/."
    ]
    assert not read_layout(files("dog/2023", "dog/2024", "cat/2023", "cat/2024")).notes


def test_nothing_is_called_read_that_is_left_out() -> None:
    paths = [*files("train", "test", count=5), *[f"train_labels/{i}_L.png" for i in range(5, 10)]]
    layout = read_layout(paths)
    assert set(layout.left_out) == set(range(10, 15))
    assert not any("are read as images" in note for note in layout.notes)
