"""Arrays in files, in memory and from torch data sets."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from command import refused
from vaekit.config.data import DataConfig
from vaekit.data.packs.pack import Pack, open_pack
from vaekit.data.sources.pixels import to_uint8_images
from vaekit.errors import spelled

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (40, 7, 5), np.uint8)
COLOUR = RNG.integers(0, 256, (40, 7, 5, 3), np.uint8)
LABELS = np.arange(40) % 4


def in_order(pack: Pack) -> np.ndarray:
    """The images of a pack whose source has one block, in the order of the source."""
    return pack.images[np.argsort([int(path.split("/")[1]) for path in pack.paths()])]


def labels_in_order(pack: Pack) -> np.ndarray:
    return pack.labels[np.argsort([int(path.split("/")[1]) for path in pack.paths()])]


def test_arrays_and_tensors_of_every_type() -> None:
    assert np.array_equal(to_uint8_images(GRAY), GRAY[..., None])
    assert np.array_equal(to_uint8_images(COLOUR), COLOUR)
    assert np.array_equal(to_uint8_images(GRAY > 9), np.where(GRAY > 9, 255, 0)[..., None])
    for dtype in (np.float32, np.float64):
        assert np.array_equal(to_uint8_images((COLOUR / 255).astype(dtype)), COLOUR)
    assert to_uint8_images(np.full((2, 3, 3), 0.5)).max() == 128
    assert np.array_equal(to_uint8_images(list(COLOUR)), COLOUR)
    tensor = torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    assert np.array_equal(to_uint8_images(tensor), COLOUR)
    assert np.array_equal(to_uint8_images((tensor / 255).requires_grad_()), COLOUR)
    assert np.array_equal(to_uint8_images(torch.from_numpy(GRAY)), GRAY[..., None])
    assert to_uint8_images((tensor / 255).to(torch.bfloat16)).shape == COLOUR.shape


RANGE = "values of .*array.* range from"
IMAGENET = ((COLOUR / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
INVALID = [
    (COLOUR / 127.5 - 1, rf"{RANGE} -1 to 1 instead of 0 to 1\. Undo the normalization: \(images \+ 1\) / 2"),
    (IMAGENET, r"Undo the normalization, images \* std \+ mean"),
    (COLOUR.astype(np.float32), rf"{RANGE} 0 to 255 instead of 0 to 1\. Divide by 255, .*: images / 255"),
    (COLOUR / 255 * 16, r"Divide by 16, the highest possible value: images / 16"),
    (COLOUR.astype(np.uint16) * 16, r"instead of levels from 0 to 255\. Divide by 4095, .*range='0:4095'"),
    (COLOUR / 255 * 1.05 - 0.02, r"Clip them: images\.clip\(0, 1\)"),
    (np.where(COLOUR > 250, np.nan, 0.5), "NaN or infinite"),
    (np.where(COLOUR > 250, np.inf, 0.5), "NaN or infinite"),
    (np.where(np.arange(2000).reshape(-1, 1, 1) == 1500, np.nan, 0.5), "NaN or infinite"),
    (COLOUR.astype(np.complex64), "dtype of .*array.* is complex64. Use uint8"),
    (COLOUR.transpose(0, 3, 1, 2), r"is 40 x 3 x 7 x 5\. .*images\.transpose\(0, 2, 3, 1\)"),
    (COLOUR[0], r"is 7 x 5 x 3\. It looks like one picture"),
    (COLOUR[0, 0], r"shape of the array is 5 x 3\. .*images\.reshape\(-1, height, width\)"),
    ([COLOUR[0], COLOUR[0, 1:]], "differ in shape"),
    (np.zeros((8, 8, 3, 20)), r"looks like \[H, W, C, N\].*images\.transpose\(3, 0, 1, 2\)"),
    (np.zeros((9, 8)), r"One picture alone is images\[None\]"),
    (["a.png", "b.png"], "has texts in the place of pixels.*give their folder"),
    ([GRAY[0], None], "Python objects in the place of pixels|differ in shape"),
]


@pytest.mark.parametrize(("values", "message"), INVALID)
def test_invalid_arrays_are_refused_with_a_fix(values: Any, message: str) -> None:
    refused(message, to_uint8_images, values)
    refused(message, open_pack, values, DataConfig())


def test_a_pack_of_an_array_and_labels() -> None:
    pack = open_pack((COLOUR, LABELS), DataConfig())
    assert pack.shape == (3, 7, 5) and pack.classes == ("0", "1", "2", "3") and pack.name == "array"
    assert np.array_equal(in_order(pack), COLOUR) and np.array_equal(labels_in_order(pack), LABELS)
    assert open_pack((COLOUR, LABELS), DataConfig()).folder == pack.folder
    same_contents = open_pack((COLOUR / 255, LABELS), DataConfig())
    assert same_contents.fingerprint == pack.fingerprint
    other = COLOUR.copy()
    other[3, 0, 0, 0] ^= 1
    assert open_pack((other, LABELS), DataConfig()).fingerprint != pack.fingerprint
    assert open_pack(COLOUR, DataConfig()).classes == ()
    named = open_pack((GRAY, np.array(["b", "a"] * 20)), DataConfig())
    assert named.classes == ("a", "b") and labels_in_order(named).tolist() == [1, 0] * 20
    sparse = open_pack((GRAY, torch.tensor([[7], [30]] * 20)), DataConfig())
    assert sparse.classes == ("7", "30") and labels_in_order(sparse).tolist() == [0, 1] * 20
    refused("40 images but labels of shape 39", open_pack, (GRAY, LABELS[1:]), DataConfig())


def test_arrays_are_resized_only_when_asked() -> None:
    assert open_pack(GRAY, DataConfig(size="4x8", fit="stretch")).shape == (1, 8, 4)
    padded = open_pack(GRAY, DataConfig(size="9", fit="pad", background="red"))
    assert padded.shape == (3, 9, 9) and padded.images[0, 0, 0].tolist() == [255, 0, 0]
    clear = np.concatenate([COLOUR, np.zeros((40, 7, 5, 1), np.uint8)], 3)
    assert open_pack(clear, DataConfig(alpha="keep")).shape == (4, 7, 5)
    composited = open_pack(clear, DataConfig(background="blue"))
    assert composited.shape == (3, 7, 5) and (composited.images == [0, 0, 255]).all()


def test_copies_of_validation_images_leave_training() -> None:
    images = GRAY.copy()
    images[2] = images[39]
    pack = open_pack((images, LABELS), DataConfig(validation="last:10"))
    assert np.array_equal(pack.images[pack.splits["validation"]][..., 0], images[30:])
    assert np.array_equal(pack.images[pack.splits["train"]][..., 0], np.delete(images[:30], 2, 0))
    assert pack.skipped == [("train/2", "duplicated in validation")]


SHORT_NAMES = ("x_train", "y_train", "x_test", "y_test")
LONG_NAMES = ("train_images", "train_labels", "test_images", "test_labels")


@pytest.mark.parametrize("names", [SHORT_NAMES, LONG_NAMES])
def test_npz_with_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    values = (COLOUR[:30], LABELS[:30, None], COLOUR[30:], LABELS[30:, None])
    np.savez(tmp_path / "set.npz", **dict(zip(names, values, strict=True)))
    pack = open_pack(tmp_path / "set.npz", DataConfig())
    assert pack.name == "set" and pack.classes == ("0", "1", "2", "3")
    assert np.array_equal(pack.images[pack.splits["test"]], COLOUR[30:])
    assert np.array_equal(pack.labels[pack.splits["test"]], LABELS[30:])
    assert pack.splits["validation"].stop == 30


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("arr_0", "arr_1"), ("anything", None)])
def test_npz_without_splits_and_npy(tmp_path: Path, names: tuple[str, str | None]) -> None:
    images, labels = names
    np.savez(tmp_path / "set.npz", **{images: GRAY / 255} | ({labels: LABELS} if labels else {}))
    pack = open_pack(str(tmp_path / "set.npz"), DataConfig())
    assert np.array_equal(in_order(pack)[..., 0], GRAY) and bool(pack.classes) == bool(labels)
    np.save(tmp_path / "set.npy", GRAY)
    assert np.array_equal(in_order(open_pack(tmp_path / "set.npy", DataConfig()))[..., 0], GRAY)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", a=GRAY, b=GRAY)
    np.savez(tmp_path / "objects.npz", x=np.array([GRAY, None], object))
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    np.savez(tmp_path / "normalised.npz", x_train=GRAY / 127.5 - 1)
    unreadable = "cannot be read as NumPy arrays"
    messages = {"names": "contains a, b. Name its arrays", "objects": unreadable, "broken": unreadable}
    for name, message in (messages | {"normalised": "Undo the normalization"}).items():
        refused(message, open_pack, tmp_path / f"{name}.npz", DataConfig())
    write_idx(tmp_path / "train-images-idx3-ubyte", GRAY)
    data = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    for broken in (data[:-1], data[:9], b"\0" + data[1:4] + data[5:]):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(broken)
        refused("Download it again", open_pack, tmp_path, DataConfig())


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">{values.ndim + 1}I", 0x800 + values.ndim, *values.shape)
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_folder(tmp_path: Path, ending: str, dot: str) -> None:
    for prefix, part in (("train", slice(30)), ("t10k", slice(30, 40))):
        write_idx(tmp_path / f"{prefix}-images{dot}idx3-ubyte{ending}", GRAY[part])
        write_idx(tmp_path / f"{prefix}-labels{dot}idx1-ubyte{ending}", LABELS[part])
    pack = open_pack(tmp_path, DataConfig())
    assert pack.shape == (1, 7, 5) and pack.classes == ("0", "1", "2", "3")
    assert np.array_equal(pack.images[pack.splits["test"]][..., 0], GRAY[30:])
    assert pack.splits["validation"].stop == 30 and 0 < pack.splits["train"].stop < 30


def test_the_bundled_sample() -> None:
    pack = open_pack(None, DataConfig())
    assert pack.shape == (1, 28, 28) and len(pack.images) == 10_000
    assert np.bincount(pack.labels).tolist() == [1000] * 10
    assert pack.classes[0] == "T-shirt/top" and pack.classes[9] == "Ankle boot"
    mean = [pack.images[pack.labels == kind].mean() for kind in range(10)]
    # Sandals are dark; pullovers and coats fill the picture.
    assert np.argmin(mean) == 5 and np.argmax(mean) in (2, 4)
    sample = Path(to_uint8_images.__code__.co_filename).parents[1] / "sample"
    assert "Copyright (c) 2017 Zalando SE" in (sample / "LICENSE.txt").read_text()
    assert sum(file.stat().st_size for file in sample.iterdir()) < 5_000_000


class Pictures(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.from_numpy(GRAY))


@pytest.mark.parametrize("scale", [1, 255])
def test_tensor_dataset_and_loader(scale: int) -> None:
    images = torch.from_numpy(COLOUR).permute(0, 3, 1, 2)
    data = TensorDataset(images if scale == 1 else images / scale, torch.from_numpy(LABELS))
    for source in (data, DataLoader(data, batch_size=7)):
        pack = open_pack(source, DataConfig())
        assert np.array_equal(in_order(pack), COLOUR) and np.array_equal(labels_in_order(pack), LABELS)
    unlabelled = open_pack(DataLoader(TensorDataset(images), batch_size=7), DataConfig())
    assert np.array_equal(in_order(unlabelled), COLOUR) and unlabelled.classes == ()
    assert np.array_equal(in_order(open_pack(Stream(), DataConfig()))[..., 0], GRAY)


def test_dataset_of_pillow_images() -> None:
    pictures = [Image.fromarray(image) for image in COLOUR[:6]]
    pack = open_pack(Pictures(*((image, index % 2) for index, image in enumerate(pictures))), DataConfig())
    assert np.array_equal(in_order(pack), COLOUR[:6]) and pack.classes == ("0", "1")
    assert open_pack(Pictures(*map(Image.fromarray, GRAY)), DataConfig()).shape == (1, 7, 5)
    uneven = Pictures(*pictures, Image.new("L", (30, 20), 9))
    refused(r"differ in shape: 7x5x3 and 20x30x3\. Set `size`", open_pack, uneven, DataConfig())
    assert open_pack(uneven, DataConfig(size="4")).shape == (3, 4, 4)


def test_invalid_datasets_are_refused(cache: Path) -> None:
    normalised = Pictures(*(torch.from_numpy(COLOUR).permute(0, 3, 1, 2) / 127.5 - 1))
    invalid = [(normalised, "Undo the normalization"), (Pictures(), "no items in the Pictures")]
    invalid += [(Pictures({"image": 1}), "has type int"), (Pictures((1, 2, 3)), "has 3 parts")]
    invalid += [(Pictures({"a": 1, "b": 2}), "has the keys a, b. Name the image 'image'")]
    invalid += [(Pictures((COLOUR[0], [0.5, 0.5])), "label of an item of the Pictures has shape 2")]
    invalid += [(Pictures((COLOUR[0], {"boxes": [1]})), "label of an item of the Pictures is a dict")]
    for source, message in invalid:
        refused(message, open_pack, source, DataConfig())
    refused("type int is not a source", open_pack, 3, DataConfig())
    assert not list((cache / "vaekit" / "packs").iterdir())


def test_one_picture_with_channels_first_may_be_three_gray_images() -> None:
    taken_for = "taken for 3 gray images of 12x10. If it is one picture [C, H, W]"
    picture = np.random.default_rng(0).integers(0, 256, (3, 10, 12), np.uint8)
    assert taken_for in open_pack(picture, DataConfig()).summary
    assert "taken for" not in open_pack(np.concatenate([picture, picture + 1]), DataConfig()).summary


def test_an_array_with_the_number_last_is_said() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 10, 25), np.uint8)
    assert "If it is [H, W, N], give images.transpose(2, 0, 1)." in open_pack(images, DataConfig()).summary
    assert "taken for" not in open_pack(images.transpose(2, 0, 1), DataConfig()).summary


def test_tables_and_one_hot_labels_are_answered_with_the_line_to_write() -> None:
    frame = pd.DataFrame(GRAY.reshape(len(GRAY), -1))
    refused(r"frame\.to_numpy\(\)\.reshape", open_pack, frame, DataConfig())
    one_hot = np.eye(2)[np.arange(len(GRAY)) % 2]
    refused(r"labels of shape .* that is labels\.argmax\(1\)", open_pack, (GRAY, one_hot), DataConfig())


def test_data_sets_that_raise_or_hold_pairs_of_pictures() -> None:
    class Raising(Pictures):
        def __getitem__(self, index: int) -> Any:
            raise ZeroDivisionError("no such shade")

    message = r"Item 0 of the Raising cannot be read \(ZeroDivisionError: no such shade\)"
    refused(message, open_pack, Raising(COLOUR[0]), DataConfig())
    pictures = [Image.fromarray(image) for image in COLOUR[:6]]
    pairs = open_pack(Pictures(*zip(pictures, pictures[::-1], strict=True)), DataConfig())
    assert "Not read of the items of the Pictures: the second image." in pairs.summary


def test_the_range_of_a_data_set_is_applied_once() -> None:
    values = np.random.default_rng(0).integers(0, 4096, (12, 8, 8)).astype(np.uint16)
    values[:, 0, 0] = 4095
    expected = np.rint(values / 4095 * 255)
    pictures = Pictures(*map(Image.fromarray, values))
    tensors = Pictures(*(torch.from_numpy(image / 4095.0 * 2 - 1)[None] for image in values))
    for source, ends in ((pictures, "0:4095"), (tensors, "-1:1")):
        pack = open_pack(source, DataConfig(range=ends))
        assert np.abs(in_order(pack)[..., 0].astype(int) - expected).max() <= 1
        assert pack.metadata["reading"]["limits"] == [float(end) for end in ends.split(":")]
    levels = (values // 256).astype(np.uint8)  # of 8 bits, from 0 to 15
    pack = open_pack(Pictures(*map(Image.fromarray, levels)), DataConfig(range="0:15"))
    assert np.array_equal(in_order(pack)[..., 0], levels * 17)


def test_lists_of_pillow_images_are_colours_or_gray() -> None:
    pictures = [Image.fromarray(image) for image in COLOUR[:6]]
    for mode in ("P", "CMYK", "YCbCr", "RGBA"):
        got = in_order(open_pack([picture.convert(mode) for picture in pictures], DataConfig()))
        near = [np.asarray(picture.convert(mode).convert("RGB")) for picture in pictures]
        assert np.array_equal(got, near), mode
    mixed = [pictures[0].convert("L"), *pictures[1:]]
    assert open_pack(mixed, DataConfig()).shape[0] == 3
    assert open_pack([picture.convert("L") for picture in pictures], DataConfig()).shape[0] == 1


def test_dark_floats_are_answered_in_their_units() -> None:
    dark = np.random.default_rng(0).random((12, 8, 8)) * 0.2
    assert "range='0:0.2'" in spelled(open_pack(dark, DataConfig()).summary)
    summary = open_pack(dark, DataConfig(range="0:0.2")).summary
    assert "nearly black" not in summary and "blank" not in summary


def test_what_is_not_read_of_items_is_said_and_errors_name_the_loader() -> None:
    items = [{"image": image, "digit": 3, "place": 1} for image in COLOUR[:6]]
    assert "Not read of the items of the Pictures: digit, place." in (
        open_pack(Pictures(*items), DataConfig()).summary
    )
    loader = DataLoader(Pictures(*(Image.fromarray(image) for image in COLOUR[:6])), batch_size=2)
    refused("cannot be read .*Give the data set itself, loader.dataset", open_pack, loader, DataConfig())
    channels_first = Pictures(*np.ascontiguousarray(COLOUR[:6].transpose(0, 3, 1, 2)))
    assert np.array_equal(in_order(open_pack(channels_first, DataConfig())), COLOUR[:6])
    named = open_pack((COLOUR[:6], np.array([b"cat", b"dog"] * 3)), DataConfig())
    assert named.classes == ("cat", "dog")


def test_the_range_of_arrays_passes_over_what_is_not_finite() -> None:
    values = np.random.default_rng(0).random((12, 8, 8)) * 100
    values[0, 0, 0] = np.nan
    levels = in_order(open_pack(values, DataConfig(range="auto-set")))
    assert levels.max() == 255 and len(np.unique(levels)) > 200
