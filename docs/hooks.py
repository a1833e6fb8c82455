"""Hooks of the site's build: add the generated pages, and keep links inside the site."""

from __future__ import annotations

import re
from typing import Any

import generated
from mkdocs.structure.files import File

_OUT = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./)+(?!guides|reference|background|assets|[\w-]+\.(?:md|svg|png))[^)]*\)")
"""A link to a file of the repository that is no page."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code."""
    for path, text in generated.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A link to a file outside the site becomes that file's name."""
    return _OUT.sub(r"`\1`", markdown)
