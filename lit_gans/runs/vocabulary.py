"""The words that a run's model and data share."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from lit_gans.papers.text.encoders import arguments_of_run, is_run
from lit_gans.runs.load import build_data


def share_vocabulary(model: MutableMapping[str, Any], data: MutableMapping[str, Any]) -> None:
    """Gives both sides of a run's config the same words, where one of them says which and the other does not.

    model, data: {"class_path", "init_args"} as a config has them; their "vocabulary" is filled. The words of a text
    encoder that was trained before come first, then those that are given, then those of the data's captions.
    """
    ours, theirs = (side.get("init_args", {}) for side in (model, data))
    if "vocabulary" not in ours or "vocabulary" not in theirs or ours.get("encoder", "words") != "words":
        return
    weights = ours.get("encoder_weights")
    if weights is not None and is_run(weights):
        words = arguments_of_run(weights, "words")["vocabulary"]
    elif (words := ours["vocabulary"]) is None:
        if (words := theirs["vocabulary"]) is None:
            described = {"class_path": data["class_path"], "init_args": dict(theirs)}
            named = data["class_path"].partition(".")[0]  # by who starts the run, and imported already
            words = list(build_data({"data": described}, trust=named).vocabulary.words)
        ours["vocabulary"] = words
    if theirs["vocabulary"] is None:
        theirs["vocabulary"] = words
