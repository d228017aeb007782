"""Files of PGGAN, StyleGAN and MSG-GAN."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lit_gans.adversarial.losses import hinge, relativistic_average_hinge
from lit_gans.adversarial.progressive import enlarged
from lit_gans.official.names import Table
from lit_gans.papers import msg_gan, pggan, stylegan1
from tests.parity.golden import weighted_sum
from tests.parity.variants import Recorder, gradient, official

Config = dict[str, Any]
SIZES: Config = {"fmaps_base": 128, "fmaps_max": 6, "resolution": 16, "label_size": 3}
OURS: Config = {"channel_base": 128, "channel_max": 6, "resolution": 16, "num_classes": 3}
LODS = {"0": (16, 1.0), "0.4": (16, 0.6), "2": (4, 1.0)}  # our progress at each


def write_grown(
    r: Recorder, name: str, players: tuple[nn.Module, nn.Module], *, keys: Table, configs: tuple[Config, Config],
    drawn: Callable[[Tensor, Tensor], Tensor], judged: Callable[[Tensor, Tensor], Tensor], call: Config,
) -> None:  # fmt: skip
    """A generator's and a discriminator's file; `drawn` and `judged` are of the present stage."""
    r.source, z, label, image = "github.com/genforce/genforce", r.normal(3, 5), r.normal(3, 3), r.normal(3, 1, 16, 16)
    outputs: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for lod, progress in LODS.items():
        for network in players:
            network.set_progress(*progress)
        outputs[0][f"image/lod{lod}"] = enlarged(drawn(z, label), 16)
        outputs[1][f"logits/lod{lod}"] = judged(avg_pool2d(image, 16 // progress[0]), label)
    outputs[0]["grad/z"] = gradient(weighted_sum(outputs[0]["image/lod0.4"]), z)
    outputs[1]["grad/image"] = gradient(weighted_sum(outputs[1]["logits/lod0.4"]), image)
    inputs, call = {"z": z, "label": label, "image": image}, {"lods": [0, 0.4, 2], "grad_lod": 0.4, **call}
    for kind, network, config, found in zip(("Generator", "Discriminator"), players, configs, outputs, strict=True):
        network.set_progress(*LODS["0"])
        stem, state = f"{name.lower()}-{kind.lower()}", official(network, keys) | blurs(network)
        r.write(stem, f"models.{name}{kind}", SIZES | config, inputs=inputs, state=state, outputs=found, call=call)


def blurs(network: nn.Module) -> dict[str, Tensor]:
    """The constants of StyleGAN's layers, which ours do not keep."""
    layers = network.synthesis.layers if isinstance(network, stylegan1.Generator) else network.layers
    at = "synthesis.layer" if isinstance(network, stylegan1.Generator) else "layer"
    kinds = (stylegan1.StyledUpConv, stylegan1.BlurredDownConv)
    found = {f"{at}{i}.blur.kernel": layer for i, layer in enumerate(layers) if isinstance(layer, kinds)}
    return {name: layer.blur.expand(layer.bias.shape[0], 1, -1, -1) for name, layer in found.items()}


def pggan_networks(r: Recorder) -> None:
    """Conditional, other resolutions and channels, fused layers; without minibatch statistics."""
    g = r.filled(pggan.Generator(z_dim=5, fused_scale=True, **OURS))
    d = r.filled(pggan.Discriminator(channels=1, mbstd_group_size=1, mbstd_channels=0, fused_scale=True, **OURS))
    configs = {"z_space_dim": 5, "fused_scale": "auto"}, {"image_channels": 1, "fused_scale": True}
    configs[1]["minibatch_std_group_size"] = 0
    write_grown(r, "PGGAN", (g, d), keys=pggan.OFFICIAL_KEYS, configs=configs, drawn=g,
                judged=lambda x, label: d.analysed(x), call={})  # fmt: skip


def stylegan1_networks(r: Recorder) -> None:
    """Conditional, another latent than w, and another number of layers; truncated in all of them."""
    mapping = {"num_layers": 2, "hidden_dim": 7, "lr_multiplier": 0.1}
    g = r.filled(stylegan1.Generator(z_dim=5, w_dim=4, fused_scale=True, **mapping, **OURS))
    d = r.filled(stylegan1.Discriminator(channels=1, mbstd_group_size=3, mbstd_channels=2, fused_scale=False, **OURS))
    configs = {"z_space_dim": 5, "w_space_dim": 4, "mapping_layers": 2, "mapping_fmaps": 7, "fused_scale": True}, {}
    configs[0]["mapping_lr_mul"] = 0.1
    configs[1].update(minibatch_std_group_size=3, minibatch_std_channels=2, image_channels=1, fused_scale=False)
    call = {"kwargs": {"trunc_psi": 0.4, "trunc_layers": 10, "randomize_noise": False}}
    write_grown(r, "StyleGAN", (g, d), keys=stylegan1.OFFICIAL_KEYS, configs=configs, call=call,
                drawn=lambda z, label: g(z, label, psi=0.4, noise="const"),
                judged=lambda x, label: d(x, label)[:, None])  # fmt: skip


def msg_gan_networks(r: Recorder) -> None:
    """Another depth, without equalised learning rates; of the losses hinge, which the published files may lack."""
    r.source, z = "akanimax/BMSG-GAN", r.normal(3, 8)
    g = r.filled(msg_gan.Generator(resolution=16, z_dim=8, width=8, equalized=False))
    images, config = g(z), {"depth": 3, "latent_size": 8, "use_eql": False}
    weights = [r.normal(*x.shape) for x in images]
    scalar = torch.stack([(x * w).sum() for x, w in zip(images, weights, strict=True)]).sum()
    outputs = {f"train/img{i}": x for i, x in enumerate(images)} | {"scalar": scalar, "grad/z": gradient(scalar, z)}
    inputs = {"z": z} | {f"w_img{i}": w for i, w in enumerate(weights)}
    state = official(g, msg_gan.OFFICIAL_KEYS)
    r.write("msg-g", "MSG_GAN.GAN.Generator", config, inputs=inputs, state=state, outputs=outputs)

    d = r.filled(msg_gan.Discriminator(resolution=16, width=4))
    inputs = {f"{side}{i}": r.normal(3, 3, 4 << i, 4 << i) for side in ("real", "fake") for i in range(3)}
    real, fake = (d([inputs[f"{side}{i}"] for i in range(3)]) for side in ("real", "fake"))
    outputs = {"pred_real": real, "pred_fake": fake}
    outputs["hinge_dis"], outputs["hinge_gen"] = hinge(real, fake)
    outputs["grad_gen/fake1"] = gradient(relativistic_average_hinge(real, fake)[1], inputs["fake1"])
    state, config = official(d, msg_gan.OFFICIAL_KEYS), {"depth": 3, "feature_size": 4, "use_eql": True}
    r.write("msg-d", "MSG_GAN.GAN.Discriminator, MSG_GAN.Losses", config, inputs=inputs, state=state, outputs=outputs)


FAMILIES = (pggan_networks, stylegan1_networks, msg_gan_networks)
