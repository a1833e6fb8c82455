"""The quality of the shipped weights, on renders that no recipe draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from unlikeness.toybox.cast import class_pictures, member
from unlikeness.toybox.evaluators import load_classifier, load_identity
from unlikeness.toybox.weights import model_path
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS


def test_the_autoencoder_keeps_a_render_at_30_db() -> None:
    vae = AutoencoderKL.from_pretrained(model_path() / "vae").float()
    images = torch.cat([class_pictures(noun, 8, seed=50) for noun in CLASS_NOUNS])
    with torch.no_grad():
        decoded = vae.decode(vae.encode(images * 2 - 1).latent_dist.mean).sample
    error = (((decoded + 1) / 2).clamp(0, 1) - images).square().mean((1, 2, 3))
    assert float((-10 * error.log10()).mean()) >= 30


def test_the_classifier_reads_class_and_context() -> None:
    right = []
    for noun in CLASS_NOUNS:
        for context in CONTEXTS:
            nouns, contexts = load_classifier().read(member(60, noun).in_context(context, 2))
            right += [n == noun and c == context for n, c in zip(nouns, contexts, strict=True)]
    assert np.mean(right) >= 0.95


@pytest.mark.parametrize("noun", CLASS_NOUNS)
def test_the_identity_encoder_distinguishes_members_of_a_class(noun: str) -> None:
    encode = load_identity()
    pictures = torch.stack([encode(member(70 + i, noun).held_out(4)) for i in range(12)])
    cosines = torch.einsum("ivd,jwd->ijvw", pictures, pictures)
    same = torch.stack([cosines[i, i][~torch.eye(4, dtype=torch.bool)] for i in range(12)]).flatten()
    other = cosines[~torch.eye(12, dtype=torch.bool)].flatten()
    auc = (same[:, None] > other).float().mean()
    assert auc >= 0.98
