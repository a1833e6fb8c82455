"""Small subjects, records of their immunization, and a classifier."""

from __future__ import annotations

from typing import Any

from tests.tiny import pictures
from torch import Tensor

from unlikeness.immunize.data import manifest
from unlikeness.immunize.settings import ImmunizeSettings
from unlikeness.subjects import Subject


class Reads:
    """A classifier that returns the nouns of a list."""

    name = "list"

    def __init__(self, *nouns: str) -> None:
        self.nouns = nouns

    def __call__(self, images: Tensor) -> list[str]:
        return list(self.nouns[: len(images)])


def some(seed: int, noun: str = "dog") -> Subject:
    return Subject(pictures(2, seed=seed), noun)


def run_of(*subjects: Subject, **settings: Any) -> dict[str, Any]:
    """The part of an immunization's record that a verification reads."""
    return {
        "method": "persguard",
        "settings": settings,
        "subjects": [
            {
                "class_noun": one.class_noun,
                "identifier": one.identifier,
                "pictures_sha256": one.digest,
                "pairs": manifest(one, ImmunizeSettings()),
            }
            for one in subjects
        ],
        "earlier": [],
    }
