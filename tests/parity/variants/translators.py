"""Files of pix2pix, CycleGAN and pix2pixHD."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from lit_gans.adversarial.penalties import input_gradient
from lit_gans.official.names import Table
from lit_gans.papers import cyclegan, pix2pix, pix2pixhd
from lit_gans.papers.pix2pixhd.instances import edges
from tests.official.test_state_dicts import unet_names
from tests.parity.variants import Recorder, Tensors, gradient, official

REPOSITORY, HD = "junyanz/pytorch-CycleGAN-and-pix2pix", "NVIDIA/pix2pixHD"
Arguments = dict[str, Any]
# Official class, its arguments, ours.
NETWORKS: dict[str, tuple[str, Arguments, nn.Module]] = {
    "unet": (
        "UnetGenerator",
        {"input_nc": 1, "output_nc": 2, "num_downs": 6, "ngf": 1, "norm": "none", "use_dropout": True},
        pix2pix.UNet(in_channels=1, out_channels=2, levels=6, width=1, norm="none", dropout=True),
    ),
    "unet-batch": (
        "UnetGenerator",
        {"input_nc": 3, "output_nc": 3, "num_downs": 5, "ngf": 1},
        pix2pix.UNet(levels=5, width=1, norm="batch", dropout=False),
    ),
    "resnet": (
        "ResnetGenerator",
        {"input_nc": 2, "output_nc": 1, "ngf": 2, "n_blocks": 1, "norm": "batch", "padding_type": "zero"},
        cyclegan.ResNet(in_channels=2, out_channels=1, width=2, blocks=1, norm="batch", padding="zero"),
    ),
    "resnet-dropout": (
        "ResnetGenerator",
        {"input_nc": 3, "output_nc": 3, "ngf": 2, "norm": "instance", "padding_type": "replicate", "use_dropout": True},
        cyclegan.ResNet(width=2, blocks=6, norm="instance", padding="replicate", dropout=True),
    ),
    "patch": (
        "NLayerDiscriminator",
        {"input_nc": 2, "ndf": 3, "n_layers": 2, "norm": "instance"},
        pix2pix.PatchGAN(channels=2, width=3, layers=2, norm="instance"),
    ),
    "pixel": (
        "PixelDiscriminator",
        {"input_nc": 2, "ndf": 3, "norm": "none"},
        pix2pix.PixelGAN(channels=2, width=3, norm="none"),
    ),
}


def named(network: nn.Module) -> Tensors:
    """Official names and tensors."""
    if isinstance(network, pix2pix.UNet):
        state = network.state_dict()
        return {name: state[ours].clone() for name, ours in unet_names(network).items()}
    keys: Table = cyclegan.OFFICIAL_KEYS if isinstance(network, cyclegan.ResNet) else {
        k: v for k, v in pix2pix.OFFICIAL_KEYS.items() if k.startswith("(?:model|net)")
    }  # fmt: skip
    return official(network, keys, {"(?:model|net)": "net" if isinstance(network, pix2pix.PixelGAN) else "model"})


def networks(r: Recorder) -> None:
    """Every norm, padding and depth; with dropout evaluation alone can be recorded."""
    r.source = REPOSITORY
    for stem, (kind, config, network) in NETWORKS.items():
        state, x, outputs = named(r.filled(network)), r.normal(2, config["input_nc"], 64, 64), {}
        dropout = config.get("use_dropout", False)
        for mode in ("eval",) if dropout else ("eval", "train"):
            outputs[f"{mode}/y"] = y = network.train(mode == "train")(x)
        w = r.normal(*y.shape)
        outputs |= {"scalar": (y * w).sum(), "grad/x": gradient((y * w).sum(), x)}
        call = {"modes": ["eval"], "grad": "scalar=(y*w_y).sum()"} if dropout else {}
        inputs, cls = {"x": x, "w_y": w}, f"models.networks.{kind}"
        r.write(f"translator-{stem}", cls, config, inputs=inputs, state=state, outputs=outputs, call=call)


def gan_loss(mode: str, logits: Tensor, target: float) -> Tensor:
    if mode == "wgangp":
        return -logits.mean() if target else logits.mean()
    wanted = torch.full_like(logits, target)
    return mse_loss(logits, wanted) if mode == "lsgan" else binary_cross_entropy_with_logits(logits, wanted)


MODES = ("lsgan", "vanilla", "wgangp")


def losses(r: Recorder) -> None:
    """A penalty about norms of 0.5, of another discriminator, and one mode of the loss alone."""
    r.source, pred, (kind, arguments, _) = REPOSITORY, r.normal(3, 1, 6, 6), NETWORKS["pixel"]
    network = r.filled(copy.deepcopy(NETWORKS["pixel"][2]))
    real, fake, alpha = r.normal(3, 2, 8, 8), r.normal(3, 2, 8, 8), torch.tensor([[0.2], [0.5], [0.9]])
    norms = input_gradient(network, fake.lerp(real, alpha[..., None, None])).flatten(1).norm(dim=1)
    outputs = {"vanilla_real": gan_loss("vanilla", pred, 1), "gp_mixed_gradnorm": norms}
    outputs["gp_mixed"] = 3 * (norms - 0.5).square().mean()
    config = {"netD": {"class_": kind, **arguments}, "lambda_gp": 3.0, "constant": 0.5, "gan_mode": "vanilla"}
    inputs, state = {"pred": pred, "real": real, "fake": fake, "alpha": alpha}, named(network)
    state = {f"netD.{name}": t for name, t in state.items()}
    r.write("translator-losses", "models.networks.GANLoss", config, inputs=inputs, state=state, outputs=outputs)


def pix2pix_steps(r: Recorder) -> None:
    """Each mode of the loss, with a ResNet for a generator."""
    r.source, a, b = REPOSITORY, r.normal(2, 3, 16, 16), r.normal(2, 3, 16, 16)
    config = {"netG": "ResnetGenerator(3,3,ngf=2,n_blocks=1,norm=instance)", "lambda_L1": 7.0, "pool_size": 0}
    config["netD"] = "NLayerDiscriminator(6,ndf=2,n_layers=1,norm=instance)"
    for mode in MODES:
        g, d = cyclegan.ResNet(width=2, blocks=1), pix2pix.PatchGAN(width=2, layers=1, norm="instance")
        r.filled(g), r.filled(d)
        fake = g(a)
        fakes, reals = d(torch.cat([a, fake], 1)), d(torch.cat([a, b], 1))
        outputs = {"loss_D_fake": gan_loss(mode, fakes, 0), "loss_D_real": gan_loss(mode, reals, 1), "fake_B": fake}
        outputs |= {"loss_D": (outputs["loss_D_fake"] + outputs["loss_D_real"]) / 2}
        outputs |= {"loss_G_GAN": gan_loss(mode, fakes, 1), "loss_G_L1": 7 * (fake - b).abs().mean()}
        outputs["loss_G"] = outputs["loss_G_GAN"] + outputs["loss_G_L1"]
        outputs["grad/netG.model.1.weight"] = gradient(outputs["loss_G"], g.layers[1].weight)
        state = {f"{net}.{k}": t for net, player in {"netG": g, "netD": d}.items() for k, t in named(player).items()}
        cls, inputs = "models.pix2pix_model.Pix2PixModel", {"real_A": a, "real_B": b}
        r.write(f"pix2pix-{mode}", cls, config | {"gan_mode": mode}, inputs=inputs, state=state, outputs=outputs)


def cyclegan_steps(r: Recorder) -> None:
    """Each mode of the loss, with and without the identity loss."""
    r.source, a, b = REPOSITORY, r.normal(2, 3, 16, 16), r.normal(2, 3, 16, 16)
    config = {"netG": "ResnetGenerator(3,3,ngf=2,n_blocks=3,norm=instance,padding_type=replicate)", "pool_size": 4}
    config |= {"netD": "PixelDiscriminator(3,ndf=2,norm=instance)", "lambda_A": 3.0, "lambda_B": 5.0}
    for mode, identity in zip(MODES, (0.5, 0, 2), strict=True):
        nets = {f"netG_{x}": cyclegan.ResNet(width=2, blocks=3, padding="replicate") for x in "AB"}
        nets |= {f"netD_{x}": pix2pix.PixelGAN(channels=3, width=2, norm="instance") for x in "AB"}
        g_a, g_b, d_a, d_b = (r.filled(network) for network in nets.values())
        fake_b, fake_a = g_a(a), g_b(b)
        cycles = {"A": 3 * (g_b(fake_b) - a).abs().mean(), "B": 5 * (g_a(fake_a) - b).abs().mean()}
        same = {"A": identity * 5 * (g_a(b) - b).abs().mean(), "B": identity * 3 * (g_b(a) - a).abs().mean()}
        adversarial = {"A": gan_loss(mode, d_a(fake_b), 1), "B": gan_loss(mode, d_b(fake_a), 1)}
        outputs = {"rec_B": g_a(fake_a), "fake_A": fake_a}
        for name, terms in {"cycle": cycles, "idt": same, "G": adversarial}.items():
            outputs |= {f"loss_{name}_{letter}": term for letter, term in terms.items()}
        outputs["loss_D_B"] = (gan_loss(mode, d_b(a), 1) + gan_loss(mode, d_b(fake_a), 0)) / 2
        outputs["loss_G"] = sum([*cycles.values(), *same.values(), *adversarial.values()])
        outputs["grad/netG_B.model.1.weight"] = gradient(outputs["loss_G"], g_b.layers[1].weight)
        state = {f"{net}.{name}": t for net, network in nets.items() for name, t in named(network).items()}
        cls, inputs = "models.cycle_gan_model.CycleGANModel", {"real_A": a, "real_B": b}
        changed = config | {"gan_mode": mode, "lambda_identity": identity}
        r.write(f"cyclegan-{mode}", cls, changed, inputs=inputs, state=state, outputs=outputs)


# ---- pix2pixHD -------------------------------------------------------------------------------------------------------


def high_resolution_generators(r: Recorder) -> None:
    """Batch norm, other depths, and two enhancers."""
    r.source, x, keys = HD, r.normal(2, 4, 32, 64), pix2pixhd.OFFICIAL_KEYS
    config = {"input_nc": 4, "output_nc": 1, "ngf": 2, "n_downsampling": 2, "n_blocks": 1, "norm": "batch"}
    ours = {"in_channels": 4, "out_channels": 1, "width": 2, "blocks": 1}
    g1 = r.filled(pix2pixhd.GlobalGenerator(downsamplings=2, norm="batch", **ours))
    state, y = official(g1, keys), g1(x)
    inputs, outputs = {"x": x, "w_y": torch.ones_like(y)}, {"train/y": y, "grad/x": gradient(y.sum(), x)}
    r.write("hd-global", "models.networks.GlobalGenerator", config, inputs=inputs, state=state, outputs=outputs)

    config = {"input_nc": 4, "output_nc": 1, "ngf": 2, "n_downsample_global": 1, "n_blocks_global": 1}
    config |= {"norm": "instance", "n_local_enhancers": 2, "n_blocks_local": 1}
    g2 = r.filled(pix2pixhd.LocalEnhancer(downsamplings=1, enhancers=2, local_blocks=1, **ours))
    state, outputs = official(g2, keys), {"eval/y": g2(x)}
    r.write("hd-local", "models.networks.LocalEnhancer", config, inputs={"x": x}, state=state, outputs=outputs)


def high_resolution_instances(r: Recorder) -> None:
    r.source, x, inst = HD, r.normal(2, 4, 16, 24), torch.arange(2 * 16 * 24).view(2, 1, 16, 24) // 100
    config = {"input_nc": 4, "output_nc": 2, "ngf": 2, "n_downsampling": 1, "norm": "batch"}
    encoder = r.filled(pix2pixhd.Encoder(channels=4, features=2, width=2, downsamplings=1, norm="batch"))
    inputs, state = {"image": x, "inst": inst}, official(encoder, pix2pixhd.OFFICIAL_KEYS)
    outputs = {"y": encoder(x, inst[:, 0])}
    r.write("hd-encoder", "models.networks.Encoder", config, inputs=inputs, state=state, outputs=outputs)
    r.write("hd-edges", "Pix2PixHDModel.get_edges", {}, inputs=inputs, outputs={"edges": edges(inst[:, 0])})


def high_resolution_judges(r: Recorder) -> None:
    """Three scales; with features and least squares, and without either, where a sigmoid comes before cross-entropy."""
    r.source, real, fake = HD, r.normal(2, 4, 32, 48), r.normal(2, 4, 32, 48)
    config = {"input_nc": 4, "ndf": 2, "n_layers": 2, "num_D": 3, "norm": "batch"}
    for features in (True, False):
        network = r.filled(pix2pixhd.MultiscaleDiscriminator(channels=4, width=2, layers=2, scales=3, norm="batch"))
        keys = {k: v for k, v in pix2pixhd.OFFICIAL_KEYS.items() if k.startswith("scale") == features}
        state = official(network, keys)
        of_fake, of_real = network(fake), network(real)
        mode = "lsgan" if features else "vanilla"
        outputs = {"D_real": sum(gan_loss(mode, scale[-1], 1) for scale in of_real)}
        outputs["G_GAN"] = total = sum(gan_loss(mode, scale[-1], 1) for scale in of_fake)
        if features:
            outputs["real/scale2/feat1"] = of_real[2][1]
            pairs = [pair for scales in zip(of_fake, of_real, strict=True) for pair in zip(*scales, strict=True)]
            pairs = [pair for pair in pairs if pair[0].shape[1] > 1]  # all but the predictions
            outputs["G_GAN_Feat"] = 6 / 3 * 4 / 3 * sum((f - t.detach()).abs().mean() for f, t in pairs)
            total = total + outputs["G_GAN_Feat"]
        else:
            outputs["real/scale2/feat0"] = of_real[2][-1].sigmoid()
        outputs["grad/fake"] = gradient(total, fake)
        changed = config | {"getIntermFeat": features, "use_sigmoid": True, "use_lsgan": features, "lambda_feat": 6.0}
        cls, inputs = "models.networks.MultiscaleDiscriminator + GANLoss", {"real": real, "fake": fake}
        r.write(f"hd-judge-{mode}", cls, changed, inputs=inputs, state=state, outputs=outputs)


FAMILIES = (networks, losses, pix2pix_steps, cyclegan_steps)
FAMILIES += (high_resolution_generators, high_resolution_instances, high_resolution_judges)
