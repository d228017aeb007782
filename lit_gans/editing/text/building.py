"""The image-text model that a name means."""

from __future__ import annotations

from pathlib import Path

from lit_gans.editing.text.image_text import CLIPImageText, ImageText
from lit_gans.editing.text.pair import read_pair
from lit_gans.nn.clip import build_clip
from lit_gans.runs.load import load_run

CLIP = "clip:"


def build_image_text(spec: str, *, weights: str | Path | None = None, trust: str | None = None) -> ImageText:
    """The model that `spec` names: "clip:<owner>/<name>", a file of `FeaturePair.save`, or a run that trained encoders.

    weights: of CLIP the folder of its files, of a pair the file of its feature network; by default they are taken from
    where they are kept, or downloaded. trust: see `load_run`.
    ValueError, FileNotFoundError, ConnectionError for what cannot be had, or compares no images with texts.
    """
    if spec.startswith(CLIP):
        return CLIPImageText(build_clip(spec.removeprefix(CLIP), folder=weights))
    if spec.endswith(".safetensors"):
        return read_pair(spec, weights=weights)
    if not Path(spec).exists():
        raise FileNotFoundError(
            f"{spec} names no model of images and texts: give clip:<owner>/<name>, the .safetensors file of a pair, or "
            f"a run of lit_gans.papers.DAMSM or JointEmbedding"
        )
    model = load_run(spec, trust=trust)
    if not isinstance(model, ImageText):
        raise ValueError(
            f"{spec} is a {type(model).__name__}, which does not compare images with texts: give a run of "
            f"lit_gans.papers.DAMSM or JointEmbedding, clip:<owner>/<name> or the file of a pair"
        )
    return model
