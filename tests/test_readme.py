"""The code of the README and of two pages of the documentation runs; other pages refer to what exists."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import PIPES, finish, forked_command, rings, save_images
from vaekit.config.presets import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCS = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("architecture.md", "data.md")]
BLOCKS = BLOCK.findall("".join([README, *DOCS]))
PROGRAMS = {"bash": ["bash", "-euc"], "python": [sys.executable, "-c"]}
GENERATED = ("cli", "components", "performance", "presets", "published", "samples")


class Reader:
    """Runs the blocks in their order, in a folder that has photos/, photos.zip and attributes.csv."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.outputs = folder, list[str]()
        images = enumerate(rings(24, 24, 3))
        named = {f"{('rain', 'dry')[i % 2]}/{i // 2 + 1}.png": image for i, image in images}
        save_images(folder / "photos", named)
        shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
        rows = (f"{name},{name.split('/')[0]},{hour}" for hour, name in enumerate(named))
        (folder / "attributes.csv").write_text("\n".join(["file,weather,hour", *rows]))
        program = folder / "bin" / "vaekit"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.join(forked_command())} "$@"\n')
        program.chmod(0o755)

    def read_to(self, number: int) -> str:
        """The output of a block, after those before it."""
        env = os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        for language, script in BLOCKS[len(self.outputs) : number + 1]:
            command = [*PROGRAMS[language], script]
            process = subprocess.Popen(command, cwd=self.folder, env=env, text=True, **PIPES)
            self.outputs.append(finish(process, 0)[0])
        return self.outputs[number]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("readme"))


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_of_the_docs_runs(number: int, reader: Reader) -> None:
    output = reader.read_to(number)
    assert ("val_loss" in output) or "history" not in BLOCKS[number][1]


def test_files_of_a_run_are_those_listed(reader: Reader) -> None:
    reader.read_to(0)
    run = reader.folder / "runs/photos"
    assert len(list((run / "generated/set-1").glob("0*.png"))) == 64
    tree = README[README.index("runs/photos/\n") :].split("```")[0]
    listed = re.findall(r"^  (\S+?/?)\s", tree, re.MULTILINE)
    assert len(listed) == 11 and all((run / name).exists() for name in listed), listed


def test_component_of_the_docs_can_be_built() -> None:
    """In a separate process, since it registers a component."""
    page = (ROOT / "docs" / "adding-a-component.md").read_text(encoding="utf-8")
    script = f"""
from vaekit.config.likelihoods import *
from vaekit.models.likelihoods import *
from torch.distributions import Independent
{"".join(code for _, code in BLOCK.findall(page))}
p = Student(StudentLikelihoodConfig(), BuildContext())(torch.zeros(2, 3, 1, 4, 4))
print(p.log_prob(torch.zeros(3, 1, 4, 4)).shape, p.mean.shape)
"""
    assert b"[2, 3]" in subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout


def test_every_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", GENERATED)
def test_generated_pages_are_up_to_date(page: str) -> None:
    subprocess.run([sys.executable, ROOT / f"tools/docs/{page}.py", "--check"], check=True)


def test_presets_state_what_was_measured() -> None:
    files = (ROOT / "benchmarks/paper_table/results").glob("*.json")
    results = [json.loads(path.read_text()) for path in files]
    measured = {one["row"]: one for one in results if one["published_nll"]}
    rows = [(name, row) for name, preset in PRESETS.items() for row in preset.checked]
    assert {row.row: (name, row.nll, row.published) for name, row in rows} == {
        row: (one["preset"], round(one["nll"], 2), one["published_nll"]) for row, one in measured.items()
    }
