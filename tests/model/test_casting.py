"""Casting: a prompt's person is one of the built-in presenters, or refused in words that help."""

from __future__ import annotations

import pytest

from model.casting import TRAITS, cast, descriptions
from model.errors import ConfigError
from model.portraits import builtin_portraits


def test_every_presenter_is_described_as_the_renderer_drew_them() -> None:
    pytest.importorskip("moderngl")
    from model.training.people import Person
    from model.training.portraits import PRESENTERS, describe

    assert set(descriptions()) == set(builtin_portraits())
    assert descriptions() == {name: frozenset(describe(Person.sample(seed))) for name, seed in PRESENTERS.items()}


@pytest.mark.parametrize("seed", [0, 1, 5])
@pytest.mark.parametrize(
    ("prompt", "has", "has_not"),
    [
        ("A young woman with glasses smiles.", {"woman", "young", "glasses"}, set()),
        ("an elderly bearded gentleman", {"man", "old", "beard"}, set()),
        ("a man without glasses", {"man"}, {"glasses"}),
        ("a 30 year old woman with long brown hair", {"woman", "long hair"}, {"old"}),
        ("a person nods", set(), set()),
    ],
)  # fmt: skip
def test_who_is_asked_for_comes(prompt: str, has: set[str], has_not: set[str], seed: int) -> None:
    traits = descriptions()[cast(prompt, seed)]
    assert has <= traits and not has_not & traits


def test_the_seed_chooses_among_those_who_fit() -> None:
    assert len({cast("a woman", seed) for seed in range(12)}) > 2
    assert cast("a woman", 4) == cast("a woman", 4)


@pytest.mark.parametrize("prompt", ["a blond man", "a woman with a beard", "a child", "a bald woman", "a man with red hair"])
def test_whom_nobody_resembles_is_refused_with_what_there_is(prompt: str) -> None:
    with pytest.raises(ConfigError, match="No built-in presenter") as caught:
        cast(prompt, 0)
    assert all(name in caught.value.hint for name in builtin_portraits())


@pytest.mark.parametrize("prompt", ["a castle at dawn", "", "smiling"])
def test_a_prompt_without_a_person_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigError, match="does not say who") as caught:
        cast(prompt, 0)
    assert all(trait in caught.value.hint for trait in TRAITS)
