"""A folder of image files becomes a pack, and stays as it was."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pytest import MonkeyPatch

from command import Process, folder_state, huge_png, refused, user_error, wait_for
from vaekit.config.data import DataConfig
from vaekit.data.packs.cache import clear_cache
from vaekit.data.packs.load_images import load_images
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.data.packs.write import require_pack_space
from vaekit.utils.files import natural_sort_key

Make = Callable[..., Path]
SRC = Path(__file__).parents[3] / "src"


def table(pack: Pack) -> list[dict[str, str]]:
    return list(csv.DictReader((pack.folder / "table.csv").read_text().splitlines()))


def split_by_path(pack: Pack) -> dict[str, str]:
    return {row["path"]: row["split"] for row in table(pack)}


def test_pixels_labels_and_table(photos: Make) -> None:
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(20)]
    root = photos(*names)
    pack = open_pack(root, DataConfig())
    assert pack.classes == ("cat", "dog") and pack.shape == (3, 8, 10) and pack.images.shape == (40, 8, 10, 3)
    assert sorted(pack.paths()) == sorted(names)
    ranges = [pack.splits[split] for split in ("train", "validation", "test")]
    assert [rows.start for rows in ranges] == [0, ranges[0].stop, 40] and ranges[2].stop == 40
    for index, row in enumerate(table(pack)):
        assert np.array_equal(pack.images[index], np.asarray(Image.open(root / row["path"])))
        assert pack.classes[pack.labels[index]] == row["label"] == row["path"].split("/")[0]
        assert (row["width"], row["height"]) == ("10", "8")
        assert index in range(pack.splits[row["split"]].start, pack.splits[row["split"]].stop)
    paths = pack.paths()
    assert all(paths[rows] == sorted(paths[rows], key=natural_sort_key) for rows in ranges)
    record = pack.describe()
    assert record["images"] == 40 and sum(record["counts"]["train"].values()) == record["splits"]["train"]
    assert record["fingerprint"] == pack.fingerprint and record["width"] == 10 and record["height"] == 8


def test_splits_and_classes_by_folder(photos: Make) -> None:
    root = photos("train/a/1.png", "train/b/2.png", "Val/a/3.png", "test/b/4.png", "test/b/deep/5.png")
    pack = open_pack(root, DataConfig())
    assert pack.classes == ("a", "b")
    splits = {"train": ["train/a/1.png", "train/b/2.png"], "validation": ["Val/a/3.png"]}
    splits["test"] = ["test/b/4.png", "test/b/deep/5.png"]
    assert split_by_path(pack) == {path: split for split, paths in splits.items() for path in paths}
    assert pack.labels[pack.splits["test"]].tolist() == [1, 1]
    flat = open_pack(photos("1.png", "2.png", folder="flat"), DataConfig())
    assert flat.classes == () and flat.labels.tolist() == [-1, -1]
    mixed = open_pack(photos("a/1.png", "2.png", "zoo/3.png", folder="mixed"), DataConfig())
    assert mixed.classes == ("a", "zoo", "(none)")
    labels = dict(zip(mixed.paths(), mixed.labels.tolist(), strict=True))
    assert labels == {"a/1.png": 0, "2.png": 2, "zoo/3.png": 1}


def test_folders_of_damaged_files_are_not_classes(photos: Make) -> None:
    root = photos("a/1.png", "b/1.png", "c/1.png")
    for broken in ("top.jpg", "b/1.png"):
        (root / broken).write_bytes(b"nothing")
    pack = open_pack(root, DataConfig())
    assert pack.classes == ("a", "c") and sorted(pack.labels.tolist()) == [0, 1]
    lone = photos("1.png", "2.png", "a/3.png", folder="lone")
    (lone / "a" / "3.png").write_bytes(b"nothing")
    pack = open_pack(lone, DataConfig())
    assert pack.classes == () and pack.labels.tolist() == [-1, -1]


UNUSABLE = dict.fromkeys(("socket.jpg", "pipe.png"), "not a regular file")
UNUSABLE |= dict.fromkeys(("out.png", "device.png"), "link to a file outside the folder")
UNUSABLE |= {"cut.png": "truncated", "empty.jpg": "empty", "huge.png": "over 100 million pixels"}
UNUSABLE |= {"text.gif": "not in a supported format", "raw.NEF": "camera RAW (convert it to TIFF or JPEG)"}
UNUSABLE |= {"linked": "link to a folder", "loop.png": "link to a missing file"}
UNUSABLE |= {"page.jpg": "web page (HTML)", "pointer.png": "Git LFS pointer (run `git lfs pull`)"}


def add_unusable_files(root: Path, outside: Path) -> None:
    """Add files of every kind that is skipped; the current folder must be `root`."""
    good = (root / "1.png").read_bytes()
    (root / "cut.png").write_bytes(good[: len(good) // 2])
    (root / "empty.jpg").touch()
    (root / "huge.png").write_bytes(huge_png(10_001, 10_001))
    (root / "text.gif").write_text("no image")
    Image.new("RGB", (8, 8)).save(root / "disguised.png", "PPM")
    (root / "raw.NEF").write_bytes(b"II*\0")
    (root / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (root / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    (root / "notes.txt").write_text("x")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")  # the path of a socket must be short
    (root / "out.png").symlink_to(outside / "secret.png")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "linked").symlink_to(outside)
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "alias.png").symlink_to("2.png")
    (root / "2.png").chmod(0o444)
    os.utime(root / "3.png", ns=(1, 1_234_567_891_234_567_891))
    os.utime(root, ns=(1, 987_654_321_987_654_321))


def test_unusable_files_are_listed_and_folder_is_unchanged(photos: Make, monkeypatch: MonkeyPatch) -> None:
    root = photos("1.png", "2.png", "3.png", ".hidden.png", ".git/x.png", "__MACOSX/4.png", "a b ü.png")
    monkeypatch.chdir(root)
    add_unusable_files(root, photos("secret.png", folder="outside"))
    before = folder_state(root)
    pack = open_pack(root, DataConfig())
    assert folder_state(root) == before
    assert sorted(pack.paths()) == ["1.png", "2.png", "3.png", "a b ü.png", "disguised.png"]
    assert pack.describe()["copies"] == [{"path": "alias.png", "of": "2.png"}]
    assert dict(pack.skipped) == UNUSABLE
    record = pack.describe()
    assert {"path": "cut.png", "reason": "truncated"} in record["skipped"]
    assert record["files_that_are_no_images"] == 1
    assert f"{len(pack.skipped)} files skipped: " in pack.summary and "1 truncated" in pack.summary
    assert "1 Git LFS pointer (run `git lfs pull`)" in pack.summary
    assert "Not read: links to folders (linked/) and 2 links to files elsewhere." in pack.summary
    assert not any(b"secret" in path.encode() for path in pack.paths())


def test_fewer_than_two_images(photos: Make) -> None:
    root = photos("1.png")
    (root / "empty.png").touch()
    with user_error(r"'photos' contains 1 usable image \(1 skipped: 1 empty\); at least 2"):
        open_pack(root, DataConfig())
    refused("contains no images", open_pack, photos("x/.no.png", folder="none"), DataConfig())
    np.save(root.parent / "none" / "images.npy", np.zeros((2, 8, 8), np.uint8))
    with user_error(r"no image files, but images\.npy\. Give '.*none/images\.npy'"):
        open_pack(root.parent / "none", DataConfig())
    refused("does not exist", open_pack, root / "nowhere", DataConfig())
    (root / "photos.zip").touch()
    refused(r"photos.zip' is damaged, or not an archive", open_pack, root / "photos.zip", DataConfig())
    refused("neither a folder", open_pack, root / "1.png", DataConfig())


def test_size_is_chosen_from_the_data(tmp_path: Path) -> None:
    def sized(name: str, *sizes: tuple[int, int]) -> tuple[int, int, int]:
        for index, size in enumerate(sizes):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", size, (index, 2, 3)).save(tmp_path / name / f"{index}.png")
        return open_pack(tmp_path / name, DataConfig()).shape

    assert sized("same", (28, 19), (28, 19)) == (3, 19, 28)
    assert sized("large", (300, 200), (300, 200)) == (3, 64, 64)
    assert sized("mixed", (40, 30), (50, 32), (60, 90)) == (3, 32, 32)
    assert sized("lines", (256, 1), (256, 1)) == (3, 1, 256)
    assert sized("long", (400, 11), (400, 11)) == (3, 11, 11)
    summary = open_pack(tmp_path / "large", DataConfig()).summary
    assert "64x64 and centre-cropped (originals up to 300x200)" in summary
    assert "28x19 (not resized)" in open_pack(tmp_path / "same", DataConfig()).summary
    wide = open_pack(tmp_path / "large", DataConfig(size="48x16", fit="stretch"))
    assert wide.shape == (3, 16, 48) and "48x16" in wide.summary


def test_channels_are_what_the_images_have(tmp_path: Path) -> None:
    def saved(name: str, *images: Image.Image, **settings: str) -> Pack:
        (tmp_path / name).mkdir(exist_ok=True)
        for index, image in enumerate(images):
            image.save(tmp_path / name / f"{index}.png")
        return open_pack(tmp_path / name, DataConfig(**settings))

    gray = [Image.new("L", (8, 8), 50), Image.new("LA", (8, 8), (60, 255)), Image.new("1", (8, 8), 1)]
    pack = saved("gray", *gray)
    assert pack.shape[0] == 1 and sorted(pack.images[:, 0, 0, 0].tolist()) == [50, 60, 255]
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    pack = saved("both", gray[0], clear, background="#0000ff")
    assert pack.shape[0] == 3 and sorted(pack.images[:, 0, 0].tolist()) == [[0, 0, 255], [50, 50, 50]]
    pack = saved("both", gray[0], clear, alpha="keep")
    assert pack.shape[0] == 4 and sorted(pack.images[:, 0, 0].tolist()) == [[50, 50, 50, 255], [255, 0, 0, 0]]
    assert saved("opaque", gray[0], Image.new("RGB", (8, 8), "red"), alpha="keep").shape[0] == 3


def test_copies_in_several_classes_are_read_in_each(photos: Make) -> None:
    root = photos(*[f"{'ab'[i % 2]}/{i}.png" for i in range(12)])
    shutil.copy(root / "a" / "0.png", root / "a" / "copy.png")
    shutil.copy(root / "a" / "0.png", root / "b" / "other.png")
    pack = open_pack(root, DataConfig())
    assert len(pack.images) == 13
    assert "14 images, 12 distinct: of copies one is read in each class." in pack.summary
    assert "1 image is in several classes, e.g. " in pack.summary


def test_copies_are_never_in_two_splits(photos: Make) -> None:
    root = photos(*[f"{i}.png" for i in range(12)])
    for i in range(12):
        shutil.copy(root / f"{i}.png", root / f"copy of {i}.png")
    pack = open_pack(root, DataConfig(validation="0.3"))
    assert len(pack.images) == 12 and "24 images, 12 distinct: of copies one is read." in pack.summary
    assert {one["of"] for one in pack.describe()["copies"]} == {f"{i}.png" for i in range(12)}
    splits = split_by_path(open_pack(root, DataConfig(validation="0.3", copies="keep")))
    assert len(splits) == 24 and set(splits.values()) == {"train", "validation"}
    assert all(splits[f"{i}.png"] == splits[f"copy of {i}.png"] for i in range(12))
    (root / "test").mkdir()
    shutil.copy(root / "3.png", root / "test" / "3.png")
    pack = open_pack(root, DataConfig(validation="0.3"))
    assert split_by_path(pack)["test/3.png"] == "test" and "3.png" not in split_by_path(pack)
    assert pack.skipped == [("3.png", "duplicated in test"), ("copy of 3.png", "duplicated in test")]


def test_splits_are_stable_when_a_folder_changes(photos: Make) -> None:
    root = photos(*[f"{i}.png" for i in range(30)])
    before = open_pack(root, DataConfig(validation="0.3"))
    photos(*[f"{i}.png" for i in range(30, 50)])
    after = open_pack(root, DataConfig(validation="0.3"))
    assert len(split_by_path(after)) == 50 and split_by_path(before).items() <= split_by_path(after).items()
    assert before.fingerprint != after.fingerprint
    shutil.copytree(root, root.parent / "moved")
    assert open_pack(root.parent / "moved", DataConfig(validation="0.3")).fingerprint == after.fingerprint


def test_packs_are_reused(photos: Make, cache: Path) -> None:
    root = photos("1.png", "2.png", "3.png")
    first = open_pack(root, DataConfig())
    files = folder_state(first.folder)
    second = open_pack(root, DataConfig(flip=True))  # augmentation does not change the pack
    assert second.folder == first.folder and second.fingerprint == first.fingerprint
    assert folder_state(first.folder) == files
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == ["images.npy", "labels.npy", "pack.json", "table.csv"]
    assert open_pack(root, DataConfig(size="4")).folder != first.folder
    os.utime(root / "2.png", ns=(5, 5))
    changed = open_pack(root, DataConfig())
    assert changed.folder != first.folder and changed.fingerprint == first.fingerprint
    (changed.folder / "images.npy").write_bytes(b"damaged")
    assert np.array_equal(open_pack(root, DataConfig()).images, first.images)
    assert clear_cache() > 0
    assert not [path for path in (cache / "vaekit" / "packs").iterdir() if path.is_dir()]


# a shell's & ignores the signal
SCRIPT = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
SCRIPT += "from vaekit.data.packs.pack import open_pack; from vaekit.config.data import DataConfig\n"
SCRIPT += "print(open_pack(sys.argv[1], DataConfig(size='64'), quiet=True).fingerprint)"


def builder(root: Path) -> Process:
    command = [sys.executable, "-c", SCRIPT, str(root)]
    env = os.environ | {"PYTHONPATH": str(SRC)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Enough work to be interrupted, on a busy machine too."""
    root = tmp_path / "many"
    root.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)
    for index in range(60):
        Image.fromarray(np.roll(noise, index, 1)).save(root / f"{index}.jpg", quality=95)
        for copy in range(3):
            shutil.copy(root / f"{index}.jpg", root / f"{index}-{copy}.jpg")
            with (root / f"{index}-{copy}.jpg").open("ab") as file:
                file.write(bytes(copy + 1))  # another file with the same pixels
    return root


def workers(at: Path) -> list[str]:
    """Other processes with `at`, or a file below it, open."""
    processes = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
            except OSError:
                continue
            processes += [process.name for path in opened if path.startswith(str(at))]
    return processes


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build_leaves_no_pack(many: Path, cache: Path, how: signal.Signals) -> None:
    packs = cache / "vaekit" / "packs"
    for _ in range(20):  # on a busy machine a build may end before the signal is sent
        process = builder(many)
        wait_for(lambda: any(packs.glob(".*/staging")), process)
        process.send_signal(how)
        process.communicate()
        if process.returncode != 0:
            break
        shutil.rmtree(packs)
    assert process.returncode != 0
    assert not list(packs.glob("[!.]*"))
    wait_for(lambda: not workers(many.parent))
    assert not workers(many.parent), "workers outlive their parent"
    left = [path for path in packs.glob(".*") if path.is_dir()]
    assert len(left) == (how == signal.SIGKILL)
    pack = open_pack(many, DataConfig(size="64"))
    assert len(pack.images) == 240 and not [path for path in packs.glob(".*") if path.is_dir()]


def test_two_processes_build_one_pack(many: Path, cache: Path) -> None:
    processes = [builder(many), builder(many)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] and len(outputs[0][0].strip()) == 64
    assert len([path for path in (cache / "vaekit" / "packs").iterdir() if path.is_dir()]) == 1


def test_an_image_that_crashes_its_decoder_is_skipped(photos: Make) -> None:
    root = photos(*[f"{i}.png" for i in range(20)])
    Image.new("RGB", (9000, 9000)).save(root / "poison.png")  # slow enough to be caught in the act
    done = threading.Event()

    def crash() -> None:
        while not done.is_set():
            for process in workers(root / "poison.png"):
                with suppress(ProcessLookupError):  # gone already
                    os.kill(int(process), signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    try:
        pack = open_pack(root, DataConfig(size="8"))
    finally:
        done.set()
        thread.join()
    assert pack.skipped == [("poison.png", "crashed the decoder")] and len(pack.images) == 20


def test_a_full_disk_is_reported(photos: Make, monkeypatch: MonkeyPatch) -> None:
    root = photos("1.png", "2.png", *[f"{i}.png" for i in range(3, 60)])
    assert os.statvfs("/proc").f_bavail == 0
    refused(r"needs .* MB, but only 0 MB are free", require_pack_space, Path("/proc"), 59, 64 * 64 * 3)
    assert open_pack(root, DataConfig()).images.shape[0] == 59


def test_load_images(photos: Make) -> None:
    root = photos("1.png")
    got = load_images([root / "1.png"], DataConfig(), (3, 8, 10))
    assert np.array_equal(got[0], np.asarray(Image.open(root / "1.png")))
    assert load_images([str(root / "1.png")] * 2, DataConfig(), (1, 5, 4)).shape == (2, 5, 4, 1)
    assert load_images([root / "1.png"], DataConfig(), (4, 8, 10))[0, 0, 0, 3] == 255
    (root / "bad.png").touch()
    os.mkfifo(root / "pipe.png")
    unusable = {"pipe.png": "not a regular file", "bad.png": "empty", "none.png": "not found"}
    unusable["."] = "is a folder"
    for bad, why in unusable.items():
        refused(f"cannot be used .*{why}", load_images, [root / bad], DataConfig(), (3, 8, 10))
