"""The light installation: NumPy, Pillow and ONNX Runtime protect; what needs the extra `models` says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.protect.test_tiles import write

from unlikeness.cli.verbs import NEED_MODELS, VERBS
from unlikeness.extras import EXTRAS
from unlikeness.page.build import RUNTIME_FILES
from unlikeness.protect.methods.rid import Rid, RidSettings

BLOCKED = (
    *EXTRAS["models"], *EXTRAS["c2pa"], "onnx", "scipy", "requests", "tqdm", "regex", "filelock", "psutil",
    "packaging",
)  # fmt: skip
"""The extra `models` with what it brings along, and what only the tests have."""

CODE = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
from unlikeness.cli import main
"""


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    code = f"{CODE}\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)


def test_a_folder_is_protected(tmp_path: Path) -> None:
    """With masks and a PSNR, at both sizes; then the run is repeated, and planned."""
    photos, masks, out = tmp_path / "photos", tmp_path / "masks", tmp_path / "out"
    photos.mkdir()
    for name in ("a.png", "b.jpg"):
        write(photos / name, 150, 90)
    write(photos / "grey.png", 90, 60, "L")
    masks.mkdir()
    Image.fromarray(np.tile(np.linspace(0, 255, 150).astype(np.uint8), (90, 1))).save(masks / "a.png")
    words = [str(photos), "-o", str(out), "--mask", str(masks), "--psnr", "36", "--at", "both"]
    done = cli("protect", *words, "-q")
    assert done.returncode == 0, done.stderr
    assert "3 protected" in done.stdout
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {line["recipe"]["engine"] for line in lines} == {"onnxruntime"}
    assert all(line["computed"]["engine"].startswith("onnxruntime 1") for line in lines)
    assert "3 done before" in cli("protect", *words, "-q").stdout
    assert cli("protect", *words, "-q", "--dry-run").stdout.splitlines()[-1].startswith("3 pictures")
    seen = cli("measure", str(photos), str(out), "--json")
    assert len(json.loads(seen.stdout)["pictures"]) == 3, seen.stderr


WORK = {
    "surrogates": "surrogates",
    "export": "export -o network.onnx",
    "page": "page -o page --onnxruntime dist",
    "protect": "protect a.png -o out -q --weights network.onnx",
    "purify": "purify a.png -o washed -q --method jpeg:50,resize,blur,noise,median,bilateral",
    "measure visibility": "measure a.png out/a.png",
}
"""In this order. Every other command needs the extra."""

NEED = {
    "protect --method advdm": "--method advdm",
    "protect --method noise": "--method noise",
    "protect --preset mist": "--method encoder",
    "protect --against sdxl": "--method encoder",
    "protect --model ./nosuch": "--method advdm",
    "protect --device cuda": "device cuda",
    "protect --weights theirs.bin": "the network of the method's authors",
    "protect --weights someone/network": "a network on the hub (someone/network)",
    "purify a.png -o new --method jpeg,vae:sdxl": "--method vae",
    "purify a.png -o new --method diffpure": "--method diffpure",
    "measure latents a.png a.png --against sdxl": "measure latents",
    "measure similarity --subject a --generated a --class-images a": "measure similarity",
    "measure spoiled a": "measure spoiled",
    "toybox render --class-noun dog --output dog": "toybox",
    "toybox train vae": "toybox",
    **{name: name for name in NEED_MODELS if not name.startswith(("measure", "toybox"))},
}
"""Command line -> what the sentence names; of `protect` without the picture and the output."""


def test_every_command_works_or_says_in_one_sentence_what_to_install(tmp_path: Path) -> None:
    known = {name.partition(" ")[0] for name in (*WORK, *NEED_MODELS, "serve")}
    assert known == set(VERBS), "a new command stands in WORK, or in NEED_MODELS; serve has tests/serve"
    write(tmp_path / "a.png", 60, 50)
    (tmp_path / "theirs.bin").write_bytes(b"not looked into")
    (tmp_path / "dist").mkdir()
    for name in RUNTIME_FILES:
        (tmp_path / "dist" / name).write_bytes(b"only copied")
    first = {name: line.split() for name, line in WORK.items()}
    last = {line: f"{line} a.png -o new -q" if line.startswith("protect") else line for line in NEED}
    code = (
        f"{CODE}\nimport json\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    status = main(words)\n"
        "    print('\\nstatus', status)\n"
        "    print('end', file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([*first.values(), *map(str.split, last.values())])],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    statuses = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("status")]
    assert statuses == ["0"] * len(first) + ["1"] * len(last), done.stderr
    said = done.stderr.split("end\n")[len(first) :]
    for what, line in zip(NEED.values(), said, strict=False):
        assert line == (
            f"unlikeness: {what} needs an extra that is not installed (torch is missing); "
            'pip install "unlikeness[models]"\n'
        )
    assert not (tmp_path / "new").exists()
    unsigned = cli("protect", str(tmp_path / "a.png"), "-o", "new", "--c2pa", "a", "--c2pa-key", "b")
    assert unsigned.returncode == 1
    assert unsigned.stderr.endswith('(c2pa is missing); pip install "unlikeness[c2pa]"\n')


def test_what_is_missing_is_said_before_anything_is_loaded() -> None:
    loaded = "print(*(m for m in ('numpy', 'PIL', 'pydantic', 'onnxruntime') if m in sys.modules))"
    code = f"{CODE}\nassert main(['verify']) == 1\n{loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_what_is_looked_for(extra: str) -> None:
    """`EXTRAS` and pyproject.toml, by the names that Python imports."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^\w-]", line)[0] for line in project["optional-dependencies"][extra]}
    imported = {"pyyaml": "yaml", "c2pa-python": "c2pa", "python-multipart": "python_multipart"}
    assert {imported.get(name, name) for name in names} == set(EXTRAS[extra])


@pytest.mark.parametrize("side", [48, 50])
def test_both_engines_give_the_same_picture(side: int) -> None:
    """Within one level, and nearly always the same one."""
    images = np.random.default_rng(side).random((2, 3, side, side)).astype(np.float32)
    strength = np.linspace(0, 1, side * side, dtype=np.float32).reshape(1, 1, side, side).repeat(2, 0)
    made = [Rid(None, RidSettings(), engine=engine) for engine in ("onnxruntime", "torch")]
    assert made[0].fingerprint == made[1].fingerprint
    first, second = (np.rint(255 * one.perturb_arrays(images, strength, [0, 1])) for one in made)
    assert np.abs(first - np.rint(255 * images)).max() > 2
    assert np.abs(first - second).max() <= 1
    exact = made[1].dtype == "torch.float32"
    assert (first == second).mean() > (0.999 if exact else 0.97)
