"""The toybox's original and unprotected subjects, where the user names none."""

from __future__ import annotations

from typing import Any

from tests.verify.conftest import tinted

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.measure.encoders import load_encoder
from unlikeness.subjects import Subject
from unlikeness.toybox.world import CLASS_NOUNS
from unlikeness.verify.controls import original_of, toybox_subject
from unlikeness.verify.evaluator import Evaluator


def test_the_toybox_is_the_original_if_the_record_has_its_weights(model: TextToImage) -> None:
    toybox = TextToImage.from_pretrained("toybox", device="cpu")
    own = fingerprint(toybox)
    first = {"original_fingerprint": own}
    for record in (first, {"original_fingerprint": "x", "earlier": [first]}):
        found = original_of(toybox, record)
        assert found is not None
        assert fingerprint(found) == own
    records: list[dict[str, Any]] = [{}, {"original_fingerprint": "0123"}, {"original_fingerprint": None}]
    for record in records:
        assert original_of(toybox, record) is None
    assert original_of(model, {"original_fingerprint": own}) is None  # of another world


def test_an_unprotected_individual_of_every_class_can_be_told_from_it(model: TextToImage) -> None:
    toybox = TextToImage.from_pretrained("toybox", device="cpu")
    embedder = load_encoder("toybox")
    for noun in CLASS_NOUNS:
        subject = Subject(tinted(3, (0.9, 0.1, 0.1)), noun.capitalize(), "zwx")
        other = toybox_subject(toybox, subject)
        assert other is not None
        assert other.subject.images.shape == (3, 3, 64, 64)
        assert (other.subject.class_noun, other.subject.identifier) == (noun.capitalize(), "zwx")
        assert other.held_out is not None
        assert other.of_class is not None
        Evaluator(embedder, other.held_out, other.of_class, True).check()
        assert toybox_subject(model, subject) is None
