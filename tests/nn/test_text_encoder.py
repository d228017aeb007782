"""Text encoders: what is beyond a caption's end changes nothing, and both learn to tell captions apart."""

import pytest
import torch
from torch import Tensor, nn

from lit_gans.data.captions import characters
from lit_gans.nn import Draws, drawing
from lit_gans.papers.text.networks import (
    CharCNNRNN,
    MeanGRU,
    ReluRNN,
    WordEncoder,
    from_official_rnn,
    joint_embedding_loss,
    word_mask,
)

LENGTHS = torch.tensor([3, 6, 1, 4])


def words(seed: int = 0) -> Tensor:
    drawn = torch.randint(1, 20, (4, 7), generator=torch.Generator().manual_seed(seed))
    return drawn * word_mask(LENGTHS, 7)


def word_encoder(**options: object) -> WordEncoder:
    torch.manual_seed(0)
    return WordEncoder(20, **{"embed_dim": 5, "feature_dim": 6, **options}).eval()


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_features_and_sentence(rnn: str, bidirectional: bool) -> None:
    encoder = word_encoder(rnn=rnn, bidirectional=bidirectional)
    features, sentence = encoder(words(), LENGTHS)
    assert features.shape == (4, 7, 6) and sentence.shape == (4, 6)
    mask = word_mask(LENGTHS, 7)
    assert features[~mask].eq(0).all() and features[mask].ne(0).all()
    last = features[torch.arange(4), LENGTHS - 1]
    forward = 3 if bidirectional else 6
    assert torch.equal(sentence[:, :forward], last[:, :forward])
    if bidirectional:
        assert torch.equal(sentence[:, 3:], features[:, 0, 3:])


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_padded_captions_are_read_like_packed_ones(rnn: str, bidirectional: bool) -> None:
    """The form for GPUs against torch's, in values and gradients."""
    encoder = word_encoder(rnn=rnn, bidirectional=bidirectional)
    embedded, weights = encoder.embedding(words()), torch.randn(4, 7, 6)
    results = []
    for read in (encoder._packed, encoder._padded):
        features = read(embedded, LENGTHS)
        gradients = torch.autograd.grad((features * weights).sum(), encoder.rnn.parameters(), retain_graph=True)
        results.append([features, *gradients])
    torch.testing.assert_close(results[1], results[0])


def test_in_a_bag_what_words_mean_adds_up_and_order_is_lost() -> None:
    encoder = word_encoder(rnn="bag")
    features, sentence = encoder(words(), LENGTHS)
    mask = word_mask(LENGTHS, 7)
    assert features.shape == (4, 7, 6) and features[~mask].eq(0).all()
    torch.testing.assert_close(
        sentence, torch.stack([f[m].sum(0) / m.sum().sqrt() for f, m in zip(features, mask, strict=True)])
    )
    turned = torch.stack([torch.cat([w[:n].flip(0), w[n:]]) for w, n in zip(words(), LENGTHS, strict=True)])
    torch.testing.assert_close(encoder(turned, LENGTHS)[1], sentence)
    wide = WordEncoder(500, embed_dim=16, feature_dim=32, rnn="bag").eval()
    vectors = wide(torch.arange(500)[:, None], torch.ones(500, dtype=torch.int64))[1]
    assert 0.9 < vectors.std() < 1.1


@pytest.mark.parametrize("rnn", ["lstm", "bag"])
def test_each_caption_is_read_alone(rnn: str) -> None:
    encoder = word_encoder(rnn=rnn)
    features, sentence = encoder(words(), LENGTHS)
    for i in range(4):
        alone, own = encoder(words()[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1])
        assert torch.allclose(alone[0], features[i, : LENGTHS[i]], atol=1e-6)
        assert torch.allclose(own[0], sentence[i], atol=1e-6)
    filled = torch.where(word_mask(LENGTHS, 7), words(), 9)
    assert torch.equal(encoder(filled, LENGTHS)[0], features)


def test_dropout_is_drawn_from_the_stream_it_is_given() -> None:
    encoder = word_encoder().train()
    with drawing(Draws(0, "text")):
        first = encoder(words(), LENGTHS)[1]
    with drawing(Draws(0, "text")):
        again = encoder(words(), LENGTHS)[1]
    with drawing(Draws(1, "text")):
        other = encoder(words(), LENGTHS)[1]
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize(
    ("options", "message"), [({"rnn": "elman"}, "rnn is 'elman'"), ({"feature_dim": 7}, "a multiple of 2")]
)
def test_word_encoder_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        word_encoder(**options)


def test_official_arguments() -> None:
    given = {
        "ntoken": 20,
        "ninput": 7,
        "nhidden": 10,
        "drop_prob": 0.1,
        "RNN_TYPE": "GRU",
        "nlayers": 1,
        "WORDS_NUM": 8,
    }
    assert from_official_rnn(given) == {
        "num_words": 20, "embed_dim": 7, "feature_dim": 10, "dropout": 0.1, "rnn": "gru",
    }  # fmt: skip
    with pytest.raises(ValueError, match="nlayers is 2"):
        from_official_rnn({"nlayers": 2})
    with pytest.raises(ValueError, match="'width' is no argument"):
        from_official_rnn({"width": 2})


@pytest.mark.parametrize(("rnn", "steps", "shortest"), [("rnn", 8, 66), ("gru", 18, 48)])
def test_steps_of_the_recurrent_network_are_those_of_the_paper(rnn: str, steps: int, shortest: int) -> None:
    encoder = CharCNNRNN(embed_dim=4, width=6, widths=(5, 5), rnn=rnn)
    seen: list[int] = []
    encoder.rnn.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    assert encoder(characters(["a bird"])).shape == (1, 4)
    encoder(characters(["a bird"], max_characters=shortest))
    assert seen == [steps, 1] and encoder.min_characters == shortest
    with pytest.raises(ValueError, match=f"needs {shortest} or more"):
        encoder(characters(["a bird"], max_characters=shortest - 1))


def test_sizes_of_the_published_encoder() -> None:
    encoder = CharCNNRNN()
    convolutions = 70 * 384 * 4 + 384 + 384 * 512 * 4 + 512 + 512 * 512 * 4 + 512
    assert sum(p.numel() for p in encoder.parameters()) == convolutions + 6 * (512 * 512 + 512) + 512 * 1024 + 1024
    assert all(p.abs().max() <= 0.08 for p in encoder.parameters())
    with pytest.raises(ValueError, match="rnn is 'lstm'"):
        CharCNNRNN(rnn="lstm")


def test_first_convolution_sees_one_hot_characters() -> None:
    encoder = CharCNNRNN(embed_dim=4, width=6, widths=(5, 5))
    seen: list[Tensor] = []
    encoder.conv1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encoder(characters(["ab "], max_characters=60))
    assert seen[0].shape == (1, 70, 60) and seen[0].sum() == 3
    assert seen[0][0, 0, 0] == seen[0][0, 1, 1] == seen[0][0, 69, 2] == 1


def test_recurrent_networks_against_torch() -> None:
    """Without hidden biases, which torch adds in the first step too, and with gates held open."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, 4)
    ours = ReluRNN(4)
    theirs = nn.RNN(4, 4, nonlinearity="relu", batch_first=True)
    ours.of_hidden.bias.data.zero_()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.of_input.weight)
        theirs.bias_ih_l0.copy_(ours.of_input.bias)
        theirs.weight_hh_l0.copy_(ours.of_hidden.weight)
        theirs.bias_hh_l0.zero_()
    assert torch.allclose(ours(x), theirs(x)[0].mean(1), atol=1e-6)
    gru = MeanGRU(4)
    gru.update_input.bias.data.fill_(50)  # gates open: what is left is a plain network with tanh
    gru.reset_input.bias.data.fill_(50)
    gru.state_hidden.bias.data.zero_()
    plain = nn.RNN(4, 4, nonlinearity="tanh", batch_first=True)
    with torch.no_grad():
        plain.weight_ih_l0.copy_(gru.state_input.weight)
        plain.bias_ih_l0.copy_(gru.state_input.bias)
        plain.weight_hh_l0.copy_(gru.state_hidden.weight)
        plain.bias_hh_l0.zero_()
    assert torch.allclose(gru(x), plain(x)[0].mean(1), atol=1e-6)
    gru.update_input.bias.data.fill_(-50)  # closed: the first state stays
    assert torch.allclose(gru(x), torch.tanh(gru.state_input(x[:, 0])), atol=1e-6)


def test_joint_embedding_loss_by_hand() -> None:
    images, texts = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.5], [0.0, 0.5]])
    # scores [[2, 0], [0.5, 0.5]]: by picture 0 and 1, by text 0 and 0.5, over 4 scores
    assert joint_embedding_loss(images, texts).item() == pytest.approx((0 + 1 + 0 + 0.5) / 4)
    assert joint_embedding_loss(4 * torch.eye(3), torch.eye(3)) == 0


@pytest.mark.parametrize("kind", ["words", "gru", "rnn"])
def test_encoders_learn_to_tell_captions_apart(kind: str) -> None:
    torch.manual_seed(0)
    images, texts = torch.eye(4) * 3, ["red circle", "blue circle", "red square", "blue square"]
    if kind == "words":
        numbers = torch.tensor([[1, 3], [2, 3], [1, 4], [2, 4]])
        encoder: nn.Module = WordEncoder(5, embed_dim=8, feature_dim=16, dropout=0)
        head = nn.Linear(16, 4)
        embed = lambda: head(encoder(numbers, torch.full((4,), 2))[1])  # noqa: E731
        trained = [*encoder.parameters(), *head.parameters()]
    else:
        given = characters(texts, max_characters=100)
        encoder = CharCNNRNN(embed_dim=4, width=16, widths=(16, 16), rnn=kind)
        embed = lambda: encoder(given)  # noqa: E731
        trained = list(encoder.parameters())
    optimizer = torch.optim.Adam(trained, lr=0.01)
    before = joint_embedding_loss(images, embed()).item()
    for _ in range(150):
        optimizer.zero_grad()
        joint_embedding_loss(images, embed()).backward()
        optimizer.step()
    assert all(p.grad is not None for p in trained)
    assert joint_embedding_loss(images, embed()).item() < 0.1 * before
    assert torch.equal((images @ embed().T).argmax(1), torch.arange(4))
