"""Check the built documentation offline: its pages load nothing from other hosts, and links to these are well
formed.

python tools/docs/check_site.py docs/_build/html
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

LOADING = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "input": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
"""Attributes whose address a browser loads by itself."""
NOT_LOADED = {"canonical", "alternate", "next", "prev", "author", "license", "search", "index"}
"""Kinds of `<link>` that are only mentioned."""
OTHER_HOST = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)
IN_SCRIPTS = re.compile(
    r"""["'`]((?!http://www\.w3\.org/)(?:https?:)?//[\w-]+(?:\.[\w-]+)+[^"'`\s]*)["'`]""", re.IGNORECASE
)
"""Addresses in scripts, but for the names of languages at w3.org, which are not loaded."""
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+", re.IGNORECASE)
ARXIV = re.compile(r"/(abs|pdf)/\d{4}\.\d{4,5}(v\d+)?")


class Page(HTMLParser):
    """What a page loads from other hosts, and where it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inside = tag
        self.loaded += IN_STYLES.findall(values.get("style", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        if tag == "link" and set(values.get("rel", "").split()) & NOT_LOADED:
            return
        for name in LOADING.get(tag, ()):
            value = values.get(name, "")
            parts = value.split(",") if name == "srcset" else [value]
            self.loaded += [part.strip() for part in parts if OTHER_HOST.match(part)]

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.loaded += IN_STYLES.findall(data)
        elif self.inside == "script":
            self.loaded += IN_SCRIPTS.findall(data)


def malformed(link: str) -> bool:
    """Whether a link to another host cannot lead anywhere, as far as its form tells."""
    address = urlsplit(link)
    if address.scheme not in ("http", "https"):
        return False
    wrong_paper = address.netloc == "arxiv.org" and not ARXIV.fullmatch(address.path)
    return not HOST.fullmatch(address.netloc) or wrong_paper or any(c.isspace() for c in link)


def problems(site: Path) -> Iterator[str]:
    """Everything that is wrong with a built site, a sentence each."""
    pages = sorted(site.rglob("*.html"))
    if not pages:
        yield f"{site} has no pages."
    for path in pages:
        page = Page(path.read_text(encoding="utf-8"))
        for address in page.loaded:
            yield f"{path.relative_to(site)} loads {address}"
        for link in filter(malformed, page.links):
            yield f"{path.relative_to(site)} links to {link}, which is malformed"
    for suffix, pattern in ((".css", IN_STYLES), (".js", IN_SCRIPTS)):
        for path in sorted(site.rglob(f"*{suffix}")):
            for address in pattern.findall(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(site)} loads {address}"


def main() -> int:
    lines = list(problems(Path(sys.argv[1])))
    print("\n".join(lines) or "The site loads nothing from other hosts.")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
