"""Files of the StyleGAN family, its operations and ADA's augmentation."""

import copy

import torch
from torch.nn.functional import softplus

from lit_gans.adversarial.penalties import path_length, r1
from lit_gans.augment import AdaptiveAugment
from lit_gans.nn import resample
from lit_gans.nn.bias_act import bias_act
from lit_gans.nn.equalized import EqualizedLinear
from lit_gans.nn.minibatch_std import minibatch_std
from lit_gans.nn.modulated import modulated_conv2d
from lit_gans.papers import stylegan2, stylegan3
from lit_gans.papers.stylegan3 import filtered_lrelu
from tests.official.layout import stylegan2_state, stylegan3_state
from tests.parity.golden import weighted_sum
from tests.parity.variants import Recorder, Tensors, gradient

# ---- augmentation and operations -------------------------------------------------------------------------------------

ADA = "github.com/NVlabs/stylegan2-ada-pytorch @ d72cc7d"


def augmentation(r: Recorder) -> None:
    """The strengths by their names, together under one, by group, or in the groups beside the multipliers."""
    r.source, images = ADA, r.normal(2, 3, 32, 32)
    groups = {"geometry": ["xint", "scale", "rotate"], "hue": ["hue", "saturation"]}
    by_group = {"geometry": {"xint_max": 0.3, "scale_std": 0.4, "rotate_max": 0.5}}
    by_group["hue"] = {"hue_max": 0.3, "saturation_std": 0.7}
    strengths = by_group["geometry"] | by_group["hue"]
    outputs = {}
    for group, names in groups.items():
        augment = AdaptiveAugment(**dict.fromkeys(names, 1.0), **strengths)
        outputs[f"{group}/p0.35"] = augment(images, percentile=0.35)
    for stem, config in {
        "alone": {"groups": groups, **strengths},
        "together": {"groups": groups, "kwargs": strengths},
        "by-group": {"groups": groups, "strengths": by_group},
        "in-groups": {"groups": {g: dict.fromkeys(names, 1) | by_group[g] for g, names in groups.items()}},
    }.items():
        r.write(f"ada-{stem}", "training.augment.AugmentPipe", config, inputs={"images": images}, outputs=outputs)


def operations(r: Recorder) -> None:
    r.source = ADA
    x, taps = r.normal(2, 2, 9, 7), [1, 2, 3, 4, 5, 6, 7, 9]
    arguments = {"up": [2, 3], "down": [3, 1], "padding": [5, 4, 6, 3]}
    y = resample.upfirdn2d(x, resample.fir_filter(taps, gain=2.0, flip=True), **arguments)
    case = {"fn": "upfirdn2d", "filter": {"taps": taps, "gain": 2.0, "flip_filter": True}, **arguments}
    outputs = {"a": y, "grad/a": gradient(weighted_sum(y), x)}
    r.write("ops-up", "torch_utils.ops.upfirdn2d", {"cases": {"a": case}}, inputs={"x": x}, outputs=outputs)

    x, b, gw, arguments = r.normal(2, 3, 4), r.normal(4), r.normal(2, 3, 4), {"act": "swish", "dim": 2, "clamp": 0.6}
    y = bias_act(x, b, **arguments)
    outputs = {"c": y, "grad/b/c": gradient((y * gw).sum(), b)}
    inputs = {"x": x, "b2": b, "gw": gw}
    r.write("ops-bias", "torch_utils.ops.bias_act", {"cases": {"c": arguments}}, inputs=inputs, outputs=outputs)

    x, s, w, arguments = r.normal(2, 3, 6, 6), r.normal(2, 3), r.normal(4, 3, 3, 3), {"up": 2, "padding": 1}
    y = modulated_conv2d(x, w, s, resample_filter=resample.fir_filter([1, 2, 1]), **arguments)
    outputs = {"up": y, "grad/s/up": gradient(weighted_sum(y), s)}
    config = {"cases": {"up": {"w": "w3", **arguments}}, "resample_filter": [1, 2, 1]}
    inputs = {"x": x, "s": s, "w3": w}
    r.write("ops-mod", "training.networks.modulated_conv2d", config, inputs=inputs, outputs=outputs)

    x, config = r.normal(6, 4, 2, 2), {"cases": {"g": {"x": "x", "g": 3, "f": 2}}}
    outputs = {"g": minibatch_std(x, group_size=3, num_channels=2)}
    r.write("ops-std", "training.networks.MinibatchStdLayer", config, inputs={"x": x}, outputs=outputs)

    config = {"in_features": 3, "out_features": 4, "bias": False, "activation": "relu", "lr_multiplier": 0.5}
    layer, x, kind = r.filled(EqualizedLinear(**config)), r.normal(2, 3), "training.networks.FullyConnectedLayer"
    r.write("ops-fc", kind, config, inputs={"x": x}, state=layer.state_dict(), outputs={"y": layer(x)})


# ---- StyleGAN2 -------------------------------------------------------------------------------------------------------

MAPPING = {"num_layers": 3, "embed_features": 4, "layer_features": 7, "lr_multiplier": 0.1}
OUR_MAPPING = {"num_layers": 3, "embed_dim": 4, "hidden_dim": 7, "lr_multiplier": 0.1}
TAPS = [1, 2, 3, 4, 5, 6, 7, 9]  # so many that the filter is separable


def stylegan2_networks(r: Recorder) -> None:
    """All arguments have other values than the defaults."""
    r.source, z, images, c = ADA, r.normal(4, 5), r.normal(4, 3, 16, 16), r.normal(4, 2)
    for architecture in ("orig", "skip", "resnet"):
        shared = {"channel_base": 64, "channel_max": 6, "architecture": architecture, "conv_clamp": 0.8}
        sizes = shared | {"resolution": 16, "c_dim": 2, "resample_filter": TAPS, "num_half_res": 2}
        g = stylegan2.Generator(z_dim=5, w_dim=6, channels=2, w_avg_decay=0.9, **OUR_MAPPING, **sizes)
        d = stylegan2.Discriminator(cmap_dim=5, mbstd_group_size=2, mbstd_channels=3, **OUR_MAPPING, **sizes)
        r.filled(g), r.filled(d)

        ours = {"psi": 0.6, "cutoff": 3}
        image = g(z, c, noise="const", force_fp32=True, **ours)
        outputs = {"img": image, "img_quiet": g(z, c, noise="none", force_fp32=True, **ours)}
        outputs |= {"ws": g.mapping(z, c, **ours), "grad/z": gradient(weighted_sum(image), z)}
        kwargs = {"noise_mode": "const", "force_fp32": True, "truncation_psi": 0.6, "truncation_cutoff": 3}
        call = {"kwargs": kwargs, "variants": {"quiet": {"noise_mode": "none"}}}
        config = {"z_dim": 5, "c_dim": 2, "w_dim": 6, "img_resolution": 16, "img_channels": 2}
        config["mapping_kwargs"] = MAPPING | {"w_avg_beta": 0.9}
        config["synthesis_kwargs"] = shared | {"resample_filter": TAPS, "num_fp16_res": 2, "use_noise": True}
        state = stylegan2_state(g.state_dict(), resample_filter=TAPS)
        kind = "training.networks.Generator"
        r.write(f"sg2-g-{architecture}", kind, config, inputs={"z": z, "c": c}, state=state, outputs=outputs, call=call)

        config = {"c_dim": 2, "img_resolution": 16, "img_channels": 3, "num_fp16_res": 2, "cmap_dim": 5, **shared}
        config |= {"block_kwargs": {"resample_filter": TAPS}, "mapping_kwargs": MAPPING}
        config |= {"epilogue_kwargs": {"mbstd_group_size": 2, "mbstd_num_channels": 3}}
        inputs, outputs = {"img": images, "c": c}, {"logits": d(images, c, force_fp32=True)[:, None]}
        state, call = stylegan2_state(d.state_dict(), resample_filter=TAPS), {"kwargs": {"force_fp32": True}}
        kind = "training.networks.Discriminator"
        r.write(f"sg2-d-{architecture}", kind, config, inputs=inputs, state=state, outputs=outputs, call=call)
    config = {"z_dim": 5, "c_dim": 0, "w_dim": 6, "num_ws": 4, "num_layers": 1}
    mapping, call = r.filled(stylegan2.MappingNetwork(**config)), {"kwargs": {"truncation_psi": 0.3}}
    state, outputs = stylegan2_state(mapping.state_dict()), {"ws": mapping(z, psi=0.3)}
    kind = "training.networks.MappingNetwork"
    r.write("sg2-mapping", kind, config, inputs={"z": z}, state=state, outputs=outputs, call=call)


G = {"z_dim": 4, "c_dim": 3, "w_dim": 5, "img_resolution": 8, "img_channels": 3, "mapping_kwargs": {"num_layers": 1}}
G |= {"synthesis_kwargs": {"channel_base": 32, "channel_max": 4}}
D = {"c_dim": 3, "img_resolution": 8, "img_channels": 3, "channel_base": 32, "channel_max": 4}
D |= {"epilogue_kwargs": {"mbstd_group_size": 2}}


def conditional_players(r: Recorder) -> tuple[stylegan2.Generator, stylegan2.Discriminator, Tensors]:
    sizes = {"resolution": 8, "c_dim": 3, "channel_base": 32, "channel_max": 4}
    g = r.filled(stylegan2.Generator(z_dim=4, w_dim=5, num_layers=1, **sizes))
    d = r.filled(stylegan2.Discriminator(mbstd_group_size=2, **sizes))
    named = {"G": stylegan2_state(g.state_dict()), "D": stylegan2_state(d.state_dict())}
    return g, d, {f"{player}.{name}": t.clone() for player, state in named.items() for name, t in state.items()}


def stylegan2_loss(r: Recorder) -> None:
    """Conditional, with other conditions of the fakes than of the reals, and other weights and intervals."""
    r.source, (g, d, state) = ADA, conditional_players(r)
    z, real, gen_c, real_c = r.normal(4, 4), r.normal(4, 3, 8, 8), r.normal(4, 3), r.normal(4, 3)
    noise, before = r.normal(2, 3, 8, 8), torch.tensor(0.4)
    lengths = path_length(lambda ws: g.synthesis(ws, noise="const"), g.mapping(z[:2], gen_c[:2]), noise=noise)
    after = before.lerp(lengths.mean(), 0.02)
    fake, right = d(g(z, gen_c, noise="const"), gen_c), d(real, real_c)
    g_loss, length, slope = softplus(-fake), (lengths - after).square(), r1(lambda x: d(x, real_c), real)
    outputs = {"Gmain/Loss/G/loss": g_loss[:, None], "Greg/Loss/G/reg": 3 * length, "Greg/pl_mean_after": after}
    outputs |= {"Dmain/Loss/D/loss": (softplus(fake) + softplus(-right))[:, None], "Dreg/Loss/D/reg": 0.35 * slope}
    outputs |= {"Gmain/Loss/scores/fake": fake[:, None], "Dreg/Loss/scores/real": right[:, None]}
    name, weight = "G.synthesis.b8.conv0.weight", g.synthesis.blocks["8"].conv0.weight
    outputs |= {f"grad/Gmain/{name}": gradient(g_loss.mean(), weight)}
    outputs |= {f"grad/Greg/{name}": gradient(2 * 3 * length.mean(), weight)}
    outputs |= {"grad/Dreg/D.mapping.embed.weight": gradient(5 * 0.35 * slope, d.mapping.embed.weight)}
    config = {"G": G, "D": D, "loss": {"r1_gamma": 0.7, "pl_weight": 3.0, "pl_decay": 0.02}}
    call = {"phases": [["Gmain", 1], ["Greg", 2], ["Dmain", 1], ["Dreg", 5]]}
    inputs = {"gen_z": z, "gen_c": gen_c, "real_img": real, "real_c": real_c, "pl_noise": noise}
    inputs["pl_mean_before"] = before
    kind = "training.loss.StyleGAN2Loss"
    r.write("sg2-loss", kind, config, inputs=inputs, state=state, outputs=outputs, call=call)


def stylegan2_loop(r: Recorder) -> None:
    """Two steps of each player, without penalties, whose intervals correct Adam's numbers all the same."""
    r.source, (g, d, state), inputs = ADA, conditional_players(r), {}
    average, ratios = copy.deepcopy(g), {g: 2 / 3, d: 8 / 9}
    adams = [torch.optim.Adam(p.parameters(), 0.01 * ratio, (0.0, 0.9**ratio)) for p, ratio in ratios.items()]
    for i in range(2):
        real, real_c = inputs[f"real_img_{i}"], inputs[f"real_c_{i}"] = r.normal(4, 3, 8, 8), r.normal(4, 3)
        for phase, adam in zip(("Gmain", "Dmain"), adams, strict=True):
            z, c = inputs[f"gen_z_{i}_{phase}"], inputs[f"gen_c_{i}_{phase}"] = r.normal(4, 4), r.normal(4, 3)
            fake = d(g(z, c, noise="const"), c)
            loss = softplus(-fake).mean() if phase == "Gmain" else (softplus(fake) + softplus(-d(real, real_c))).mean()
            g.mapping.track(g.mapping(z, c)[:, 0].detach().mean(0))
            adam.zero_grad()
            loss.backward()
            adam.step()
        stays = 0.5 ** (4 / min(10, (5 + 4 * i) * 0.5))
        for old, new in zip(average.parameters(), g.parameters(), strict=True):
            old.data.lerp_(new.data, 1 - stays)
    name = "synthesis.b8.conv0.weight"
    outputs = {"after/D.b4.out.weight": d.epilogue.out.weight, "after/G.mapping.w_avg": g.mapping.w_avg}
    outputs |= {f"after/{n}.{name}": p.synthesis.blocks["8"].conv0.weight for n, p in (("G", g), ("G_ema", average))}
    config = {"G": G, "D": D, "iters": 2, "cur_nimg": 5, "ema_kimg": 0.01, "ema_rampup": 0.5, "lr": 0.01}
    config |= {"betas": [0.0, 0.9], "r1_gamma": 0, "pl_weight": 0, "G_reg_interval": 2, "D_reg_interval": 8}
    kind = "training.training_loop (with training.loss.StyleGAN2Loss)"
    r.write("sg2-loop", kind, config, inputs=inputs, state=state, outputs=outputs)


# ---- StyleGAN3 -------------------------------------------------------------------------------------------------------


def stylegan3_files(r: Recorder) -> None:
    """Other sizes, rates and filters; a conditional generator, whose averages move or not."""
    r.source = "github.com/NVlabs/stylegan3 @ c233a91"
    x, b, fu, fd = r.normal(2, 3, 7, 9), r.normal(3), r.normal(6), r.normal(4, 4)
    arguments = {"up": 2, "down": 2, "padding": [4, 3, 5, 2], "gain": 0.9, "slope": 0.3, "clamp": 0.5}
    y = filtered_lrelu.plain(x, fu, fd, b, flip_filter=False, **arguments)
    outputs = {"a": y, "grad/x/a": gradient(weighted_sum(y), x), "grad/b/a": gradient(weighted_sum(y), b)}
    inputs, config = {"x": x, "b": b, "fu": fu, "fd": fd}, {"cases": {"a": {"fu": "fu", "fd": "fd", **arguments}}}
    r.write("ops-flrelu", "torch_utils.ops.filtered_lrelu", config, inputs=inputs, outputs=outputs)

    x, w, s, arguments = r.normal(2, 3, 6, 6), r.normal(4, 3, 3, 3), r.normal(2, 3), {"padding": 1}
    y = modulated_conv2d(x, w, s, **arguments)
    config, inputs = {"cases": {"plain": {"w": "w", **arguments}}}, {"x": x, "w": w, "s": s}
    kind = "training.networks_stylegan3.modulated_conv2d"
    r.write("ops-mod3", kind, config, inputs=inputs, outputs={"plain": y, "grad/s/plain": gradient(weighted_sum(y), s)})

    images = r.normal(1, 2, 9, 9)
    taps = torch.tensor([2 ** -((k / 0.5) ** 2) for k in (-1, 0, 1)])
    blur = {"sigma_0.5": resample.filter2d(images, taps / taps.sum())}
    kind = "training.loss.StyleGAN2Loss.run_D (blur only)"
    r.write("sg3-blur", kind, {"sigmas": [0.5]}, inputs={"img": images}, outputs=blur)

    ours = {"resolution": 16, "num_layers": 3, "num_critical": 1, "channel_base": 64, "channel_max": 5}
    ours |= {"margin_px": 3, "conv_kernel": 1, "radial_filters": True, "filter_size": 4, "output_scale": 0.5}
    g = r.filled(stylegan3.Generator(z_dim=5, w_dim=6, c_dim=2, channels=2, mapping_layers=1, **ours))
    for layer in g.synthesis.layers:
        layer.magnitude_ema.abs_()
    z, c = r.normal(4, 5), r.normal(4, 2)
    image = g(z, c, psi=0.6, cutoff=2)
    outputs = {"img": image, "ws": g.mapping(z, c, psi=0.6, cutoff=2), "grad/z": gradient(weighted_sum(image), z)}
    names = {"resolution": "img_resolution", "margin_px": "margin_size", "radial_filters": "use_radial_filters"}
    config = {names.get(name, name): value for name, value in ours.items()}
    config |= {"z_dim": 5, "w_dim": 6, "c_dim": 2, "img_channels": 2, "mapping_kwargs": {"num_layers": 1}}
    call, kind = {"kwargs": {"truncation_psi": 0.6, "truncation_cutoff": 2}}, "training.networks_stylegan3.Generator"
    shared = {"inputs": {"z": z, "c": c}, "state": stylegan3_state(g)}
    r.write("sg3-g", kind, config, outputs=outputs, call=call, **shared)


FAMILIES = (augmentation, operations, stylegan2_networks, stylegan2_loss, stylegan2_loop, stylegan3_files)
