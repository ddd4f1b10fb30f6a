"""The documentation site: all pages are in it, their commands are valid, nothing is loaded from elsewhere."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cyclopts import CycloptsError, MissingArgumentError

from vaekit.cli.main import app
from vaekit.config.overrides import resolve
from vaekit.config.presets import PRESETS
from vaekit.errors import UserError
from vaekit.evaluation.diagnosis import CHECKS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
IN_BLOCK = re.compile(r"^(?:\$ )?(vaekit [^\n#>|]+)", re.MULTILINE)
IN_SENTENCE = re.compile(r"`(vaekit [^`>|]+)[^`]*`")
PLACEHOLDERS = {"VERB", "COMMAND"}


def load_tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/docs/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_site = load_tool("check_site")


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """The commands of vaekit in a page, and whether each is only mentioned in a sentence, where arguments may
    be left out and `...` stand for them."""
    shell = ("bash", "console")
    blocks = "".join(code for language, code in FENCED.findall(text) if language in shell)
    uses = [(match, False) for match in IN_BLOCK.findall(re.sub(r"\\\n\s*", "", blocks))]
    uses += [(match, True) for match in IN_SENTENCE.findall(FENCED.sub("", text))]
    for command, mentioned in uses:
        description = "..." in command or ", " in command
        if not description and not PLACEHOLDERS & {*command.split()}:
            yield command.replace("--help-all", "--help"), mentioned


def require_valid(command: str) -> None:
    """Parse the verb, its flags and values, and resolve the settings of a training; nothing runs."""
    arguments = shlex.split(command)[1:]
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    if arguments[0] == "train":
        preset = bound.arguments.get("preset") or "best"
        resolve(bound.arguments.get("settings") or {}, preset="best" if preset == "NAME" else preset)
    elif arguments[0] == "presets" and bound.args and "NAME" not in bound.args:
        resolve(preset=bound.args[0])


def faults(text: str) -> list[str]:
    """What is wrong with the commands of a page."""
    wrong = []
    for command, mentioned in commands(text):
        try:
            require_valid(command)
        except (CycloptsError, UserError) as error:
            if not (mentioned and isinstance(error, MissingArgumentError)):
                wrong.append(f"{command}: {error}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_valid(page: Path) -> None:
    wrong = faults(page.read_text(encoding="utf-8"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "Use `vaekit train photos/ --epoch 3`.",
        "Use `vaekit train photos/ --preset classical`.",
        "Use `vaekit train photos/ --fit shrink`.",
        "```console\n$ vaekit trian photos/   # typing error\n```",
        "```bash\nvaekit generate -n 8\n```",
        "`vaekit presets bets` shows one.",
    ],
)
def test_an_invalid_command_is_seen(text: str) -> None:
    assert len(faults(text)) == 1


def test_a_mention_may_leave_out_arguments() -> None:
    assert not faults("`vaekit evaluate` prints a diagnosis; `vaekit train ... --minutes 5` is short.")


def test_every_page_is_in_the_contents_of_the_site() -> None:
    docs = ROOT / "docs"
    index = (docs / "index.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    listed = [line for block in blocks for line in block.splitlines() if line and not line.startswith(":")]
    pages = {str(page.relative_to(docs).with_suffix("")) for page in docs.rglob("*.md")}
    pages = {page for page in pages if not page.startswith("_build")} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_troubleshooting_names_every_fault_of_the_diagnosis() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = page[page.index("| the diagnosis says") : page.index("[Evaluating a model]")]
    assert [name for name in ("unfinished training", *CHECKS) if name not in table] == []


def test_presets_to_choose_from_are_all_presets() -> None:
    page = (ROOT / "docs" / "choosing-a-preset.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE) == list(PRESETS)


@pytest.mark.parametrize(
    "content",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example.org/a.css">',
        '<link rel="preconnect" href="https://fonts.example.org">',
        '<img src="http://example.org/badge.svg">',
        '<img srcset="a.png 1x, https://example.org/b.png 2x">',
        '<div style="background: url(https://example.org/a.png)"></div>',
        "<style>@import 'https://example.org/a.css';</style>",
        '<script>fetch("https://example.org/data.json")</script>',
        '<script type="module">import a from "https://cdn.example.org/a.js"</script>',
        '<a href="https://arxiv.org/abs/13126114">paper</a>',
        '<a href="https:///no-host">nowhere</a>',
    ],
)
def test_what_a_page_loads_from_elsewhere_is_seen(content: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f"<html><body>{content}</body></html>")
    assert len(list(check_site.problems(tmp_path))) == 1


def test_styles_and_scripts_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html></html>")
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.example.org/a.woff2'); }")
    (tmp_path / "a.js").write_text("const address = 'https://cdn.example.org/mathjax.js';")
    assert len(list(check_site.problems(tmp_path))) == 2


def test_links_and_embedded_pictures_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="https://arxiv.org/abs/1312.6114">paper</a><img src="data:image/png;base64,//8=">'
        '<script src="_static/a.js"></script><link rel="canonical" href="https://example.org/">'
    )
    (tmp_path / "a.js").write_text("document.createElementNS('http://www.w3.org/2000/svg', 'svg')")
    assert not list(check_site.problems(tmp_path))


def test_a_site_without_pages_is_a_problem(tmp_path: Path) -> None:
    assert list(check_site.problems(tmp_path))
