"""`unlikeness purify`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.protect.test_tiles import write
from tests.tiny import write_tiny

from unlikeness import purify
from unlikeness.cli import main
from unlikeness.pictures import open_picture
from unlikeness.purify.chain import Chain, parse
from unlikeness.seeds import derive


def lines(folder: Path) -> dict[str, dict[str, object]]:
    found = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return {entry["path"]: entry for entry in found}


def test_a_folder_is_purified_as_protect_protects_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, output = tmp_path / "in", tmp_path / "out"
    (photos / "trip").mkdir(parents=True)
    write(photos / "a.png", 50, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photos / "a.png").convert("RGB").save(photos / "trip" / "b.jpg", exif=exif)
    (photos / "c.jpg").write_bytes(b"no picture")
    words = ["purify", str(photos), "-o", str(output), "--method", "noise:4,median", "--seed", "3", "-q"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "skipped c.jpg" in said.err
    assert said.out == f"2 purified, 1 skipped; {output}\n"
    with Image.open(output / "trip" / "b.jpg") as after:
        assert (after.format, after.size, after.getexif()[0x0112]) == ("JPEG", (50, 40), 6)
    entry = lines(output)["a.png"]
    steps = [step["method"] for step in entry["recipe"]["purify"]]  # type: ignore[index]
    assert (entry["status"], steps) == ("purified", ["noise", "median"])

    chain = Chain(parse("noise:4,median"), [None, None])
    before = open_picture(photos / "a.png").rgb
    wanted = chain.wash(before, derive(3, str(entry["input_digest"])))
    assert np.abs(open_picture(output / "a.png").rgb - wanted).max() < 0.6 / 255  # rounded to nearest
    assert np.abs(wanted - before).max() > 2 / 255

    made = (output / "a.png").stat().st_mtime_ns, (output / "a.png").read_bytes()
    (photos / "c.jpg").unlink()
    write(photos / "d.png", 20, 30)
    assert main(words) == 0
    assert capsys.readouterr().out == f"1 purified, 2 done before; {output}\n"
    assert made == ((output / "a.png").stat().st_mtime_ns, (output / "a.png").read_bytes())
    assert main([*words, "--set", "median.size=5"]) == 0
    assert capsys.readouterr().out == f"3 purified; {output}\n"


def test_what_was_purified_goes_with_an_original_that_is_damaged(tmp_path: Path) -> None:
    photos, output = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    write(photos / "a.png", 20, 30)
    write(photos / "b.png", 30, 20)
    words = ["purify", str(photos), "-o", str(output), "-q"]
    assert main(words) == 0
    (photos / "a.png").write_bytes(b"no picture")
    assert main([*words, "--max-pixels", "500"]) == 1
    assert sorted(path.name for path in output.iterdir()) == ["b.png", "manifest.jsonl"]
    assert "was removed" in str(lines(output)["a.png"]["reason"])


def test_an_autoencoder_by_its_name_and_a_model_work_in_one_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny(tmp_path / "model")
    write(tmp_path / "a.png", 40, 30)
    words = ["purify", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "cpu", "-q"]
    method = f"vae:{folder / 'vae'},diffpure:0.2"
    assert main([*words, "--method", method, "--model", str(folder), "--set", "diffpure.steps=2"]) == 0
    capsys.readouterr()
    entry = lines(tmp_path / "out")["a.png"]
    first, second = entry["recipe"]["purify"]  # type: ignore[index]
    assert first["fingerprint"] != second["fingerprint"]
    assert (second["settings"]["strength"], second["settings"]["steps"]) == (0.2, 2)


def test_protected_pictures_are_never_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.png", 40, 30)
    assert main(["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "-q"]) == 0
    made = (tmp_path / "out" / "a.png").read_bytes()
    assert main(["purify", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "-q"]) == 2
    assert "is of protected pictures; name another output folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").read_bytes() == made


def test_misuse_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"not looked into")
    wrong = {
        "did you mean jpeg": ["--method", "jpg"],
        "--set quality must be at most 100": ["--set", "quality=101"],
        "--method: quality must be at most 100": ["--method", "blur,jpeg:101"],
        "is for one of several methods; name it, as in jpeg.quality": [
            "--method", "jpeg,blur", "--set", "quality=9"
        ],
        "is for blur, which --method does not name": ["--set", "blur.sigma=1"],
        "quality is given twice": ["--method", "jpeg:75", "--set", "quality=9"],
        "nosuch": ["--method", "vae:./nosuch"],
    }  # fmt: skip
    for named, options in wrong.items():
        assert main(["purify", str(tmp_path), "-o", str(tmp_path / "out"), *options]) == 2, named
        said = capsys.readouterr().err
        assert named in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_method_has_a_main_setting_to_type() -> None:
    for name in purify.names():
        kind = purify.METHODS.settings_type(name)
        value = getattr(kind(), str(kind.main))
        assert parse(f"{name}:{value}")[0].settings == kind()
