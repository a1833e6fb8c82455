"""The certificate: JSON, page, grids, and the record of an immunized model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.verify.test_run import outcome

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.verify import Fidelity, Verdict, VerifySettings, named
from unlikeness.verify.certificate import certificate, check_own, sign, summary, write_certificate
from unlikeness.verify.quality import quality
from unlikeness.verify.verdict import ORIGINAL


def about(noun: str = "dog") -> dict[str, Any]:
    return {
        "class_noun": noun, "identifier": "sks", "pictures": 2, "pictures_sha256": "ab" * 32, "references": 2,
        "references_sha256": "cd" * 32, "held_out": False, "of_class": 5, "of_class_from": "model",
        "control_held_out": None,
        "model": "0123", "original": None, "encoder": "toybox", "contexts": ["at 7"],
        "settings": {"steps": VerifySettings().steps}, "overrides": {"slow": {"clip": 2}},
    }  # fmt: skip


def whole(noun: str = "dog") -> Verdict:
    """With everything that a verdict may have, and names that HTML would trip over."""
    features = torch.nn.functional.normalize(
        torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(0)), dim=2
    )
    slow = replace(outcome("slow", 0.4, 0.35), losses=(0.5, 0.25))
    return Verdict(
        about(noun), torch.rand(2, 3, 8, 8), False, (outcome("paper", 0.1, 0.2), slow),
        {"unseen-pictures": "needs <pictures>"}, outcome("paper", 0.9),
        (Fidelity("<b>tom", "cat", True, outcome("paper", 0.6), outcome("paper", 0.8)),),
        quality("a photo of a dog", *features.double(), seed=0), control_of=ORIGINAL,
    )  # fmt: skip


def test_the_worst_attacker_is_the_headline() -> None:
    made = json.loads(json.dumps(certificate(whole()), allow_nan=False))
    assert made["schema"] == 3
    assert (made["verdict"]["outcome"], made["verdict"]["conclusive"]) == ("learnt", True)
    assert made["control_of"] == "the original"
    assert made["attackers"]["paper"]["outcome"] == "little"
    assert made["attackers"]["paper"]["control"]["s"]["value"] == pytest.approx(0.9)
    assert (made["attackers"]["slow"]["outcome"], made["attackers"]["slow"]["control"]) == ("learnt", None)
    assert made["headline"]["attacker"] == "slow"
    assert made["headline"]["s"]["value"] == pytest.approx(0.4)
    assert list(made["attackers"]) == ["paper", "slow"]
    assert made["attackers"]["paper"]["s"]["n_generated"] == 4
    assert made["attackers"]["slow"]["losses"] == [0.5, 0.25]
    assert made["left_out"] == {"unseen-pictures": "needs <pictures>"}
    assert made["held_out"] is False
    assert made["attack_works_on_original"] is True
    assert made["unprotected"][0]["kept"] == pytest.approx(0.75)
    assert made["quality"]["n"] == 9
    assert made["versions"]["torch"] == torch.__version__.partition("+")[0] or made["versions"]["torch"]
    short = summary(made)
    assert short["worst"]["attacker"] == "slow"
    assert short["attackers"]["paper"]["value"] == pytest.approx(0.1)
    assert (short["verdict"], short["attackers"]["paper"]["outcome"]) == ("learnt", "little")
    assert short["quality"]["recall"] == made["quality"]["drift"]["recall"]


def test_files(tmp_path: Path) -> None:
    made = write_certificate(whole("dog <script>alert(1)</script>"), tmp_path)
    assert json.loads((tmp_path / "certificate.json").read_text()) == made
    page = (tmp_path / "certificate.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;tom" in page
    assert "needs &lt;pictures&gt;" in page
    assert page.count("data:image/png;base64,") == 2 + 2 * (4 + 4) + 4  # references, two attackers, original
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert "Not held out" in page
    assert "The attacker slow learnt the subject" in page
    with Image.open(tmp_path / "grids" / "slow.png") as sheet:
        assert sheet.size == (6 * 10 - 2, 4 * 10 - 2)  # references, original, slow, slow in contexts
    assert sorted(file.name for file in (tmp_path / "grids").iterdir()) == [
        "original.png", "paper.png", "slow.png",
    ]  # fmt: skip


def test_only_the_certificate_of_the_same_pictures_and_model_is_replaced(tmp_path: Path) -> None:
    pictures, model = about()["pictures_sha256"], about()["model"]
    check_own(tmp_path, pictures, model)
    write_certificate(whole(), tmp_path)
    check_own(tmp_path, pictures, model)
    with pytest.raises(UsageError, match=r"json is the certificate of other pictures, .* another --output"):
        check_own(tmp_path, "ef" * 32, model)
    with pytest.raises(UsageError, match="of other pictures and of another model"):
        check_own(tmp_path, "ef" * 32, "4567")
    for text in ("{", "[]", '{"about": {}}', "[" * 50_000):
        (tmp_path / "certificate.json").write_text(text)
        with pytest.raises(UsageError, match=r"certificate\.json cannot be read"):
            check_own(tmp_path, pictures, model)


def test_no_grid_of_an_earlier_certificate_stays(tmp_path: Path) -> None:
    write_certificate(whole(), tmp_path)
    (tmp_path / "grids" / "mine.png").write_text("")
    write_certificate(replace(whole(), outcomes=(outcome("paper", 0.1),), clean=None), tmp_path)
    assert sorted(file.name for file in (tmp_path / "grids").iterdir()) == ["mine.png", "paper.png"]


@pytest.mark.parametrize(
    ("s", "clean", "colour", "text"),
    [
        (0.1, 0.9, "good", "No attacker learnt the subject"),
        (0.25, 0.9, "mixed", "The worst attacker learnt little"),
        (0.6, 0.9, "bad", "The attacker paper learnt the subject"),
        (0.0, 0.1, "open", "Inconclusive: the attacker paper is too weak"),
        (0.6, 0.1, "bad", "The attacker paper learnt the subject"),
        (0.1, None, "open", "Inconclusive: the attackers were not compared"),
    ],
)
def test_words_and_colour_follow_the_figures(
    s: float, clean: float | None, colour: str, text: str, tmp_path: Path
) -> None:
    before = None if clean is None else outcome("paper", clean)
    control_of = "" if clean is None else ORIGINAL
    found = replace(whole(), outcomes=(outcome("paper", s),), clean=before, control_of=control_of)
    made = write_certificate(found, tmp_path)
    page = (tmp_path / "certificate.html").read_text()
    assert f'<div class="note {colour}"><strong>{text}' in page
    assert made["verdict"]["title"].startswith(text)
    assert ("still be copied: inconclusive" in page) == (colour == "open")
    if colour != "good":
        assert 'class="note good"' not in page


def test_the_page_shows_each_control_beside_its_attacker(tmp_path: Path) -> None:
    weak = replace(
        whole(), outcomes=(outcome("paper", 0.05), outcome("slow", 0.0)), clean=None,
        controls={"paper": outcome("paper", 0.8), "slow": outcome("slow", 0.1)}, control_of="cat-tom",
        failed={"lora-4": "DreamBooth <diverged>"}, left_out={},
    )  # fmt: skip
    made = write_certificate(weak, tmp_path)
    page = (tmp_path / "certificate.html").read_text()
    assert "Inconclusive: the attacker slow is too weak" in page
    assert "slow did not clearly learn the unprotected subject cat-tom either (s up to 0.10)." in page
    assert "lora-4 failed: DreamBooth &lt;diverged&gt;." in page
    assert "Attackers that did not learn the subject were repeated on the unprotected subject cat-tom" in page
    assert page.count("The same attack on the unprotected subject cat-tom") == 2 * 2 * 4  # alt and caption
    slow = made["attackers"]["slow"]
    assert (slow["outcome"], slow["why"]) == ("inconclusive", "weak")
    assert made["attackers"]["paper"]["outcome"] == "protected"
    assert made["failed"] == {"lora-4": "DreamBooth <diverged>"}
    assert summary(made)["failed"] == ["lora-4"]


def test_a_certificate_of_the_first_schema_is_still_known(tmp_path: Path) -> None:
    old = {"schema": 1, "about": {"pictures_sha256": "ab" * 32, "model": "0123"}, "headline": {}}
    (tmp_path / "certificate.json").write_text(json.dumps(old))
    check_own(tmp_path, "ab" * 32, "0123")
    with pytest.raises(UsageError, match="of another model"):
        check_own(tmp_path, "ab" * 32, "4567")


def test_the_record_of_the_model_is_copied_and_signed_only_when_asked(tmp_path: Path) -> None:
    model, output = tmp_path / "model", tmp_path / "out"
    model.mkdir()
    short = summary(certificate(whole()))
    assert sign(model, output, short) is None
    with pytest.raises(UsageError, match=r"no immunization\.json to sign"):
        sign(model, output, short, in_place=True)
    record = model / "immunization.json"
    record.write_text(json.dumps({"method": "apdm", "measured": {"other": {"worst": 1}}}))
    before = record.read_text()
    assert sign(model, output, short) == output / "immunization.json"
    assert record.read_text() == before
    copied = json.loads((output / "immunization.json").read_text())
    assert copied["method"] == "apdm"
    assert copied["measured"]["other"] == {"worst": 1}
    assert copied["measured"]["ab" * 32]["worst"]["attacker"] == "slow"
    sign(model, output, short, in_place=True)
    assert json.loads(record.read_text()) == copied
    record.write_text("[")
    with pytest.raises(UnlikenessError, match="cannot be read"):
        sign(model, output, short)


def test_every_attacker_has_words_for_the_page() -> None:
    assert all(one.what for one in named([]))
