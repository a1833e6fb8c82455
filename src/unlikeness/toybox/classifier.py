"""The classifier of class nouns and contexts: the measure of what a toybox picture shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from unlikeness.toybox.convnet import ConvNet, load_float
from unlikeness.toybox.weights import classifier_path
from unlikeness.toybox.world import CLASS_NOUNS, CONTEXTS


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


class Classifier:
    """A trained, frozen classifier."""

    def __init__(self, net: ClassifierNet) -> None:
        self.net = net

    @torch.no_grad()
    def read(self, images: Tensor) -> tuple[list[str], list[str]]:
        """The most likely class noun and context of each picture. images: [B, 3, 64, 64] in [0, 1]."""
        contexts = list(CONTEXTS)
        parts = [self.net(batch) for batch in torch.split(images, 64)]
        nouns = [CLASS_NOUNS[int(i)] for a, _ in parts for i in a.argmax(1)]
        return nouns, [contexts[int(i)] for _, b in parts for i in b.argmax(1)]

    def features(self, images: Tensor) -> Tensor:
        """Features [B, 192] of pictures [B, 3, 64, 64] in [0, 1], for distances between distributions."""
        return _batched(self.net.body, images)


@torch.no_grad()
def _batched(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([net(batch) for batch in torch.split(images, 64)])


@cache
def load() -> Classifier:
    """The shipped classifier. Raises UnlikenessError if its weights are missing."""
    net = ClassifierNet()
    load_float(net, classifier_path())
    return Classifier(net)
