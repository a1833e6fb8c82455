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
from unlikeness.verify.certificate import certificate, check_own, summary, write_certificate
from unlikeness.verify.quality import quality
from unlikeness.verify.signing import sign


def about(noun: str = "dog") -> dict[str, Any]:
    return {
        "class_noun": noun, "identifier": "sks", "pictures": 2, "pictures_sha256": "ab" * 32, "references": 2,
        "references_sha256": "cd" * 32, "held_out": False, "of_class": 5, "of_class_from": "model",
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
        quality("a photo of a dog", *features.double(), seed=0),
    )  # fmt: skip


def test_the_worst_attacker_is_the_headline() -> None:
    made = json.loads(json.dumps(certificate(whole()), allow_nan=False))
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
    ("s", "clean", "text"),
    [
        (0.1, 0.9, "No attacker learnt the subject"),
        (0.25, 0.9, "The worst attacker learnt little"),
        (0.6, 0.9, "The attacker paper learnt the subject"),
        (0.0, 0.1, "This run shows nothing about the protection"),
        (0.6, 0.1, "The attacker paper learnt the subject"),
        (0.1, None, "No original model"),
    ],
)
def test_words_follow_the_figures(s: float, clean: float | None, text: str, tmp_path: Path) -> None:
    before = None if clean is None else outcome("paper", clean)
    write_certificate(replace(whole(), outcomes=(outcome("paper", s),), clean=before), tmp_path)
    assert text in (tmp_path / "certificate.html").read_text()


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
