"""Every command and every line of Python that the README shows, run as they stand in a folder that has
photos/."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from command import forked_command, rings
from vaekit.config.presets import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
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
    (programs / "vaekit").write_text(f'#!/bin/sh\nexec {shlex.join(forked_command())} "$@"\n')
    (programs / "vaekit").chmod(0o755)
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands(tmp_path: Path) -> None:
    photos(tmp_path)
    run(["bash", "-euc"], blocks("bash"), tmp_path)
    assert len(list((tmp_path / "runs/photos/generated/set-1").glob("0*.png"))) == 64
    assert (tmp_path / "runs/photos/loss.png").exists()
    listed = re.findall(
        r"^  (\S+?/?)\s", README[README.index("runs/photos/\n") :].split("```")[0], re.MULTILINE
    )
    assert len(listed) == 8
    for name in listed:
        assert (tmp_path / "runs/photos" / name).exists(), name


def test_the_python(tmp_path: Path) -> None:
    photos(tmp_path)
    assert "val_loss" in run([sys.executable, "-c"], blocks("python"), tmp_path)


def test_component_of_the_docs_can_be_built(tmp_path: Path) -> None:
    """In a separate process, since it registers a component."""
    script = f"""
from vaekit.config.likelihoods import *
from vaekit.models.likelihoods import *
from torch.distributions import Independent
{blocks("python", (ROOT / "docs" / "adding-a-component.md").read_text(encoding="utf-8"))}
p = Student(StudentLikelihoodConfig(), BuildContext())(torch.zeros(2, 3, 1, 4, 4))
print(p.log_prob(torch.zeros(3, 1, 4, 4)).shape, p.mean.shape)
"""
    assert "[2, 3]" in run([sys.executable, "-c"], script, tmp_path)


def test_every_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    "script",
    [
        "tools/docs/components.py",
        "tools/docs/performance.py",
        "tools/docs/published.py",
        "tools/docs/samples.py",
    ],
)
def test_generated_pages_are_up_to_date(script: str) -> None:
    assert subprocess.run([sys.executable, ROOT / script, "--check"], check=False).returncode == 0


def test_what_presets_say_was_checked_was_measured() -> None:
    """And all that was measured is said: a preset's own row, its figures rounded as there."""
    results = [
        json.loads(path.read_text()) for path in (ROOT / "benchmarks/paper_table/results").glob("*.json")
    ]
    measured = {one["row"]: one for one in results if one["published_nll"]}
    said = {
        one.row: (name, one.nll, one.published) for name, preset in PRESETS.items() for one in preset.checked
    }
    assert said == {
        row: (one["preset"], round(one["nll"], 2), one["published_nll"]) for row, one in measured.items()
    }
