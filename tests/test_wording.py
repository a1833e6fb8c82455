"""Pages, help texts and docstrings: short sentences, and one word for one thing.

`OLD` are words that this project no longer uses, as patterns that a plain English text does not contain by
chance. Code (in backticks or blocks) is not checked.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from tokenize import COMMENT, STRING, generate_tokens

import pytest

import generated

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST = 35
"""Words in a sentence."""

OLD = {
    r"\bbystanders?\b": "unprotected subject",
    r"\bcopiers?\b": "attacker",
    r"\bnotices?\b(?!, (?:apdm|persguard))": "protective output",
    r"\b(?:a|an|the|its|no|this|that|of|with) marks?\b(?!-)": "watermark",
    r"\bbears? (?:a|an|the|its|one|it|no)\b": "shows, carries",
    r"\brehears": "dry run",
    r"\byardsticks?\b": "metric, difference",
    r"\b(?:led|leads?|leading) (?:elsewhere|away|nowhere)\b": "diverted",
    r"\b(?:is|are|was|were|be|been|being) (?:told|asked)\b": "reported, requested",
    r"\basked wrongly\b": "wrong usage",
    r"\bsomebody\b|\bnobody\b|\bwhom\b|\bwhence\b": "name the thing",
    r"\bso many-th\b": "every n-th",
    r"\bgoes by\b|\bgo by\b": "is chosen by",
    r"\btakes? turns\b|\bin turns\b": "schedule",
    r"\bthat one's\b": "its",
    r"\bto be had\b": "available",
    r"\bscale of settings\b": "preset",
}
"""Pattern -> what to say instead."""


def prose(markdown: str) -> Iterator[str]:
    """The paragraphs, list items, headings and table cells of a page, without code, links and figures."""
    text = re.sub(r"<!-- figures:.*?<!-- end of figures -->", "", markdown, flags=re.DOTALL)
    text = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->|^:::.*(?:\n +.*)*", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"``.+?``|`[^`]+`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n", text):
        for part in re.split(r"\n(?=\s*(?:[-*>|]|\d+\.|#+|!!!) ?)", block):
            if part.lstrip().startswith("|"):
                yield from (cell.strip() for cell in re.split(r"(?<!\\)\|", part) if cell.strip(" -:"))
            elif part.strip():
                yield " ".join(part.split())


def sentences(text: str) -> list[str]:
    """Split at a full stop, question or exclamation mark before a capital, a number, or a name with colon."""
    return re.split(r"(?<=[.!?])[\"”’)*_]*\s+(?=[\"“‘(*_]*(?:[A-Z0-9]|\w+(?:, \w+)*: ))", text)


def faults(parts: Iterator[str]) -> list[str]:
    """What is wrong with a text, a line each."""
    found = []
    for part in parts:
        for sentence in sentences(part):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if len(words) > LONGEST:
                found.append(f"{len(words)} words: {sentence}")
        for pattern, better in OLD.items():
            hits = re.finditer(pattern, part, re.IGNORECASE)
            found += [f"{hit[0]!r} (say: {better}): {part}" for hit in hits]
    return found


def docstrings(source: str) -> Iterator[str]:
    """The paragraphs of a file's docstrings, also of those under names; indented blocks are code."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if isinstance(node.value.value, str):
            text = re.sub(r"\n\s*\n(?: {4,}.*(?:\n|$))+", "\n\n", inspect.cleandoc(node.value.value))
            text = re.sub(r"``.+?``|`[^`]+`", "CODE", text)
            for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\w+(?:, \w+)*: ))", text):
                yield " ".join(block.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_plain(page: Path) -> None:
    assert not faults(prose(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", ["reference/commands.md", "reference/settings.md"])
def test_a_generated_page_is_plain(page: str) -> None:
    assert not faults(prose(generated.pages()[page]))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.relative_to(ROOT).as_posix())
def test_docstrings_are_plain(source: Path) -> None:
    assert not faults(docstrings(source.read_text(encoding="utf-8")))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.relative_to(ROOT).as_posix())
def test_comments_and_messages_have_no_old_word(source: Path) -> None:
    for token in generate_tokens(StringIO(source.read_text(encoding="utf-8")).readline):
        if token.type in (COMMENT, STRING) and " " in token.string:
            text = re.sub(r"`[^`]+`|\{[^{}]*\}", "CODE", token.string)
            for pattern, better in OLD.items():
                assert not re.search(pattern, text, re.IGNORECASE), f"say: {better}: {text}"


def test_a_paragraph_of_the_readme_holds_at_most_one_number() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    for paragraph in prose(text):
        names = r"\b(?:Python|Apache|Diffusion|SD) [\d.x]+(?: (?:or|and) [\d.x]+)*"
        assert len(re.findall(r"\d[\d.,e-]*", re.sub(names, "", paragraph))) <= 1, paragraph


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize(
    "text",
    [
        "The model bears a mark.",
        "What is wrong is told before.",
        "Every so many-th attack.",
        "A copier learns it.",
        " ".join(["word"] * 36),
        "| short | " + " ".join(["word"] * 36) + " |",
    ],
)
def test_a_fault_would_be_found(text: str) -> None:
    assert faults(prose(text))


@pytest.mark.parametrize(
    "text", ["Use `notice`.", "A mark-up language.", "```sh\n# a copier\n```", "Trademarks."]
)
def test_plain_text_is_no_fault(text: str) -> None:
    assert not faults(prose(text))
