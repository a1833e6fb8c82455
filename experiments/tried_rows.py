"""The rows that `experiments.apdm_search` tries: methods and settings by name, beside those of the tables."""

from __future__ import annotations

from typing import Any

Row = tuple[str, dict[str, Any]]

_APDM: dict[str, Any] = {
    "learning_rate": 2e-5, "beta": 1.0, "inner_steps": 5, "attack_learning_rate": 5e-5, "text_encoder": 0.0,
    "preserve_weight": 0.0, "outer_steps": 200,
}  # fmt: skip

_KEPT: dict[str, Any] = {
    "preserve_weight": 10.0, "preserve_batch_size": 32, "preserve_class": 0.5, "preserve_cap": 20.0,
}  # fmt: skip
"""The class held at the released weights, as in the table's rows, but with no end to fall towards: a longer
run goes on from a shorter one."""


def _apdm(**settings: Any) -> Row:
    return "apdm", {**_APDM, **settings}


def _raised(method: str, **settings: Any) -> Row:
    """The naive loss and IMMA."""
    return method, {"attack_learning_rate": 5e-5, "preserve_weight": 0.0, "outer_steps": 400, **settings}


def _persguard(behaviour: str, **settings: Any) -> Row:
    return "persguard", {"outer_steps": 400, "behaviour": behaviour, **_KEPT, **settings}


APDM: dict[str, Row] = {
    "apdm-1": _apdm(learning_rate=5e-5),
    "apdm-2": _apdm(learning_rate=5e-5, **_KEPT),
    "apdm-3": _apdm(learning_rate=5e-5, text_encoder=0.5),
    "apdm-4": _apdm(inner_steps=10),
    "apdm-5": _apdm(),
    "apdm-6": _apdm(learning_rate=5e-5, beta=10.0),
    "apdm-7": _apdm(learning_rate=5e-5, attack_learning_rate=1e-4),
    "apdm-8": _apdm(learning_rate=5e-5, inner_steps=10, text_encoder=0.5, **_KEPT),
    "apdm-9": _apdm(inner_steps=20),
    "apdm-10": _apdm(learning_rate=1e-5, inner_steps=10, attack_learning_rate=1e-4),
    "apdm-11": _apdm(text_encoder=0.5, attack_learning_rate=1e-4, **_KEPT),
    "apdm-12": _apdm(learning_rate=5e-6),
}
"""Each setting alone, and together, around a rate of 2e-5 and one of 5e-5."""

IMMA: dict[str, Row] = {
    "imma-1": _raised("imma", learning_rate=1e-5),
    "imma-2": _raised("imma", learning_rate=5e-6),
    "imma-3": _raised("imma", learning_rate=3e-5),
    "imma-4": _raised("imma", learning_rate=1e-4),
    "imma-5": _raised("imma", learning_rate=1e-4, **_KEPT),
    "imma-6": _raised("imma", learning_rate=1e-4, train="all", **_KEPT),
}
NAIVE: dict[str, Row] = {
    "naive-1": _raised("adversarial", learning_rate=5e-6, inner_steps=0),
    "naive-2": _raised("adversarial", learning_rate=2e-5, inner_steps=0),
    "naive-3": _raised("adversarial", learning_rate=2e-5, inner_steps=0, **_KEPT),
    "naive-4": _raised("adversarial", learning_rate=5e-6, inner_steps=5),
    "naive-5": _raised("adversarial", learning_rate=5e-5, inner_steps=0, **_KEPT),
    "naive-6": _raised("adversarial", learning_rate=2e-5, inner_steps=5, **_KEPT),
}
"""Without a simulated attack, and along some."""


def _backdoors(behaviour: str) -> dict[str, Row]:
    """λ2, the rate, λ1, and whether the backdoor is trained at the training prompt."""
    tried: list[dict[str, Any]] = [
        {"learning_rate": 1e-4, "retention_weight": 1.0},
        {"learning_rate": 1e-4, "retention_weight": 0.1},
        {"learning_rate": 1e-4, "retention_weight": 0.0},
        {"learning_rate": 3e-4, "retention_weight": 0.1},
        {"learning_rate": 1e-4, "retention_weight": 1.0, "at_training_prompt": False},
        {"learning_rate": 3e-5, "retention_weight": 3.0, "class_weight": 0.3},
    ]
    return {
        f"persguard-{behaviour}-{i}": _persguard(behaviour, **one) for i, one in enumerate(tried, start=1)
    }


BACKDOORS = {behaviour: _backdoors(behaviour) for behaviour in ("pattern", "erasure", "target")}

TRIED: dict[str, Row] = {
    **APDM, **IMMA, **NAIVE, **{name: row for rows in BACKDOORS.values() for name, row in rows.items()},
}  # fmt: skip
"""All of them. The scale of `immunization_rows` lies below, as below the rows of the tables."""
