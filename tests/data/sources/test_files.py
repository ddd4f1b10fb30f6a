"""Folders and archives as people have them: links, system folders, patterns, missing suffixes, copies."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command import refused, save_images
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.errors import spelled

Make = Callable[..., Path]


def paths(source: Path, **settings: object) -> list[str]:
    return sorted(open_pack(source, DataConfig(**settings)).paths())


def noise(*names: str, seed: int = 0, size: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 256, (size, size, 3), np.uint8) for name in names}


def test_folders_of_systems_are_passed_over(photos: Make) -> None:
    hidden = ["@eaDir/1.png/a.png", "$RECYCLE.BIN/1.png", "lost+found/1.png", ".AppleDouble/1.png"]
    hidden += ["System Volume Information/1.png", "#recycle/1.png", "cat/.@__thumb/1.png", "__MACOSX/1.png"]
    hidden += ["Network Trash Folder/1.png", "FOUND.000/1.png", "~snapshot/1.png", "Temporary Items/1.png"]
    root = photos("cat/1.png", "cat/2.png", "dog/3.png", *hidden)
    assert paths(root) == ["cat/1.png", "cat/2.png", "dog/3.png"]


def test_include_and_exclude(photos: Make) -> None:
    root = photos("a/1.png", "a/2.jpg", "b/c/3.png", "b/4.png", "5.png", "5_mask.png")
    assert paths(root) == ["5.png", "a/1.png", "a/2.jpg", "b/4.png", "b/c/3.png"]
    assert paths(root, exclude="a/*,*.jpg") == ["5.png", "b/4.png", "b/c/3.png"]
    assert paths(root, exclude=["a"]) == ["5.png", "b/4.png", "b/c/3.png"]
    assert paths(root, include="b/*") == ["b/4.png", "b/c/3.png"]
    assert len(paths(root, include="*")) == 6  # masks too
    pack = open_pack(root, DataConfig(exclude="a"))
    assert ("a/1.png", "excluded") in pack.skipped and "2 excluded, 1 named like a mask" in pack.summary
    refused("contains no images", open_pack, root, DataConfig(include="nothing/*"))


def test_links_are_followed_if_asked(photos: Make, tmp_path: Path) -> None:
    elsewhere = photos("1.png", "2.png", "deep/3.png", folder="elsewhere")
    farm = tmp_path / "farm"
    (farm / "cat").mkdir(parents=True)
    (farm / "cat" / "a.png").symlink_to(elsewhere / "1.png")
    (farm / "cat" / "again.png").symlink_to(elsewhere / "1.png")
    (farm / "dog").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(farm)
    refused("contains only links, which lead out of it. .* links='follow'", open_pack, farm, DataConfig())
    pack = open_pack(farm, DataConfig(links="follow"))
    assert sorted(pack.paths()) == ["cat/a.png", "dog/2.png", "dog/deep/3.png"]  # each file once
    assert dict(pack.skipped)["dog/loop"] == "link to a folder that it is in"
    save_images(farm, noise("x.png", "y.png"))
    some = open_pack(farm, DataConfig())
    assert sorted(some.paths()) == ["x.png", "y.png"]
    assert "Not read: links to folders (dog/) and 2 links to files elsewhere" in some.summary


def test_files_without_a_suffix_are_known_by_their_content(photos: Make) -> None:
    root = photos("1.png", "2.png")
    (root / "subject01.happy").write_bytes((root / "1.png").read_bytes() + b"x")
    (root / "f3a9").write_bytes((root / "2.png").read_bytes() + b"x")
    (root / "README").write_text("no image")
    pack = open_pack(root, DataConfig(copies="keep"))
    assert sorted(pack.paths()) == ["1.png", "2.png", "f3a9", "subject01.happy"]
    assert pack.describe()["files_that_are_no_images"] == 1


def archive_of(root: Path, path: Path) -> Path:
    """The folder `root` with its name, as an archive of the kind that the name of `path` says."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(root.parent))
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '').replace('tgz', 'gz')}") as tar:
            tar.add(root, root.name)
    return path


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.tar.gz", "set.tgz", "set.tar.bz2", "set.tar.xz"])
def test_archives_are_read_in_place(photos: Make, tmp_path: Path, name: str) -> None:
    root = photos("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", ".hidden/4.png", "val/cat/notes.png")
    (root / "val" / "cat" / "notes.png").write_text("no image")
    archive = archive_of(root, tmp_path / name)
    before = archive.read_bytes()
    pack, unpacked = open_pack(archive, DataConfig()), open_pack(root, DataConfig())
    assert pack.fingerprint == unpacked.fingerprint and pack.classes == ("cat", "dog") and pack.name == "set"
    assert "All images are in photos/" in pack.summary and archive.read_bytes() == before
    assert dict(pack.skipped) == {"photos/val/cat/notes.png": "not in a supported format"}
    assert sorted(path.name for path in pack.folder.iterdir()) == sorted(
        p.name for p in unpacked.folder.iterdir()
    )


def test_hostile_archives_are_harmless(tmp_path: Path) -> None:
    def png() -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(len(names)).integers(0, 256, (8, 8, 3), np.uint8)).save(
            file, "PNG"
        )
        names.append("")
        return file.getvalue()

    names: list[str] = []
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("a/1.png", "a/2.png", "../up.png", "/abs.png"):
            archive.writestr(name, png())
    pack = open_pack(tmp_path / "evil.zip", DataConfig())
    assert sorted(pack.paths()) == ["a/1.png", "a/2.png"]
    assert {path for path, reason in pack.skipped if "out of the archive" in reason} == {
        "../up.png",
        "/abs.png",
    }
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        for name in ("1.png", "2.png"):
            data = png()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("3.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    pack = open_pack(tmp_path / "links.tar", DataConfig())
    assert sorted(pack.paths()) == ["1.png", "2.png"] and pack.skipped == [
        ("3.png", "a link or device in an archive")
    ]
    with zipfile.ZipFile(tmp_path / "bomb.tar.xz.zip", "w") as archive:
        archive.writestr("notes.txt", b"0" * 1000)
    refused("contains no images", open_pack, tmp_path / "bomb.tar.xz.zip", DataConfig())


def test_a_compressed_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("zeros.png")
        info.size = 50_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    refused("unpacks to more than .* MB", open_pack, tmp_path / "bomb.tar.gz", DataConfig())


def test_a_folder_that_holds_an_archive_says_so(photos: Make, tmp_path: Path) -> None:
    archive = archive_of(photos("1.png", "2.png"), tmp_path / "p.zip")
    (tmp_path / "holds").mkdir()
    archive.rename(tmp_path / "holds" / "p.zip")
    refused(
        r"no image files, but p\.zip\. Give '.*p\.zip', or unpack it",
        open_pack,
        tmp_path / "holds",
        DataConfig(),
    )


def test_swapped_files_are_seen(photos: Make) -> None:
    root = photos("1.png", "2.png", "3.png")
    for name in ("1.png", "2.png"):
        os.utime(root / name, ns=(5, 5))
    first = open_pack(root, DataConfig())
    before = dict(zip(first.paths(), np.array(first.images), strict=True))
    (root / "1.png").rename(root / "x")
    (root / "2.png").rename(root / "1.png")
    (root / "x").rename(root / "2.png")
    pack = open_pack(root, DataConfig())
    after = dict(zip(pack.paths(), np.array(pack.images), strict=True))
    assert np.array_equal(after["1.png"], before["2.png"]) and np.array_equal(after["2.png"], before["1.png"])


def split_of(pack: Pack) -> dict[str, str]:
    names = pack.paths()
    return {name: split for split, rows in pack.splits.items() for name in names[rows]}


def test_near_copies_stay_in_one_split(tmp_path: Path) -> None:
    images = noise(*[f"{i}.png" for i in range(40)])
    near = {f"near {name}": (image // 2 * 2 + 1).clip(0, 255) for name, image in images.items()}
    root = save_images(tmp_path / "set", images | near)
    pack = open_pack(root, DataConfig(validation="0.3"))
    splits = split_of(pack)
    assert all(splits[name] == splits[f"near {name}"] for name in images) and len(splits) == 80
    assert "40 images are nearly equal to others, and are in the same split." in pack.summary


def test_groups_stay_in_one_split(tmp_path: Path) -> None:
    images = noise(*[f"clip{i % 8}/frame_{i}_patient{i % 5}.png" for i in range(80)])
    root = save_images(tmp_path / "set", images)
    for group, part in (("folder", lambda name: name.split("/")[0]), (r"patient(\d)", lambda name: name[-5])):
        splits = split_of(open_pack(root, DataConfig(validation="0.3", group=group)))
        of_group = {part(name): {s for n, s in splits.items() if part(n) == part(name)} for name in images}
        assert all(len(placed) == 1 for placed in of_group.values()) and len(set(splits.values())) == 2
    refused("All images are in one group", open_pack, root, DataConfig(group="frame"))
    refused("No path matches 'scan'", open_pack, root, DataConfig(group="scan"))
    partly = spelled(open_pack(root, DataConfig(group="(patient[1-4])")).summary)
    assert (
        "16 images match no group='(patient[1-4])', e.g. clip0/frame_0_patient0.png: each is a group."
        in partly
    )
    summary = open_pack(root, DataConfig(group="folder")).summary
    assert "80 images in 8 groups." in summary and "nearly equal" not in summary


def test_groups_in_several_splits_of_the_source_are_said(tmp_path: Path) -> None:
    names = [f"train/p{i % 6}_{i}.png" for i in range(30)] + [f"test/p{i % 2}_x{i}.png" for i in range(8)]
    root = save_images(tmp_path / "set", noise(*names))
    summary = open_pack(root, DataConfig(group=r"(p\d)_")).summary
    assert "38 images in 6 groups." in summary and "2 groups are in several splits of the source" in summary
    assert "in several splits" not in open_pack(root, DataConfig(group=r"(p\d_x?\d)")).summary


def test_alike_images_in_both_splits_are_said(tmp_path: Path) -> None:
    frames = {}
    for name, image in noise(*"abcdefgh", size=16).items():
        for i in range(10):
            jitter = np.random.default_rng(ord(name) * 100 + i).integers(-12, 13, image.shape)
            frames[f"{name}/{i}.png"] = (image + jitter).clip(0, 255).astype(np.uint8)
    root = save_images(tmp_path / "set", frames)
    assert "of the held-out images look like a training image, e.g. " in open_pack(root, DataConfig()).summary
    grouped = open_pack(root, DataConfig(group="folder"))
    assert "look like a training image" not in grouped.summary
    flat = save_images(
        tmp_path / "flat", {name.replace("/", "_frame"): image for name, image in frames.items()}
    )
    advice = r"To keep such images in one split: group='(.*[^\\d/])\\d+\\.'."
    assert advice in spelled(open_pack(flat, DataConfig()).summary)
    followed = open_pack(flat, DataConfig(group=r"(.*[^\d/])\d+\."))
    assert "80 images in 8 groups." in followed.summary and "look like" not in followed.summary


def test_what_is_said_of_pixels(tmp_path: Path) -> None:
    images = noise(*[f"photos/{i}.png" for i in range(10)], size=16)
    masks = {f"shapes/x{i}y.png": np.zeros((16, 16, 3), np.uint8) for i in range(5)}
    for i, mask in enumerate(masks.values()):
        mask[2 + i : 9, 3:10] = 255
    root = save_images(tmp_path / "set", images | masks)
    assert "5 images in shapes/ look like masks" in open_pack(root, DataConfig()).summary
    blank = {f"{i}.png": np.full((8, 8, 3), 40 * i, np.uint8) for i in range(2)}
    root = save_images(tmp_path / "blank", noise("a.png", "b.png") | blank)
    assert "2 images are blank, of one colour: 0.png, 1.png" in open_pack(root, DataConfig()).summary


def test_the_background_is_one_on_which_images_can_be_seen(tmp_path: Path) -> None:
    root = tmp_path / "icons"
    root.mkdir()
    for i in range(12):
        icon = np.full((8, 8, 4), 255, np.uint8)
        icon[..., 3] = 0
        icon[i // 4 : 6, i % 4 : 7, 3] = 255
        Image.fromarray(icon).save(root / f"{i}.png")
    pack = open_pack(root, DataConfig())
    assert "12 of 12 transparent images cannot be seen on white, so the background is black" in pack.summary
    assert pack.images.max() == 255 and pack.images.min() == 0
    assert open_pack(root, DataConfig(background="white")).images.min() == 255


def test_one_image_is_enough_to_use_a_model_on(photos: Make) -> None:
    root = photos("1.png")
    refused("at least 2 are needed", open_pack, root, DataConfig())
    assert len(open_pack(root, DataConfig(), splitting=False).images) == 1


def test_one_snapshot_of_a_hub_cache_is_read(photos: Make) -> None:
    root = photos("blobs/a1.png", "blobs/b2.png", "blobs/c3.png")
    for blob in (root / "blobs").iterdir():
        blob.rename(blob.with_suffix(""))
    for name, files in {"old": "a1", "new": "a1 b2 c3"}.items():
        (root / "snapshots" / name / "train").mkdir(parents=True)
        for file in files.split():
            (root / "snapshots" / name / "train" / f"{file}.png").symlink_to(root / "blobs" / file)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("new")
    assert paths(root) == [f"snapshots/new/train/{name}.png" for name in ("a1", "b2", "c3")]
    assert open_pack(root, DataConfig()).classes == ()
    (root / "refs" / "main").write_text("old")
    refused("at least 2 are needed", open_pack, root, DataConfig())


def test_archives_of_windows_have_folders(photos: Make, tmp_path: Path) -> None:
    root = photos("cat/1.png", "cat/2.png", "dog/3.png")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        names = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*.png")}
        for name, data in (names | {"C:/evil.png": names["cat/1.png"]}).items():
            entry = zipfile.ZipInfo("placeholder")  # whose constructor would replace backslashes on Windows
            entry.filename = name.replace("/", "\\")
            archive.writestr(entry, data)
    pack = open_pack(tmp_path / "w.zip", DataConfig())
    assert sorted(pack.paths()) == ["cat/1.png", "cat/2.png", "dog/3.png"] and pack.classes == ("cat", "dog")
    assert pack.skipped == [("C:/evil.png", "a path that leads out of the archive")]


def test_archives_among_images_are_said(photos: Make) -> None:
    root = photos("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    (root / "labels.csv.gz").write_bytes(b"x")
    assert "not read" not in open_pack(root, DataConfig()).summary
    with zipfile.ZipFile(root / "a" / "more.zip", "w") as archive:
        archive.writestr("1.txt", "x")
    note = "a/more.zip is not read. To read the images in it, unpack it."
    assert note in open_pack(root, DataConfig()).summary
    with zipfile.ZipFile(root.parent / "outer.zip", "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, file.relative_to(root))
    assert note in open_pack(root.parent / "outer.zip", DataConfig()).summary


def masks(*names: str) -> dict[str, np.ndarray]:
    images = {name: np.zeros((16, 16, 3), np.uint8) for name in names}
    for number, mask in enumerate(images.values()):
        mask[2 + number % 6 : 9, 3 : 10 + number // 6] = 255
    return images


@pytest.mark.parametrize(
    ("pattern", "count", "advice"),
    [
        ("benign/m{}.png", 5, "exclude='benign/m*.png'"),
        ("benign/{}.png", 12, "move them elsewhere"),
        ("benign/{}.png", 4, ""),
    ],
)
def test_masks_between_images_are_said(tmp_path: Path, pattern: str, count: int, advice: str) -> None:
    images = noise(*[f"benign/{i}.png" for i in range(12)], size=16)
    shapes = masks(*[pattern.format(100 + i) for i in range(count)])
    summary = spelled(open_pack(save_images(tmp_path / "set", images | shapes), DataConfig()).summary)
    assert (f"{count} images, such as benign/" in summary) == bool(advice)
    assert ("look like masks" in summary) == bool(advice) and advice in summary


def test_masks_in_colours_with_the_names_of_images_are_said(tmp_path: Path) -> None:
    images = noise(*[f"jpegs/{i}.png" for i in range(6)], size=16)
    shapes = masks(*[f"pngs/{i}.png" for i in range(6)])
    for image in shapes.values():
        image[image[..., 0] > 0] = 128, 0, 64
        image[12:, 12:] = 224, 224, 192
    root = save_images(tmp_path / "set", images | shapes)
    summary = spelled(open_pack(root, DataConfig()).summary)
    assert "6 images in pngs/ look like masks: of a few flat colours, with names of others." in summary
    assert len(open_pack(root, DataConfig(exclude="pngs/*")).images) == 6
    flags = {name.replace("pngs/", "flags/x"): image for name, image in shapes.items()}
    root = save_images(tmp_path / "flags", images | flags)
    assert "look like masks" not in open_pack(root, DataConfig()).summary


def test_drawings_of_two_levels_are_no_masks(tmp_path: Path) -> None:
    root = save_images(tmp_path / "set", masks(*[f"{i}.png" for i in range(30)]))
    assert "look like masks" not in open_pack(root, DataConfig()).summary


def icons(folder: Path, *levels: int) -> Path:
    folder.mkdir()
    for number, level in enumerate(levels):
        icon = np.full((8, 8, 4), level, np.uint8)
        icon[..., 3] = 0
        icon[number % 4 : 6, number // 4 % 4 : 7, 3] = 255
        Image.fromarray(icon).save(folder / f"{number}.png")
    return folder


def test_icons_of_all_grays_get_a_background_that_differs_from_them(tmp_path: Path) -> None:
    root = icons(tmp_path / "icons", *[(0, 128, 255)[i % 3] for i in range(12)])
    pack = open_pack(root, DataConfig())
    assert "4 of 12 transparent images cannot be seen on white, so the background is #87ceeb" in pack.summary
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) == 2 for image in np.asarray(pack.images))


def test_images_that_are_transparent_everywhere_are_said(tmp_path: Path) -> None:
    root = icons(tmp_path / "icons", 0, 0, 0, 0, 0, 0)
    for number in range(2):
        Image.new("RGBA", (8, 8), (10 * number, 0, 0, 0)).save(root / f"empty{number}.png")
    assert "2 images are transparent everywhere" in open_pack(root, DataConfig()).summary


def test_a_single_white_icon_leaves_the_background_white(tmp_path: Path) -> None:
    summary = spelled(open_pack(icons(tmp_path / "icons", *[0] * 15, 255), DataConfig()).summary)
    assert (
        "1 of 16 transparent images cannot be seen on white. To change that: background='#808080'" in summary
    )


def test_reasons_that_differ_in_numbers_are_counted_together(photos: Make) -> None:
    root = photos("1.png", "2.png", "3.png")
    for size in range(8, 14):
        np.save(root / f"{size}.npy", np.zeros((2, size, size, 3), np.uint8))
    assert "6 files skipped: 6 an array of shape 2 x 10 x 10 x 3 instead of one image, ...." in (
        open_pack(root, DataConfig()).summary
    )


def test_folders_named_like_those_of_a_hub_cache_are_classes(photos: Make) -> None:
    root = photos("blobs/1.png", "blobs/2.png", "snapshots/x/3.png", "snapshots/x/4.png", "other/5.png")
    assert open_pack(root, DataConfig()).classes == ("blobs", "other", "snapshots")


def test_splits_of_links_win_over_the_folder_of_all_files(photos: Make) -> None:
    root = photos(*[f"all/{i}.png" for i in range(6)])
    for number in range(6):
        folder = root / ("train" if number < 4 else "test")
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.png").symlink_to(root / "all" / f"{number}.png")
    pack = open_pack(root, DataConfig(links="follow"))
    assert pack.count("test") == 2 and all(path.startswith(("train/", "test/")) for path in pack.paths())


def test_a_tar_of_the_current_folder(photos: Make, tmp_path: Path) -> None:
    root = photos("a/1.png", "a/2.png", "b/3.png", "b/4.png")
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(root, ".")
    pack = open_pack(tmp_path / "x.tgz", DataConfig(exclude="a/1.png"))
    assert sorted(pack.paths()) == ["a/2.png", "b/3.png", "b/4.png"] and pack.classes == ("a", "b")


def test_settings_without_effect_are_said(photos: Make) -> None:
    root = photos("train/a/1.png", "train/a/2.png", "train/b/3.png", "val/b/4.png", "val/c/5.png")
    summary = spelled(open_pack(root, DataConfig(exclude="Dog/*", validation="0.3")).summary)
    assert "exclude='Dog/*' matches no file." in summary
    assert "There is a validation split, so validation=0.3 is not used." in summary
    assert "1 class has no training images: c." in summary


def test_dark_photographs_in_colour_are_no_masks(tmp_path: Path) -> None:
    night = {f"night/{i}.png": image // 25 for i, image in enumerate(noise(*"abcd", size=16).values())}
    root = save_images(tmp_path / "set", night | noise(*[f"day/{i}.png" for i in range(6)], size=16))
    assert "look like masks" not in open_pack(root, DataConfig()).summary
