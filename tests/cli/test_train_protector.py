"""`unlikeness train-protector`, as it is typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tests.autoencoders.tiny_files import encoder_weights, write
from tests.tiny import PIXELS, write_tiny

from unlikeness.cli import main
from unlikeness.diffusion import TextToImage
from unlikeness.diffusion.fingerprint import fingerprint
from unlikeness.protect.rid.network import NetworkSettings
from unlikeness.protect.rid.train.recipe import RECIPES, ProtectorRecipe, read_recipe
from unlikeness.protect.rid.weights import load_protector
from unlikeness.settings import build

TINY = ["--network", "fine=4", "--network", "middle=6", "--network", "coarse=8", "--device", "cpu", "-q"]
FEW = ["--steps", "2", "--batch-size", "2", "--set", "renders=2", "--set", "leaves=2"]
PAIRS = ["--set", "pairs=2", "--set", "pair-steps=1"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("models") / "tiny"))


def about(file: Path) -> dict[str, object]:
    with safe_open(file, framework="pt") as opened:
        found: dict[str, object] = json.loads(opened.metadata()["about"])
    return found


def test_it_trains_and_writes_what_protect_can_load(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, work = tmp_path / "new" / "ours.safetensors", tmp_path / "work"
    Image.new("RGB", (50, 40), (200, 30, 60)).save(tmp_path / "mine.png")
    command = ["train-protector", "-o", str(output), "--work", str(work), "--model", tiny, *TINY, *FEW]
    command += ["--images", str(tmp_path / "mine.png"), "--learning-rate", "0.01", "--seed", "3"]
    assert main(command) == 0
    assert str(output) in capsys.readouterr().out
    loaded = load_protector(output)
    assert loaded.network.settings == NetworkSettings(fine=4, middle=6, coarse=8)
    assert loaded.resolution == PIXELS
    assert loaded.about["models"] == ["tiny"]
    assert str(Path(tiny).parent) not in json.dumps(dict(loaded.about))
    assert loaded.about["recipe"] == {
        "steps": 2, "batch_size": 2, "renders": 2, "leaves": 2, "learning_rate": 0.01, "seed": 3
    }  # fmt: skip
    assert (work / "protector.safetensors").is_file()
    assert len(list((work / "pictures").iterdir())) == 3
    before = output.read_bytes()
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert main([*command, "--overwrite"]) == 0
    assert torch.equal(load_protector(output).network.enter.weight, loaded.network.enter.weight)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--loss", "sds"], {}),
        (
            ["--loss", "regression"],
            {"sds_weight": 0.0, "displacement_weight": 0.0, "regression_weight": 1.0},
        ),
        (["--loss", "both"], {"regression_weight": 1.0}),
        (["--loss", "both", "--set", "regression_weight=0.5"], {"regression_weight": 0.5}),
        (
            ["--loss", "regression", "--set", "displacement-weight=0.3"],
            {"sds_weight": 0.0, "displacement_weight": 0.3, "regression_weight": 1.0},
        ),
    ],
)
def test_the_loss_is_a_choice_of_three_and_an_explicit_setting_wins(
    tiny: str, tmp_path: Path, options: list[str], changed: dict[str, float]
) -> None:
    output = tmp_path / "ours.safetensors"
    where = ["--output", str(output), "--work", str(tmp_path / "work"), "--model", tiny]
    assert main(["train-protector", *where, *TINY, *FEW, *PAIRS, *options]) == 0
    recipe = about(output)["recipe"]
    assert isinstance(recipe, dict)
    weights = {name: value for name, value in recipe.items() if name.endswith("_weight")}
    defaults = ProtectorRecipe()
    assert weights == {name: value for name, value in changed.items() if value != getattr(defaults, name)}


def test_several_models_make_an_ensemble(tiny: str, tmp_path: Path) -> None:
    second = str(write_tiny(tmp_path / "second", prediction_type="v_prediction", seed=1))
    output = tmp_path / "ours.safetensors"
    command = ["train-protector", "-o", str(output), "--work", str(tmp_path / "work"), *TINY, *FEW]
    assert main([*command, "--model", tiny, "--model", second]) == 0
    found = about(output)
    assert found["models"] == ["tiny", "second"]
    marks = [
        fingerprint(TextToImage.from_pretrained(m, device="cpu", dtype="float32")) for m in (tiny, second)
    ]
    assert found["fingerprints"] == marks


def test_a_checkpoint_knows_its_model_by_what_it_is_and_not_by_where_it_lies(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, here, there = tmp_path / "ours.safetensors", tmp_path / "a" / "net", tmp_path / "b" / "net"
    command = ["train-protector", "-o", str(output), "--work", str(tmp_path / "work"), *TINY, *FEW]
    shutil.copytree(tiny, here)
    assert main([*command, "--model", str(here)]) == 0
    shutil.copytree(here, there)
    shutil.rmtree(here)
    assert main([*command, "--overwrite", "--model", str(there)]) == 0
    write_tiny(here, seed=1)
    capsys.readouterr()
    assert main([*command, "--overwrite", "--model", str(here)]) == 2
    assert "belongs to another run" in capsys.readouterr().err


def test_misuse_is_said_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, work = str(tmp_path / "o.safetensors"), tmp_path / "work"
    other = tmp_path / "lora.safetensors"
    save_file({"a": torch.ones(1)}, other)
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "empty").mkdir()
    wrong = {
        "is no setting of ProtectorRecipe (did you mean steps?)": ["-o", output, "--set", "stepz=3"],
        "is no setting of NetworkSettings": ["-o", output, "--network", "depth=3"],
        "--set steps must be NAME=VALUE": ["-o", output, "--set", "steps"],
        "--network fine must be NAME=VALUE": ["-o", output, "--network", "fine"],
        "steps must be at least 1": ["-o", output, "--steps", "0"],
        "seed must be at least 0": ["-o", output, "--seed", "-1"],
        "seed must be at most": ["-o", output, "--seed", str(2**63)],
        "are all 0": ["-o", output, "--loss", "regression", "--set", "regression_weight=0"],
        "nothing to learn from": ["-o", output, "--set", "renders=0", "--set", "leaves=0"],
        "/no/such/picture does not exist": ["-o", output, "--images", "/no/such/picture"],
        "there is no picture in": ["-o", output, "--images", str(tmp_path / "empty")],
        "ends in .safetensors": ["-o", str(tmp_path / "o.bin")],
        "lora.safetensors exists and is no earlier result": ["-o", str(other), "--overwrite"],
        "folder.safetensors exists and is no earlier": ["-o", str(tmp_path / "folder.safetensors")],
        "is no folder": ["-o", str(other / "below" / "o.safetensors")],
        "is where the checkpoint will be": ["-o", str(work / "protector.safetensors")],
        "'sdss'": ["-o", output, "--loss", "sdss"],
        "device 'gpu' is unknown": ["-o", output, "--device", "gpu"],
        "--output": [],
    }
    for named, arguments in wrong.items():
        model = ["--model", "/no/such/model", "--work", str(work)]
        assert main(["train-protector", *arguments, *model]) == 2, named
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert named in err
    assert not work.exists()
    assert main(["train-protector", "-o", output, "--model", "/no/such/model", "--work", str(work)]) == 2
    assert "/no/such/model" in capsys.readouterr().err
    assert not work.exists()


def test_it_trains_against_autoencoders_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        write(tmp_path / f"tae{factor}_encoder.safetensors", encoder_weights(factor=factor))
        for factor in (8, 32)
    ]
    output = tmp_path / "o.safetensors"
    command = ["train-protector", "-o", str(output), "--work", str(tmp_path / "w"), *TINY, "--steps", "2"]
    command += ["--batch-size", "2", "--set", "leaves=2", "--set", "side=64"]
    for file in files:
        command += ["--against", str(file)]
    assert main(command) == 0, capsys.readouterr().err
    loaded = load_protector(output)
    assert loaded.network.settings.sees == "detail"
    assert (loaded.about["models"], loaded.resolution) == ([file.name for file in files], 512)
    assert loaded.about["toybox"] == [False, False]


def test_it_starts_from_a_network_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "tae8_encoder.safetensors", encoder_weights())
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    command = ["train-protector", "--against", str(file), "--batch-size", "2", "--device", "cpu", "-q"]
    command += ["--set", "leaves=2", "--set", "side=64"]
    begin = [*command, "-o", str(first), "--work", str(tmp_path / "a"), "--steps", "2", *TINY]
    assert main(begin) == 0, capsys.readouterr().err
    further = [*command, "-o", str(second), "--work", str(tmp_path / "b"), "--start", str(first)]
    still = [*further, "--steps", "1", "--learning-rate", "1e-12"]
    assert main(still) == 0, capsys.readouterr().err
    one, two = load_protector(first), load_protector(second)
    assert one.network.settings == two.network.settings
    assert two.about["start"] == one.about["recipe"]
    for name, weight in one.network.state_dict().items():
        torch.testing.assert_close(two.network.state_dict()[name], weight, atol=1e-5, rtol=1e-3)
    for options, said in (
        (["--network", "fine=4"], "brings its own sizes"),
        (["--start", str(file)], "is no file of train-protector"),
        (["--start", "nothing"], "no shipped protector"),
    ):
        assert main([*further, "--overwrite", *options]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", [file.stem for file in RECIPES.glob("*.yaml")])
def test_every_shipped_recipe_fits_the_settings(name: str) -> None:
    recipe, network = read_recipe(name)
    assert build(ProtectorRecipe, recipe).steps > 100
    assert build(NetworkSettings, network)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: [1, 2]", "recipe must hold lines"),
        ("steps: 4", "is no recipe"),
        ("recipe: {steps: *a}", "is no YAML"),
        ("recipe: {stepps: 4}", "stepps"),
        ("recipe: {steps: many}", "steps"),
    ],
)
def test_a_recipe_that_is_none_is_one_sentence(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert main(["train-protector", "-o", str(tmp_path / "o.safetensors"), "--recipe", str(file)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_recipe_of_no_such_name_lists_those_that_are_shipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-protector", "-o", str(tmp_path / "o.safetensors"), "--recipe", "nothing"]) == 2
    assert "rid-photo" in capsys.readouterr().err
