"""A more faithful autoencoder for the toybox: how far do noise and an attack move its latents, at which PSNR?

    python -m experiments.toybox_autoencoder
    python -m experiments.toybox_autoencoder --rows present,linear-6to1
    python -m experiments.toybox_autoencoder --encoder taef2_encoder.pth --images FOLDER

Latent displacement (`unlikeness.measure.latents`) at 8/255, under noise of random signs and under a gradient
attack (PGD on the displacement itself), on unseen renders and on "dead leaves", which have the statistics of
photographs. The last command measures an encoder of a real model on renders and photographs instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks import common
from experiments.rows import config
from unlikeness.autoencoders import Autoencoder
from unlikeness.errors import UsageError
from unlikeness.measure.intervals import bootstrap_mean
from unlikeness.protect.rid.train.pictures import drawn_bank
from unlikeness.subjects import load_folder
from unlikeness.toybox.evaluators import load_classifier, load_identity
from unlikeness.toybox.weights import model_path
from unlikeness.toybox.world import to_images
from unlikeness.training import adamw, cosine, train

NAME = "toybox_autoencoder"
BUDGET = 8 / 255
PICTURES, ATTACKED, ATTACK_STEPS = 16, 8, 30
KINDS = ("renders", "leaves")
CODE = ("src/unlikeness/autoencoders", "src/unlikeness/toybox/world")

_FOLDER = common.RUNS / NAME
_TRAINING, _UNSEEN = 41, 42  # seeds of the pictures
_PIXELS = 1 << 21  # of the training pictures of each kind
_CROP, _BATCH, _FITTED = 32, 4, 2048

Encode = Callable[[Tensor], Tensor]
"""[B, 3, H, W] in [0, 1] -> latents [B, C, h, w]; differentiable."""
Draw = Callable[[int, torch.Generator], Tensor]
"""Training pictures: (count, generator) -> [count, 3, S, S] in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One autoencoder.

    kind: "present" is the toybox's own; "trained" continues it, with new weights where a shape differs;
    "linear" keeps the first principal components of patches, all with a variance of 1.
    basis: of the latents, with the same reconstructions. "channels": each has a variance of 1 over renders,
    as Qwen-Image's and FLUX.2's; "patches": principal components of 2 × 2 latents, each with a variance of 1.
    side: of the pictures [px]. factor: pixels per latent along a side, of a linear one. widths: of the blocks
    of a trained one, with a halving between each two. channels: of the latents.
    leaves: share of dead leaves among the training pictures, beside renders.
    steps: of the training, each on `crops` crops of 32 px.
    """

    kind: str
    basis: str = "as it is"
    side: int = 64
    factor: int = 4
    widths: Sequence[int] = (16, 48, 96)
    channels: int = 6
    leaves: float = 0.0
    steps: int = 0
    crops: int = 4
    learning_rate: float = 5e-4
    kl_weight: float = 1e-4
    perceptual_weight: float = 0.0
    adversarial_weight: float = 0.0


@dataclass(frozen=True)
class Code:
    """What is measured of an autoencoder. reconstruct: [B, 3, H, W] -> the same; None of an encoder alone."""

    encode: Encode
    reconstruct: Encode | None


ROWS = {name: Row(**row) for name, row in config(NAME)["rows"].items()}


def cli(argv: Sequence[str] | None) -> None:
    parser = common.parser(__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", default=",".join(ROWS), help="with commas between")
    parser.add_argument("--encoder", help="measure this autoencoder instead: a name, folder or file")
    parser.add_argument("--images", type=Path, help="photographs for --encoder")
    parser.add_argument("--side", type=int, default=128, help="of the photographs [px]")
    parser.add_argument("--limit", type=int, default=3, help="pictures that --encoder attacks")
    args = parser.parse_args(argv)
    if bool(args.encoder) != bool(args.images):
        raise UsageError("--encoder and --images go together; give both or none")
    names = [] if args.encoder else args.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise UsageError(f"--rows {unknown[0]} is none; there are {', '.join(ROWS)}")
    steps = 2 if args.quick else ATTACK_STEPS
    about = {"budget": 8, "attack_steps": steps, "seed": args.seed, "quick": args.quick}
    results = common.Results(
        common.results_file(NAME, args, common.EXPERIMENTS), NAME, about, fresh=args.fresh, keep=args.keep,
        code=common.code_digest(*CODE),
    )  # fmt: skip
    if args.encoder:
        network = Autoencoder.open(args.encoder, decoder=False)
        images = load_folder(args.images, size=args.side)[:PICTURES]
        seen = Code(lambda x: network.encode(x).mean, None)
        for kind, some in {"photographs": images, "renders": unseen("renders", args.side)}.items():
            compute = partial(measured, seen, some, args.limit, steps, args.seed)
            results.cell(f"{Path(args.encoder).stem}-{args.side}px/{kind}", compute)
    for name in names:
        measure(name, ROWS[name], results, steps, args.seed, quick=args.quick)
    results.finish({})
    print(render(results.record))


def measure(name: str, row: Row, results: common.Results, steps: int, seed: int, *, quick: bool) -> None:
    """Fill the cells of one row that are missing."""
    keys = [f"{name}/{kind}" for kind in KINDS]
    if all(key in results.cells for key in keys):
        return
    if row.kind == "trained":
        network, length = new_network(row), 2 if quick else row.steps
        checkpoint = None if quick else _FOLDER / f"{name}.safetensors"
        done = trained(network, row, length, checkpoint, Crops(row).draw)
        results.cell(f"{name}/training", lambda: done)
        code = code_of(network)
    else:
        code = code_of(present()) if row.kind == "present" else linear(row, _fitted(row))
    if row.basis != "as it is":
        code = in_basis(code, unseen("renders", row.side, _TRAINING), patches=row.basis == "patches")
    for key, kind in zip(keys, KINDS, strict=True):
        images = unseen(kind, row.side)
        results.cell(key, partial(measured, code, images, ATTACKED, steps, seed))


def measured(code: Code, images: Tensor, attacked: int, steps: int, seed: int) -> dict[str, Any]:
    """PSNR [dB] of the reconstructions of images [N, 3, H, W], and displacement of the first `attacked`."""
    figures: dict[str, Any] = {"pictures": len(images), "attacked": attacked}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        latents = torch.cat([code.encode(part) for part in torch.split(images, _BATCH)])
        if code.reconstruct:
            again = torch.cat([code.reconstruct(part) for part in torch.split(images, _BATCH)])
            error = (again - images).square().mean((1, 2, 3))
            figures["psnr"] = _interval(-10 * error.log10(), seed)
    some, base, flat = images[:attacked], latents[:attacked], latents.flatten(1)
    far = torch.cdist(flat[:attacked], flat).sum(1) / (len(images) - 1)
    signs = torch.randint(0, 2, some.shape, generator=generator) * 2 - 1
    changed = {"noise": (some + BUDGET * signs).clamp(0, 1)}
    changed["attack"] = attack(code.encode, some, base, steps, generator)
    for name, pictures in changed.items():
        with torch.no_grad():
            moved = torch.cat([code.encode(part) for part in torch.split(pictures, _BATCH)]) - base
        figures[name] = _interval(moved.flatten(1).norm(dim=1) / far, seed)
    return figures


def attack(encode: Encode, images: Tensor, latents: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """PGD (Madry et al. 2018) on the distance from the latents: a random start, steps of a quarter of the
    budget."""
    start = torch.rand(images.shape, generator=generator) * 2 - 1
    parts = []
    for image, latent, begin in zip(*(torch.split(x, _BATCH) for x in (images, latents, start)), strict=True):
        changed = (image + BUDGET * begin).clamp(0, 1)
        for _ in range(steps):
            changed.requires_grad_(True)
            distance = (encode(changed) - latent).flatten(1).norm(dim=1).sum()
            (gradient,) = torch.autograd.grad(distance, changed)
            delta = changed.detach() + BUDGET / 4 * gradient.sign() - image
            changed = (image + delta.clamp(-BUDGET, BUDGET)).clamp(0, 1)
        parts.append(changed)
    return torch.cat(parts)


def _interval(values: Tensor, seed: int) -> dict[str, float]:
    return asdict(bootstrap_mean([values.tolist()], seed=seed))


def present() -> AutoencoderKL:
    """The toybox's autoencoder, float32."""
    found: AutoencoderKL = AutoencoderKL.from_pretrained(model_path() / "vae").float()
    return found


def code_of(network: AutoencoderKL) -> Code:
    def encode(images: Tensor) -> Tensor:
        mean: Tensor = network.encode(images * 2 - 1).latent_dist.mean
        return mean

    def reconstruct(images: Tensor) -> Tensor:
        pictures: Tensor = ((network.decode(encode(images)).sample + 1) / 2).clamp(0, 1)
        return pictures

    network.eval().requires_grad_(False)
    return Code(encode, reconstruct)


def in_basis(code: Code, images: Tensor, *, patches: bool) -> Code:
    """See `Row.basis`; variances are those over `images`."""
    size = 2 if patches else 1
    with torch.no_grad():
        latents = torch.cat([code.encode(part) for part in torch.split(images, _BATCH)])
    flat = F.pixel_unshuffle(latents, size).permute(1, 0, 2, 3).flatten(1)
    matrix = torch.diag(1 / flat.std(1))
    if patches:
        values, vectors = torch.linalg.eigh(flat.cov())
        matrix = (vectors / values.sqrt()).T

    def encode(x: Tensor) -> Tensor:
        return torch.einsum("dc,bchw->bdhw", matrix, F.pixel_unshuffle(code.encode(x), size))

    return Code(encode, code.reconstruct)


def _fitted(row: Row) -> Tensor:
    return Crops(row).draw(_FITTED, torch.Generator().manual_seed(_TRAINING))


def linear(row: Row, images: Tensor) -> Code:
    """The best linear code of patches of `images`, with every coefficient of a variance of 1."""
    flat = F.pixel_unshuffle(images, row.factor).permute(1, 0, 2, 3).flatten(1)
    mean = flat.mean(1).view(1, -1, 1, 1)
    values, vectors = torch.linalg.eigh(flat.cov())
    keep, sizes = vectors[:, -row.channels :], values[-row.channels :].sqrt()

    def encode(x: Tensor) -> Tensor:
        return torch.einsum("pc,bphw->bchw", keep / sizes, F.pixel_unshuffle(x, row.factor) - mean)

    def reconstruct(x: Tensor) -> Tensor:
        patches = torch.einsum("pc,bchw->bphw", keep * sizes, encode(x)) + mean
        return F.pixel_shuffle(patches, row.factor).clamp(0, 1)

    return Code(encode, reconstruct)


def unseen(kind: str, side: int, seed: int = _UNSEEN) -> Tensor:
    """[PICTURES, 3, side, side] in [0, 1]."""
    return to_images(np.array(drawn_bank(kind, PICTURES, side, seed=seed, folder=_FOLDER).pixels))


class Crops:
    """Crops of the training pictures of a row."""

    def __init__(self, row: Row) -> None:
        self.row, count = row, _PIXELS // row.side**2
        self.banks = [drawn_bank(kind, count, row.side, seed=_TRAINING, folder=_FOLDER) for kind in KINDS]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, 3, 32, 32] in [0, 1], at places that 8 divides."""
        out = []
        for _ in range(count):
            kind, at, *place = torch.rand(4, generator=generator).tolist()
            pixels = self.banks[int(kind < self.row.leaves)].pixels
            y, x = (int(one * ((self.row.side - _CROP) // 8 + 1)) * 8 for one in place)
            out.append(pixels[int(at * len(pixels)), y : y + _CROP, x : x + _CROP])
        return torch.stack([torch.from_numpy(one.copy()) for one in out]).permute(0, 3, 1, 2) / 255


def new_network(row: Row) -> AutoencoderKL:
    """The row's architecture, with the toybox's weights where their shape is the same."""
    torch.manual_seed(_TRAINING)
    count, old = len(row.widths), present()
    settings = {
        "block_out_channels": tuple(row.widths), "latent_channels": row.channels,
        "down_block_types": ("DownEncoderBlock2D",) * count, "up_block_types": ("UpDecoderBlock2D",) * count,
    }  # fmt: skip
    network = AutoencoderKL.from_config({**old.config, **settings}).train()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    same = {name: value for name, value in old.state_dict().items() if shapes.get(name) == value.shape}
    network.load_state_dict(same, strict=False)
    return network


def trained(
    network: AutoencoderKL, row: Row, steps: int, checkpoint: Path | None, draw: Draw
) -> dict[str, Any]:
    """Train `network` in place, on from `checkpoint` if that file exists.

    One step holds the gradients of both: the critic's of its own loss, the autoencoder's of the critic as it
    is. So a run that was stopped continues exactly.
    """
    features, critic = Features(), new_critic()
    used = list(critic.parameters()) if row.adversarial_weight else []
    parameters = [*network.parameters(), *used]

    def step(index: int, generator: torch.Generator) -> Tensor:
        images = draw(row.crops, generator)
        posterior = network.encode(images * 2 - 1).latent_dist
        latents = posterior.sample(generator)
        again = (network.decode(latents).sample + 1) / 2
        error = again - images
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss: Tensor = error.square().mean() + 0.02 * error.abs().mean() + row.kl_weight * kl
        if row.perceptual_weight:
            loss = loss + row.perceptual_weight * features.distance(again, images)
        if row.adversarial_weight:
            frozen = {key: value.detach() for key, value in critic.named_parameters()}
            loss = loss - row.adversarial_weight * functional_call(critic, frozen, (again,)).mean()
            loss = loss + F.relu(1 - critic(images)).mean() + F.relu(1 + critic(again.detach())).mean()
        return loss

    began = process_time()
    done = train(
        step, steps=steps, optimizer=adamw(parameters, lr=row.learning_rate, weight_decay=0.0),
        parameters=parameters, seed=_TRAINING, schedule=cosine(row.steps, warmup=20), settings=asdict(row),
        checkpoint=checkpoint, description=NAME,
    )  # fmt: skip
    spent = (process_time() - began) / max(done.steps - done.resumed_at, 1)
    return {"steps": done.steps, "cpu_seconds_per_step": round(spent, 3)}


class Features:
    """A perceptual distance as LPIPS's (Zhang et al. 2018), without its fitted weights: unit features of
    three stages of the toybox's evaluators."""

    def __init__(self) -> None:
        self.bodies = [load_classifier().net.body, load_identity().net.body]

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Mean over places and pictures, summed over stages and networks."""
        total = a.new_zeros(())
        for body in self.bodies:
            x, y = a * 2 - 1, b * 2 - 1
            for block in list(body.blocks)[:3]:
                x, y = block(x), block(y)
                total = total + (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1).mean()
        return total


def new_critic() -> nn.Module:
    """A discriminator of patches of 10 px (Isola et al. 2017)."""
    torch.manual_seed(_TRAINING)
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 1, 1),
    )  # fmt: skip


def render(record: Mapping[str, Any]) -> str:
    """The table of the notes."""
    rows = []
    for key, cell in record["cells"].items():
        if "noise" in cell:
            name, kind = key.split("/")
            psnr = f"{cell['psnr']['value']:.1f}" if "psnr" in cell else None
            rows.append([name, kind, psnr, *(common.interval(cell[one]) for one in ("noise", "attack"))])
    head = ["autoencoder", "pictures", "PSNR [dB]", "noise", "attack"]
    about = record["about"]
    return "\n\n".join([
        common.table(head, rows),
        f"Latent displacement at {about['budget']}/255; PGD of {about['attack_steps']} steps; {PICTURES} "
        f"unseen pictures, {ATTACKED} of them changed; seed {about['seed']}. Intervals: 95 %, bootstrap over "
        "pictures.",
    ])  # fmt: skip


if __name__ == "__main__":
    common.main(cli)
