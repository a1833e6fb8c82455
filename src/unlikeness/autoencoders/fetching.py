"""The autoencoder of a name: on this machine, or fetched from the Hugging Face hub, its `vae` part alone.

What is missing is found without torch.
"""

from __future__ import annotations

from pathlib import Path

from unlikeness.autoencoders.names import check_name, find, source_of
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.fetching import fetch

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
        raise UnlikenessError(
            f"the autoencoder {name} is not on this machine, and the hub does not have it; {_remedy(name)}"
        )
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
    inside = folder

    def wanted(names: list[str]) -> list[str]:
        nonlocal inside
        if inside is None:
            inside = "vae" if any(one.startswith("vae/") for one in names) else ""
        from unlikeness.networks.weights import needed_files  # with torch

        start = f"{inside}/" if inside else ""
        here = [one.removeprefix(start) for one in names if one.rpartition("/")[0] == inside]
        needed = [weights] if weights else needed_files(here)
        chosen = [one for one in needed if one.endswith((".json", ".safetensors"))]
        if not any(one.endswith(".safetensors") for one in chosen):
            raise UsageError(f"{repository} holds no autoencoder as safetensors; give another, or a folder")
        return [start + one for one in chosen]

    root = fetch(repository, f"the autoencoder {name}", wanted, remedy=_remedy(name))
    return root / (inside or "")


def _remedy(name: str) -> str:
    """Where it is available."""
    source = source_of(name)
    if source is None:
        return "give a folder or a file"
    if source.single:
        return f"download {source.weights} from {source.address} and give its path"
    page = f"{source.address}/tree/main/{source.folder}".removesuffix("/")
    return f"download config.json and {source.weights} from {page} and give their folder"
