"""A CLIP that names class nouns, on a tiny random one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from tests.tiny import pictures, write_clip
from torch import Tensor

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.measure import classifiers
from unlikeness.measure.classifiers import pixel_values, prompt
from unlikeness.measure.protective import protective

SIDE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP as transformers writes it."""
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny", side=SIDE)


def varied(count: int) -> Tensor:
    """[count, 3, 40, 24] in [0, 1] at eight bits, of which a random CLIP does not think the same."""
    return (pictures(count, size=40)[..., :24] * 255).round() / 255


def test_pictures_are_brought_to_clip_as_transformers_does() -> None:
    processor = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    theirs = processor.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    sharp = (torch.rand(2, 3, 50, 37, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    for images in (varied(3), varied(3).transpose(2, 3), sharp, pictures(2, size=9), pictures(2, size=SIDE)):
        images = (images * 255).round() / 255
        arrays = [(image * 255).byte().permute(1, 2, 0).numpy() for image in images]
        wanted = torch.from_numpy(np.stack(theirs(arrays, return_tensors="np")["pixel_values"]))
        found = pixel_values(images, SIDE)
        assert found.shape == wanted.shape == (len(images), 3, SIDE, SIDE)
        assert float((found - wanted).abs().max()) < 2 / 255 / 0.26  # theirs are rounded to eight bits


def test_scores_are_the_softmax_of_scaled_cosines(folder: Path) -> None:
    classifier = classifiers.load_clip(["dog", "cat"], folder)
    assert classifier.nouns == ("dog", "cat", "")
    images = varied(5)
    text, seen = [], []
    with torch.no_grad():
        for words in ("a photo of a dog", "a photo of a cat", "a photo"):  # one at a time: nothing is padded
            ids = classifier.tokenizer(words, return_tensors="pt")["input_ids"]
            found = classifier.model.text_model(input_ids=ids).pooler_output
            text.append(classifier.model.text_projection(found)[0])
        for image in pixel_values(images, SIDE):
            found = classifier.model.vision_model(pixel_values=image[None]).pooler_output
            seen.append(classifier.model.visual_projection(found)[0])
        scale = float(classifier.model.logit_scale.exp())

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(a @ b / (a @ a) ** 0.5 / (b @ b) ** 0.5)

    for x, row in zip(seen, classifier.scores(images), strict=True):
        e = np.exp([scale * cosine(x, c) for c in text])
        assert row.tolist() == pytest.approx((e / e.sum()).tolist(), abs=1e-4)


def test_the_likeliest_noun_is_named_and_is_what_a_protective_output_is_told_by(folder: Path) -> None:
    classifier = classifiers.load_clip(["dog", "cat"], folder)
    images = varied(40)
    read = classifier(images)
    assert len(set(read)) > 1, "a random CLIP that thinks the same of all pictures tests nothing"
    assert read == [classifier.nouns[i] for i in classifier.scores(images).argmax(1).tolist()]
    shown = protective("target", images, read=classifier, target_noun="cat")
    assert shown.tolist() == [noun == "cat" for noun in read]
    gone = protective("erasure", images, read=classifier, class_noun="dog")
    assert gone.tolist() == [noun != "dog" for noun in read]


def test_how_many_pictures_are_read_at_once_does_not_matter(folder: Path) -> None:
    classifier = classifiers.load_clip(["dog", "cat", "mug"], folder)
    images = varied(40)
    alone = torch.cat([classifier.scores(image[None]) for image in images])
    assert torch.allclose(classifier.scores(images), alone, atol=1e-5)


def test_nouns_are_said_as_prompts(folder: Path) -> None:
    assert [prompt(noun) for noun in ("dog", "apple", "")] == [
        "a photo of a dog", "a photo of an apple", "a photo",
    ]  # fmt: skip
    assert classifiers.load_clip(["dog", "cat", "dog", ""], folder).nouns == ("dog", "cat", "")
    with pytest.raises(UsageError, match="give one or more"):
        classifiers.load_clip([""], folder)
    with pytest.raises(UsageError, match="tokens, and the model reads the first 16"):
        classifiers.load_clip(["dog of a very uncommon breed"], folder)


def test_what_is_no_whole_clip_in_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    pickled = broken("pickled")
    model = classifiers.load_clip(["dog"], folder).model
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UnlikenessError, match=r"pickled cannot be read as a CLIP .*model\.safetensors"):
        classifiers.load_clip(["dog"], pickled)
    damaged = broken("damaged")
    (damaged / "model.safetensors").write_bytes(b"not at all")
    with pytest.raises(UnlikenessError, match="damaged cannot be read as a CLIP"):
        classifiers.load_clip(["dog"], damaged)
    half = broken("half")
    model.text_model.save_pretrained(half)
    with pytest.raises(UnlikenessError, match="has no text_config"):
        classifiers.load_clip(["dog"], half)
    speechless = broken("speechless")
    for name in ("vocab.json", "merges.txt"):
        (speechless / name).unlink()
    with pytest.raises(UnlikenessError, match="no vocabulary of a CLIP"):
        classifiers.load_clip(["dog"], speechless)
    for name in ("./nowhere", "clip"):
        with pytest.raises(UsageError, match="is no folder here"):
            classifiers.load_clip(["dog"], name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auto_map": {"AutoModel": "mine.Mine"}}, "never run"),
        ({"text_config": []}, "has no text_config"),
        ({"projection_dim": "8"}, "projection_dim"),
        ({"projection_dim": 16384}, "projection.weight"),
        ({"vision_config": {"hidden_size": 0}}, "vision_config.hidden_size"),
        ({"vision_config": {"image_size": 10**9}}, "vision_config.image_size"),
        ({"vision_config": {"num_hidden_layers": 10**6}}, "vision_config.num_hidden_layers"),
        ({"vision_config": {"hidden_act": "x/y:z"}}, "vision_config.hidden_act"),
        ({"text_config": {"vocab_size": 1 << 20}}, "token_embedding|words of its tokenizer"),
        ({"text_config": {"max_position_embeddings": 5}}, "position_embedding"),
    ],
)
def test_the_configuration_of_a_strangers_clip_is_checked(
    change: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "theirs"))
    config = json.loads((path / "config.json").read_text())
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) and key in config else value
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnlikenessError, match=words) as caught:
        classifiers.load_clip(["dog"], path)
    assert "\n" not in str(caught.value)


def test_settings_that_reach_other_loaders_change_nothing(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder, tmp_path / "theirs"))
    config = json.loads((path / "config.json").read_text())
    reaching = {"_attn_implementation": "x/y:z", "attn_implementation": "x/y:z", "num_labels": 10**9}
    for one in (config, config["text_config"], config["vision_config"]):
        one.update(reaching)
    (path / "config.json").write_text(json.dumps(config))
    (path / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    found = classifiers.load_clip(["dog", "cat"], path)
    assert torch.equal(
        found.scores(varied(3)), classifiers.load_clip(["dog", "cat"], folder).scores(varied(3))
    )


def test_from_the_hub_no_pickle_is_even_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        "config.json", "merges.txt", "vocab.json", "tokenizer_config.json", "model.safetensors",
        "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "README.md",
    ]  # fmt: skip
    asked: dict[str, Any] = {}

    def model_info(self: Any, repo: str, **kwargs: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])

    def download(repo: str, **kwargs: Any) -> str:
        asked.update(repo=repo, **kwargs)
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert classifiers.load_clip(["dog"], "someone/a-clip").name == "someone/a-clip"
    assert asked["repo"] == "someone/a-clip"
    assert sorted(asked["allow_patterns"]) == [
        "README.md", "config.json", "merges.txt", "model.safetensors", "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip


def test_a_user_who_is_not_known_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="classifier ~nobody-here begins with a user"):
        classifiers.load_clip(["dog"], "~nobody-here")


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(UnlikenessError, match="classifier someone/a-clip is not in the hub cache here"):
        classifiers.load_clip(["dog"], "someone/a-clip")
