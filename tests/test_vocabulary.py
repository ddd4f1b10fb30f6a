"""Names and texts use the field's words, not the private vocabulary of the first version."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("src/vaekit", "tests", "benchmarks", "tools")
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GLOSSARY = (
    "again anew asked beside found judge judged kept mended own remedy room "
    "said side thing told wanted ways whole"
)
"""Names of the private vocabulary of 0.1.0; the glossary of the field's words replaced them."""
PHRASES = re.compile("side of the data|by heart|goes on|mends|anew|of your own".replace(" ", r"\s+"))


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The lines and names of what a module defines: variables, parameters, functions, classes, attributes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_name_is_a_private_word(folder: str) -> None:
    used = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in MODULES
        if path.is_relative_to(ROOT / folder)
        for line, name in names(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_").lower() in GLOSSARY.split()
    ]
    assert not used, "\n".join(used)


def texts(path: Path) -> list[tuple[int, str]]:
    """A page, or the literals of a module, with their first lines."""
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [(1, content)]
    literals = (node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Constant))
    return [(node.lineno, node.value) for node in literals if isinstance(node.value, str)]


def test_no_text_has_a_private_phrase() -> None:
    used = [
        f"{path.relative_to(ROOT)}:{line + text[: match.start()].count(chr(10))}: {match[0]}"
        for path in {*MODULES, *PAGES} - {Path(__file__)}
        for line, text in texts(path)
        for match in PHRASES.finditer(text)
    ]
    assert not used, "\n".join(sorted(used))


def test_private_words_are_seen() -> None:
    tree = ast.parse("def f(kept):\n    said.found = kept\n    for side in told: pass")
    assert {name for _, name in names(tree) if name in GLOSSARY.split()} == {"kept", "side", "found"}
