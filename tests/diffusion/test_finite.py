"""NaN and infinity are told where they arise, with the part that they come from; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import encoder_of, pictures, tiny_model, write_tiny

from unlikeness import finite
from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.loading import check_model
from unlikeness.diffusion.loss import mean_loss_over_levels
from unlikeness.errors import NotFiniteError
from unlikeness.tensors import save_tensors

PARTS = {"vae": "the autoencoder of model", "unet": "the denoiser", "text_encoder": "the text encoder"}


def spoil(module: torch.nn.Module, value: float = torch.nan, *, part: str = "") -> None:
    """One weight of the last layer of this name is no number."""
    with torch.no_grad():
        [p for name, p in module.named_parameters() if part in name][-1].view(-1)[0] = value


@pytest.fixture
def tiny(tmp_path: Path) -> TextToImage:
    return tiny_model(tmp_path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_all_finite_sees_one_value_among_many(value: float) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        values = torch.zeros(3, 50, dtype=dtype)
        assert finite.all_finite([values, torch.zeros(0), torch.ones(2, dtype=torch.long)])
        values[2, 40] = value
        assert not finite.all_finite([torch.zeros(2), values])


def test_a_judge_that_is_damaged_is_not_asked(tmp_path: Path) -> None:
    from unlikeness.toybox.evaluators import ConvNet, load_float, save_half

    net = ConvNet()
    spoil(net)
    with pytest.raises(NotFiniteError, match="is not written"):
        save_half(net, tmp_path / "judge.safetensors")
    save_tensors(net.state_dict(), tmp_path / "judge.safetensors")
    with pytest.raises(NotFiniteError, match=r"judge\.safetensors has weights that are not finite"):
        load_float(ConvNet(), tmp_path / "judge.safetensors")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_damaged_weight_is_told_on_loading(tmp_path: Path, part: str, dtype: str) -> None:
    folder = write_tiny(tmp_path / "model")
    file = next((folder / part).glob("*.safetensors"))
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(NotFiniteError, match=f"^{PARTS[part]}.*not finite") as caught:
        TextToImage.from_pretrained(folder, device="cpu", dtype=dtype)
    half = dtype == "bfloat16" and part != "vae"  # the autoencoder is float32 whatever is asked
    assert ("--dtype float32 may help" in str(caught.value)) == half
    assert ("they are damaged" in str(caught.value)) != half


def test_a_weight_that_half_precision_does_not_hold_is_told(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model")
    whole = TextToImage.from_pretrained(folder, device="cpu", dtype="float32")
    spoil(whole.denoiser, 1e30)
    whole.save_pretrained(tmp_path / "large")
    assert TextToImage.from_pretrained(tmp_path / "large", device="cpu", dtype="float32")
    with pytest.raises(NotFiniteError, match=r"the denoiser .* in float16; --dtype float32 may help"):
        TextToImage.from_pretrained(tmp_path / "large", device="cpu", dtype="float16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_in_half_precision_the_autoencoder_stays_whole(tmp_path: Path, dtype: str) -> None:
    half = tiny_model(tmp_path, dtype=dtype)
    assert half.autoencoder.network.dtype == torch.float32
    assert half.denoiser.dtype == encoder_of(half).dtype == getattr(torch, dtype)
    # A decoder whose activations pass float16's range, as Stable Diffusion's do.
    with torch.no_grad():
        half.autoencoder.network.decoder.conv_in.weight.mul_(1e6)
    drawn = half.generate(["a dog"], seeds=[0], steps=2)
    assert drawn.isfinite().all()
    half.save_pretrained(tmp_path / "saved")
    again = TextToImage.from_pretrained(tmp_path / "saved", device="cpu", dtype=dtype)
    assert torch.equal(again.generate(["a dog"], seeds=[0], steps=2), drawn)


def test_each_operation_names_its_part(tiny: TextToImage) -> None:
    images = pictures(1)
    latents = tiny.encode(images).mean
    spoil(tiny.autoencoder.network, part="decoder")
    with pytest.raises(NotFiniteError, match="the autoencoder's decoder gives values that are not finite"):
        tiny.decode(latents)
    spoil(tiny.autoencoder.network, part="encoder.conv_out")
    with pytest.raises(NotFiniteError, match="the autoencoder's encoder gives"):
        tiny.encode_all(images)
    spoil(encoder_of(tiny))
    with pytest.raises(NotFiniteError, match=r"the text encoder gives .* in float32: its weights are dama"):
        tiny.condition(["a dog"])


def test_the_denoiser_is_named_by_drawing_and_by_the_loss(tiny: TextToImage) -> None:
    spoil(tiny.denoiser)
    images = pictures(1)
    with pytest.raises(NotFiniteError, match="the denoiser"):
        tiny.generate(["a dog"], seeds=[0], steps=2)
    with pytest.raises(NotFiniteError, match="the denoiser"):
        mean_loss_over_levels(tiny, images, "a dog", seed=0, levels=2)


def test_an_infinite_picture_is_not_a_white_one(tiny: TextToImage) -> None:
    with torch.no_grad():
        tiny.autoencoder.network.decoder.conv_out.bias.fill_(torch.inf)
    with pytest.raises(NotFiniteError, match="decoder"):
        tiny.decode(torch.zeros(1, 4, 8, 8))


def test_the_model_is_checked_part_by_part(tiny: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    check_model(tiny)
    tiny.denoiser.to(torch.float16)
    monkeypatch.setattr(TextToImage, "predict", lambda self, z_t, t, c: z_t * torch.nan)
    with pytest.raises(NotFiniteError, match=r"the denoiser gives .* in float16; --dtype float32"):
        check_model(tiny)


def test_what_is_not_finite_is_not_saved(tiny: TextToImage, tmp_path: Path) -> None:
    with torch.no_grad():
        next(tiny.denoiser.parameters()).view(-1)[0] = 1e30
    with pytest.raises(NotFiniteError, match=r"unet .* is not saved"):
        tiny.save_pretrained(tmp_path / "half", dtype="float16")
    spoil(tiny.denoiser)
    with pytest.raises(NotFiniteError, match=r"unet .* is not saved"):
        tiny.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "half").exists()


def test_drawing_ends_with_one_line_and_no_black_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny(tmp_path / "model")
    monkeypatch.setattr(TextToImage, "predict", lambda self, z_t, t, c: z_t * torch.nan)
    command = ["generate", "--model", str(folder), "--prompt", "a dog", "--output", str(tmp_path / "drawn")]
    capsys.readouterr()
    assert main([*command, "--steps", "2", "--count", "1", "--device", "cpu", "-q"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("unlikeness: the denoiser, at guidance 7.5, gives values that are not fin")
    assert said.count("\n") == 1
    assert not (tmp_path / "drawn").exists()
