"""What an image encoder is shown of a picture: its own `preprocessor_config.json`, with PIL and torch alone.

It gives what transformers' own image processors give: resizing, central crop, scaling, normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.errors import UnlikenessError
from unlikeness.networks.configs import FLAG, NULL, Rule, check, each, number, read_object, whole

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["View", "read_view"]

FILES = ("preprocessor_config.json", "processor_config.json")
"""Files that may hold it; the second since transformers 5, as "image_processor"."""

_SIDE = whole(1, 1024)
_EDGES = Rule(
    'sides in pixels: {"shortest_edge": n} or {"height": n, "width": n}',
    lambda v: isinstance(v, dict) and set(v) in ({"shortest_edge"}, {"height", "width"})
    and all(map(_SIDE.holds, v.values())),
)  # fmt: skip
_THREE = each(number(-1e3, 1e3), 3, 3)
_RULES: dict[str, Rule] = {
    "do_resize": FLAG | NULL,
    "do_center_crop": FLAG | NULL,
    "do_rescale": FLAG | NULL,
    "do_normalize": FLAG | NULL,
    "size": _SIDE | _EDGES | NULL,
    "crop_size": _SIDE | _EDGES | NULL,
    "resample": whole(0, 5) | NULL,
    "rescale_factor": number(1e-6, 1) | NULL,
    "image_mean": _THREE | NULL,
    "image_std": each(number(1e-3, 1e3), 3, 3) | NULL,
}
_LONGEST = 8
"""Longer pictures than so many times their short side lose their ends before they are resized."""


@dataclass(frozen=True)
class View:
    """A picture [3, H, W] in [0, 1] of any size -> what an encoder is given, [3, height, width].

    Attributes:
        size: the short side [px], or (height, width) whatever the picture's shape.
        crop: (height, width) of the central crop; None: no crop.
        resample: PIL's number of the filter.
    """

    size: int | tuple[int, int]
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of what it gives."""
        return self.crop or (self.size if isinstance(self.size, tuple) else (self.size, self.size))

    def __call__(self, image: Tensor) -> Tensor:
        import numpy as np
        import torch
        from PIL import Image

        height, width = image.shape[-2:]
        if isinstance(self.size, int):
            image = _shorter(image)
            height, width = image.shape[-2:]
            short = min(height, width)
            height, width = (
                self.size if side == short else int(self.size * side / short) for side in (height, width)
            )
        else:
            height, width = self.size
        pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().contiguous().numpy()
        shown = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling(self.resample)))
        if self.crop is not None:
            top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
            shown = shown[top : top + self.crop[0], left : left + self.crop[1]]
        values = torch.from_numpy(shown.astype(np.float32)).permute(2, 0, 1) * self.scale
        mean, std = (torch.tensor(three).view(3, 1, 1) for three in (self.mean, self.std))
        return (values - mean) / std


def read_view(folder: Path, *, square: bool) -> View:
    """The view that a model's folder describes.

    square: whether one side in an old file means both (ViT), or the short one (CLIP).
    UnlikenessError, naming the file, if it is missing, out of bounds, or gives pictures of several sizes.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise UnlikenessError(f"{folder / FILES[0]} is missing; fetch or save the model again")
    content = read_object(path, folder)
    if path.name == FILES[1]:
        content = content.get("image_processor") or {}
        if not isinstance(content, dict):
            raise UnlikenessError(f"{path} has no usable image_processor; fetch or save the model again")
    said = {key: value for key, value in content.items() if key in _RULES}
    check(said, _RULES, path)
    try:
        return _view(said, square)
    except ValueError as error:
        raise UnlikenessError(f"{path} {error}; give a model that has one size") from error


def _view(said: Mapping[str, Any], square: bool) -> View:
    def on(name: str, default: bool = True) -> bool:
        value = said.get(name)
        return default if value is None else bool(value)

    size = said.get("size")
    if not on("do_resize") or size is None:
        raise ValueError("does not resize pictures to the network's size")
    edge: int | tuple[int, int]
    if isinstance(size, dict):
        edge = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
    else:
        edge = (size, size) if square else size
    crop = said.get("crop_size")
    wanted: tuple[int, int] | None = None
    if crop is not None and on("do_center_crop", default=not square):
        sides = crop if isinstance(crop, dict) else {"height": crop, "width": crop}
        both = sides.get("shortest_edge")
        wanted = (both, both) if both else (sides["height"], sides["width"])
    if wanted is None and isinstance(edge, int):
        raise ValueError("does not crop pictures, which then have different sizes")
    least = (edge, edge) if isinstance(edge, int) else edge
    if wanted is not None and (wanted[0] > least[0] or wanted[1] > least[1]):
        raise ValueError("crops more than it resizes to")
    plain = not on("do_normalize")
    mean, std = said.get("image_mean"), said.get("image_std")
    if not plain and (mean is None or std is None):
        raise ValueError("has no image_mean and image_std")
    return View(
        edge, wanted, 2 if said.get("resample") is None else said["resample"],
        (said.get("rescale_factor") or 1 / 255) if on("do_rescale") else 1.0,
        (0.0,) * 3 if plain or mean is None else tuple(map(float, mean)),
        (1.0,) * 3 if plain or std is None else tuple(map(float, std)),
    )  # fmt: skip


def _shorter(image: Tensor) -> Tensor:
    """Without the ends that a central crop leaves out anyway, so that a long strip takes little memory."""
    height, width = image.shape[-2:]
    most = _LONGEST * min(height, width)
    top, left = max(height - most, 0) // 2, max(width - most, 0) // 2
    return image[..., top : top + most, left : left + most]
