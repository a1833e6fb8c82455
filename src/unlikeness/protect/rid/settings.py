"""What is known of a protector without loading torch: its sizes, its file, the ones that are shipped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.extras import check_extra
from unlikeness.foreign import UnreadableError
from unlikeness.settings import Checked, setting
from unlikeness.tensors import read_header

__all__ = [
    "AUTHORS", "BLOCK", "FORMAT", "HIDING", "HUB_FILE", "HUB_NAME", "LARGEST_BUDGET", "LEAST_CONTRAST",
    "MULTIPLE", "SHIPPED", "NetworkSettings", "check_weights", "is_protector",
]  # fmt: skip

LARGEST_BUDGET = 16.0
"""Budget [n/255] at which the network's budget plane is 1."""

BLOCK = 4
"""Side of the pixel block at one position of the network's finest level."""

MULTIPLE = 4 * BLOCK
"""The network computes on multiples of this height and width; other pictures are mirrored to them."""

LEAST_CONTRAST = 3 / 255
"""Contrast below which detail is not amplified further, in units of 2x - 1."""

HIDING = 10 / 255
"""Contrast at which half of the change is left, in the same units."""

SHIPPED = Path(__file__).parent / "shipped"
"""The folder of the weights that travel with the package: NAME.safetensors, with its model card NAME.md."""

AUTHORS = "github.com/Guohanzhong/RID"
"""The page of RID's authors, which links to their checkpoints."""

FORMAT = "unlikeness protector 1"
"""What a protector's file calls itself."""

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
"""OWNER/NAME of a repository."""

HUB_FILE = "protector.safetensors"
"""What a network is called in a repository."""

_FILES = (".safetensors", ".onnx", ".bin", ".pt", ".pth", ".ckpt")
"""Endings of networks as files: such a name is never one on the hub."""

SEEN = ("colours", "detail")


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Checked):
    """Widths of the three levels (at 1/4, 1/8 and 1/16 of the side) and residual blocks in each."""

    fine: int = setting(48, "Channels at a quarter of the side.", at_least=1)
    middle: int = setting(96, "Channels at an eighth.", at_least=1)
    coarse: int = setting(160, "Channels at a sixteenth.", at_least=1)
    blocks: int = setting(1, "Residual blocks on each level, on the way down and on the way up.", at_least=1)
    sees: str = setting(
        "colours",
        "colours: the picture and the budget. detail: only how pixels differ from their neighbourhood, over "
        "the contrast there; without any bias, and weaker where the picture is flat.",
        choices=SEEN,
    )


def is_protector(path: Path) -> bool:
    """Has `train-protector` written this file?"""
    try:
        return read_header(path).get("format") == FORMAT
    except UnreadableError:
        return False


def check_weights(name_or_path: str) -> Path:
    """The file of a shipped protector's name, of any file that is there, or of a name on the hub
    (OWNER/NAME, also with @REVISION), fetched into the hub's cache.

    UsageError if there is none; UnlikenessError if the hub cannot be reached or does not know the name.
    """
    path, shipped = Path(name_or_path), SHIPPED / f"{name_or_path}.safetensors"
    if path.name == name_or_path and shipped.is_file():  # ./NAME is a file
        return shipped
    repo, _, at = name_or_path.partition("@")
    if not path.exists() and HUB_NAME.fullmatch(repo) and not name_or_path.lower().endswith(_FILES):
        return _fetched(repo, at or None)
    if not (name_or_path and path.is_file()):
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
        raise UsageError(
            f"weights {name_or_path} are no file and no shipped protector (there are: {known}); the files of "
            f"the method's authors are at {AUTHORS}"
        )
    return path


def _fetched(repo: str, revision: str | None) -> Path:
    """The network of a repository, as `publish` puts it there."""
    from unlikeness.fetching import fetch

    check_extra("models", f"a network on the hub ({repo})")
    said = f"network {repo}"

    def wanted(files: list[str]) -> list[str]:
        if HUB_FILE not in files:
            raise UsageError(f"{said} is no protector: its repository has no {HUB_FILE}; check its spelling")
        return [HUB_FILE]

    remedy = "check its name and the network, or give a file"
    file = fetch(repo, said, wanted, revision=revision, remedy=remedy) / HUB_FILE
    if not file.is_file():
        raise UnlikenessError(
            f"{said} is in the hub cache here only in part, and the hub was not reached (missing: "
            f"{HUB_FILE}); check the network"
        )
    return file
