"""Checks that a tag is the release that this tree says it is; prints the changelog's section.

``python tools/check_release.py v1.2.3``: the version of Cargo.toml, which Python takes too, that of
Cargo.lock, and the newest section of CHANGELOG.md must all be 1.2.3, and the section have a date.
Exits with 1 otherwise.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEADING = re.compile(r"^## (?P<version>\S+), (?P<date>.+)$", re.MULTILINE)


def section(tag: str, root: Path) -> str:
    """The changelog's section about a tag; raises ``ValueError`` where anything disagrees."""
    version = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))["package"]["version"]
    if tag != f"v{version}":
        raise ValueError(f"expected the tag v{version}, the version in Cargo.toml, got {tag}")
    packages = tomllib.loads((root / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    locked = {package["version"] for package in packages if package["name"] == "virtualtb-fast"}
    if locked != {version}:
        raise ValueError(f"expected {version} in Cargo.lock, got {', '.join(sorted(locked))}")
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    if not headings or headings[0]["version"] != version:
        newest = headings[0]["version"] if headings else "none"
        raise ValueError(f"expected {version} as the newest section of CHANGELOG.md, got {newest}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", headings[0]["date"]):
        raise ValueError(f"expected a date in CHANGELOG.md, got {headings[0]['date']!r}")
    end = headings[1].start() if len(headings) > 1 else len(text)
    return text[headings[0].end() : end].strip()


def main() -> None:
    """Checks and prints."""
    try:
        print(section(sys.argv[1], ROOT))
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
