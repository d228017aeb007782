"""The losses of AttnGAN (Xu et al., 2018): both players', and those of its text-image matching, DAMSM."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.adversarial.losses import is_fake, is_real

# ---- the players -----------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """loss: scalar; real_logits, fake_logits [N]: of pairs with their own sentence."""

    loss: Tensor
    real_logits: Tensor
    fake_logits: Tensor


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor, sentence: Tensor, wrong: Tensor) -> Judged:
    """Eq. 5 of one discriminator: pictures, generated ones, and pictures with sentences of others.

    real, fake [N, 3, R, R], sentence [N, D]; wrong [M, D], M up to N: sentences that the first M pictures do not fit.
    The paper has real and generated pairs only; the official code adds the wrong ones, and averages over the real and
    over the other terms. We follow the code.
    """
    real_features, fake_features = discriminator(real), discriminator(fake)
    head = discriminator.conditional
    real_logits, fake_logits = head(real_features, sentence), head(fake_features, sentence)
    wrong_logits = head(real_features[: len(wrong)], wrong)
    good, bad = [is_real(real_logits)], [is_fake(fake_logits), is_fake(wrong_logits)]
    if discriminator.unconditional is not None:
        good.append(is_real(discriminator.unconditional(real_features)))
        bad.append(is_fake(discriminator.unconditional(fake_features)))
    return Judged(sum(good) / len(good) + sum(bad) / len(bad), real_logits, fake_logits)


def generator_loss(discriminator: nn.Module, fake: Tensor, sentence: Tensor) -> Tensor:
    """Eq. 4 for one discriminator, without the factors 1/2, as in the official code."""
    features = discriminator(fake)
    loss = is_real(discriminator.conditional(features, sentence))
    if discriminator.unconditional is not None:
        loss = loss + is_real(discriminator.unconditional(features))
    return loss


# ---- the matching of texts and images (Sec. 3.2) ---------------------------------------------------------------------


class Matching(NamedTuple):
    """The four terms of Eq. 13, scalars: words and sentence, each by image and by text."""

    words_by_image: Tensor
    words_by_text: Tensor
    sentence_by_image: Tensor
    sentence_by_text: Tensor


def damsm_loss(
    regions: Tensor,
    image: Tensor,
    words: Tensor,
    sentence: Tensor,
    mask: Tensor,
    *,
    classes: Tensor | None = None,
    gammas: tuple[float, float, float] = (4.0, 5.0, 10.0),
) -> Matching:
    """Eq. 13 of N pairs: regions [N, D, H, W], image [N, D], words [N, T, D], sentence [N, D], mask bool [N, T].

    classes int64 [N]: pairs of one class do not serve as each other's mismatches. gammas: of Eq. 9, 10 and 11; the
    paper has 5, 5 and 10, the official code 4, 5 and 10. We follow the code. In single precision.
    """
    by_words = word_similarities(regions.float(), words.float(), mask, gammas=gammas[:2])
    by_sentence = F.normalize(image.float(), eps=1e-8) @ F.normalize(sentence.float(), eps=1e-8).T  # cosines [N, N]
    return Matching(
        *contrast(gammas[2] * by_words, classes),
        *contrast(gammas[2] * by_sentence, classes),
    )


def word_similarities(regions: Tensor, words: Tensor, mask: Tensor, *, gammas: tuple[float, float]) -> Tensor:
    """R(Q, D) of Eq. 10, without the outer root: regions [N, D, H, W], words [M, T, D], mask [M, T] -> [N, M].

    log sum_t exp(gamma_2 cos(c_t, e_t)), where c_t is what the image has to say of word t; the paper raises the sum to
    1 / gamma_2, the official code does not. We follow the code.
    """
    seen = regions.flatten(2)  # [N, D, H, W] -> [N, D, S]
    shares = region_attention(seen, words, mask, gamma=gammas[0])
    contexts = torch.einsum("nmts,nds->nmtd", shares, seen)  # c_t of Eq. 9: [N, M, T, D]
    cosines = F.cosine_similarity(contexts, words[None], dim=3, eps=1e-8)  # [N, M, T]
    return (gammas[1] * cosines).masked_fill(~mask, -torch.inf).logsumexp(dim=2)


def region_attention(seen: Tensor, words: Tensor, mask: Tensor, *, gamma: float) -> Tensor:
    """seen [N, D, S], words [M, T, D], mask [M, T] -> [N, M, T, S]: what share of its attention word t gives region s.

    Eq. 8 and 9: over the words of each region first, then over the regions.
    """
    scores = torch.einsum("nds,mtd->nmts", seen, words).masked_fill(~mask[:, :, None], -torch.inf)  # Eq. 7
    return (gamma * scores.softmax(dim=2)).softmax(dim=3)  # Eq. 8 over T, Eq. 9 over S


def contrast(scores: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """scores [N, N] of images (rows) and texts -> two scalars, Eq. 11 and 12: each row's and column's own is right."""
    own = torch.arange(len(scores), device=scores.device)
    if classes is not None:
        same = (classes[:, None] == classes[None, :]) & (own[:, None] != own[None, :])
        scores = scores.masked_fill(same, -torch.inf)
    return F.cross_entropy(scores, own), F.cross_entropy(scores.T, own)
