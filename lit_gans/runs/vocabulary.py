"""The words that a run's model and data share."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from lit_gans.data.embeddings import vocabulary_of
from lit_gans.papers.text.encoders import arguments_of_run, is_run
from lit_gans.runs.load import build_data


def share_vocabulary(model: MutableMapping[str, Any], data: MutableMapping[str, Any]) -> None:
    """Gives both sides of a run's config the same words, where one of them says which and the other does not.

    model, data: {"class_path", "init_args"} as a config has them; their "vocabulary" is filled. The words of a text
    encoder that was trained before come first, then those that are given, then those of the data's captions. Their
    "letters" likewise: the rule by which captions are parted into these words. ValueError where the sides differ in it.
    """
    ours, theirs = (side.get("init_args", {}) for side in (model, data))
    if "vocabulary" not in ours or "vocabulary" not in theirs or ours.get("encoder", "words") != "words":
        return
    said = {f"{name}.init_args": side.get("letters") for name, side in (("model", ours), ("data", theirs))}
    weights = ours.get("encoder_weights")
    brings = weights is not None and is_run(weights)
    if brings:
        then = arguments_of_run(weights, "words")
        words, said[f"encoder_weights {weights}"] = then["vocabulary"], then["letters"]
    elif (words := ours["vocabulary"]) is None:
        words = theirs["vocabulary"]
    letters = _agreed(said)
    if words is None:
        init_args = {**dict(theirs), **({"letters": letters} if "letters" in theirs else {})}
        described = {"class_path": data["class_path"], "init_args": init_args}
        named = data["class_path"].partition(".")[0]  # by who starts the run, and imported already
        found = build_data({"data": described}, trust=named).vocabulary
        words, letters = list(found.words), found.letters
    for side in (ours, theirs):
        if side["vocabulary"] is None and not (brings and side is ours):
            side["vocabulary"] = words
        if "letters" in side:
            side["letters"] = letters or vocabulary_of(words, None).letters


def _agreed(said: dict[str, str | None]) -> str | None:
    """What all say that say anything. ValueError where they differ."""
    found = {name: letters for name, letters in said.items() if letters is not None}
    if len(set(found.values())) > 1:
        told = ", ".join(f"{letters!r} in {name}" for name, letters in found.items())
        raise ValueError(f"letters is {told}: captions are parted into words by one rule, so give one")
    return next(iter(found.values()), None)
