"""What would be trained is shown without training."""

from pathlib import Path

from PIL import Image

from command import mistake, rings, save_images, vaekit


def test_plan_shows_the_data_and_trains_nothing(tmp_path: Path) -> None:
    images = rings(24, 16, 3)
    root = save_images(tmp_path / "set", {f"{'ab'[i % 2]}/{i}.png": image for i, image in enumerate(images)})
    (root / "a" / "broken.png").write_bytes(b"x")
    output = vaekit("train", root, "--plan", cwd=tmp_path)
    assert "24 images in 2 classes" in output and "Preset: best" in output
    table = [line.split() for line in output.splitlines()]
    assert ["class", "train", "validation"] in table
    counts = [
        [int(cell) for cell in row[1:]] for row in table if row and row[0] in ("a", "b") and len(row) == 3
    ]
    assert len(counts) == 2 and sum(map(sum, counts)) == 24
    assert "Skipped, not in a supported format: a/broken.png (1)" in output
    with Image.open(tmp_path / "set-plan-1.png") as sheet:
        assert min(sheet.size) > 100
    assert not (tmp_path / "runs").exists()
    assert "is inside the image folder" in mistake("train", ".", "--plan", cwd=root)
