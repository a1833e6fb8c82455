"""One outer step of L2P as published, in plain code: the reference of `benchmarks.immunize_cost`.

From the description in the paper (arXiv 2511.01307, Alg. 1) and of what its released code computes: batches
of one, float32, the attacked U-Net a deep copy of the released one, a fresh AdamW for it, the autoencoder and
the text encoder run again in every step, eight U-Net calls for every inner step (one of them unused), five of
them with a backward pass.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion import TextToImage

__all__ = ["PublishedL2P"]


class PublishedL2P:
    """θ, φ and the outer AdamW. `step` is one outer step of `inner_steps` inner ones."""

    def __init__(
        self,
        model: TextToImage,
        subject: Tensor,
        generic: Tensor,
        of_class: Tensor,
        prompts: tuple[str, str],
        *,
        inner_steps: int,
        learning_rate: float,
        attack_learning_rate: float,
        seed: int,
    ) -> None:
        self.model, self.images = model, (subject, generic, of_class)
        self.prompts = prompts
        self.inner_steps, self.attack_learning_rate = inner_steps, attack_learning_rate
        self.original = model.denoiser
        self.theta = copy.deepcopy(model.denoiser).requires_grad_(True)
        self.outer = torch.optim.AdamW(self.theta.parameters(), lr=learning_rate, weight_decay=0.01)
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        attacked = copy.deepcopy(self.theta)
        inner = torch.optim.AdamW(attacked.parameters(), lr=self.attack_learning_rate, weight_decay=0.01)
        for p in self.theta.parameters():
            p.grad = torch.zeros_like(p)
        for k in range(self.inner_steps):
            minus, plus, member = (self._encode(images, k) for images in self.images)
            c_V, c_class = (self._embed(prompt) for prompt in self.prompts)
            inner.zero_grad()
            l_per = self._error(attacked, minus, c_V) + self._error(attacked, member, c_class)
            torch.autograd.backward(l_per)
            inner.step()
            inner.zero_grad()
            t, eps = self._draw(minus)
            with torch.no_grad():
                self.original(self._noise(member, eps, t), t, c_class, return_dict=False)  # the unused one
                plus_0, minus_0 = (self._square(self.original, z, eps, t, c_V) for z in (plus, minus))
            r_plus = self._square(attacked, plus, eps, t, c_V) - plus_0
            r_minus = self._square(attacked, minus, eps, t, c_V) - minus_0
            l_protect = -F.logsigmoid(-(r_plus - r_minus)).mean() + self._error(attacked, member, c_class)
            torch.autograd.backward(l_protect)
            for p, q in zip(self.theta.parameters(), attacked.parameters(), strict=True):
                assert p.grad is not None
                assert q.grad is not None
                p.grad += q.grad
        self.outer.step()

    @torch.no_grad()
    def _encode(self, images: Tensor, index: int) -> Tensor:
        which = index % len(images)
        return self.model.encode(images[which : which + 1]).sample(self.generator)

    @torch.no_grad()
    def _embed(self, prompt: str) -> Tensor:
        return self.model.conditioner.encode([prompt]).tokens

    def _draw(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.randint(self.model.schedule.steps, (1,), generator=self.generator).to(z0.device)
        return t, torch.randn(z0.shape, generator=self.generator).to(z0)

    def _noise(self, z0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return self.model.schedule.add_noise(z0, eps, t)

    def _square(self, unet: Any, z0: Tensor, eps: Tensor, t: Tensor, c: Tensor) -> Tensor:
        f: Tensor = unet(self._noise(z0, eps, t), t, c, return_dict=False)[0]
        return (f - self.model.schedule.target(z0, eps, t)).square()

    def _error(self, unet: Any, z0: Tensor, c: Tensor) -> Tensor:
        t, eps = self._draw(z0)
        return self._square(unet, z0, eps, t, c).mean()
