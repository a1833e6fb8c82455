"""The loss terms of a protector: those of RID (arXiv 2412.09844, section 4), and four more.

All are *minimised*. With y = clamp(x + δ) as a trainer would see it:

* `adv_sds`: z_t of y moves along g = w(t) (f(z_t, t, c) − target), w = 1 − ᾱ_t. The frozen denoiser gives
  only the direction: it runs without a graph, and the gradient flows through noising and encoder alone.
* `regression`: δ is pulled to a perturbation δ* that a gradient method found for this picture.
* `displacement` (ours): the latent's mean moves away from the clean picture's. It needs only the autoencoder.
* `moved` (ours): the same, as a share of the distance between two pictures.
* `pull`: the latent's mean moves to a target's, as in PhotoGuard's encoder attack (arXiv 2302.06588, Eq. 2).
* `visibility` (ours): visible energy of δ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.autoencoders import randn

if TYPE_CHECKING:
    from unlikeness.autoencoders import Posterior
    from unlikeness.diffusion.condition import Condition
    from unlikeness.diffusion.model import TextToImage

__all__ = [
    "adv_sds", "displacement", "excess_energy", "mean_distance", "moved", "pull", "regression", "visibility",
]  # fmt: skip

_WINDOWS = ((5, 5), (1, 13), (13, 1))
"""Height and width of what `visibility` averages over [px]."""


def adv_sds(
    model: TextToImage, posterior: Posterior, c: Condition, *, t: Tensor, eps: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """(loss, L_diff): 0.5 ‖z_t − sg(z_t + g)‖², mean over elements, and the diffusion loss that it raises.

    The loss's gradient at z_t is −g (over the number of elements), so that descent moves z_t along +g.

    Args:
        posterior: of the protected pictures as a trainer sees them, with its graph.
        c: of one prompt, or B.
        t: long [B]. eps, noise: N(0, I) like the latents: of the noising, and of the posterior's sample.
    """
    z0 = posterior.mean + posterior.std * noise
    z_t = model.schedule.add_noise(z0, eps, t)
    with torch.no_grad(), model.autocast():
        f = model.predict(z_t.detach(), t, c.expand(len(z_t)))
        error = f.float() - model.schedule.target(z0.detach(), eps, t).float()
        if model.schedule.prediction_type == "sample":
            error = -error  # ẑ0 − z0, which lies against ε̂ − ε
        w = 1 - model.schedule.alpha_bar.to(z_t.device)[t].view(-1, 1, 1, 1)
        aim = z_t.detach() + w * error
    return 0.5 * (z_t - aim).square().mean(), error.square().mean()


def regression(delta: Tensor, wanted: Tensor, budget: Tensor) -> Tensor:
    """‖(δ − δ*) / budget‖², mean over elements: both [B, 3, H, W] in [0, 1] units, budget [B] in n/255."""
    return ((delta - wanted) * (255 / budget).view(-1, 1, 1, 1)).square().mean()


def displacement(posterior: Posterior, clean: Tensor) -> Tensor:
    """−log(1 + 100 ‖μ(y) − μ(x)‖²), the norm as a mean over elements, then the mean over pictures; <= 0.

    The logarithm keeps a picture that has moved far from outweighing those that have not.
    """
    return -torch.log1p(100 * (posterior.mean - clean).square().flatten(1).mean(1)).mean()


def moved(mean: Tensor, clean: Tensor, distance: float) -> Tensor:
    """−‖μ(y) − μ(x)‖ / `distance`, both norms root mean squares, then the mean over pictures; <= 0.

    distance: between the latents of two pictures, see `mean_distance`. At 1 a picture's latent has moved as
    far as another picture's.
    """
    squared = (mean - clean).square().flatten(1).mean(1)
    return -(squared + 1e-6).sqrt().mean() / distance


def mean_distance(latents: Tensor) -> float:
    """Root mean square difference of two of the latents [B, C, h, w], mean over all pairs; B at least 2."""
    flat = latents.flatten(1).double()
    pairs = torch.pdist(flat) / flat.shape[1] ** 0.5
    return float(pairs.mean())


def pull(posterior: Posterior, clean: Tensor, target: Tensor) -> Tensor:
    """‖μ(y) − z_tgt‖² / ‖μ(x) − z_tgt‖², mean over pictures: 1 where nothing was moved, 0 at the target.

    clean: μ(x) [B, C, h, w]; target: z_tgt [1, C, h, w]. The share keeps pictures that lie far from the
    target from outweighing the others.
    """
    left = (posterior.mean - target).square().flatten(1).mean(1)
    whole = (clean - target).square().flatten(1).mean(1).clamp_min(1e-6)
    return (left / whole).mean()


def visibility(delta: Tensor, images: Tensor, budget: Tensor) -> Tensor:
    """Visible energy of δ over the budget's: 0 for none, mean over pixels and windows.

    Two facts of vision, as in JPEG's tables and in masking models (Watson 1993). Coarse patterns are more
    visible than fine ones, and stripes more than grains: δ is averaged over 5 × 5 pixels, and over 13 pixels
    in a row and in a column, which removes grains. And a pattern is less visible where the picture itself
    varies: its energy is divided by the local contrast (over 0.02; below that nothing hides it).
    """
    unit = delta * (255 / budget).view(-1, 1, 1, 1)
    contrast = (_mean(images.square(), 5, 5) - _mean(images, 5, 5).square()).clamp_min(0)
    mask = 0.02**2 / (0.02**2 + contrast.mean(1, keepdim=True))
    seen = sum((_mean(unit, *window).square() * mask).mean() for window in _WINDOWS)
    return torch.as_tensor(seen) / len(_WINDOWS)


def _mean(x: Tensor, height: int, width: int) -> Tensor:
    """The mean over a window around each pixel; the border is repeated."""
    padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2), mode="replicate")
    return F.avg_pool2d(padded, (height, width), 1)


def excess_energy(delta: Tensor, budget: Tensor, share: float) -> Tensor:
    """How far δ's mean square, over the budget's, passes `share`²: mean over pictures of the square.

    share: root mean square that is free, as a share of the budget; 8/255 with 0.5 is 36 dB of PSNR.
    """
    energy = (delta * (255 / budget).view(-1, 1, 1, 1)).square().flatten(1).mean(1)
    return F.relu(energy - share**2).square().mean()


def noised(posterior: Posterior, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(t, ε, posterior noise) for a batch, drawn in this order from a CPU generator."""
    count = len(posterior)
    like = posterior.mean.detach()
    t = torch.randint(steps, (count,), generator=generator).to(like.device)
    shape = tuple(like.shape)
    return t, randn(shape, like, generator), randn(shape, like, generator)
