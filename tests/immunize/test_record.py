"""What an immunized model carries about itself, and in what precision it is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from tests.tiny import pictures, tiny_model, write_tiny

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.gallery import to_pil
from unlikeness.immunize import card, create, immunize
from unlikeness.immunize.outputs import read_watermark, watermark
from unlikeness.immunize.record import ended, missing, read, record
from unlikeness.immunize.release import as_stored, save, stored
from unlikeness.provenance import pixel_digest
from unlikeness.subjects import Subject

FEW: dict[str, Any] = {
    "outer_steps": 2, "inner_steps": 1, "class_images": 4, "class_steps": 2, "precision": "float32",
    "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(weights: Path) -> TextToImage:
    return tiny_model(weights)


def made(
    model: TextToImage, subjects: list[Subject], called: str = "toybox", **further: Any
) -> dict[str, Any]:
    return record("apdm", create("apdm", FEW), subjects, model, called=called, **further)


def test_of_a_mark_only_the_file_s_own_name_is_told(model: TextToImage, dog: Subject, tmp_path: Path) -> None:
    file = tmp_path / "stop.png"
    to_pil(watermark()).save(file)
    settings = {"pattern": str(file), "class_images": 4, "output_pictures": 1, "contexts": "{} x"}
    what = record("persguard", create("persguard", settings), [dog], model, called="toybox")
    assert what["settings"]["pattern"] == "stop.png"
    assert what["pattern_sha256"] == pixel_digest(read_watermark(file))
    assert str(tmp_path) not in json.dumps(what)
    assert made(model, [dog])["pattern_sha256"] is None


def test_the_record_tells_all_and_shows_nobody(model: TextToImage, dog: Subject, cat: Subject) -> None:
    before = made(model, [dog, cat], str(model.source), prompts=["a cup"])
    assert (before["cost"]["seconds"], before["cost"]["resumed_at"]) == (None, 0)
    what = ended(before, 1.234, resumed_at=1)
    text = json.dumps(what)
    assert str(model.source) not in text
    assert what["model"] == model.source.name if model.source else False
    assert what["base_model"] is None
    assert what["method"] == "apdm"
    assert what["settings"]["beta"] == 1.0
    assert what["settings"]["outer_steps"] == 2
    assert what["seeds"] == {"seed": 0, "class_seed": 2_000_000}
    assert what["model_fingerprint"] == fingerprint(model)
    assert what["measured"] is None
    assert what["earlier"] == []
    assert what["prompts_sha256"] == hashlib.sha256(b"a cup").hexdigest()
    assert what["cost"]["seconds"] == 1.2
    assert what["cost"]["resumed_at"] == 1
    assert what["cost"]["unet"]["backward"]["calls"] == 2 * 2
    first, second = what["subjects"]
    assert (first["class_noun"], first["identifier"], first["pictures"]) == ("dog", "sks", 3)
    assert first["pictures_sha256"] == dog.digest
    assert [pair["generic_seed"] for pair in first["pairs"]] == [2_000_000, 2_000_001, 2_000_002]
    assert len({pair["picture_sha256"] for pair in [*first["pairs"], *second["pairs"]]}) == 5
    assert {"unlikeness", "torch", "diffusers", "python"} <= what["versions"].keys()


def test_a_hub_name_is_the_base_model_where_it_lives_now(model: TextToImage, dog: Subject) -> None:
    what = made(model, [dog], "runwayml/stable-diffusion-v1-5")
    assert what["model"] == "runwayml/stable-diffusion-v1-5"
    assert what["base_model"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    again = made(model, [dog], "here", earlier=what)
    assert again["base_model"] == what["base_model"]


def test_a_second_immunization_keeps_the_history_and_asks_for_the_first_pictures(
    model: TextToImage, dog: Subject, cat: Subject
) -> None:
    first = made(model, [dog])
    second = made(model, [cat], earlier=first)
    third = made(model, [dog, cat], earlier=second)
    assert [run["subjects"][0]["class_noun"] for run in third["earlier"]] == ["dog", "cat"]
    assert all("earlier" not in run for run in third["earlier"])
    assert missing({}, [cat]) == []
    [line] = missing(first, [cat])
    assert "sks dog (3 pictures" in line
    assert dog.digest[:12] in line
    more = Subject(torch.cat([pictures(1, seed=9), dog.images]), "dog")
    assert missing(second, [more, cat]) == []
    assert len(missing(third, [Subject(dog.images[:2], "dog")])) == 2


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "[" * 50_000, '{"subjects": 3}', '{"earlier": [1]}', '{"subjects": [{"pairs": [1]}]}',
        '{"subjects": [{"pairs": [{"picture_sha256": []}]}]}', '{"subjects": [{"pictures_sha256": []}]}',
        '{"subjects": [{"identifier": 3}]}', '{"earlier": [{"subjects": [{"class_noun": null}]}]}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "immunization.json").write_text(text)
    with pytest.raises(UnlikenessError, match=r"immunization\.json"):
        read(tmp_path)
    assert read(tmp_path / "none") is None


def test_half_precision_in_is_half_precision_out(tmp_path: Path, dog: Subject) -> None:
    source = write_tiny(tmp_path / "half", variant="fp16")
    assert set(stored(source).values()) == {torch.float16}
    model = TextToImage.from_pretrained(source, device="cpu", dtype="float32")
    released = immunize(model, [dog], "apdm", FEW)
    lost = save(model, released, tmp_path / "out", made(model, [dog], str(source)))
    for part in ("unet", "vae"):
        assert stored(tmp_path / "out")[part] == torch.float16
        files = load_file(tmp_path / "out" / part / "diffusion_pytorch_model.safetensors")
        wanted = released.parts[part].state_dict()
        assert all(torch.equal(files[name], tensor.half()) for name, tensor in wanted.items())
    assert released.denoiser.dtype == torch.float32
    assert model.autoencoder.network.dtype == torch.float32
    assert 0 < lost < 0.5
    what = read(tmp_path / "out")
    assert what is not None
    assert what["dtype"] == "float16"
    assert what["lost_to_rounding"] == pytest.approx(lost, abs=1e-6)

    assert save(model, released, tmp_path / "full", made(model, [dog]), dtype="float32") == 0
    assert set(stored(tmp_path / "full").values()) == {torch.float32}


def test_each_part_keeps_its_own_precision(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "mixed", pickled=True)
    file = source / "unet" / "diffusion_pytorch_model.bin"
    torch.save({k: v.bfloat16() for k, v in torch.load(file, weights_only=True).items()}, file)
    model = TextToImage.from_pretrained(source, device="cpu", dtype="float32")
    files = as_stored(model)
    assert (files.denoiser.dtype, files.autoencoder.network.dtype) == (torch.bfloat16, torch.float32)
    assert as_stored(model, torch.float16).autoencoder.dtype == torch.float16


def test_the_folder_opens_with_plain_diffusers_and_its_card_tells(
    weights: Path, tmp_path: Path, dog: Subject, cat: Subject
) -> None:
    source = write_tiny(tmp_path / "source")
    theirs = (
        "---\nlicense: mit\ntags:\n- mine\n- diffusers\npipeline_tag: other\n---\n# Mine\n\nTheir text.\n"
    )
    (source / "README.md").write_text(theirs)
    model = TextToImage.from_pretrained(source, device="cpu", dtype="float32")
    released = immunize(model, [dog, cat], "apdm", FEW)
    out = tmp_path / "new" / "out"
    out.mkdir(parents=True)
    save(model, released, out, made(model, [dog, cat], str(source)))
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]
    pipe = StableDiffusionPipeline.from_pretrained(out, safety_checker=None)
    for found, wanted in zip(pipe.unet.parameters(), released.denoiser.parameters(), strict=True):
        assert torch.equal(found, wanted)

    text = (out / "README.md").read_text()
    header, body = yaml.safe_load(text.split("---")[1]), text.split("---", 2)[2]
    assert header == {
        "license": "mit", "tags": ["text-to-image", "diffusers", "unlikeness", "immunized", "mine"],
        "pipeline_tag": "text-to-image", "library_name": "diffusers",
    }  # fmt: skip
    assert body.index("# source, immunized") < body.index("unlikeness verify") < body.index("Their text.")
    assert "1 × cat, 1 × dog" in body

    # Immunized again, our text is replaced and theirs stays.
    again = TextToImage.from_pretrained(out, device="cpu", dtype="float32")
    save(again, again, tmp_path / "twice", made(again, [dog], str(out), earlier=read(out)))
    text = (tmp_path / "twice" / "README.md").read_text()
    assert text.count("# source, immunized") == 0
    assert text.count("# out, immunized") == 1
    assert text.count("Their text.") == 1
    assert "Immunizations before this one: 1." in text
    assert yaml.safe_load(text.split("---")[1]) == header


@pytest.mark.parametrize(
    "before", ["", "no header", "---\nnot closed", "---\n- a list\n---\nx", "---\n{\n---\nx", "---\n---\nx"]
)
def test_a_card_is_made_beside_any_text(model: TextToImage, dog: Subject, before: str) -> None:
    text = card.card(made(model, [dog]), before)
    header = yaml.safe_load(text.split("---")[1])
    assert "immunized" in header["tags"]
    assert before.strip() in text


def test_the_folder_is_complete_or_not_there(
    model: TextToImage, dog: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UnlikenessError, match="free space"):
            save(model, model, tmp_path / "out", made(model, [dog]))
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("")
    with pytest.raises(UsageError, match="never overwritten"):
        save(model, model, tmp_path / "kept", made(model, [dog]))
