"""Encoders of photographs, on tiny random models in their real layout, beside transformers itself."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import pictures
from torch import Tensor

from unlikeness.cli import main
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.measure.encoders import check_encoder, load_encoder
from unlikeness.measure.folders import embed_folder
from unlikeness.measure.similarity import pairs_of

TOWER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
VISION = {**TOWER, "intermediate_size": 32, "image_size": 32}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OF_CLIP = {
    "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 32}, "resample": 3,
    "crop_size": {"height": 32, "width": 32}, "do_resize": True, "do_center_crop": True, "do_rescale": True,
    "do_normalize": True, "rescale_factor": 1 / 255, "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}  # fmt: skip
OF_DINO = {
    "feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 32,
    "resample": 3, "image_mean": MEAN, "image_std": STD,
}  # fmt: skip
OF_DINOV2 = {
    **OF_CLIP, "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 40},
    "image_mean": MEAN, "image_std": STD,
}  # fmt: skip


def _model(kind: str) -> Any:
    import transformers as t

    if kind == "clip":
        words = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        text = {**words, **ends, "intermediate_size": 16, "max_position_embeddings": 8}
        return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12))
    if kind == "clip-vision":
        return t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**VISION, projection_dim=12))
    if kind == "dino":
        return t.ViTModel(t.ViTConfig(**VISION))
    if kind == "dino-classifier":
        return t.ViTForImageClassification(t.ViTConfig(**VISION))
    return t.Dinov2Model(t.Dinov2Config(**TOWER, image_size=56, mlp_ratio=2))


PROCESSORS = {
    "clip": ("clip", "CLIPImageProcessor", OF_CLIP),
    "clip-vision": ("clip", "CLIPImageProcessor", OF_CLIP),
    "dino": ("vit", "ViTImageProcessor", OF_DINO),
    "dino-classifier": ("vit", "ViTImageProcessor", OF_DINO),
    "dinov2": ("bit", "BitImageProcessor", OF_DINOV2),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """By kind: the model, and its folder as transformers writes it."""
    found = {}
    for kind, (_, _, settings) in PROCESSORS.items():
        folder = tmp_path_factory.mktemp("encoders") / kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _model(kind).eval()
            for weight in model.parameters():  # as they are initialised all pictures look alike
                if weight.ndim > 1:
                    weight.data.mul_(8)
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        found[kind] = model, folder
    return found


def _theirs(kind: str, images: list[Tensor]) -> Tensor:
    """[B, 3, 32, 32] by transformers' own processor, with PIL."""
    module, name, settings = PROCESSORS[kind]
    made: Any = None
    for where, ending in ((f"image_processing_pil_{module}", "Pil"), (f"image_processing_{module}", "")):
        try:
            found = importlib.import_module(f"transformers.models.{module}.{where}")
        except ImportError:
            continue
        if isinstance(settings["size"], int):
            settings = {**settings, "size": {"height": settings["size"], "width": settings["size"]}}
        made = getattr(found, f"{name}{ending}")(**{k: v for k, v in settings.items() if "type" not in k})
        break
    arrays = [(image * 255).round().byte().permute(1, 2, 0).numpy() for image in images]
    return torch.cat(
        [torch.from_numpy(np.stack(made([a], return_tensors="np")["pixel_values"])) for a in arrays]
    )


def _photos() -> list[Tensor]:
    """Pictures of several shapes, wide, tall, small and square, at eight bits."""
    generator = torch.Generator().manual_seed(0)
    sharp = [torch.rand(3, h, w, generator=generator) for h, w in ((50, 37), (33, 90), (20, 21), (32, 32))]
    smooth = list(pictures(2, size=64)[..., :48])
    return [(image * 255).round() / 255 for image in (*sharp, *smooth)]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pictures_and_vectors_are_those_of_transformers(
    kind: str, models: dict[str, tuple[Any, Path]]
) -> None:
    model, folder = models[kind]
    encoder = load_encoder(str(folder))
    images = _photos()
    theirs = _theirs(kind, images)
    ours = torch.stack([view for image in images if (view := encoder.view(image)) is not None])
    assert float((ours - theirs).abs().max()) < 1e-5
    with torch.no_grad():
        if kind.startswith("clip"):
            seen = model.vision_model(pixel_values=theirs).pooler_output
            wanted = model.visual_projection(seen)
        else:
            inner = getattr(model, "vit", model)
            wanted = inner(pixel_values=theirs).last_hidden_state[:, 0]
    found = encoder.of_views(list(ours))
    assert found.shape == (len(images), encoder.width)
    assert float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert float(found.std(0).max()) > 1e-2, "a model for which all pictures are alike tests nothing"


def test_the_number_of_pictures_at_once_does_not_matter(models: dict[str, tuple[Any, Path]]) -> None:
    encoder = load_encoder(str(models["dino"][1]))
    images = pictures(40)
    alone = torch.cat([encoder(image[None]) for image in images])
    assert torch.allclose(encoder(images), alone, atol=1e-4)


def test_newer_files_of_a_processor_are_read(models: dict[str, tuple[Any, Path]], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models["clip"][1], tmp_path / "newer"))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UnlikenessError, match=r"preprocessor_config\.json is missing"):
        load_encoder(str(folder))
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    both = [load_encoder(str(one)) for one in (folder, models["clip"][1])]
    assert torch.equal(*(one(pictures(2)) for one in both))
    assert both[0].digest == both[1].digest
    assert both[0].name == "newer"


def test_a_long_strip_takes_little_memory(models: dict[str, tuple[Any, Path]]) -> None:
    view = load_encoder(str(models["clip"][1])).view(torch.rand(3, 1, 60_000))
    assert view is not None
    assert view.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("kind", "file", "change", "words"),
    [
        ("dino", "config.json", {"model_type": "bert"}, "of the kind 'bert'.*give one of CLIP, DINO, DINOv2"),
        ("dino", "config.json", {"model_type": ["vit"]}, "of the kind .*give one of CLIP, DINO, DINOv2"),
        ("dino", "config.json", {"auto_map": {"AutoModel": "mine.Mine"}}, "never run"),
        ("dino", "config.json", {"hidden_size": 10**9}, "hidden_size"),
        ("dino", "config.json", {"hidden_size": 32}, "its configuration wants"),
        ("dino", "config.json", {"num_attention_heads": 3}, "among 3 heads"),
        ("dino", "config.json", {"patch_size": 1000}, "patches of 1000 px"),
        ("dinov2", "config.json", {"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ("dinov2", "config.json", {"num_hidden_layers": 3}, "lacks"),
        ("clip", "config.json", {"vision_config": []}, "has no vision_config"),
        ("clip", "preprocessor_config.json", {"size": {"shortest_edge": 10**6}}, "sides in pixels"),
        ("clip", "preprocessor_config.json", {"image_std": [0, 0, 0]}, "image_std"),
        ("clip", "preprocessor_config.json", {"do_center_crop": False}, "does not crop"),
        ("clip", "preprocessor_config.json", {"do_resize": False}, "does not resize"),
        ("clip", "preprocessor_config.json", {"crop_size": 64}, "crops more than"),
        ("clip", "preprocessor_config.json", {"size": 64, "crop_size": 64}, "network that sees 32 px"),
    ],
)  # fmt: skip
def test_a_strangers_folder_stays_in_bounds(
    kind: str, file: str, change: dict[str, Any], words: str, models: dict[str, tuple[Any, Path]],
    tmp_path: Path,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(models[kind][1], tmp_path / "theirs"))
    content = {**json.loads((folder / file).read_text()), **change}
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(UnlikenessError, match=words) as caught:
        load_encoder(str(folder))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_weights_are_safetensors_alone(models: dict[str, tuple[Any, Path]], tmp_path: Path) -> None:
    model, source = models["dino"]
    folder = Path(shutil.copytree(source, tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UnlikenessError, match="safetensors"):
        load_encoder(str(folder))


@pytest.mark.parametrize("name", ["clop", "a/b/c", "./nowhere", "~nobody-here", "/etc/hostname"])
def test_a_wrong_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"known: clip, dino|begins with a user"):
        check_encoder(name)


def test_a_wrong_name_or_kind_is_refused_without_torch(
    models: dict[str, tuple[Any, Path]], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    code = (
        "import sys\nfrom unlikeness.measure.encoders import check_encoder\n"
        "for name in sys.argv[1:]:\n    try: check_encoder(name)\n    except ValueError: print('refused')\n"
        "print('torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "clop", str(tmp_path / "other"), str(models["dino"][1])]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == [
        "refused", "refused", "False",
    ]  # fmt: skip


def test_offline_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(UnlikenessError, match=r"dino \(facebook/dino-vits16\) is not on this machine"):
        load_encoder("dino")
    with pytest.raises(UnlikenessError, match="run `hf download someone/a-clip`"):
        load_encoder("someone/a-clip")


def test_only_the_needed_files_are_fetched(
    models: dict[str, tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    names = [
        "config.json", "preprocessor_config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5",
        "README.md", "onnx/model.onnx", "tokenizer.json",
    ]  # fmt: skip
    asked: list[list[str]] = []

    class Info:
        siblings = [type("File", (), {"rfilename": name}) for name in names]  # noqa: RUF012

    def download(repo: str, **kwargs: Any) -> str:
        asked.append(sorted(kwargs["allow_patterns"]))
        return str(models["dino"][1])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *a, **k: Info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_encoder("dino").name == "dino"
    configs = ["config.json", "preprocessor_config.json"]
    assert asked == [configs, ["config.json", "model.safetensors", "preprocessor_config.json"]]


def test_the_toybox_encoder_is_refused_for_photographs() -> None:
    encoder = load_encoder("toybox")
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, 64)
    with pytest.raises(UsageError, match=r"photographs of 512 px; name another .*: clip, dino, dinov2, dlib"):
        encoder(torch.rand(1, 3, 512, 600))


def test_a_picture_without_a_face_counts_as_any_member_of_the_class() -> None:
    nan = float("nan")
    subject = torch.tensor([[1.0, 0], [0.6, 0.8], [nan, nan]], dtype=torch.float64)
    of_class = torch.tensor([[0.0, 1], [nan, nan], [0.8, 0.6]], dtype=torch.float64)
    found = pairs_of(torch.tensor([[1.0, 0], [nan, nan]], dtype=torch.float64), subject, of_class)
    assert found.generated.tolist() == [[1, 0.6], found.of_class.mean(0).tolist()]
    assert found.of_class.shape == found.subject.shape == (2, 2)
    assert found.faceless == 1
    with pytest.raises(UsageError, match="needs at least 2 subject pictures with a face, not 1"):
        pairs_of(subject, subject[1:], of_class)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Pictures of a red subject, of a blue class, and drawn ones, in several sizes."""
    rng = np.random.default_rng(0)
    for name, colour, shape in (
        ("subject", (200, 30, 30), (150, 200)), ("class", (20, 30, 200), (200, 140)),
        ("drawn", (190, 40, 40), (160, 160)),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        for i in range(3):
            noise = rng.integers(-10, 10, (*shape, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def words(home: Path, *further: str) -> list[str]:
    folders = ("--subject", "subject", "--generated", "drawn", "--class-images", "class")
    named = [str(home / word) if i % 2 else word for i, word in enumerate(folders)]
    return ["measure", "similarity", *named, *further]


def test_several_encoders_each_give_s(
    home: Path, models: dict[str, tuple[Any, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    dino, dinov2 = (str(models[kind][1]) for kind in ("dino", "dinov2"))
    assert main(words(home, "--encoder", dino, "--encoder", dinov2, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [dino, dinov2]
    for one in found.values():
        assert one["value"] > 0.5
        assert one["n_generated"] == 3
    assert main(words(home, "--encoder", dino)) == 0
    assert ", by " in capsys.readouterr().out
    encoder = load_encoder(dino)
    vectors, digests = embed_folder([encoder], home / "drawn")
    assert vectors[0].shape == (3, encoder.width)
    assert len(set(digests)) == 3


def test_a_folder_may_be_called_toybox(home: Path, models: dict[str, tuple[Any, Path]]) -> None:
    shutil.copytree(models["dino"][1], home / "toybox")
    vectors, _ = embed_folder([load_encoder(str(home / "toybox"))], home / "drawn")
    assert len(vectors[0]) == 3


def test_photographs_need_an_encoder_of_photographs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for further in ((), ("--encoder", "toybox")):
        assert main(words(home, *further)) == 2
        said = capsys.readouterr().err
        assert "photographs of 160 px" in said
        assert "--encoder: clip, dino, dinov2" in said


def test_an_encoder_that_cannot_tell_is_named(
    home: Path, models: dict[str, tuple[Any, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (home / "subject").iterdir():
        shutil.copy(file, home / "class" / f"same-{file.name}")
    for file in (home / "class").glob("[0-9].png"):
        file.unlink()
    assert main(words(home, "--encoder", str(models["dino"][1]))) == 2
    assert "does not tell the subject" in capsys.readouterr().err
