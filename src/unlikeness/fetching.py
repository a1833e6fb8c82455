"""Files of a repository on the Hugging Face hub: those that are wanted, in the hub's own cache."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.foreign import reason

__all__ = ["fetch"]


def fetch(
    repository: str,
    said: str,
    wanted: Callable[[list[str]], Sequence[str]],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    remedy: str = "",
) -> Path:
    """The folder in the hub's cache with those files of `repository` that `wanted` selects by name.

    Where the hub is not reached, or is busy, what the cache holds is taken.

    Args:
        said: the start of a message, about what is fetched.
        revision: branch, tag or commit.
        local_files_only: never ask the hub.
        remedy: what to do instead, for the end of a message; "": what is usual.

    Raises:
        UsageError: the name cannot be one on the hub.
        UnlikenessError: the hub does not know it, or does not give it, and the cache does not hold it.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    # The base that the hub's client shares with the HTTP library under it, whichever that is.
    http_error: Any = errors.HfHubHTTPError.__bases__[0]
    try:
        files = None
        if not local_files_only:
            try:
                found = HfApi().model_info(repository, revision=revision, timeout=20).siblings or []
                files = [one.rfilename for one in found]
            except errors.HfHubHTTPError as error:
                if not _passing(error):
                    raise
            except (OSError, http_error):
                pass  # no network, or told to stay offline: the cache may hold it
        if files is None:
            return Path(snapshot_download(repository, revision=revision, local_files_only=True))
        names = [glob.escape(name) for name in wanted(files)]  # the hub's client takes patterns
        return Path(snapshot_download(repository, revision=revision, allow_patterns=names))
    except UnlikenessError:
        raise
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, http_error, OSError, ValueError) as error:
        usage = isinstance(error, ValueError) and not isinstance(error, OSError)
        why, usual = _why(error, revision)
        raise (UsageError if usage else UnlikenessError)(f"{said} {why}; {remedy or usual}") from error


def _passing(error: Exception) -> bool:
    """Whether the hub is busy or down. The cache may hold the model then."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status == 429 or (isinstance(status, int) and status >= 500)


def _why(error: Exception, revision: str | None) -> tuple[str, str]:
    """The second half of a message: the reason and the usual remedy."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            "asks for an agreement: accept its licence on the hub and log in with `hf auth login`",
            "or give a local folder",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision}", "check its spelling, or leave it out"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "is not on the hub, or is private", "check its spelling, log in, or give a local folder"
    if isinstance(error, errors.HFValidationError):
        return "is neither a folder here nor a possible hub name", "check its spelling"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "is not in the hub cache here, and the hub was not reached", "check the network or give a folder"
        )  # fmt: skip
    return f"could not be fetched ({reason(error)})", "try again, or give a local folder"
