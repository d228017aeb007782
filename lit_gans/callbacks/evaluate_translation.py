"""Evaluation of translators during training, on the image clock and on all processes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lit_gans.adversarial.capabilities import Translates
from lit_gans.callbacks.evaluate import Evaluate
from lit_gans.metrics.segmentation import IGNORED
from lit_gans.metrics.settings import TranslationSettings


class EvaluateTranslation(Evaluate):
    """`Evaluate` of a translator on pictures that training does not see.

    In pairs: PSNR, SSIM and LPIPS of each translation and its partner, and what a segmenter reads in it. Of both kinds
    of data: FID and KID of all translations and all pictures of the other domain.

    Args:
        every_kimg: 0 switches the callback off.
        metrics: some of `lit_gans.metrics.catalog.of("translations")`; None for psnr, ssim and lpips in pairs,
            segmentation with a segmenter, and frechet and kid.
        directions: None for all of the translator's; numbers of "ba" have names that end in _ba.
        split: None for "test", or what the data have in its place.
        num_images: translated pictures per direction; None for all.
        real_split, num_real: the reals of the metrics of sets; None for `split`, and all of it.
        extractor: as for `lit_gans.metrics.build_extractor`; only Inception's distance is called fid.
        lpips: the network "vgg", "alex" or "squeeze".
        segmenter: uint8 [N, C, H, W] -> scores [N, K, h, w] or classes int64 [N, H, W], such as an FCN; of pictures of
            domain b. The truth are the data's label maps, else what it reads in the partners.
        num_segments: its classes; `ignored` is the true label that is not judged.
        batch_size: images at a time, per process.
        neighbours: k of precision, recall, density and coverage.
        at_start: also before the first batch of a new run.
        at_end: also when training ends.
        weights_path, lpips_weights: files of the extractor's and of LPIPS's weights.
        cache_dir: where statistics of the reals are kept; default $LIT_GANS_CACHE, else ~/.cache/lit_gans.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: in `setup`, for a model that translates nothing, and data,
            splits or weights that are missing or do not fit the metrics.
    """

    measures, section = Translates, "evaluate_translation"

    def __init__(
        self,
        every_kimg: float = 0.0,
        metrics: Sequence[str] | None = None,
        directions: Sequence[str] | None = None,
        split: str | None = None,
        num_images: int | None = None,
        real_split: str | None = None,
        num_real: int | None = None,
        extractor: str = "inception",
        lpips: str = "alex",
        segmenter: nn.Module | None = None,
        num_segments: int = 0,
        ignored: int | None = IGNORED,
        batch_size: int = 16,
        neighbours: int = 5,
        at_start: bool = False,
        at_end: bool = True,
        weights_path: str | None = None,
        lpips_weights: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        settings = TranslationSettings(
            metrics=metrics, directions=directions, split=split, num_images=num_images, real_split=real_split,
            num_real=num_real, batch_size=batch_size, neighbours=neighbours, num_segments=num_segments,
            ignored=ignored, extractor=extractor, weights_path=weights_path, lpips=lpips, lpips_weights=lpips_weights,
            segmenter=segmenter,
        )  # fmt: skip
        self._start(every_kimg, settings, at_start=at_start, at_end=at_end, cache_dir=cache_dir)
