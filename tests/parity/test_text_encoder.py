"""The text encoder of AttnGAN against recorded values of the official one."""

import pytest
import torch

from lit_gans.official import apply_keys, invert
from lit_gans.papers.text.networks import OFFICIAL_WORD_ENCODER_KEYS, WordEncoder, from_official_rnn, word_mask
from tests.parity.golden import Golden, assert_close, cases

RNN = cases("RNN_ENCODER", "AttnGAN")


def loaded(golden: Golden) -> WordEncoder:
    encoder = WordEncoder(**from_official_rnn(golden.config))
    encoder.load_state_dict(apply_keys(golden.state, OFFICIAL_WORD_ENCODER_KEYS, ours=encoder.state_dict()))
    return encoder.eval()


@pytest.mark.parametrize("golden", RNN)
def test_words_and_sentence(golden: Golden) -> None:
    """Official features are [N, D, longest caption]; ours [N, T, D], and 0 past the longest."""
    captions, lengths = golden.inputs["captions"], golden.inputs["cap_lens"].flatten()
    longest = int(lengths.max())
    features, sentence = loaded(golden)(captions, lengths)
    golden.compare({"words_emb": features[:, :longest].transpose(1, 2), "sent_emb": sentence})
    assert features.shape[1] == captions.shape[1] and features[:, longest:].eq(0).all()
    assert features[~word_mask(lengths, captions.shape[1])].eq(0).all()


@pytest.mark.parametrize("golden", RNN)
def test_order_of_the_captions_does_not_matter(golden: Golden) -> None:
    encoder, order = loaded(golden), torch.arange(len(golden.inputs["captions"])).flip(0)
    captions, lengths = golden.inputs["captions"], golden.inputs["cap_lens"].flatten()
    found, expected = encoder(captions[order], lengths[order])[1], encoder(captions, lengths)[1][order]
    assert_close(found, expected, golden.tolerance["forward"], "sent_emb")


@pytest.mark.parametrize("golden", RNN)
def test_official_names_there_and_back(golden: Golden) -> None:
    state = golden.state
    back = invert(loaded(golden).state_dict(), OFFICIAL_WORD_ENCODER_KEYS, official=state, dropped={})
    assert back.keys() == state.keys() and all(torch.equal(back[name], state[name]) for name in state)
