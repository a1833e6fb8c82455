"""A ComfyUI node that protects pictures against personalization, with a trained network on the CPU.

Install: copy this file into ComfyUI/custom_nodes, and install unlikeness for ComfyUI's own Python, from the
folder of its source:

    python -m pip install .

Then restart ComfyUI. The node is called "Protect likeness", under image.
"""

from __future__ import annotations

from typing import Any

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]


class ProtectLikeness:
    """IMAGE [B, H, W, C], float in [0, 1], in and out; channels after the third pass through."""

    CATEGORY = "image"
    DESCRIPTION = (
        "Adds a faint perturbation, so that a text-to-image model learns the subject less well from the "
        "picture. It is no lock. Save the result as PNG, or as JPEG of high quality."
    )
    FUNCTION = "protect"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("protected",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "image": ("IMAGE",),
                "strength": (
                    "FLOAT",
                    {
                        "default": 8.0, "min": 0.5, "max": 16.0, "step": 0.5,
                        "tooltip": "Largest change of a colour value, in 255ths. More protects better and "
                        "shows more.",
                    },
                ),
                "network": (
                    "STRING",
                    {
                        "default": "rid-photo",
                        "tooltip": "A shipped network's name, or the path of a file of train-protector or "
                        "export.",
                    },
                ),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": "Where to change: 1 spends the whole strength, 0 nothing."}),
            },
        }  # fmt: skip

    def protect(self, image: Any, strength: float, network: str, mask: Any = None) -> tuple[Any]:
        """Each picture of the batch by itself, as `unlikeness protect` computes it.

        mask: [H, W], [1, H, W] for all pictures, or [B, H, W]. The result has the image's dtype and device.
        """
        try:
            import numpy as np

            from unlikeness.protect.methods.rid import Rid, RidSettings
            from unlikeness.protect.pixels import protect_pixels
        except ImportError as error:
            raise RuntimeError(
                f"unlikeness is not installed for ComfyUI's Python ({error}); see this node's file"
            ) from error

        protection = Rid(None, RidSettings(weights=network, budget=strength), device="cpu")
        made = []
        for i, picture in enumerate(image.detach().float().cpu().clamp(0, 1).numpy()):
            place = None
            if mask is not None:
                planes = mask.detach().float().cpu().clamp(0, 1).numpy()
                place = planes if planes.ndim == 2 else planes[i % len(planes)]
            protected = protect_pixels(protection, picture[..., :3], mask=place)
            made.append(np.concatenate([protected, picture[..., 3:]], axis=-1))
        return (image.new_tensor(np.stack(made)),)


NODE_CLASS_MAPPINGS = {"UnlikenessProtect": ProtectLikeness}
NODE_DISPLAY_NAME_MAPPINGS = {"UnlikenessProtect": "Protect likeness"}
