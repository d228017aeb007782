"""Files of R3GAN, with conditions, other filters and other kernels than the recorded ones have."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from lit_gans.adversarial.penalties import input_gradient
from lit_gans.papers import r3gan
from tests.parity.variants import Recorder, Tensors, gradient, official

SOURCE = "brownvc/R3GAN 19a7ddf463fbac2bd39b4c1c73d63f1c441c7403"
OURS = {"widths": [6, 6, 4], "cardinalities": [3, 9, 2], "num_blocks": [1, 2, 1], "expansion": 3, "kernel_size": 5}
OURS |= {"resample_filter": [1, 4, 6, 4, 1], "c_dim": 3}
THEIRS = {"ExpansionFactor": 3, "KernelSize": 5, "ResamplingFilter": [1, 4, 6, 4, 1], "ConditionDimension": 3}
STAGES = {"WidthPerStage": [6, 6, 4], "CardinalityPerStage": [3, 9, 2], "BlocksPerStage": [1, 2, 1]}
G = {"NoiseDimension": 5, "ConditionEmbeddingDimension": 7, **STAGES, **THEIRS}
D = {"ConditionEmbeddingDimension": 4, **{name: values[::-1] for name, values in STAGES.items()}, **THEIRS}


def state_of(network: r3gan.Staged) -> Tensors:
    """Under the official names, with the kernels that the official networks keep."""
    taps = torch.tensor([1.0, 5, 10, 10, 5, 1]) / 32
    kernels = {name: taps.outer(taps) for name, _ in network.named_buffers()}
    assert len(kernels) == 2
    dotted = {name: name.split(".") for name in kernels}
    named = {f"MainLayers.{dotted[n][1]}.Layers.{dotted[n][2]}.Resampler.Kernel": k for n, k in kernels.items()}
    return official(network, r3gan.OFFICIAL_KEYS, {r"(?:Model\.)?": ""}) | named


def networks(r: Recorder) -> tuple[r3gan.Generator, r3gan.Discriminator]:
    g = r.filled(r3gan.Generator(z_dim=5, embed_dim=7, **OURS))
    d = r.filled(r3gan.Discriminator(embed_dim=4, **OURS))
    with torch.no_grad():
        for name, weight in (*g.named_parameters(), *d.named_parameters()):
            if name.endswith("conv3.weight"):
                weight.copy_(0.3 * torch.randn(weight.shape, generator=r.generator))
    return g, d


def conditional_networks(r: Recorder) -> None:
    r.source, c = SOURCE, one_hot(torch.tensor([2, 0, 1]), 3).float()
    g, d = networks(r)
    z, w_img, x, w_logit = r.normal(3, 5), r.normal(3, 3, 16, 16), r.normal(3, 3, 16, 16), r.normal(3)
    image, logit = g(z, c), d(x, c)
    scalars = (image * w_img).sum(), (logit * w_logit).sum()
    outputs = {"train/img": image, "scalar": scalars[0], "grad/z": gradient(scalars[0], z)}
    outputs["grad/EmbeddingLayer.weight"] = gradient(scalars[0], g.embed.weight)
    inputs = {"z": z, "c": c, "w_img": w_img}
    r.write("r3gan-g-cond", "R3GAN.Networks.Generator", G, inputs=inputs, state=state_of(g), outputs=outputs)
    outputs = {"train/logit": logit, "scalar": scalars[1], "grad/x": gradient(scalars[1], x)}
    inputs = {"x": x, "c": c, "w_logit": w_logit}
    r.write("r3gan-d-cond", "R3GAN.Networks.Discriminator", D, inputs=inputs, state=state_of(d), outputs=outputs)


def squares(d: r3gan.Discriminator, images: Tensor, c: Tensor) -> Tensor:
    return input_gradient(lambda x: d(x, c), images).square().flatten(1).sum(1)


def losses(r: Recorder) -> None:
    r.source, c = SOURCE, one_hot(torch.tensor([2, 0, 1, 1]), 3).float()
    (g, d), z, real = networks(r), r.normal(4, 5), r.normal(4, 3, 16, 16)
    fake = g(z, c)
    gap = d(real, c) - d(fake.detach(), c)
    outputs = {"D_adversarial": softplus(-gap), "D_relativistic": gap, "R1": squares(d, real, c)}
    outputs["R2"] = squares(d, fake, c)
    whole = (outputs["D_adversarial"] + 3.5 / 2 * (outputs["R1"] + outputs["R2"])).mean()
    passing = softplus(d(real, c).detach() - d(fake, c))
    outputs |= {"D_loss_mean": whole, "G_adversarial": passing, "G_relativistic": -gap}
    outputs["grad_D/EmbeddingLayer.weight"] = gradient(whole, d.embed.weight)
    outputs["grad_G/MainLayers.0.Layers.0.Basis"] = gradient(passing.mean(), g.stages[0][0].basis)
    state = {f"G.{name}": t for name, t in state_of(g).items()} | {f"D.{name}": t for name, t in state_of(d).items()}
    config, inputs = {"G": G, "D": D, "Gamma": 3.5}, {"real": real, "z": z, "c": c}
    kind = "R3GAN.Trainer.AdversarialTraining"
    r.write("r3gan-losses-cond", kind, config, inputs=inputs, state=state, outputs=outputs)


FAMILIES = (conditional_networks, losses)
