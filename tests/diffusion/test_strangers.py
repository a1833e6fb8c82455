"""A stranger's model: no code of it is run or offered, and what is wrong with it is one sentence, soon."""

from __future__ import annotations

import builtins
import json
import os
import random
import shutil
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import encoder_of, tiny_model, write_tiny

from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.families.stable_diffusion import StableDiffusion
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.diffusion.loading import check_scheduler, load_scheduler
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.networks.configs import SCHEDULER, check

NASTY: tuple[Any, ...] = (
    0, -1, 1, 3, 7, 10**9, 10**12, 2**70, 1e30, -1e30, float("nan"), float("inf"), 0.5, "x", "", "a/b:c",
    "\ud800", None, True, False, [], [0], [10**9], [[]], {}, {"a": 1}, ["x"], "x" * 10_000, "LlamaTokenizer",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as this library saves it, with all files that a tokenizer can have."""
    folder = tmp_path_factory.mktemp("models")
    return tiny_model(folder).save_pretrained(folder / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def changed(path: Path, change: dict[str, Any]) -> None:
    """A JSON file with some values replaced."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def refused(folder: Path, *words: str) -> str:
    """The sentence with which it is refused; it has these words, and none that lead to harm."""
    began = time.perf_counter()
    with pytest.raises(UnlikenessError) as caught:
        TextToImage.from_pretrained(folder, device="cpu")
    assert time.perf_counter() - began < 20
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1000
    for word in words:
        assert word in said
    for word in ("trust_remote_code", "weights_only", "pip install", "Traceback"):
        assert word not in said
    return said


@pytest.fixture
def no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked whether to run code, and no module of a model's folder is ever imported."""

    def asked(*words: Any) -> str:
        raise AssertionError(f"asked: {words}")

    monkeypatch.setattr(builtins, "input", asked)


PARTS = StableDiffusion.parts
RULES = {**StableDiffusion.rules, "scheduler": SCHEDULER}


def plant(folder: Path, ran: Path) -> None:
    """Python files that leave a trace when they are imported, wherever a library looks for one."""
    for place in (folder, *(folder / part for part in PARTS)):
        for name in ("mine", "pipeline", "configuration_mine", "modeling_mine", "tokenization_mine"):
            (place / f"{name}.py").write_text(
                f"from pathlib import Path\nPath({str(ran)!r}).touch()\nclass Mine: pass\n"
            )


@pytest.mark.usefixtures("no_questions")
@pytest.mark.parametrize("part", PARTS)
def test_auto_classes_are_refused_before_anything_is_loaded(part: str, folder: Path, tmp_path: Path) -> None:
    plant(folder, tmp_path / "ran")
    mapped = {f"Auto{kind}": "mine.Mine" for kind in ("Config", "Model", "Tokenizer", "ModelForCausalLM")}
    for file in folder.glob("*/*config.json"):
        changed(file, {"auto_map": mapped, "model_type": "mine"})
    for entry in (
        ["transformers", "AutoConfig"], ["transformers", "AutoModel"], ["transformers", "AutoTokenizer"],
        ["transformers", "AutoModelForCausalLM"], ["transformers", "pipeline"], ["diffusers", "AutoModel"],
        ["diffusers", "DiffusionPipeline"], ["mine", "Mine"], ["pipeline", "Mine"], ["builtins", "exec"],
    ):  # fmt: skip
        changed(folder / "model_index.json", {part: entry})
        refused(folder, f"the {part} of model", entry[1], "never")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("no_questions")
def test_settings_that_lead_to_code_are_refused(folder: Path, tmp_path: Path) -> None:
    plant(folder, tmp_path / "ran")
    files = ["model_index.json", *(f"{part}/config.json" for part in ("vae", "unet", "text_encoder"))]
    files += [
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/tokenizer.json",
    ]
    for name in files:
        kept = (folder / name).read_text()
        for key, value in (("auto_map", {"AutoConfig": "mine.Mine"}), ("custom_pipeline", "pipeline")):
            changed(folder / name, {key: value})
            refused(folder, name, key, "never run")
            (folder / name).write_text(kept)
    changed(folder / "model_index.json", {"_class_name": ["pipeline", "Mine"]})
    refused(folder, "not supported")
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("no_questions")
def test_settings_that_reach_other_loaders_have_no_effect(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(folder, tmp_path / "ran")
    monkeypatch.setitem(sys.modules, "kernels", None)  # the loader of kernels from the hub
    before = TextToImage.from_pretrained(whole, device="cpu")
    reaching = {
        "_attn_implementation": "x/y:z", "attn_implementation": "x/y:z", "_experts_implementation": "x/y",
        "use_kernels": True, "tp_plan": "auto", "num_labels": 10**9, "_name_or_path": "someone/else",
        "_commit_hash": "main", "task_specific_params": {"a": 1}, "architectures": ["Mine"],
    }  # fmt: skip
    changed(folder / "text_encoder/config.json", reaching)
    private = {
        "_attn_implementation": "x/y:z",
        "_name_or_path": "someone/else",
        "_use_default_values": ["act_fn"],
    }
    for part in ("unet", "vae"):
        changed(folder / part / "config.json", private)
    (folder / "text_encoder" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "someone/else", "peft_type": "LORA"})
    )
    changed(
        folder / "tokenizer/tokenizer_config.json",
        {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ 1 }}", "vocab_file": "/etc/passwd"},
    )
    (folder / "tokenizer" / "chat_template.jinja").write_text("{{ 1 }}")
    after = TextToImage.from_pretrained(folder, device="cpu")
    assert encoder_of(after).config._attn_implementation == "sdpa"
    assert torch.equal(
        after.condition(["a photo of sks dog"]).tokens, before.condition(["a photo of sks dog"]).tokens
    )
    assert not (tmp_path / "ran").exists()
    saved = after.save_pretrained(tmp_path / "saved")
    assert not list(saved.rglob("*.py"))
    assert not [file for file in saved.rglob("*.json") if "someone/else" in file.read_text()]


def test_quantized_weights_are_refused(folder: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        kept = (folder / part / "config.json").read_text()
        changed(folder / part / "config.json", {"quantization_config": {"quant_method": "torchao"}})
        refused(folder, f"{part}/config.json", "quantized (torchao), which is not read; give it in")
        (folder / part / "config.json").write_text(kept)


def test_a_copy_hands_on_nothing_of_a_carried_part_but_what_it_needs(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", safety_checker=True)
    (folder / "safety_checker" / "mine.py").write_text("1 / 0\n")
    (tmp_path / "secret").write_text("{}")
    model = TextToImage.from_pretrained(folder, device="cpu")
    saved = model.save_pretrained(tmp_path / "saved")
    assert sorted(file.name for file in (saved / "safety_checker").iterdir()) == [
        "config.json", "model.safetensors",
    ]  # fmt: skip
    (folder / "feature_extractor" / "preprocessor_config.json").unlink()
    (folder / "feature_extractor" / "preprocessor_config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UnlikenessError, match="leads out of the folder"):
        model.save_pretrained(tmp_path / "again")
    changed(folder / "safety_checker" / "config.json", {"auto_map": {"AutoModel": "mine.Mine"}})
    with pytest.raises(UsageError, match="never run"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_every_value_of_every_setting_is_in_bounds_or_named() -> None:
    for kind, rules in RULES.items():
        for key in (*rules, "something_else"):
            for value in NASTY:
                said = ""
                try:
                    check({key: value}, rules, Path("config.json"))
                except UnlikenessError as error:
                    said = str(error)
                if said:
                    assert f"config.json has {key} = " in said
                    assert "which must be" in said
                    assert len(said) < 400
                else:
                    small = isinstance(value, (bool, type(None), list, str)) or abs(value) <= 10**5
                    assert small or key == "lambda_min_clipped", (kind, key)  # it may be without a bound


@pytest.mark.parametrize("seed", range(4))
def test_a_model_with_any_value_exchanged_opens_and_draws_or_is_one_sentence(seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    files = sorted(folder.rglob("*.json"))
    for _ in range(12):
        file = draw.choice(files)
        kept = file.read_text()
        content = json.loads(kept)
        above: Any = content
        key = draw.choice(list(above))
        while isinstance(above[key], dict) and above[key] and draw.random() < 0.8:
            above, key = above[key], draw.choice(list(above[key]))
        if isinstance(above, dict) and draw.random() < 0.1:
            del above[key]
        else:
            above[key] = draw.choice(NASTY)
        file.write_text(json.dumps(content))
        try:
            model = TextToImage.from_pretrained(folder, device="cpu")
        except UnlikenessError:
            refused(folder)
        else:
            model.generate(["a photo of sks dog"], seeds=[0], steps=2)
        file.write_text(kept)


def test_json_that_takes_long_or_recurses_is_refused_at_once(folder: Path) -> None:
    files = [
        "model_index.json",
        "unet/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ]
    files += ["tokenizer/tokenizer_config.json", "tokenizer/tokenizer.json", "tokenizer/vocab.json"]
    (folder / "unlikeness.json").write_text("{}")
    for name in [*files, "unlikeness.json"]:
        kept = (folder / name).read_text()
        for text, why in (
            ('{"a":' * 200_000, "nested too deeply"), ("[" * 200_000, "nested too deeply"),
            ("[]", "not a JSON object"), ('{"a": 1, "a": 2}', "twice"),
        ):  # fmt: skip
            (folder / name).write_text(text)
            refused(folder, name, why)
        with (folder / name).open("r+b") as file:
            file.truncate(1 << 33)  # a file with a hole: it takes no place, and must not be read whole
        refused(folder, name, "larger than")
        (folder / name).write_text(kept)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
def test_pipes_and_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    names = ["model_index.json", "unlikeness.json", "README.md", "immunization.json", "vae/config.json"]
    names += ["tokenizer/merges.txt", "tokenizer/vocab.json", "scheduler/scheduler_config.json"]
    names += ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
    for name in names:
        path, kept = folder / name, tmp_path / "kept"
        if path.exists():
            path.rename(kept)
        else:
            kept.write_text("{}")
        os.mkfifo(path)
        refused(folder, name, "no regular file")
        path.unlink()
        path.symlink_to(kept)
        refused(folder, name, "leads out of the folder")
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
        refused(folder, name)
        path.unlink()
        if name not in ("unlikeness.json", "README.md", "immunization.json"):
            kept.rename(path)
    TextToImage.from_pretrained(folder, device="cpu")


def test_the_links_of_the_hub_cache_are_followed(whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "models--someone--model"
    snapshot = store / "snapshots" / "0123"
    (store / "blobs").mkdir(parents=True)
    for number, file in enumerate(sorted(file for file in whole.rglob("*") if file.is_file())):
        blob = store / "blobs" / str(number)
        shutil.copyfile(file, blob)
        link = snapshot / file.relative_to(whole)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    linked, plain = (TextToImage.from_pretrained(place, device="cpu") for place in (snapshot, whole))
    assert fingerprint(linked) == fingerprint(plain)


def test_a_configuration_beyond_its_weights_allocates_nothing(folder: Path) -> None:
    for part, change in (
        ("unet", {"block_out_channels": [16384, 16384]}),
        ("vae", {"block_out_channels": [16384, 16384, 16384]}),
        ("text_encoder", {"hidden_size": 16384, "intermediate_size": 65536, "num_hidden_layers": 64}),
        ("text_encoder", {"vocab_size": 1 << 20}),
    ):
        kept = (folder / part / "config.json").read_text()
        changed(folder / part / "config.json", change)
        refused(folder, f"the {part} of model")
        (folder / part / "config.json").write_text(kept)


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("unet", {"class_embed_type": "timestep"}, ["class_embed_type"]),
        ("unet", {"num_class_embeds": 10}, ["num_class_embeds"]),
        (
            "unet",
            {"addition_embed_type": "text_time", "addition_time_embed_dim": 256},
            ["addition_embed_type"],
        ),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, ["encoder_hid_dim_type"]),
        ("unet", {"sample_size": 0}, ["sample_size"]),
        ("unet", {"sample_size": 10**9}, ["sample_size"]),
        ("unet", {"sample_size": "64"}, ["sample_size"]),
        ("unet", {"sample_size": None}, ["sample_size"]),
        ("unet", {"out_channels": 8}, ["the unet of model", "shape"]),
        ("unet", {"up_block_types": ["UpBlock2D"]}, ["the unet of model"]),
        ("vae", {"scaling_factor": 0}, ["scaling_factor"]),
        ("vae", {"scaling_factor": -1}, ["scaling_factor"]),
        ("vae", {"in_channels": 4}, ["in_channels"]),
        ("text_encoder", {"max_position_embeddings": 8}, ["model_max_length", "from 3 to 8"]),
        ("text_encoder", {"num_attention_heads": 0}, ["num_attention_heads"]),
        ("text_encoder", {"hidden_act": "x"}, ["hidden_act"]),
        ("scheduler", {"num_train_timesteps": 10**12}, ["num_train_timesteps"]),
        ("scheduler", {"num_train_timesteps": 0}, ["num_train_timesteps"]),
        ("scheduler", {"beta_start": -1}, ["beta_start"]),
        ("scheduler", {"prediction_type": "noise"}, ["prediction_type"]),
        ("scheduler", {"beta_schedule": "x"}, ["the scheduler of model"]),
        ("scheduler", {"trained_betas": [0.5] * 20_000}, ["trained_betas"]),
        ("scheduler", {"steps_offset": 10**4}, ["the scheduler of model"]),
        ("tokenizer", {"model_max_length": 0}, ["model_max_length"]),
        ("tokenizer", {"model_max_length": 1e30}, ["model_max_length"]),
        ("tokenizer", {"model_max_length": 10**6}, ["model_max_length"]),
        ("tokenizer", {"pad_token": {"content": "new", "lstrip": "x"}}, ["tokenizer_config.json"]),
    ],
)
def test_a_setting_that_no_model_can_have_is_named(
    part: str, change: dict[str, Any], words: list[str], folder: Path
) -> None:
    name = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}.get(
        part, "config.json"
    )
    changed(folder / part / name, change)
    refused(folder, *words)


def test_parts_that_do_not_belong_together_are_named(folder: Path, tmp_path: Path) -> None:
    wide = write_tiny(tmp_path / "other")
    config = json.loads((wide / "text_encoder" / "config.json").read_text())
    tensors = load_file(wide / "text_encoder" / "model.safetensors")
    small = {"hidden_size": 16, "intermediate_size": 48, "num_attention_heads": 2}
    from transformers import CLIPTextConfig, CLIPTextModel

    CLIPTextModel(CLIPTextConfig(**{**config, **small})).save_pretrained(tmp_path / "narrow")
    assert tensors
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(tmp_path / "narrow", folder / "text_encoder")
    refused(folder, "width 16 (hidden_size)", "cross_attention_dim")


def test_tokens_beyond_the_embedding_are_refused(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json"):
        kept = (folder / "tokenizer" / name).read_text()
        content = json.loads(kept)
        (content["model"]["vocab"] if name == "tokenizer.json" else content)["dog</w>"] = 5000
        (folder / "tokenizer" / name).write_text(json.dumps(content))
        if name == "vocab.json":
            (folder / "tokenizer" / "tokenizer.json").unlink()
        refused(folder, "token number 5000", "below 200")
        (folder / "tokenizer" / name).write_text(kept)
    changed(
        folder / "tokenizer/tokenizer_config.json",
        {"pad_token": "<a new one>"}
        | {"added_tokens_decoder": {str(i): {"content": f"<{i}>"} for i in range(200, 400)}},
    )
    refused(folder, "the tokenizer of model", "below 200")


def test_a_tokenizer_without_a_vocabulary_is_refused_whatever_else_is_there(folder: Path) -> None:
    for name in ("tokenizer.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink()
    for name in ("tokenizer.model", "spiece.model", "vocab.tiktoken", "tekken.json"):
        (folder / "tokenizer" / name).write_bytes(b"{}")
    refused(folder, "tokenizer has no vocabulary of a CLIP")


def test_weights_of_another_shape_or_kind_are_named(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for value in (torch.zeros(3), torch.zeros(16, 4, 3, 3, dtype=torch.int64), torch.zeros(0, 4, 3, 3)):
        save_file({**tensors, "conv_in.weight": value}, file)
        refused(folder, "the unet of model", "conv_in.weight")
    file.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    refused(folder, file.name, "cut short")
    header = b'{"__metadata__":{"a":"' + b"x" * (1 << 25) + b'"}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(folder, file.name, "header is larger")


def test_an_index_of_shards_names_files_of_its_own_folder(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", sharded=True)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    shard = next((folder / "unet").glob("*-00001-of-*.safetensors"))
    shutil.copyfile(shard, tmp_path / "outside.safetensors")
    names = [
        "../../outside.safetensors",
        str(tmp_path / "outside.safetensors"),
        "nowhere.safetensors",
        7,
        None,
    ]
    for name in names:
        kept = index.read_text()
        changed(index, {"weight_map": dict.fromkeys(json.loads(kept)["weight_map"], name)})
        refused(folder, index.name)
        index.write_text(kept)
    changed(index, {"weight_map": []})
    refused(folder, "weight_map")


def test_pickles_that_unpack_to_more_or_are_of_the_old_kind_are_refused(tmp_path: Path) -> None:
    folder = write_tiny(tmp_path / "model", pickled=True)
    file = folder / "unet" / "diffusion_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    torch.save(state, file, _use_new_zipfile_serialization=False)
    refused(folder, file.name, "zip format")
    torch.save({**state, "more": {"nested": 1}}, file)
    refused(folder, file.name, "no tensor")
    torch.save([1, 2], file)
    refused(folder, file.name, "no state dict")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x00" * (1 << 24))
    assert file.stat().st_size < 1 << 16
    refused(folder, file.name, "compressed")


def test_a_scheduler_of_any_known_class_opens(folder: Path) -> None:
    import diffusers

    for kind in PARTS["scheduler"][1]:
        if kind == "LMSDiscreteScheduler":  # it needs scipy
            continue
        shutil.rmtree(folder / "scheduler")
        getattr(diffusers, kind)().save_pretrained(folder / "scheduler")
        scheduler = load_scheduler(folder, kind)
        assert type(scheduler).__name__ == kind
        theirs = getattr(diffusers, kind).from_pretrained(folder / "scheduler").config
        assert {**scheduler.config, "_diffusers_version": "0"} == {**theirs, "_diffusers_version": "0"}
        check_scheduler(folder, scheduler, StableDiffusion())


def test_a_library_that_is_missing_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    class Dummy:
        @staticmethod
        def from_config(config: dict[str, Any]) -> Any:
            raise ImportError(
                "\nLMSDiscreteScheduler requires the scipy library but it was not found in your environment. "
                "You can install it with pip:\n`pip install scipy`."
            )

    monkeypatch.setattr(diffusers, "LMSDiscreteScheduler", Dummy)
    changed(folder / "model_index.json", {"scheduler": ["diffusers", "LMSDiscreteScheduler"]})
    refused(folder, "it needs scipy, which is not installed")
