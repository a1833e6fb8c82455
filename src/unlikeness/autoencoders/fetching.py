"""The autoencoder of a name: on this machine, or fetched from the Hugging Face hub, its `vae` part alone.

What is missing is found without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlikeness.autoencoders.names import check_name, find, source_of
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import reason

__all__ = ["locate"]


def locate(name: str) -> Path:
    """The folder or file of a path, of a known name, or of a hub name, OWNER/REPOSITORY.

    Raises:
        UsageError: there is no such path, and the name cannot be another.
        UnlikenessError: it is not on this machine and could not be fetched, with where it is available.
    """
    check_name(name)
    source = source_of(name)
    if source is None:
        path = Path(name).expanduser()
        return path if path.exists() else _from_hub(name)
    found = find(name)
    if found is not None:
        return found
    if source.repository is None:
        raise UnlikenessError(_missing(name, "the hub does not have it"))
    if source.single:
        return _fetch(source.repository, source.folder, name, source.weights) / source.weights
    return _fetch(source.repository, source.folder, name)


def _from_hub(name: str) -> Path:
    from huggingface_hub.errors import HFValidationError

    try:
        return _cached(name) or _fetch(name, None, name)
    except HFValidationError as error:
        raise UsageError(f"autoencoder {name} cannot be a name on the hub; check its spelling") from error


def _cached(repository: str) -> Path | None:
    """The folder of a hub name's autoencoder in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    for inside in ("vae/", ""):
        config = try_to_load_from_cache(repository, f"{inside}config.json")
        if isinstance(config, str) and any(Path(config).parent.glob("*.safetensors")):
            return Path(config).parent
    return None


def _fetch(repository: str, folder: str | None, name: str, weights: str | None = None) -> Path:
    """The folder in the hub's cache with the files of the autoencoder.

    folder: in the repository; None: `vae`, if it is there. weights: the only file that is needed; None: a
    configuration and what belongs to it.
    """
    from huggingface_hub import HfApi, errors, hf_hub_download

    # The base that the hub's client shares with the HTTP library under it, whichever that is.
    http_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        try:
            listed = HfApi().model_info(repository, timeout=20).siblings or []
            names = [one.rfilename for one in listed]
        except errors.HfHubHTTPError:
            raise
        except (OSError, http_error) as error:
            raise UnlikenessError(_missing(name, "the hub was not reached")) from error
        if folder is None:
            folder = "vae" if any(one.startswith("vae/") for one in names) else ""
        from unlikeness.networks.weights import needed_files  # with torch

        inside = f"{folder}/" if folder else ""
        here = [one.removeprefix(inside) for one in names if one.rpartition("/")[0] == folder]
        needed = [weights] if weights else needed_files(here)
        wanted = [one for one in needed if one.endswith((".json", ".safetensors"))]
        if not any(one.endswith(".safetensors") for one in wanted):
            raise UsageError(f"{repository} holds no autoencoder as safetensors; give another, or a folder")
        paths = [Path(hf_hub_download(repository, inside + one)) for one in wanted]
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, http_error, OSError) as error:
        raise UnlikenessError(_missing(name, _why(error))) from error
    return paths[0].parent


def _missing(name: str, why: str) -> str:
    """One sentence: what is missing, and where it is available."""
    said = f"the autoencoder {name} is not on this machine, and {why}"
    source = source_of(name)
    if source is None:
        return f"{said}; give a folder or a file"
    if source.single:
        return f"{said}; download {source.weights} from {source.address} and give its path"
    page = f"{source.address}/tree/main/{source.folder}".removesuffix("/")
    return f"{said}; download config.json and {source.weights} from {page} and give their folder"


def _why(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the hub asks for an agreement there: accept its licence and log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it is not on the hub, or is private"
    return f"it could not be fetched ({reason(error)})"
