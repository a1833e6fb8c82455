"""`unlikeness protect`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.autoencoders import tiny_files
from tests.protect.test_tiles import write
from tests.tiny import write_tiny

from unlikeness.cli import main
from unlikeness.errors import UsageError
from unlikeness.protect import registry
from unlikeness.protect.rid.opening import Opened, open_network


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("models") / "tiny"))


def test_a_folder_is_protected_and_a_second_run_finds_it_done(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", 50, 40)
    command = [
        "protect",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
        "--model",
        tiny,
        "--device",
        "cpu",
    ]
    options = ["--steps", "2", "--budget", "4", "--set", "prompt=a photo of a dog", "--at", "both"]
    assert main([*command, *options]) == 0
    assert "1 protected, largest change 4/255" in capsys.readouterr().out
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    recipe = json.loads(line)["recipe"]
    assert recipe["settings"]["prompt"] == "a photo of a dog"
    assert (recipe["settings"]["steps"], recipe["settings"]["budget"]) == (2, 4)
    assert (recipe["method"], recipe["model"], recipe["scale"]["mode"]) == ("advdm", tiny, "both")
    assert main([*command, *options]) == 0
    assert "0 protected, 1 done before" in capsys.readouterr().out


def test_a_bad_file_gives_status_1_after_the_others(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no picture")
    write(tmp_path / "in" / "b.png", 50, 40)
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", tiny, "--method", "noise"]
    assert main(["protect", *arguments]) == 1
    said = capsys.readouterr()
    assert "skipped a.png: it is no JPEG" in said.err
    assert "1 protected, 1 skipped" in said.out
    assert (tmp_path / "out" / "b.png").exists()


def test_a_budget_below_a_step_is_no_silent_success(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.png", 50, 40)
    arguments = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--model", tiny, "--method", "noise"]
    for said in ("", "again"):
        assert main(["protect", *arguments, "--budget", "0.4"]) == 1, said
        told = capsys.readouterr()
        assert told.out.startswith("nothing was protected, 1 unchanged (copies, not protected)")
        assert "unchanged a.png: nothing was changed, this is a copy: the budget is smaller" in told.err
    assert main(["protect", *arguments, "--budget", "0.4", "--dry-run"]) == 0
    assert "1 of them will be unchanged" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.png", 50, 40)
    arguments = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--model", tiny, "--dry-run"]
    assert main(["protect", *arguments]) == 0
    assert "a.png  50 × 40 px  3 tiles" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "advmd"], "did you mean advdm"),
        (["--method", "noise", "--steps", "3"], "steps is no setting of NoiseSettings"),
        (["--method", "advdm", "--set", "promt=x"], "did you mean prompt"),
        (["--set", "prompt"], "NAME=VALUE"),
        (["--at", "big"], "--at"),
        (["--steps", "3"], "steps is no setting of RidSettings"),
        (["--weights", "rid-nowhere"], "no shipped protector (there are: rid-photo, rid-toybox"),
        (["--method", "rid", "--model", "toybox"], "--model is for methods that follow a gradient"),
        (["--prediction", "v"], "--prediction is for a model in one file"),
        (["--against", "sd1", "--model-config", "x"], "--model-config is for a model in one file"),
        (["--psnr", "nan"], "psnr"),
        (["--dtype", "float32"], "--dtype is the precision of a model, and rid uses none"),
        (["--method", "advdm", "--steps", "3", "--set", "steps=4"], "steps is given twice"),
        (["--budget", "-1"], "budget must be more than 0"),
        (["--budget", "0"], "budget must be more than 0"),
        (["--budget", "0", "--method", "noise"], "budget must be more than 0"),
        (["--method", "advdm", "--set", "step_size=0"], "step_size must be more than 0"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
        (["--against", "no/such_encoder.pth"], "no/such_encoder.pth is no file or folder"),
        (["--against", " , "], "no autoencoder is given"),
        (["--against", "x", "--model", "toybox"], "--model and --against both"),
        (["--against", "x", "--method", "rid"], "rid needs none"),
        (["--preset", "mits"], "did you mean mist?"),
        (["--preset", "mist", "--method", "advdm"], "--preset mist is for the method encoder"),
        (["--preset", "mist", "--set", "objective=far"], "objective"),
    ],
)
def test_misuse_gives_status_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write(tmp_path / "a.png", 50, 40)
    assert main(["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protect", "--help"]) == 0
    said = capsys.readouterr().out
    assert registry.METHODS.homes
    assert all(name in said for name in registry.METHODS.homes)


def test_a_registered_name_is_never_taken_twice() -> None:
    import unlikeness.protect as protect

    with pytest.raises(UsageError, match="registered twice"):
        protect.register("noise", "somewhere.else:Noise")


def test_without_a_model_it_is_rid_in_one_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.png", 150, 90)
    assert main(["protect", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--budget", "4"]) == 0
    assert "1 protected, largest change" in capsys.readouterr().out
    (line,) = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["recipe"]["method"], entry["recipe"]["model"]) == ("rid", None)
    assert entry["recipe"]["settings"]["weights"] == "rid-photo"
    assert entry["computed"].keys() == {"batch_size", "device", "dtype", "engine"}
    assert 1 < entry["linf"] <= 4


def test_rid_reads_its_network_once_and_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlikeness.protect.methods import rid

    asked: list[str] = []

    def counted(weights: str, device: str, *, way: str, engine: str) -> Opened:
        asked.append(device)
        return open_network(weights, "cpu", way=way, engine=engine)

    monkeypatch.setattr(rid, "open_network", counted)
    write(tmp_path / "a.png", 50, 40)
    where = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    assert main(["protect", *where, "--device", "cuda", "-q"]) == 0
    assert asked == ["cuda"]


def test_what_was_not_kept_is_told_once_a_kind(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / "in" / name, 50, 40)
    for name in ("b.png", "c.png"):
        path = tmp_path / "in" / name
        path.write_bytes(path.read_bytes() + b"a video" * 20)
    arguments = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--model", tiny, "--method", "noise"]
    assert main(["protect", *arguments]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
    assert told == ["note on 2 pictures: data behind the picture left out"]
    assert main(["protect", *arguments]) == 0
    assert "note" not in capsys.readouterr().err


def test_against_autoencoders_it_says_what_the_change_does_to_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    file = tiny_files.write(tmp_path / "own_encoder.safetensors", tiny_files.encoder_weights())
    (tmp_path / "in").mkdir()
    command = ["protect", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--against", str(file), "-q"]
    command += ["--steps", "1"]
    write(tmp_path / "in" / "a.png", 70, 64)
    assert main(command) == 0
    assert "encoder of" not in capsys.readouterr().out  # a single picture has nothing to compare with
    for name, seed in (("b.png", 1), ("c.png", 2)):
        write(tmp_path / "in" / name, 70, 64, seed=seed)
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].startswith("The protection moves what the encoder of own_encoder.safetensors sees ")
    assert said[-2].endswith("(measured on 2 pictures).")
    assert "2 protected" in said[-1]


@pytest.mark.parametrize("repeated", [False, True])
def test_several_autoencoders_stand_between_commas_or_are_given_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], repeated: bool
) -> None:
    files = [
        str(tiny_files.write(tmp_path / f"{name}_encoder.safetensors", tiny_files.encoder_weights()))
        for name in ("one", "two")
    ]
    write(tmp_path / "a.png", 70, 64)
    given = [word for file in files for word in ("--against", file)]
    against = given if repeated else ["--against", ",".join(files)]
    options = ["--steps", "1", "--output", str(tmp_path / "out"), *against]
    assert main(["protect", str(tmp_path / "a.png"), *options]) == 0
    assert "one_encoder.safetensors and two_encoder.safetensors" in capsys.readouterr().out
