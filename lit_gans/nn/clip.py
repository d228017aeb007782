"""CLIP (Radford et al., 2021), https://arxiv.org/abs/2103.00020, as transformers has it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.base.cache import cache_folder, digest, key_of
from lit_gans.base.images import as_channels
from lit_gans.base.precision import exact_float32
from lit_gans.base.processes import first_on_rank_zero

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerBase

_CLIP_NEEDS = {
    "config.json": (),
    "model.safetensors": ("model.safetensors.index.json",),
    "tokenizer.json": ("vocab.json", "merges.txt"),
}
"""Each file, and what serves in its place."""
_CLIP_TAKES = ("model-*-of-*.safetensors", "tokenizer_config.json", "special_tokens_map.json")


class CLIPEncoder(nn.Module):
    """CLIP (Radford et al., 2021) as transformers has it, frozen, in float32: embeddings before normalisation.

    `fingerprint` is 16 hex digits of weights and vocabulary. `truncated` counts the captions that were cut.
    """

    def __init__(self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, *, name: str) -> None:
        super().__init__()
        text, words = cast("CLIPTextConfig", model.config.text_config), len(tokenizer)
        vision = cast("CLIPVisionConfig", model.config.vision_config)
        if words != text.vocab_size:
            raise ValueError(
                f"{name} has a tokenizer of {words} tokens and a text network for {text.vocab_size}: take both, "
                f"vocabulary files and weights, from one place"
            )
        self.name, self.tokenizer = name, tokenizer
        self.model = model.float().requires_grad_(False).eval()
        self.image_px, self.max_tokens = cast(int, vision.image_size), text.max_position_embeddings
        self.resize = f"CLIP bicubic to {self.image_px} on uint8, centre crop"
        self.fingerprint = key_of(weights=digest(model.state_dict()), vocabulary=tokenizer.get_vocab())
        self.truncated = 0

    def train(self, mode: bool = True) -> CLIPEncoder:
        return super().train(False)

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """uint8 [N, 1 or 3, H, W] -> float32 [N, D]."""
        with exact_float32(self.model.device):
            pixels = clip_pixels(images, size_px=self.image_px).to(self.model.device)
            return self.model.get_image_features(pixel_values=pixels).pooler_output

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """N captions -> float32 [N, D]; tokens past `max_tokens` (77) are cut, with one warning."""
        self._count_truncated(captions)
        # One length for all: a caption's embedding does not depend on those that it comes with.
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        with exact_float32(self.model.device):
            return self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output

    def _count_truncated(self, captions: Sequence[str]) -> None:
        lengths = [len(ids) for ids in self.tokenizer(list(captions), verbose=False)["input_ids"]]
        longer = sum(length > self.max_tokens for length in lengths)
        if longer and not self.truncated:
            warnings.warn(
                f"a caption of {max(lengths)} tokens is cut to the {self.max_tokens} that {self.name} reads, as others "
                f"will be without another word: the encoder's `truncated` counts them",
                stacklevel=3,
            )
        self.truncated += longer


def clip_pixels(images: Tensor, *, size_px: int = 224) -> Tensor:
    """uint8 [N, 1 or 3, H, W] -> float32 [N, 3, S, S] on the CPU as CLIP reads them: resized, cropped, standardised.

    The shorter side becomes S by antialiased bicubic in torch's integer arithmetic, which is Pillow's up to single
    levels, whatever device the networks are on; floats would overshoot where Pillow clips between its two passes. An
    odd margin leaves its larger half right and below, as in transformers.
    """
    images = as_channels(images, 3).cpu()
    short = min(images.shape[2:])
    height, width = (size_px * side // short for side in images.shape[2:])
    if (height, width) != images.shape[2:]:
        images = F.interpolate(images, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    top, left = (height - size_px) // 2, (width - size_px) // 2
    images = images[:, :, top : top + size_px, left : left + size_px]
    mean, std = (255 * torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (images.float() - mean) / std


def build_clip(name: str, *, folder: str | Path | None = None) -> CLIPEncoder:
    """The CLIP that Hugging Face calls `name`, such as "openai/clip-vit-large-patch14", read from safetensors alone.

    Its files are taken from `folder` if given, else from clip/<name> in the cache folder, else from Hugging Face's own
    cache or hub. No pickle and no code of a repository is ever fetched or run.
    FileNotFoundError for a folder that lacks files, ConnectionError where there is neither a folder nor a network,
    ValueError without transformers and for files that are no CLIP.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or {".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r} names no CLIP: expected Hugging Face's <owner>/<name>")
    if folder is not None:
        return _read_clip(name, Path(folder).expanduser())
    kept = cache_folder() / "clip" / name
    return _read_clip(name, kept if kept.is_dir() else Path(first_on_rank_zero(lambda: _hub_folder(name, kept))))


def _hub_folder(name: str, kept: Path) -> str:
    _need_transformers()
    from huggingface_hub import snapshot_download

    files = [*_CLIP_NEEDS, *(other for others in _CLIP_NEEDS.values() for other in others), *_CLIP_TAKES]
    try:
        return snapshot_download(name, allow_patterns=files)
    except OSError as error:
        raise ConnectionError(
            f"CLIP's files are not at {kept} and could not be downloaded ({error}): fetch config.json, "
            f"model.safetensors and tokenizer.json of https://huggingface.co/{name} elsewhere and put them there, or "
            f"pass their folder"
        ) from error


def _read_clip(name: str, folder: Path) -> CLIPEncoder:
    _check_files(folder, name)
    _need_transformers()
    from safetensors import SafetensorError
    from transformers import CLIPModel, CLIPTokenizer

    try:
        model, found = cast(
            tuple[CLIPModel, dict[str, Any]],
            CLIPModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            ),
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read as a CLIP of transformers ({error}): fetch it again") from error
    if found["missing_keys"]:  # transformers would leave them random
        raise ValueError(f"{folder} is no CLIP: it lacks {len(found['missing_keys'])} weights, among them "
                         f"{min(found['missing_keys'])}")  # fmt: skip
    return CLIPEncoder(model, tokenizer, name=f"clip:{name}")


def _check_files(folder: Path, name: str) -> None:
    """FileNotFoundError unless all are there: transformers makes up an empty vocabulary where it finds none."""
    for file, others in _CLIP_NEEDS.items():
        if (folder / file).is_file() or (others and all((folder / other).is_file() for other in others)):
            continue
        raise FileNotFoundError(
            f"no {file} in {folder}: put config.json, model.safetensors and tokenizer.json of "
            f"https://huggingface.co/{name} there; weights in other formats are not read"
        )


def _need_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ValueError("CLIP needs transformers, the extra 'text': pip install 'lit-gans[text]'") from error

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of RGB in [0, 1]
