"""Settings: strict, typed, documented; the registry: complete, validated, open to other packages."""

from __future__ import annotations

import dataclasses
import pkgutil
from importlib.metadata import EntryPoint

import pytest

from unlikeness import protect
from unlikeness.diffusion import TextToImage
from unlikeness.errors import UnlikenessError, UsageError
from unlikeness.protect import registry
from unlikeness.protect.methods.advdm import AdvDMSettings
from unlikeness.protect.settings import PgdSettings
from unlikeness.settings import build

METHODS = [
    "rid", "encoder", "advdm", "sds", "ace", "photoguard", "dct", "universal", "aspl", "simac", "metacloak",
    "caat", "noise",
]  # fmt: skip


def test_every_method_is_in_the_table_that_the_tests_walk() -> None:
    assert protect.names() == METHODS


def test_no_module_takes_the_name_of_what_the_package_offers() -> None:
    for module in pkgutil.iter_modules(protect.__path__):
        assert module.name not in protect.__all__


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_documented_and_frozen(name: str) -> None:
    settings = protect.method(name).settings_type()
    assert protect.method(name).__doc__
    for field in dataclasses.fields(settings):
        assert field.metadata["doc"].endswith(".")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, field.name, getattr(settings, field.name))


def test_the_text_of_flags_becomes_the_fields_own_types() -> None:
    made = build(AdvDMSettings, {"budget": "4", "steps": "7", "random_start": "no", "prompt": "12"})
    assert made == AdvDMSettings(budget=4.0, steps=7, random_start=False, prompt="12")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"step": 3}, ["step ", "did you mean steps or step_size?"]),
        ({"steps": 0}, ["steps", "at least 1"]),
        ({"steps": 2.5}, ["steps", "int"]),
        ({"steps": "many"}, ["steps", "number"]),
        ({"budget": -1}, ["budget", "more than 0"]),
        ({"budget": 0}, ["budget", "more than 0"]),
        ({"budget": "0.0"}, ["budget", "more than 0"]),
        ({"step_size": 0}, ["step_size", "more than 0"]),
        ({"budget": float("nan")}, ["budget", "finite"]),
        ({"budget": "inf"}, ["budget", "finite"]),
        ({"steps": "2.0"}, ["steps", "whole number"]),
        ({"steps": -(10**400)}, ["steps", "at least 1"]),
        ({"budget": 256}, ["budget", "at most 255"]),
        ({"random_start": "maybe"}, ["random_start", "true or false"]),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        build(PgdSettings, values)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_an_unknown_method_lists_the_valid_ones(model: TextToImage) -> None:
    with pytest.raises(UsageError, match=r"did you mean advdm.*advdm, sds, .*, aspl, .*, noise"):
        protect.create("advmd", model)


def test_a_setting_of_another_method_is_refused(model: TextToImage) -> None:
    with pytest.raises(UsageError, match="target is no setting of AdvDMSettings"):
        protect.create("advdm", model, {"target": "zero"})
    with pytest.raises(UsageError, match="needs PhotoGuardSettings"):
        protect.create("photoguard", model, AdvDMSettings())


def test_a_gradient_method_without_a_model_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a model"):
        protect.create("advdm")


@pytest.mark.parametrize(
    ("name", "home"),
    [("advdm", "a.b:C"), ("Not-a-name", "a.b:C"), ("fresh", "a.b.C"), ("fresh", "a b:C"), ("fresh", "a.b:")],
)
def test_a_faulty_registration_is_refused(name: str, home: str) -> None:
    with pytest.raises(UsageError, match=name):
        protect.register(name, home)
    assert protect.names() == METHODS


def test_another_package_can_add_a_method(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "outside": EntryPoint("outside", "unlikeness.protect.methods.noise:Noise", registry.METHODS.group),
        "missing": EntryPoint("missing", "no_such_package:Thing", registry.METHODS.group),
        "wrong": EntryPoint("wrong", "unlikeness.errors:UsageError", registry.METHODS.group),
    }
    monkeypatch.setattr(registry.METHODS, "outside", lambda: entries)
    assert protect.names() == [*METHODS, "missing", "outside", "wrong"]
    assert protect.create("outside", model, {"budget": 3}).settings.budget == 3
    with pytest.raises(UnlikenessError, match=r"missing.*cannot be imported"):
        protect.method("missing")
    with pytest.raises(UnlikenessError, match="wrong has no settings_type"):
        protect.method("wrong")
