"""The small networks that evaluate toybox pictures: a classifier and an identity encoder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.errors import NotFiniteError
from unlikeness.tensors import all_finite, save_tensors
from unlikeness.toybox.weights import classifier_path, identity_path
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS

_WIDTHS = (32, 64, 128, 192)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut. Halves the side."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width_in, width_out, 3, stride=2, padding=1)
        self.norm1 = nn.GroupNorm(8, width_out)
        self.conv = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, width_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.down(x)))
        return F.relu(x + self.norm2(self.conv(x)))


class ConvNet(nn.Module):
    """[B, 3, 64, 64] in [0, 1] -> features [B, 192]: the mean over places of the last of four halvings."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip((3, *_WIDTHS), _WIDTHS, strict=False)))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(images * 2 - 1).mean((2, 3))
        return features


class IdentityNet(nn.Module):
    """[B, 3, 64, 64] in [0, 1] -> unit vectors [B, 64]; the same subject's pictures lie close together."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ConvNet()
        self.head = nn.Sequential(nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 64))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(images)), dim=1)


class ClassifierNet(nn.Module):
    """[B, 3, 64, 64] in [0, 1] -> logits of the class nouns [B, 6] and of the contexts [B, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ConvNet()
        self.class_head = nn.Linear(192, len(CLASS_NOUNS))
        self.context_head = nn.Linear(192, len(CONTEXTS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.class_head(features), self.context_head(features)


class IdentityEncoder:
    """A trained, frozen encoder, the toybox's stand-in for DINO and ArcFace (a `measure.Embedder`)."""

    def __init__(self, net: IdentityNet) -> None:
        self.net = net

    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, 64, 64] in [0, 1] -> [B, 64], unit length."""
        return _batched(self.net, images)


class Classifier:
    """A trained, frozen classifier of class nouns and contexts."""

    def __init__(self, net: ClassifierNet) -> None:
        self.net = net

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[list[str], list[str]]:
        """The most likely class noun and context of each picture. images: [B, 3, 64, 64] in [0, 1]."""
        contexts = list(CONTEXTS)
        parts = [self.net(batch) for batch in torch.split(images, 64)]
        nouns = [CLASS_NOUNS[int(i)] for a, _ in parts for i in a.argmax(1)]
        return nouns, [contexts[int(i)] for _, b in parts for i in b.argmax(1)]

    def probability(self, features: Tensor, noun: str) -> Tensor:
        """p(noun), [B], of these `features` [B, 192]."""
        found: Tensor = self.net.class_head(features).softmax(1)[:, CLASS_NOUNS.index(noun)]
        return found

    def features(self, images: Tensor) -> Tensor:
        """Features [B, 192] of pictures [B, 3, 64, 64] in [0, 1], for distances between distributions."""
        return _batched(self.net.body, images)


@torch.no_grad()
def _batched(net: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([net(batch) for batch in torch.split(images, 64)])


@cache
def load_identity() -> IdentityEncoder:
    """The shipped encoder. UnlikenessError if its weights are missing."""
    net = IdentityNet()
    load_float(net, identity_path())
    return IdentityEncoder(net)


@cache
def load_classifier() -> Classifier:
    """The shipped classifier. UnlikenessError if its weights are missing."""
    net = ClassifierNet()
    load_float(net, classifier_path())
    return Classifier(net)


def save_half(module: nn.Module, path: Path) -> None:
    """Write a module's weights in half precision as safetensors.

    UnlikenessError if they cannot be written; NotFiniteError, with nothing written, if one is not finite.
    """
    weights = {name: value.half().contiguous() for name, value in module.state_dict().items()}
    if not all_finite(weights.values()):
        raise NotFiniteError(f"{path} is not written: its weights are not finite; lower the learning rate")
    save_tensors(weights, path)


def load_float(module: nn.Module, path: Path) -> None:
    """Read what `save_half` wrote, then freeze the module in evaluation mode."""
    from safetensors.torch import load_file

    weights = {name: value.float() for name, value in load_file(path).items()}
    if not all_finite(weights.values()):  # of NaN logits the first class would win
        raise NotFiniteError(f"{path} has weights that are not finite (NaN or infinity); install it again")
    module.load_state_dict(weights)
    module.eval().requires_grad_(False)
