"""The identity encoder: tells two subjects of one class apart. The toybox's stand-in for DINO and ArcFace."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlikeness.toybox.convnet import ConvNet, load_float
from unlikeness.toybox.weights import identity_path


class IdentityNet(nn.Module):
    """[B, 3, 64, 64] in [0, 1] -> unit vectors [B, 64]; the same subject's pictures lie close together."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ConvNet()
        self.head = nn.Sequential(nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 64))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.head(self.body(images)), dim=1)


class IdentityEncoder:
    """A trained, frozen encoder; an `unlikeness.measure.Embedder`."""

    def __init__(self, net: IdentityNet) -> None:
        self.net = net

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[B, 3, 64, 64] in [0, 1] -> [B, 64], unit length."""
        return torch.cat([self.net(batch) for batch in torch.split(images, 64)])


@cache
def load() -> IdentityEncoder:
    """The shipped encoder. Raises UnlikenessError if its weights are missing."""
    net = IdentityNet()
    load_float(net, identity_path())
    return IdentityEncoder(net)
