"""What of the metadata depends on where a copy of the project lies: the links of the README, the project's addresses.

$LIT_GANS_URL names the repository, `make dist URL=https://github.com/OWNER/lit_gans`; unset, links stay as they are.
All else is in pyproject.toml.
"""

import os
import re
import tomllib
from pathlib import Path

from setuptools import setup

PICTURES = (".png", ".jpg", ".gif", ".svg")


def absolute(readme: str, url: str, tag: str) -> str:
    """The README for PyPI, which has its text and not its files: relative links lead to the repository at the tag."""

    def of(match: re.Match[str]) -> str:
        kind = "raw" if match[2].partition("#")[0].endswith(PICTURES) else "blob"
        return f"{match[1]}{url}/{kind}/{tag}/{match[2]}"

    return re.sub(r"""(\]\(|(?:src|href)=")(?![\w+.-]+:|#|/)([^)\s"]+)""", of, readme)


def addresses(url: str, tag: str) -> dict[str, str]:
    """What PyPI links beside the README."""
    pages = {"Documentation": "tree/{tag}/docs", "Changelog": "blob/{tag}/CHANGELOG.md", "Issues": "issues"}
    return {"Source": url} | {name: f"{url}/{path.format(tag=tag)}" for name, path in pages.items()}


def metadata(root: Path, url: str) -> dict[str, object]:
    """The arguments of `setup`. Raises ValueError: no address of a repository."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    given: dict[str, object] = {"long_description_content_type": "text/markdown"}
    if not url:
        return given | {"long_description": readme}
    if not re.fullmatch(r"https://[^/\s]+/[^/\s]+/[^/\s]+", url):
        raise ValueError(f"LIT_GANS_URL is {url!r}: give the repository, as https://github.com/OWNER/lit_gans")
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    tag = f"v{version}"
    return given | {"long_description": absolute(readme, url, tag), "project_urls": addresses(url, tag)}


if __name__ == "__main__":
    setup(**metadata(Path(__file__).parent, os.environ.get("LIT_GANS_URL", "")))
