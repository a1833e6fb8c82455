"""Methods know a model by its four words: only `diffusion` names what a family's networks look like."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "unlikeness"

KNOWING = ("diffusion", "autoencoders", "networks", "toybox/recipes")
"""Folders that name networks: they open them, and `toybox/recipes` makes the toybox's."""

FORBIDDEN = re.compile(
    r"unet|UNet\w*|Transformer2DModel|AutoencoderKL|AutoencoderTiny|CLIPTextModel|CLIPTokenizer\w*"
    r"|\.?attn\w*\.?|to_[qkv]|to_out\b.*|cross_attention_dim|encoder_hidden_states|last_hidden_state"
    r"|scaling_factor|shift_factor|latents_(mean|std)|latent_channels|block_out_channels|in_channels"
    r"|alphas_cumprod|_hf_peft_config_loaded|_version"
)

INSIDE = {"tokens", "pooled", "encoders", "tokenizers"}
"""Fields of a condition and of a conditioner that only a family reads."""

EXCEPTIONS = {
    ("immunize/record.py", "unet"): "a key of immunization.json",
    ("cli/toybox.py", "unet"): "a folder of the model that `toybox train` writes",
    ("cli/toybox.py", "AutoencoderKL"): "what `toybox train vae` writes",
    ("measure/classifiers.py", "CLIPTokenizerFast"): "a CLIP that reads pictures, no text-to-image model",
    ("measure/classifiers.py", "attn_implementation"): "the same",
    ("measure/towers.py", "attn_implementation"): "encoders of pictures, no text-to-image model",
    ("measure/towers.py", "last_hidden_state"): "the same",
    ("verify/job.py", "encoders"): "the judges of pictures",
    ("bench/measuring.py", "encoders"): "the same",
    ("bench/work.py", "encoders"): "the same",
    ("personalize/custom_diffusion.py", "unet"): "the kind of denoiser whose prompt begins with CLIP's sign",
    ("purify/upscale.py", "unet"): "of an upscaler, no text-to-image model",
    ("protect/rid/official.py", "tokens"): "of the official RID",
    ("protect/rid/official_weights.py", "tokens"): "of the official RID",
    ("protect/rid/official_weights.py", ".attn.qkv"): "layers of the official RID",
    ("protect/rid/official_weights.py", ".attn.proj"): "layers of the official RID",
}


def _outside() -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(tuple(f"{folder}/" for folder in KNOWING)):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def _names(tree: ast.AST) -> Iterator[str]:
    """All identifiers, attributes, keywords and texts, but for docstrings."""
    prose = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # docstrings of modules, classes, functions and attributes
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg is not None:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def test_no_file_outside_names_what_a_network_is_made_of() -> None:
    found = [
        f"{file}: {name}"
        for file, tree in _outside()
        for name in _names(tree)
        if FORBIDDEN.fullmatch(name) and (file, name) not in EXCEPTIONS
    ]
    assert not found, "give the family, the autoencoder or the conditioner a word for it"


def test_no_method_looks_inside_a_condition_or_a_conditioner() -> None:
    found = [
        f"{file}:{node.lineno}: .{node.attr}"
        for file, tree in _outside()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in INSIDE and (file, node.attr) not in EXCEPTIONS
    ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "f = model.unet(z, t)", "x = vae.config.scaling_factor", "p = [n for n in names if '.attn2.' in n]",
        "LoraConfig(target_modules=['to_q'])", "f = net(z, encoder_hidden_states=c)",
        "del model.denoiser._hf_peft_config_loaded", "now = p._version",
    ],
)  # fmt: skip
def test_the_walk_finds_them(line: str) -> None:
    assert any(FORBIDDEN.fullmatch(name) for name in _names(ast.parse(line)))


def test_every_exception_is_still_needed() -> None:
    seen = {(file, name) for file, tree in _outside() for name in _names(tree)}
    assert {key for key in EXCEPTIONS if key not in seen} == set()
