"""What a protection was computed with is said by itself, by the manifest, the last line and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.protect.folders import lines, run
from tests.protect.rid.official import checkpoint, written
from tests.protect.test_tiles import write
from tests.tiny import tiny_model, write_tiny

from unlikeness import protect
from unlikeness.cli import main
from unlikeness.demo.photographs import protect_photographs
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.protect.against import Against, against_of, is_toy
from unlikeness.protect.methods.noise import Noise
from unlikeness.protect.methods.rid import Rid, RidSettings
from unlikeness.protect.rid.network import NetworkSettings, Protector
from unlikeness.protect.rid.weights import save_protector

TOY = (
    "computed against the toybox's model: this does nothing against Stable Diffusion or any model that "
    "people use; see --model, train-protector"
)


def network(path: Path, **about: Any) -> Rid:
    small = NetworkSettings(fine=4, middle=4, coarse=4, blocks=1)
    torch.manual_seed(0)
    save_protector(Protector(small), path, about={"resolution": 64, **about})
    return Rid(None, RidSettings(weights=str(path)), device="cpu")


def test_a_gradient_names_its_model_and_its_fingerprint(tmp_path: Path) -> None:
    model = tiny_model(tmp_path)
    for made in (protect.create("advdm", model), protect.create("photoguard", model)):
        against = against_of(made)
        assert (against.kind, against.toy) == ("model", False)
        assert against.models == (model.name,) == ("tiny-epsilon-kl-0",)
        assert against.fingerprints == (fingerprint(model),)
        assert against.sentence.startswith("computed against tiny-epsilon-kl-0: not known to do anything")
        assert against.sentence.endswith(f"[model tiny-epsilon-kl-0, fingerprint {fingerprint(model)}]")


def test_the_toybox_is_known_under_any_name(tmp_path: Path) -> None:
    toybox = TextToImage.from_pretrained("toybox", device="cpu")
    assert against_of(protect.create("advdm", toybox)).claim == TOY
    with torch.no_grad():
        toybox.denoiser.conv_out.bias.add_(1)  # personalized, immunized, ...
    toybox.save_pretrained(tmp_path / "stable-diffusion-v1-5")
    copied = TextToImage.from_pretrained(tmp_path / "stable-diffusion-v1-5", device="cpu")
    assert copied.name == copied.copy().name == "stable-diffusion-v1-5"
    assert is_toy(copied)
    assert against_of(protect.create("photoguard", copied)).claim == TOY


def test_noise_is_only_a_control(model: TextToImage) -> None:
    against = against_of(protect.create("noise", model))
    assert against.kind == "control"
    assert "only a control" in against.sentence
    assert "protects against nothing" in against.sentence


def test_the_default_network_names_the_autoencoders_that_it_was_trained_against() -> None:
    rid = Rid(None, RidSettings(), device="cpu")
    assert not rid.against.toy
    assert rid.against.claim.startswith(
        "computed by a network that was trained against the distilled autoencoders of FLUX.2 and Sana: not "
        "known to stop a fine-tune"
    )
    assert f"[network rid-photo, fingerprint {rid.fingerprint}; model taef2_" in rid.against.sentence


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("sd1",), "the autoencoder of Stable Diffusion 1.x:"),
        (("flux2:tiny", "sdxl"), "the autoencoder of SDXL and the distilled autoencoder of FLUX.2:"),
        (("sd3_vae.safetensors", "taef1", "flux1"), "sd3_vae.safetensors and taef1 and flux1:"),
        (("sdxl", "mine"), "sdxl and mine:"),
    ],
)
def test_known_autoencoders_are_named_by_their_models(names: tuple[str, ...], words: str) -> None:
    assert f"computed against {words}" in Against(kind="model", models=names).claim


def test_the_network_of_the_toybox_says_that_it_knows_only_the_toybox() -> None:
    rid = Rid(None, RidSettings(weights="rid-toybox"), device="cpu")
    assert rid.against.toy
    assert rid.against.claim == TOY
    assert f"[network rid-toybox, fingerprint {rid.fingerprint}; model toybox]" in rid.against.sentence


def test_a_trained_network_says_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    rid = network(path, models=["sd-1", "sd-2"], fingerprints=["aa", "bb"], toybox=[False, False])
    assert rid.against.models == ("sd-1", "sd-2")
    assert "by a network that was trained against sd-1 and sd-2: not known" in rid.against.sentence
    assert f"[network mine.safetensors, fingerprint {rid.fingerprint}; model sd-1, f" in rid.against.sentence
    assert str(tmp_path) not in rid.against.sentence
    assert network(path, models=["renamed"], fingerprints=["aa"], toybox=[True]).against.claim == TOY
    assert not network(path, models=["toybox", "sd-1"], toybox=[True, False]).against.toy
    others: list[dict[str, Any]] = [{}, {"models": 3, "toybox": "yes"}, {"models": [1, None]}]
    for about in others:
        against = network(path, **about).against
        assert not against.toy
        assert "whose file does not say which models" in against.sentence


def test_an_official_checkpoint_says_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, checkpoint())
    rid = Rid(None, RidSettings(weights=str(path)), device="cpu")
    assert (rid.against.kind, rid.against.models) == ("network", ())
    assert "whose file does not say which models it was trained against" in rid.against.sentence


def test_a_method_of_another_package_is_unknown(noise: Noise) -> None:
    class Theirs:
        settings = noise.settings
        resolution = 32
        perturb = noise.perturb

    assert against_of(Theirs()) == Against(kind="unknown")
    assert "does not say what it is computed against" in against_of(Theirs()).sentence


def test_the_manifest_says_it_for_each_file(tmp_path: Path, model: TextToImage) -> None:
    run(write(tmp_path / "a.png", 40, 40), tmp_path / "out", protect.create("advdm", model, {"steps": 1}))
    (line,) = lines(tmp_path / "out")
    assert line["against"]["models"] == [model.name]
    assert line["against"]["fingerprints"] == [fingerprint(model)]
    assert "not known to do anything" in line["against"]["claim"]
    assert "against" not in line["recipe"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_the_last_line_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: list[str]) -> None:
    source, tiny = write(tmp_path / "a.png", 40, 40), write_tiny(tmp_path / "my-model")
    command = ["protect", str(source), "-q", "-o", str(tmp_path / "out"), *dry]
    for options, said in (
        ([], "trained against the distilled autoencoders of FLUX.2 and Sana: not known to stop"),
        (["--weights", "rid-toybox"], TOY),
        (["--model", str(tiny), "--method", "noise"], "only a control"),
        (["--model", str(tiny), "--steps", "1"], "computed against my-model: not known to do anything"),
    ):
        assert main([*command, *options]) == 0
        out = capsys.readouterr().out
        assert said in out.splitlines()[-1]
        assert str(tiny) not in out


def test_the_page_says_it(tmp_path: Path, model: TextToImage) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", 40, 40)
    protect_photographs(tmp_path / "in", tmp_path / "a", model, model_name="tiny", method="advdm", steps=1)
    page = (tmp_path / "a" / "photographs.html").read_text(encoding="utf-8")
    assert f"Computed against {model.name}" in page
    assert fingerprint(model) in page
    found = json.loads((tmp_path / "a" / "photographs.json").read_text(encoding="utf-8"))
    assert found["against"]["models"] == [model.name]
    protect_photographs(tmp_path / "in", tmp_path / "b", model, model_name="toybox", method="rid")
    page = (tmp_path / "b" / "photographs.html").read_text(encoding="utf-8")
    assert "Computed against the distilled autoencoders of FLUX.2 and Sana" in page
    assert "not known to stop a fine-tune" in page


def test_the_help_promises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protect", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "fails" not in said
    assert "Stable Diffusion's was not among them" in said
