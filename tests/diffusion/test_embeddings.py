"""Words of Textual Inversion: as in plain diffusers, from every form of file, and in a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from tests.tiny import encoder_of, tiny_model
from tests.tiny_xl import tiny_xl

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.adapters import Embedding, parse_embeddings
from unlikeness.diffusion.embeddings import load_embedding
from unlikeness.errors import UnlikenessError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextToImage:
    return tiny_model(tmp_path_factory.mktemp("models"))


def vectors(count: int, width: int = 32) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("count", [1, 3])
def test_prompts_are_those_of_plain_diffusers(count: int, model: TextToImage, tmp_path: Path) -> None:
    save_file({"<rex>": vectors(count)}, tmp_path / "a.safetensors")
    ours = load_embedding(model, Embedding(str(tmp_path / "a.safetensors")))
    pipe = StableDiffusionPipeline.from_pretrained(model.source)
    pipe.load_textual_inversion(tmp_path / "a.safetensors")
    for prompt in ("a photo of <rex> dog", "a dog", "<rex>"):
        theirs = pipe.encode_prompt(prompt, "cpu", 1, False)[0]
        assert torch.equal(ours.condition([prompt]).tokens, theirs)
    assert not torch.equal(ours.condition(["<rex>"]).tokens, model.condition(["<rex>"]).tokens)
    assert encoder_of(model).config.vocab_size == 200
    saved = ours.save_pretrained(tmp_path / "saved")
    again = TextToImage.from_pretrained(saved, device="cpu")
    assert torch.equal(again.condition(["a <rex>"]).tokens, ours.condition(["a <rex>"]).tokens)


@pytest.mark.parametrize("form", ["emb_params", "pickle", "first authors"])
def test_every_form_of_file_is_read(form: str, model: TextToImage, tmp_path: Path) -> None:
    file = tmp_path / ("rexy.safetensors" if form == "emb_params" else "rexy.pt")
    if form == "emb_params":
        save_file({"emb_params": vectors(2)}, file)
    elif form == "pickle":
        torch.save({"rexy": vectors(2)[0]}, file)
    else:
        content: dict[str, Any] = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors(2)}}
        torch.save({**content, "name": "rexy", "step": 9}, file)
    ours = load_embedding(model, Embedding(str(file)))
    number = ours.conditioner.tokenizer.convert_tokens_to_ids("rexy")
    assert torch.equal(encoder_of(ours).get_input_embeddings().weight[number], vectors(2)[0])
    assert ours.conditioner.too_long("rexy " * 5) is None


def test_what_does_not_fit_is_one_sentence(model: TextToImage, tmp_path: Path) -> None:
    def refused(kind: type[Exception], said: str, word: str = "", **content: torch.Tensor) -> None:
        save_file(content, tmp_path / "a.safetensors")
        with pytest.raises(kind, match=said) as caught:
            load_embedding(model, Embedding(str(tmp_path / "a.safetensors"), word))
        assert "\n" not in str(caught.value)

    refused(UnlikenessError, "vectors of width 768, and the model's text encoders are of width 32",
            rex=vectors(1, 768))  # fmt: skip
    refused(UnlikenessError, "it holds 2 entries", a=vectors(1), b=vectors(1))
    refused(UnlikenessError, "has 76 vectors", rex=vectors(76))
    refused(UnlikenessError, "not finite", rex=vectors(1) * torch.inf)
    refused(UsageError, "knows the word 'dog' already", dog=vectors(1))
    refused(UsageError, "has spaces", "two words", rex=vectors(1))
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnlikenessError, match="cannot be used"):
        load_embedding(model, Embedding(str(tmp_path / "a.safetensors")))
    assert parse_embeddings([f"rex={tmp_path / 'a.safetensors'}"]) == [
        Embedding(str(tmp_path / "a.safetensors"), "rex")
    ]
    with pytest.raises(UsageError, match="is no embedding file"):
        parse_embeddings([str(tmp_path / "none.pt")])


def test_both_encoders_of_stable_diffusion_xl_learn_the_word(tmp_path: Path) -> None:
    model = tiny_xl(tmp_path)
    save_file({"clip_l": vectors(2, 16), "clip_g": vectors(2, 24)}, tmp_path / "rexy.safetensors")
    ours = load_embedding(model, Embedding(str(tmp_path / "rexy.safetensors")))
    pipe = StableDiffusionXLPipeline.from_pretrained(model.source)
    for name, number in (("clip_l", ""), ("clip_g", "_2")):
        pipe.load_textual_inversion(
            load_file(tmp_path / "rexy.safetensors")[name],
            "rexy",
            text_encoder=getattr(pipe, f"text_encoder{number}"),
            tokenizer=getattr(pipe, f"tokenizer{number}"),
        )
    theirs = pipe.encode_prompt("a rexy", device="cpu", do_classifier_free_guidance=False)
    c = ours.condition(["a rexy"])
    assert torch.equal(c.tokens, theirs[0])
    assert c.pooled is not None
    assert torch.equal(c.pooled, theirs[2])
    save_file({"emb_params": vectors(1, 16)}, tmp_path / "one.safetensors")
    assert load_embedding(model, Embedding(str(tmp_path / "one.safetensors"))) is not model


def test_several_words(model: TextToImage, tmp_path: Path) -> None:
    ours = model
    for count, word in enumerate(("<one>", "<two>"), 1):
        save_file({word: vectors(count)}, tmp_path / f"{count}.safetensors")
        ours = load_embedding(ours, Embedding(str(tmp_path / f"{count}.safetensors")))
    numbers = ours.conditioner.tokenizer("<one> <two>").input_ids[1:-1]
    assert numbers == ours.conditioner.tokenizer.convert_tokens_to_ids(["<one>", "<two>", "<two>_1"])


def test_a_word_may_begin_with_another(model: TextToImage, tmp_path: Path) -> None:
    ours = model
    for word in ("rexy", "rexy2"):
        save_file({word: vectors(2)}, tmp_path / f"{word}.safetensors")
        ours = load_embedding(ours, Embedding(str(tmp_path / f"{word}.safetensors")))
    tokenizer = ours.conditioner.tokenizer
    numbers = tokenizer("rexy2 rexy").input_ids[1:-1]
    assert numbers == tokenizer.convert_tokens_to_ids(["rexy2", "rexy2_1", "rexy", "rexy_1"])


def test_a_pickle_takes_no_more_than_its_own_size(model: TextToImage, tmp_path: Path) -> None:
    nested: list[Any] = ["a"]
    for _ in range(40):
        nested = [nested, nested]  # a text of terabytes
    torch.save({"string_to_param": {"*": vectors(1)}, "name": nested}, tmp_path / "rex.pt")
    named = load_embedding(model, Embedding(str(tmp_path / "rex.pt")))
    assert "rex" in named.conditioner.tokenizers["tokenizer"].get_vocab()
    for one in (
        torch.zeros(1, dtype=torch.float16).as_strided((1, 10**12), (0, 0)),
        torch.empty(1, 32, device="meta"), torch.zeros(1, 32).to_sparse(),
        torch.zeros(0, 0), torch.zeros(0, 32), torch.tensor(1.0),
    ):  # fmt: skip
        torch.save({"rex": one}, tmp_path / "bad.pt")
        with pytest.raises(UnlikenessError, match="cannot be used") as caught:
            load_embedding(model, Embedding(str(tmp_path / "bad.pt")))
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="is no embedding file"):
        load_embedding(model, Embedding(str(tmp_path / "none.pt")))
