"""Every command and every line of Python that the README shows, run as they stand in a folder that has photos/."""

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from command import rings

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found
    return "\n".join(found)


def photos(folder: Path) -> None:
    for index, image in enumerate(rings(24, 24, 3)):
        place = folder / "photos" / ("rain", "dry")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index // 2 + 1}.png")


def run(command: list[str], script: str, folder: Path) -> str:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "vaekit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vaekit "$@"\n')
    (programs / "vaekit").chmod(0o755)
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run([*command, script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands(tmp_path: Path) -> None:
    photos(tmp_path)
    run(["bash", "-euc"], blocks("bash"), tmp_path)
    assert len(list((tmp_path / "runs/photos/generated/set-1").glob("0*.png"))) == 64
    assert (tmp_path / "runs/photos/loss.png").exists()
    listed = re.findall(r"^  (\S+?/?)\s", README[README.index("runs/photos/\n") :].split("```")[0], re.MULTILINE)
    assert len(listed) == 7
    for name in listed:
        assert (tmp_path / "runs/photos" / name).exists(), name


def test_the_python(tmp_path: Path) -> None:
    photos(tmp_path)
    assert "val_loss" in run([sys.executable, "-c"], blocks("python"), tmp_path)


def test_every_link_leads_somewhere() -> None:
    root = Path(__file__).parent.parent
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
