"""Files of the text-to-image papers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, interpolate

from lit_gans.adversarial.losses import divergence
from lit_gans.papers import stackgan, stackgan2
from lit_gans.papers.attngan.losses import damsm_loss
from lit_gans.papers.attngan.networks import Discriminator as AttnDiscriminator
from lit_gans.papers.attngan.networks import Generator as AttnGenerator
from lit_gans.papers.attngan.networks import WordAttention
from lit_gans.papers.attngan.official import OFFICIAL_KEYS as ATTN_KEYS
from lit_gans.papers.text.networks import OFFICIAL_WORD_ENCODER_KEYS, WordEncoder, word_mask
from tests.parity.variants import Recorder, Tensors, gradient, official


def cross_entropy(logits: Tensor, target: float) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


# ---- StackGAN --------------------------------------------------------------------------------------------------------

CONFIG = {"Z_DIM": 3, "TEXT_DIMENSION": 7, "CONDITION_DIM": 2, "DF_DIM": 1, "GF_DIM": 4, "R_NUM": 1}
SIZES = {"z_dim": 3, "sentence_dim": 7, "condition_dim": 2, "width": 4}


def stackgan_generators(r: Recorder) -> None:
    r.source, z, text = "hanzhanggit/StackGAN-Pytorch", r.normal(2, 3), r.normal(2, 7)
    inputs = {"z": z, "text": text, "eps": r.normal(2, 2), "eps_stage1": r.normal(2, 2)}
    first = r.filled(stackgan.Stage1Generator(resolution=64, channels=3, **SIZES))
    state, image = official(first, stackgan.STAGE1_KEYS), first(z, text, inputs["eps"]).image
    weight = r.normal(2, 3, 16, 16)
    outputs = {"train/img_crop24": image[..., 20:44, 20:44]}
    outputs["grad/z"] = gradient((avg_pool2d(image, 4) * weight).sum(), z)
    r.write("stack-1", "model.STAGE1_G", CONFIG, inputs=inputs | {"w_img_pool4": weight}, state=state, outputs=outputs)

    both = r.filled(stackgan.Generator(resolution=256, channels=3, residuals=1, **SIZES)).eval()
    _, drawn = both(z, text, torch.cat([inputs["eps_stage1"], inputs["eps"]], 1))
    state, outputs = official(both, stackgan.OFFICIAL_KEYS), {"eval/img_pool16": avg_pool2d(drawn.image, 16)}
    r.write("stack-2", "model.STAGE2_G(STAGE1_G)", CONFIG, inputs=inputs, state=state, outputs=outputs)


def stackgan_judges(r: Recorder) -> None:
    """Both losses, written out."""
    r.source, mu = "hanzhanggit/StackGAN-Pytorch", r.normal(3, 2)
    inputs = {"real_16": r.normal(3, 3, 16, 16), "fake_16": r.normal(3, 3, 16, 16), "mu": mu}
    for stage, side in (("stage1", 64), ("stage2", 256)):
        size = {"resolution": side, "base_px": 64, "channels": 3, "condition_dim": 2, "width": 1}
        d, keys = r.filled(stackgan.Discriminator(alone=side == 256, **size)), stackgan.DISCRIMINATOR_KEYS[stage]
        state = official(d, keys)
        real, fake = (d(interpolate(inputs[name], size=side)) for name in ("real_16", "fake_16"))
        right, wrong = cross_entropy(d.conditional(real, mu), 1), cross_entropy(d.conditional(real[:-1], mu[1:]), 0)
        false, passing = (cross_entropy(d.conditional(fake, mu), target) for target in (0, 1))
        outputs = {"errD": right + (false + wrong) / 2, "errD_real": right, "errD_wrong": wrong, "errG": passing}
        if d.alone is not None:
            alone = {"right": cross_entropy(d.unconditional(real), 1), "false": cross_entropy(d.unconditional(fake), 0)}
            outputs["errD_real"] = (right + alone["right"]) / 2
            outputs["errD"] = outputs["errD_real"] + (false + wrong + alone["false"]) / 3
            outputs["errG"] = passing + cross_entropy(d.unconditional(fake), 1)
        outputs["grad_G/fake_16"] = gradient(outputs["errG"], inputs["fake_16"])
        r.write(f"stack-d-{side}", f"model.{stage.upper()}_D", CONFIG, inputs=inputs, state=state, outputs=outputs)


# ---- StackGAN++ ------------------------------------------------------------------------------------------------------

TREE: dict[str, Any] = {"Z_DIM": 3, "TEXT_DIMENSION": 7, "EMBEDDING_DIM": 2, "DF_DIM": 1, "GF_DIM": 2, "R_NUM": 1}


def tree_generators(r: Recorder) -> None:
    """One branch with captions, two without."""
    r.source, z, text, eps = "hanzhanggit/StackGAN-v2", r.normal(2, 3), r.normal(2, 7), r.normal(2, 2)
    for branches, captions in ((1, True), (2, False)):
        size = {"z_dim": 3, "sentence_dim": 7 if captions else 0, "condition_dim": 2, "width": 2, "residuals": 1}
        g = r.filled(stackgan2.Generator(resolution=32 << branches, branches=branches, channels=3, **size))
        state, drawn = official(g, stackgan2.OFFICIAL_KEYS), g(z, text, eps) if captions else g(z)
        last = branches - 1
        pooled = {k: avg_pool2d(image, 4 << k) for k, image in enumerate(drawn.images)}
        outputs = {f"train/img{last}_pool{4 << last}": pooled[last], "scalar": pooled[last].sum()}
        outputs |= {"train/kl": divergence(drawn.mu, drawn.logvar)} if captions else {}
        outputs["grad/z"] = gradient(pooled[last].sum(), z)
        inputs = {"z": z, f"w_img{last}": torch.ones(2, 3, 16, 16)} | ({"text": text, "eps": eps} if captions else {})
        config = TREE | {"BRANCH_NUM": branches, "B_CONDITION": captions}
        r.write(f"tree-g{branches}", "model.G_NET", config, inputs=inputs, state=state, outputs=outputs)


def judge(r: Recorder, side: int, captions: bool) -> tuple[nn.Module, Tensors]:
    size = {"resolution": side, "base_px": 64, "channels": 3, "width": 1, "condition_dim": 2 if captions else 0}
    d = r.filled(stackgan2.Discriminator(**size))
    return d, official(d, stackgan2.DISCRIMINATOR_KEYS, {r"s\\d+_": f"s{side // 4}_", r"s\d+_": f"s{side // 4}_"})


def tree_judges(r: Recorder) -> None:
    """With captions and a weight of the unconditional part, without that part, and without captions."""
    r.source, c = "hanzhanggit/StackGAN-v2", r.normal(2, 2)
    images = {f"{name}_16": r.normal(2, 3, 16, 16) for name in ("real", "wrong", "fake")}
    for stem, side, captions, weight in (("cond", 128, True, 0.3), ("zero", 64, True, 0.0), ("uncond", 64, False, 0.3)):
        d, state = judge(r, side, captions)
        given = {name: x for name, x in images.items() if captions or "wrong" not in name}
        logits = {name: d(interpolate(x, size=side), c if captions else None) for name, x in given.items()}
        target = {"real_16": 1, "wrong_16": 0, "fake_16": 0}
        pairs = {name: cross_entropy(x.pair, target[name]) for name, x in logits.items()}
        half = 0.5 if captions and not weight else 1
        loss = pairs["real_16"] + half * sum(term for name, term in pairs.items() if name != "real_16")
        if captions and weight:
            alone = {name: cross_entropy(x.alone, target[name] or name == "wrong_16") for name, x in logits.items()}
            loss = loss + weight * sum(alone.values())
        outputs = {"errD": loss, "train/logits": logits["real_16"].pair.sigmoid()}
        outputs["grad/fake_16"] = gradient(loss, given["fake_16"])
        config = TREE | {"B_CONDITION": captions, "UNCOND_LOSS": weight}
        inputs = given | ({"mu": c} if captions else {})
        r.write(f"tree-d-{stem}", f"model.D_NET{side} and loss", config, inputs=inputs, state=state, outputs=outputs)


def tree_loss(r: Recorder) -> None:
    """Of the generator: one branch, for which there is nothing to be of one colour with, and two with captions."""
    r.source, mu, logvar = "hanzhanggit/StackGAN-v2", r.normal(2, 2), r.normal(2, 2)
    for branches, captions in ((1, False), (2, True)):
        inputs, state, losses, images = {f"fake{k}_16": r.normal(2, 3, 16, 16) for k in range(branches)}, {}, [], []
        for k, small in enumerate(inputs.values()):
            d, names = judge(r, 64 << k, captions)
            state |= {f"netD{k}.{name}": t for name, t in names.items()}
            images.append(interpolate(small, size=64 << k))
            logits = d(images[-1], mu if captions else None)
            losses.append(cross_entropy(logits.pair, 1) + (0.4 * cross_entropy(logits.alone, 1) if captions else 0))
        total = torch.stack(losses).sum()
        if captions:
            inputs |= {"mu": mu, "logvar": logvar}
            total = total + 3 * divergence(mu, logvar) + 20 * stackgan2.colour_consistency(images)
        outputs = {"errG_total": total, "grad/fake0_16": gradient(total, inputs["fake0_16"])}
        config = TREE | {"BRANCH_NUM": branches, "B_CONDITION": captions, "UNCOND_LOSS": 0.4, "KL": 3.0}
        config["COLOR_LOSS"] = 20.0
        r.write(f"tree-loss{branches}", "trainer.train_Gnet", config, inputs=inputs, state=state, outputs=outputs)


# ---- AttnGAN ---------------------------------------------------------------------------------------------------------


def attngan_players(r: Recorder) -> None:
    """Two branches and no masked word, so that the official pairing of masks changes nothing; no joint loss."""
    r.source, leaves = "taoxugit/AttnGAN", {"z": r.normal(2, 3), "sent": r.normal(2, 6), "words": r.normal(2, 6, 4)}
    leaves |= {"eps": r.normal(2, 5), "mask": torch.zeros(2, 4, dtype=torch.bool)}
    g = r.filled(AttnGenerator(resolution=128, stages=2, z_dim=3, condition_dim=5, embed_dim=6, width=2, blocks=1))
    config = {"GF_DIM": 2, "Z_DIM": 3, "CONDITION_DIM": 5, "EMBEDDING_DIM": 6, "R_NUM": 1, "BRANCH_NUM": 2}
    state, (z, sentence, words) = official(g, ATTN_KEYS), (leaves["z"], leaves["sent"], leaves["words"].transpose(1, 2))
    drawn = g(z, sentence, words, None, eps=leaves["eps"])
    outputs = {"train/img1_pool8": avg_pool2d(drawn.images[1], 8), "train/att0_pool": avg_pool2d(drawn.maps[0], 4)}
    r.write("attn-g", "model.G_NET", config, inputs=leaves, state=state, outputs=outputs)

    d, images = r.filled(AttnDiscriminator(resolution=128, width=1, embed_dim=6, joint=False)), {}
    state = official(d, ATTN_KEYS, {r"s\d+_": "s32_"})
    images = {f"{name}_16": r.normal(2, 3, 16, 16) for name in ("real", "fake")}
    real, fake = (d(interpolate(x, size=128)) for x in images.values())
    pairs = {1: [(real, sentence)], 0: [(fake, sentence), (real[:-1], sentence[1:])]}
    means = [sum(cross_entropy(d.conditional(*p), target) for p in ps) / len(ps) for target, ps in pairs.items()]
    loss = sum(means)
    outputs, inputs = {"errD": loss, "grad/sent": gradient(loss, sentence)}, images | {"sent": sentence}
    config = {"DF_DIM": 1, "EMBEDDING_DIM": 6}
    r.write("attn-d", "model.D_NET128(b_jcu=False)", config, inputs=inputs, state=state, outputs=outputs)

    layer, h = r.filled(WordAttention(3, 6)), r.normal(2, 3, 4, 5)
    outputs = dict(zip(("context_nomask", "att_nomask"), layer(h, words), strict=True))
    state, inputs = {"conv_context.weight": layer.project.weight}, {"h": h, **leaves}
    kind = "GlobalAttention.GlobalAttentionGeneral"
    r.write("attn-layer", kind, {"idf": 3, "cdf": 6}, inputs=inputs, state=state, outputs=outputs)


def text_encoders(r: Recorder) -> None:
    """A GRU in one direction; the matching losses with other gammas and without classes."""
    r.source, captions = "taoxugit/AttnGAN", torch.tensor([[3, 1, 4, 1], [5, 9, 2, 0], [6, 0, 0, 0]])
    lengths = torch.tensor([4, 3, 1])
    encoder = r.filled(WordEncoder(10, embed_dim=3, feature_dim=4, rnn="gru", bidirectional=False)).eval()
    features, sentence = encoder(captions, lengths)
    outputs = {"words_emb": features.transpose(1, 2), "sent_emb": sentence}
    inputs = {"captions": captions, "cap_lens": lengths}
    config = {"ntoken": 10, "ninput": 3, "nhidden": 4, "nlayers": 1, "bidirectional": False, "RNN_TYPE": "GRU"}
    state = official(encoder, OFFICIAL_WORD_ENCODER_KEYS)
    r.write("attn-rnn", "model.RNN_ENCODER", config, inputs=inputs, state=state, outputs=outputs)

    inputs = {"img_features": r.normal(3, 5, 6, 6), "cnn_code": r.normal(3, 5), "words": r.normal(3, 5, 4)}
    inputs |= {"sent": r.normal(3, 5), "cap_lens": lengths}
    words, mask = inputs["words"].transpose(1, 2), word_mask(lengths, 4)
    terms = damsm_loss(inputs["img_features"], inputs["cnn_code"], words, inputs["sent"], mask, gammas=(2.0, 3.0, 7.0))
    outputs = {f"{kind}_loss{i}_noclass": terms[2 * (kind == "s") + i] for kind in "ws" for i in (0, 1)}
    outputs["grad/words"] = gradient(sum(terms), inputs["words"])
    config = {"GAMMA1": 2.0, "GAMMA2": 3.0, "GAMMA3": 7.0}
    r.write("attn-damsm", "miscc.losses.words_loss, sent_loss", config, inputs=inputs, outputs=outputs)


FAMILIES = (stackgan_generators, stackgan_judges, tree_generators, tree_judges, tree_loss, attngan_players)
FAMILIES += (text_encoders,)
