"""Hooks of the site's build: add the generated pages, and keep links inside the site."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File

import generated

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?:\.\./)+[^)]*)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code."""
    for path, text in generated.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Replace a link to a file of the repository that is outside the site by that file's name."""

    def inside(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), match[2]))
        return f"`{match[1]}`" if target.startswith("..") else match[0]

    return _LINK.sub(inside, markdown)
