"""Several encoders judge one verification; the verdict is by the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.verify.conftest import colours
from torch import Tensor

from unlikeness.diffusion import TextToImage
from unlikeness.errors import UsageError
from unlikeness.subjects import Subject
from unlikeness.verify import (
    VerifySettings,
    named,
    outcomes,
    run_attacker,
    verify_subject,
    write_certificate,
)
from unlikeness.verify.certificate import summary
from unlikeness.verify.job import Verification


def squares(images: Tensor) -> Tensor:
    """Another embedder of colours."""
    return F.normalize(images.mean((2, 3)) ** 2 - 0.25, dim=1)


class Faces:
    """Finds no face where the picture is dark on its left."""

    name, digest, faces = "faces", "0123", True

    def __call__(self, images: Tensor) -> Tensor:
        found = colours(images)
        found[images[:, :, :, :1].mean((1, 2, 3)) < 0.1] = float("nan")
        return found


def test_each_encoder_gives_its_s_and_another_repeats_no_attack(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ran: list[str] = []
    real = run_attacker

    def run(model: TextToImage, subject: Subject, attacker: Any, *args: Any, **further: Any) -> Any:
        ran.append(attacker.name)
        return real(model, subject, attacker, *args, **further)

    monkeypatch.setattr(outcomes, "run_attacker", run)
    given: dict[str, Any] = {
        "of_class": of_class, "contexts": ("at 7",), "base": base, "attackers": named(["paper"]),
        "original": original, "work": tmp_path / "work", "measure_quality": False,
    }  # fmt: skip
    alone = verify_subject(model, subject, held_out, embedder=colours, **given)
    assert alone.outcomes[0].further == {}
    assert len(ran) == 2  # on the model, and on the original
    both = verify_subject(model, subject, held_out, embedder=colours, further=[squares, Faces()], **given)
    assert len(ran) == 2, "an attack was repeated for another encoder"
    assert both.outcomes[0].s == alone.outcomes[0].s
    assert both.kind == alone.kind
    by = both.outcomes[0].further
    assert list(by) == ["squares", "faces"]
    other = verify_subject(model, subject, held_out, embedder=squares, **given).outcomes[0]
    assert (by["squares"].s, by["squares"].elsewhere) == (other.s, other.elsewhere)
    assert both.about["encoder"] == "colours"
    assert both.about["encoders"] == {"colours": "", "squares": "", "faces": "0123"}

    made = write_certificate(both, tmp_path / "certificate")
    kept = json.loads((tmp_path / "certificate" / "certificate.json").read_text())
    assert list(kept["further_encoders"]) == ["squares", "faces"]
    assert kept["further_encoders"]["squares"]["s"]["value"] == both.worst_by["squares"].s.value
    assert kept["attackers"]["paper"]["further_encoders"]["squares"]["s"]["value"] == by["squares"].s.value
    assert kept["original"]["further_encoders"]["faces"]["s"]["n_generated"] == 2
    assert "By each encoder" in (tmp_path / "certificate" / "certificate.html").read_text()
    assert summary(made)["further_encoders"]["squares"]["attacker"] == "paper"
    plain = write_certificate(alone, tmp_path / "alone")
    assert "By each encoder" not in (tmp_path / "alone" / "certificate.html").read_text()
    assert "further_encoders" not in summary(plain)


def test_an_encoder_of_faces_alone_measures_no_drift(
    model: TextToImage, original: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor,
    base: VerifySettings,
) -> None:  # fmt: skip
    lines: list[str] = []
    found = verify_subject(
        model, subject, held_out, embedder=Faces(), of_class=of_class, contexts=(), base=base,
        attackers=named(["paper"]), original=original, report=lines.append,
    )  # fmt: skip
    assert found.quality is None
    assert any("drift is not measured" in line for line in lines)


def test_an_encoder_that_cannot_tell_is_named_before_any_attack(
    model: TextToImage, subject: Subject, held_out: Tensor, of_class: Tensor, base: VerifySettings
) -> None:
    def grey(images: Tensor) -> Tensor:
        return torch.ones(len(images), 2)

    with pytest.raises(UsageError, match="encoder grey: the encoder does not tell the subject"):
        verify_subject(
            model, subject, held_out, embedder=colours, further=[grey], of_class=of_class, base=base,
            contexts=(),
        )  # fmt: skip


def test_the_toybox_encoder_is_refused_for_a_model_of_photographs(
    model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    monkeypatch.setattr(TextToImage, "from_pretrained", lambda *args, **kwargs: model)
    monkeypatch.setattr(TextToImage, "resolution", property(lambda self: 512))
    for encoders in ((), ("toybox",)):
        job = Verification(
            model="toybox", images=tmp_path / "images", class_noun="dog", output=tmp_path / "out",
            encoders=encoders,
        )  # fmt: skip
        with pytest.raises(UsageError, match=r"toybox draws photographs of 512 px; name another .*: clip"):
            job.run()
    with pytest.raises(UsageError, match="did you mean clip"):
        Verification(
            model="toybox", images=tmp_path / "images", class_noun="dog", output=tmp_path / "out",
            encoders=("clop",),
        ).run()  # fmt: skip
