"""The page's folder: complete, listed, strict, replaced only where it is ours; and refusals in a sentence."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from pathlib import Path

import pytest
from tests.page.conftest import network

from unlikeness.cli import main
from unlikeness.page.build import INDEX, POLICY, RUNTIME_FILES, STATIC


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with the names of ONNX Runtime's files."""
    folder = tmp_path / "package" / "dist"
    folder.mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return folder.parent


def run(output: Path, *words: str) -> int:
    return main(["page", "-o", str(output), *words])


def test_a_folder_holds_what_its_list_says(
    tmp_path: Path, runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, output = network(tmp_path / "small.safetensors"), tmp_path / "page"
    assert run(output, "--onnxruntime", str(runtime), "--weights", str(small)) == 0
    assert "http.server" in capsys.readouterr().out
    listed = {one["path"]: one for one in json.loads((output / INDEX).read_text())["files"]}
    found = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    assert set(found) == {*listed, INDEX}
    assert {"index.html", "small.onnx", *(f"onnxruntime/{name}" for name in RUNTIME_FILES)} <= set(found)
    for name, one in listed.items():
        data = found[name].read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    page = (output / "index.html").read_text()
    assert "{{" not in page + (output / "sw.js").read_text()
    assert "against the distilled autoencoder of FLUX.2: not known to stop a fine-tune" in page
    assert POLICY.replace("'", "&#x27;") in page
    assert not re.search(r"https?://", page), "an address of elsewhere"

    before = (output / "sw.js").read_text()
    assert run(output, "--onnxruntime", str(runtime)) == 2
    assert run(output, "--onnxruntime", str(runtime), "--overwrite") == 0
    assert (output / "rid-photo.onnx").is_file()
    assert not (output / "small.onnx").exists()
    assert (output / "sw.js").read_text() != before, "browsers would keep the old files"


def test_refusals(
    tmp_path: Path, runtime: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "page"
    (runtime / "dist" / RUNTIME_FILES[0]).unlink()
    archive = tmp_path / "other.tgz"
    with tarfile.open(archive, "w:gz") as written:
        written.add(runtime, "package")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    monkeypatch.setenv("PATH", "")
    for words, status, said in (
        (["--onnxruntime", str(runtime)], 2, f"lacks {RUNTIME_FILES[0]}"),
        (["--onnxruntime", str(archive)], 1, "SHA-512 differs"),
        (["--onnxruntime", str(tmp_path / "nowhere")], 2, "is not there"),
        ([], 1, "npm, which fetches"),
        (["--weights", "nothing"], 2, "no shipped protector"),
    ):
        assert run(output, *words) == status
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not output.exists()
    assert run(tmp_path / "mine", "--overwrite") == 2
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    texts = json.loads((STATIC / "strings.json").read_text(encoding="utf-8"))
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    scripts = "".join(path.read_text(encoding="utf-8") for path in STATIC.glob("*.js"))
    used = set(re.findall(r"\{\{(\w+)\}\}", page)) - {"policy"}
    calls = r"(?:say\(|Unusable\(|notes\.add\(|new Error\()\"(\w+)\""
    named = set(re.findall(calls, scripts))
    assert used | named <= set(texts)
    known = set(re.findall(r'"(\w+)"', scripts)) | {f"{name}Alt" for name in ("before", "after", "change")}
    assert set(texts) <= used | known
    assert not re.search(r"https?://(?!ns\.)", page + (STATIC / "style.css").read_text())


def _contrast(a: str, b: str) -> float:
    """WCAG 2.2's contrast ratio of two colours, as #rgb or #rrggbb."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * one for one in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_texts_have_contrast_in_light_and_dark() -> None:
    schemes = re.findall(r":root \{(.*?)\}", (STATIC / "style.css").read_text(), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#\w+)", scheme))
        for ground in ("paper", "card"):
            for text in ("ink", "soft", "accent", "good", "bad"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert _contrast(colours["on-accent"], colours["accent"]) >= 4.5
