"""Every row of experiments/configs is read, and its settings are valid."""

from __future__ import annotations

from experiments.leak import create

from experiments import apdm_search, frozen_loss, rid_ablation, rid_ways, rows
from unlikeness import purify
from unlikeness.protect import registry


def test_every_row_of_immunization_has_valid_settings() -> None:
    assert not set(rows.ROWS) & set(rows.TRIED)
    for row in (*rows.ROWS, *rows.TRIED):
        method, settings = rows.settings_of(row)
        values = {**rows.SCALE, **settings}
        if values.get("protective_output") == "target":
            values["target_noun"] = "cat"
        made = create(method, values).settings
        assert made.outer_steps == settings["outer_steps"]


def test_no_number_was_read_as_text() -> None:
    words = {"protective_output", "train"}
    for _, settings in (*rows.ROWS.values(), *rows.TRIED.values(), ("", rows.SCALE)):
        assert {name for name, value in settings.items() if isinstance(value, str)} <= words


def test_a_row_takes_over_settings_in_order() -> None:
    method, settings = rows.settings_of("divert-lora-guided@7")
    assert (method, settings["outer_steps"]) == ("divert", 7)
    kept, lora = rows.settings_of("divert-unet")[1], rows.config("divert")["bases"]["lora"]
    assert settings == {**kept, **lora, "guidance": 3.0, "outer_steps": 7}
    assert rows.settings_of("apdm-2")[1]["preserve_weight"] == 10


def test_every_row_of_a_search_is_one() -> None:
    for search in apdm_search.SEARCHES.values():
        assert all(rows.settings_of(row)[0] for row in search.rows)
        assert all(rung.attackers for rung in search.rungs)


def test_the_protections_have_valid_settings() -> None:
    for row in rid_ablation.ROWS:
        assert rid_ablation.recipe(row, {}).steps
    for method, plan in rid_ways.PLANS.items():
        assert registry.method(method)
        registry.method(method).settings_type(**plan.settings)
    for settings in frozen_loss.KINDS.values():
        values = {name: value for name, value in settings.items() if name != "method"}
        registry.method(str(settings["method"])).settings_type(**values)
    for purifier in filter(None, frozen_loss.WAYS.values()):
        purify.create(str(purifier["name"]), settings={k: v for k, v in purifier.items() if k != "name"})


def test_the_folders_of_models_keep_their_names() -> None:
    """They are named for the settings of a row, by the names that these had at first."""
    found = rows.in_former_names({**rows.settings_of("pattern-pools-marked")[1], "attack_ranks": [4, 32]})
    assert {name: value for name, value in found.items() if not isinstance(value, float)} == {
        "outer_steps": 800, "inner_steps": 1, "depth": 100, "stride": 5, "bystanders": 3, "from_start": True,
        "attack_batch_size": 2, "batch_size": 2, "preserve_batch_size": 8, "behaviour": "pattern",
        "identifiers": "zwx,ohwx", "templates": "a photo of {}|a picture of {}", "ranks": "4,32",
    }  # fmt: skip
    assert {"text_encoder", "mark_weight", "bystanders_from", "bystanders_placed"} < set(found)
