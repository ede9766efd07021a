"""Text to video of the embedded preset: which built-in presenter a prompt describes.

The network draws whom a portrait shows and knows no text for people, so a prompt is cast, not painted: words for sex, age, hair, skin,
beard and glasses are held against what is written about each presenter beside its picture. Other words choose nobody.
"""

from __future__ import annotations

import json
import re

from model.errors import ConfigError
from model.portraits import PORTRAITS

DESCRIPTIONS = PORTRAITS / "descriptions.json"
# A trait, as presenters are described by it, and the words of a prompt that ask for it; also such that nobody has yet, so that they
# are refused and not passed over.
TRAITS = {
    "woman": r"woman|female|lady|girl|she|her",
    "man": r"man|male|gentleman|guy|he|his",
    "young": r"young|youthful",
    "middle-aged": r"middle aged",
    "child": r"child|kid|boy|baby|toddler",
    "old": r"(?<!year )(?<!years )old|older|elderly|senior",
    "glasses": r"glasses|spectacles|eyeglasses",
    "beard": r"beard|bearded",
    "stubble": r"stubble|unshaven",
    "long hair": r"long (?:\w+ )?hair(?:ed)?",
    "short hair": r"short (?:\w+ )?hair(?:ed)?",
    "black hair": r"black hair(?:ed)?",
    "brown hair": r"brown hair(?:ed)?|brunette",
    "blond hair": r"blonde?|blonde? hair(?:ed)?",
    "red hair": r"red hair(?:ed)?|redhead",
    "bald": r"bald",
    "grey hair": r"gr[ea]y hair(?:ed)?|gr[ea]y",
    "light skin": r"(?:light|fair|pale) skin(?:ned)?|white (?:wo)?man",
    "dark skin": r"dark skin(?:ned)?|black (?:wo)?man",
}
_ANYBODY = r"person|somebody|someone|presenter|speaker|human|face"
_NOT = r"\b(?:no|without|without any|not|without a) "


def descriptions() -> dict[str, frozenset[str]]:
    """The traits of each built-in presenter, by name."""
    return {name: frozenset(traits) for name, traits in json.loads(DESCRIPTIONS.read_text()).items()}


def cast(prompt: str, seed: int) -> str:
    """The name of a presenter who has everything the prompt asks for; of several the seed picks one. Raises ConfigError for nobody."""
    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    mentioned = {trait: re.search(rf"\b(?:{words})\b", text) for trait, words in TRAITS.items()}
    unwanted = {trait for trait, found in mentioned.items() if found and re.search(rf"{_NOT}{re.escape(found[0])}\b", text)}
    wanted = {trait for trait, found in mentioned.items() if found} - unwanted
    if not wanted and not re.search(rf"\b(?:{_ANYBODY})\b", text):
        known = ", ".join(TRAITS)
        message = f"The prompt {prompt!r} does not say who is to be seen."
        raise ConfigError("nobody_described", message, f"Say 'a person', or any of: {known}.")
    people = descriptions()
    fitting = sorted(name for name, traits in people.items() if wanted <= traits and not unwanted & traits)
    if not fitting:
        asked = ", ".join([*sorted(wanted), *(f"no {trait}" for trait in sorted(unwanted))])
        there = "; ".join(f"{name}: {', '.join(sorted(traits))}" for name, traits in people.items())
        hint = f"Use --task i2v or talk with a --portrait of your own, or describe one of these: {there}."
        raise ConfigError("nobody_fits", f"No built-in presenter is all of this: {asked}.", hint)
    return fitting[seed % len(fitting)]
