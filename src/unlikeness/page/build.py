"""The folder of the page: its own files, the network as ONNX, and ONNX Runtime's for browsers.

Any static host or file server can serve it. `files.json` lists each file with its size and digest.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unlikeness import __version__
from unlikeness.errors import UnlikenessError, UsageError, one_line
from unlikeness.files import remove, replacing
from unlikeness.protect.against import Against
from unlikeness.protect.rid.onnx_file import export_onnx
from unlikeness.protect.rid.saved import read_saved
from unlikeness.protect.settings import ResolutionMode, RidSettings

__all__ = ["INDEX", "POLICY", "RUNTIME", "RUNTIME_FILES", "build_page", "is_page"]

STATIC = Path(__file__).parent / "static"

INDEX = "files.json"
"""The list of a page's files; a folder with it is a page."""

RUNTIME = "onnxruntime-web@1.30.0"
"""The package of the npm registry whose files the page runs, and its version."""

_INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""The SHA-512 of its archive, as the registry gives it."""

RUNTIME_FILES = (
    "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
"""What the page needs of the package's folder `dist`. A visitor fetches the first or the last two."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; style-src 'self'; base-uri 'none'; form-action 'none'"
)
"""The page's Content-Security-Policy: nothing is fetched from, or sent to, another origin."""

_FOLDER = "onnxruntime"
_MOST_BYTES = 64 << 20
_README = """The page of unlikeness that protects pictures in a browser. Serve this folder from any host:

    python -m http.server --bind 127.0.0.1 --directory . 8000

and open http://127.0.0.1:8000/ . Browsers do not run it from a file:// address. Nothing has to be set on
the server; .wasm, .mjs and .onnx files may be compressed. {index} lists all files with their digests.
onnxruntime/ is {runtime} (MIT licence, Microsoft Corporation); the rest is Apache 2.0.
"""


def build_page(output: Path, weights: str = "rid-photo", runtime: Path | None = None) -> list[str]:
    """Write the page's folder, or write an earlier page anew; returns the names of its files.

    Args:
        weights: name of a shipped network, or a file of `train-protector`.
        runtime: the folder `dist` of `RUNTIME`, the package's own folder or its archive (.tgz). None: npm
            fetches the archive.

    Raises:
        UsageError: the weights are no such network, or `runtime` lacks a file.
        UnlikenessError: the archive cannot be fetched, or is another one.
    """
    saved = read_saved(weights)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as part, _runtime(runtime) as files:
        shutil.copytree(STATIC, part)
        (part / _FOLDER).mkdir()
        for name, file in files.items():
            shutil.copyfile(file, part / _FOLDER / name)
        network = f"{Path(weights).stem}.onnx"
        export_onnx(saved, part / network)
        mark = _sha256(part / network)[:16]
        against = Against.trained(network, mark, saved.about)
        settings = RidSettings(weights=network)
        about = {
            "network": network,
            "resolution": saved.resolution,
            "recipe": {
                "method": "rid", "settings": asdict(settings), "scale": asdict(ResolutionMode()),
                "model": None, "fingerprint": mark, "seed": 0, "engine": "onnxruntime-web",
            },
            "against": against.record(),
            "engine": RUNTIME.replace("@", " "),
            "version": __version__,
        }  # fmt: skip
        (part / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        (part / "README.txt").write_text(_README.format(index=INDEX, runtime=RUNTIME), encoding="utf-8")
        _fill(part, against.claim)
        names = _index(part)
        if is_page(output):
            remove(output)
    return names


def is_page(folder: Path) -> bool:
    """Whether `build_page` wrote this folder."""
    return (folder / INDEX).is_file() and (folder / "sw.js").is_file()


def _fill(part: Path, claim: str) -> None:
    """Put the texts into the page, and the list of files into the service worker."""
    texts: dict[str, str] = json.loads((part / "strings.json").read_text(encoding="utf-8"))
    texts["does"] = texts["does"].replace("{{claim}}", claim)
    page = part / "index.html"
    filled = {name: html.escape(text) for name, text in {**texts, "policy": POLICY}.items()}
    page.write_text(_filled(page.read_text(encoding="utf-8"), filled), encoding="utf-8")
    (part / "strings.json").write_text(json.dumps(texts, ensure_ascii=False, indent=1), encoding="utf-8")
    core = [path.name for path in sorted(part.iterdir()) if path.suffix in (".js", ".json", ".css", ".svg")]
    core.remove("sw.js")
    version = hashlib.sha256("".join(_sha256(part / name) for name in _names(part)).encode()).hexdigest()[:16]
    worker = part / "sw.js"
    values = {"version": version, "core": '", "'.join(core), "policy": POLICY}
    worker.write_text(_filled(worker.read_text(encoding="utf-8"), values), encoding="utf-8")


def _filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with {{name}} replaced. KeyError for a name without a value."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _index(part: Path) -> list[str]:
    """Write the list of files; returns their names."""
    names = _names(part)
    listed: list[dict[str, Any]] = [
        {"path": name, "bytes": (part / name).stat().st_size, "sha256": _sha256(part / name)}
        for name in names
    ]
    text = json.dumps({"version": __version__, "files": listed}, indent=1)
    (part / INDEX).write_text(text, encoding="utf-8")
    return [*names, INDEX]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _runtime(given: Path | None) -> Iterator[Mapping[str, Path]]:
    """The files of ONNX Runtime by name, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as held:
        if given is None:
            given = _fetched(Path(held))
        if given.is_file():
            given = _unpacked(given, Path(held))
        folder = given / "dist" if (given / "dist").is_dir() else given
        missing = [name for name in RUNTIME_FILES if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"--onnxruntime {given} lacks {missing[0]}; give the folder dist of {RUNTIME}, or its archive"
            )
        yield {name: folder / name for name in RUNTIME_FILES}


def _fetched(folder: Path) -> Path:
    """The package's archive, which npm fetches. Its scripts do not run."""
    npm = shutil.which("npm")
    remedy = f"run `npm pack {RUNTIME}` where there is npm, and give the file with --onnxruntime"
    if npm is None:
        raise UnlikenessError(f"npm, which fetches {RUNTIME}, is not installed; {remedy}")
    command = [npm, "pack", RUNTIME, "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnlikenessError(f"{RUNTIME} cannot be fetched ({one_line(str(error))}); {remedy}") from error
    found = next(folder.glob("*.tgz"), None)
    if done.returncode or found is None:
        raise UnlikenessError(f"{RUNTIME} cannot be fetched ({one_line(done.stderr)[:200]}); {remedy}")
    return found


def _unpacked(archive: Path, folder: Path) -> Path:
    """The needed files of the package's archive, which must be exactly the known one."""
    with archive.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != _INTEGRITY:
        raise UnlikenessError(
            f"{archive} is not the archive of {RUNTIME} (its SHA-512 differs); use `npm pack {RUNTIME}`"
        )
    target = folder / "dist"
    target.mkdir()
    with tarfile.open(archive) as opened:
        for name in RUNTIME_FILES:
            member = opened.extractfile(f"package/dist/{name}")
            assert member is not None, name
            (target / name).write_bytes(member.read(_MOST_BYTES))
    return target
