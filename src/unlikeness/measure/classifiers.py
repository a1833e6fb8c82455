"""Classifiers that name the class noun of a picture: the toybox's own, and zero-shot CLIP for photographs.

A CLIP needs no training on the nouns:

    p(noun | x) = softmax over the nouns of exp(τ) · cos(image(x), text("a photo of a dog"))

as in Radford et al. 2021 (section 3.1.2), with one prompt for each noun. The empty noun has the prompt "a
photo". A picture shows a dog if "a photo of a dog" fits better than "a photo" and than the other nouns. A
protective output that removes the dog (erasure) is read as the empty noun or as another noun.

The caller gives few nouns. In a general list, a near noun (puppy or animal for dog, man for person) would win
over the right one, and a subject in the picture would count as erased.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unlikeness.diffusion.hub import at_home
from unlikeness.diffusion.tokens import check_tokenizer, load_tokenizer
from unlikeness.diffusion.vocabulary import too_long
from unlikeness.errors import NotFiniteError, UnlikenessError, UsageError
from unlikeness.fetching import fetch
from unlikeness.networks.building import fill, quiet, sentence, with_floats
from unlikeness.networks.configs import CLIP_TEXT, CLIP_VISION, CLIP_WHOLE, check, read_object
from unlikeness.networks.weights import needed_files, read_weights
from unlikeness.presets import which_preset
from unlikeness.provenance import own_name
from unlikeness.viewing import at_side
from unlikeness.words import closest, with_article

__all__ = [
    "CLIP", "Classifier", "Clip", "ZeroShot", "load_classifier", "load_clip", "open_clip", "pixel_values",
    "prompt",
]  # fmt: skip

CLIP = "openai/clip-vit-large-patch14"
"""Hub name of the default CLIP: its text encoder is that of Stable Diffusion 1."""

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_AT_ONCE = 32


class Classifier(Protocol):
    """Names the class noun of each picture [B, 3, H, W] in [0, 1]."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Tensor) -> Sequence[str]: ...


class _Toybox:
    name = "toybox"

    def __call__(self, images: Tensor) -> list[str]:
        from unlikeness.toybox.evaluators import load_classifier
        from unlikeness.toybox.world import SIZE

        nouns, _ = load_classifier().read(at_side(images, SIZE))
        return nouns


def load_classifier(
    name: str, nouns: Sequence[str], *, resolution: int, device: str | torch.device = "cpu"
) -> Classifier:
    """A classifier that tells `nouns` apart: "toybox", a CLIP's folder or a CLIP's hub name.

    "auto" chooses by the model's resolution [px], as presets do.

    Raises:
        UsageError: an unknown name, or a noun that the classifier does not know.
        UnlikenessError: the classifier cannot be fetched or read.
    """
    if name == "auto":
        name = "toybox" if which_preset(name, resolution) == "toybox" else CLIP
    if name != "toybox":
        return load_clip(nouns, name, device=device)
    from unlikeness.toybox.world import CLASS_NOUNS

    for noun in nouns:
        if noun not in CLASS_NOUNS:
            raise UsageError(
                f"the toybox's classifier knows no {noun}, only {', '.join(CLASS_NOUNS)}"
                f"{closest(noun, CLASS_NOUNS)}; name a CLIP with --classifier, such as {CLIP}"
            )
    return _Toybox()


class Clip:
    """An open CLIP: pictures and prompts to vectors of one space.

    Args:
        model, tokenizer: transformers' CLIPModel and CLIPTokenizerFast.
        name: in a record.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str = "CLIP") -> None:
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.side, self.width = int(model.config.vision_config.image_size), int(model.config.projection_dim)

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax."""
        return float(self.model.logit_scale.detach().exp())

    @torch.no_grad()
    def pictures(self, pixels: Tensor) -> Tensor:
        """[B, width] of prepared pictures [B, 3, side, side] (`pixel_values`)."""
        seen = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
        found: Tensor = self.model.visual_projection(seen)
        return found

    @torch.no_grad()
    def prompts(self, prompts: Sequence[str]) -> Tensor:
        """[prompts, width] unit vectors. UsageError for a prompt that is too long to be read."""
        for text in prompts:
            if reason := too_long(self.tokenizer, text):
                raise UsageError(reason)
        words = self.tokenizer(list(prompts), padding=True, return_tensors="pt").to(self.model.device)
        read = self.model.text_model(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"]
        ).pooler_output
        return F.normalize(self.model.text_projection(read), dim=1)


class ZeroShot(Clip):
    """Names the class noun of pictures.

    Args:
        model, tokenizer: transformers' CLIPModel and CLIPTokenizerFast.
        nouns: what may be named beside "", for none of them; each counts once.
        name: name of the classifier in a record.

    Raises UsageError without a noun, or for one that is too long to be read.
    """

    def __init__(self, model: Any, tokenizer: Any, nouns: Sequence[str], *, name: str = "CLIP") -> None:
        super().__init__(model, tokenizer, name=name)
        self.nouns = (*dict.fromkeys(noun.strip() for noun in nouns if noun.strip()), "")
        if len(self.nouns) < 2:
            raise UsageError("a picture is read among class nouns; give one or more, such as dog")
        self._text = self.prompts([prompt(noun) for noun in self.nouns])

    def __call__(self, images: Tensor) -> list[str]:
        """The most likely noun of each picture [B, 3, H, W] in [0, 1]; "" for none of them."""
        return [self.nouns[int(i)] for i in self.scores(images).argmax(1)]

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """p(noun | x): [B, nouns], on the CPU, in the order of `nouns`; images: [B, 3, H, W] in [0, 1]."""
        found = []
        for some in torch.split(images, _AT_ONCE):
            seen = F.normalize(self.pictures(pixel_values(some.float(), self.side)), dim=1)
            found.append((self.scale * seen @ self._text.T).softmax(1).cpu())
        scores = torch.cat(found)
        if not bool(scores.isfinite().all()):
            raise NotFiniteError(
                f"the classifier {self.name} gives values that are not finite (NaN or infinity): its "
                "weights are damaged; fetch it again"
            )
        return scores


def prompt(noun: str) -> str:
    """ "a photo of a dog"; "a photo" for the empty noun."""
    return f"a photo of {with_article(noun)}" if noun else "a photo"


def pixel_values(images: Tensor, side: int) -> Tensor:
    """[B, 3, side, side] as a CLIP sees pictures [B, 3, H, W] in [0, 1].

    What transformers' CLIPImageProcessor does, in torch alone: the short side to `side` (bicubic,
    antialiased), the central square, CLIP's published mean and deviation.
    """
    short = min(images.shape[-2:])
    height, width = (side if length == short else int(side * length / short) for length in images.shape[-2:])
    if (height, width) != tuple(images.shape[-2:]):
        images = F.interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[..., top : top + side, left : left + side]
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (images - mean) / std


def load_clip(
    nouns: Sequence[str], name: str | Path = CLIP, *, device: str | torch.device = "cpu"
) -> ZeroShot:
    """A CLIP from a folder or by its hub name (downloaded into the hub's cache), which names one of `nouns`.

    Weights come from safetensors only, never from a pickle.

    Raises:
        UsageError: there is no such folder, and no such name on the hub; no noun, or one that is too long.
        UnlikenessError: the hub is out of reach; what is there is no whole CLIP in safetensors.
    """
    made = ZeroShot(*_opened(name, device), nouns, name=own_name(str(name)))
    made.scores(torch.zeros(1, 3, 8, 8))
    return made


def open_clip(name: str | Path = CLIP, *, device: str | torch.device = "cpu") -> Clip:
    """A CLIP from a folder or by its hub name; raises as `load_clip`."""
    return Clip(*_opened(name, device), name=own_name(str(name)))


def _opened(name: str | Path, device: str | torch.device) -> tuple[Any, Any]:
    """(transformers' CLIPModel, its tokenizer), tried on a picture."""
    folder = _folder(str(name))
    try:
        with quiet():
            model = _network(folder).float().to(device)
            tokenizer = load_tokenizer(folder, "CLIPTokenizerFast", part="")
            _check_words(tokenizer, model.config.text_config)
            opened = Clip(model, tokenizer)
            with sentence("its vision tower"):
                opened.pictures(torch.zeros(1, 3, opened.side, opened.side))
    except UsageError:
        raise
    except UnlikenessError as error:
        raise _unreadable(name, str(error).rpartition("; ")[0] or str(error)) from error
    return model, tokenizer


def _network(folder: Path) -> Any:
    """transformers' CLIPModel, its configuration in bounds, its weights as they lie in the safetensors."""
    import transformers

    path = folder / "config.json"
    config = read_object(path, folder)
    towers: dict[str, dict[str, Any]] = {}
    for name, rules in (("text_config", CLIP_TEXT), ("vision_config", CLIP_VISION)):
        said = [config.get(key) or {} for key in (name, f"{name}_dict")]  # of old files, which goes before
        if not all(isinstance(one, dict) for one in said) or not any(said):
            raise UnlikenessError(f"{path} has no {name}; fetch it again")
        tower = {key: value for one in said for key, value in one.items() if key in rules}
        check(tower, rules, path, f"{name}.")
        towers[name] = with_floats(tower)
    own = {key: value for key, value in config.items() if key in CLIP_WHOLE}
    check(own, CLIP_WHOLE, path)
    with sentence("its configuration"), torch.device("meta"):
        made = transformers.CLIPConfig(**towers, **with_floats(own), attn_implementation="sdpa")
        network = transformers.CLIPModel(made)
    return fill(network, read_weights(folder, "", half=False, pickles=False), "it")


def _check_words(tokenizer: Any, text: Any) -> None:
    """UnlikenessError unless the tokenizer is the text encoder's."""
    if not 0 <= int(text.vocab_size) - len(tokenizer) < len(tokenizer):
        raise UnlikenessError(f"{len(tokenizer)} words of its tokenizer for {text.vocab_size}")
    longest = text.max_position_embeddings
    check_tokenizer(tokenizer, words=text.vocab_size, longest=longest, what="its tokenizer")


def _folder(name: str) -> Path:
    path = at_home(name, "classifier")
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name:
        raise UsageError(
            f"classifier {name} is no folder here; give a CLIP's folder or hub name, such as {CLIP}"
        )

    def wanted(files: list[str]) -> list[str]:
        return needed_files(file for file in files if "/" not in file and not file.endswith(".bin"))

    return fetch(name, f"classifier {name}", wanted)


def _unreadable(name: str | Path, reason: str) -> UnlikenessError:
    return UnlikenessError(
        f"classifier {name} cannot be read as a CLIP ({reason}); give one with config, tokenizer and "
        "model.safetensors"
    )
