"""StyleGAN-XL's networks against recorded values of autonomousvision/stylegan-xl."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_gans.metrics.extractors import IMAGENET_MEAN, IMAGENET_STD
from lit_gans.official import apply_keys, invert
from lit_gans.papers.projected_gan import MultiScale
from lit_gans.papers.stylegan3.networks import SynthesisLayer
from lit_gans.papers.stylegan_xl import (
    HEAD_KEYS,
    OFFICIAL,
    Classifier,
    Condition,
    Generator,
    StyleGANXL,
    from_official_config,
)
from lit_gans.papers.stylegan_xl.training import hinges
from tests.official.layout import stylegan3_state
from tests.parity.golden import (
    Golden,
    assert_close,
    cases,
    count_parameters,
    facts,
    published,
    translated,
    weighted_sum,
)

SOURCE = "autonomousvision/stylegan-xl"
STEM, SUPERRES = OFFICIAL[:2]
CALL = STEM.call
GENERATORS = cases("networks_stylegan3_resetting", SOURCE)
on = pytest.mark.parametrize


def loaded(golden: Golden) -> Generator:
    """With the official weights; strict both ways."""
    network = Generator(**from_official_config(golden.config))
    network.load_state_dict(apply_keys(golden.state, STEM.table(golden.state)))
    return network.eval()


@on("golden", GENERATORS)
def test_generator(golden: Golden) -> None:
    """Where averages are recorded after the call, each moves before it is used, as it does there."""
    network, leaves, call = loaded(golden), golden.leaves, dict(golden.call.get("kwargs", {}))
    moves, call = call.pop("update_emas", False), translated(call, CALL)
    z, c, keys = leaves["z"], leaves.get("c"), STEM.table(golden.state)
    if moves:
        network.mapping.track(network.mapping(z, c)[:, 0].detach(), c)
        decay = golden.config.get("stem", golden.config).get("magnitude_ema_beta", 0.999)
        for i, layer in enumerate(network.synthesis.layers.values()):
            own = 0.999 if 0 < network.synthesis.frozen <= i else decay
            layer.register_forward_pre_hook(
                lambda layer, given, decay=own: layer.track(given[0].detach().square().mean(), decay=decay)
            )
    truncation = {name: call[name] for name in ("psi", "cutoff") if name in call}
    found = {"img": network(z, c, **call), "ws": network.mapping(z, c, **truncation)}
    found |= golden.gradients(golden.scalar(found["img"]), leaves, network, keys=keys)
    golden.compare(found | golden.buffers(network, keys, prefix="after/"))


@on("golden", GENERATORS)
def test_names_go_both_ways(golden: Golden) -> None:
    """The filters, which the table drops, are those of the file."""
    network, keys = loaded(golden), STEM.table(golden.state)
    back = stylegan3_state(network)
    if "layer_names" in golden.call:
        assert list(dict.fromkeys(name.split(".")[1] for name in back if ".L" in name)) == golden.call["layer_names"]
    unused = {name: t for name, t in golden.state.items() if name == "mapping.embed.weight" and name not in back}
    assert back.keys() | unused.keys() == golden.state.keys()
    for name, tensor in golden.state.items():
        assert_close((back | unused)[name], tensor, 1e-6, name)
    dropped = {name: t for name, t in back.items() if name.endswith("_filter")} | unused
    again = invert(network.state_dict(), keys, official=golden.state, dropped=dropped)
    assert list(again) == list(golden.state)


# ---- discriminators and losses ---------------------------------------------------------------------------------------


def heads(config: dict[str, Any]) -> MultiScale:
    """Heads with a projection of classes, which they have from a table of their own."""
    count, rows, width = config["num_discs"], config["embedding"], config.get("cmap_dim", 64)
    return MultiScale(
        config["channels"][:count],
        nominal_px=config["resolutions"][:count],
        width=config.get("ndf"),
        patch=config.get("patch", False),
        condition=(lambda: Condition(rows[0], rows, out_dim=width)) if config.get("cond", 0) else None,
        condition_dim=width,
    )


@on("golden", cases("pg_modules.discriminator.MultiScaleD", SOURCE))
def test_discriminators(golden: Golden) -> None:
    leaves, found = golden.leaves, dict[str, Tensor]()
    levels = [leaves[f"feat{k}"] for k in range(sum(name.startswith("feat") for name in leaves))]
    for mode in ("eval", "train"):
        network = heads(golden.config)
        network.load_state_dict(apply_keys(golden.state, HEAD_KEYS, ours=network.state_dict()))
        logits = network.train(mode == "train")(levels, leaves.get("c"))
        found[f"logits_{mode}"] = logits
        found |= golden.gradients(weighted_sum(logits), leaves, network, keys=HEAD_KEYS, prefix=f"grad/{mode}/")
    golden.compare(found | golden.buffers(network, HEAD_KEYS, prefix="after/"))
    back = invert(network.state_dict(), HEAD_KEYS, official=golden.state, dropped={})
    assert list(back) == list(golden.state)


class Linear(nn.Module):
    """Stands in for a network: images -> logits of each of some weights, after the change of `before`."""

    def __init__(self, *weights: Tensor, before: Any = None) -> None:
        super().__init__()
        self.weights, self.before = weights, before or nn.Identity()

    def forward(self, images: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        return [self.before(images).flatten(1) @ weight for weight in self.weights]


@on("golden", cases("training.loss.ProjectedGANLoss", SOURCE))
def test_losses(golden: Golden) -> None:
    """Sums over samples and backbones, beside the mean over samples of the guidance."""
    leaves, config = golden.leaves, golden.config
    fake, real, c = leaves["fake_img"], leaves["real_img"], leaves["c"].argmax(1)
    judges = [leaves[name] for name in sorted(leaves) if name.startswith("w_backbone")]
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
    classifier = Linear(leaves["w_classifier"], before=lambda images: ((images + 1) / 2 - mean) / std)
    classifier.forward = lambda images, forward=classifier.forward: forward(images)[0]
    gan = StyleGANXL(
        num_layers=3, channel_base=16, channel_max=1, num_classes=leaves["c"].shape[1], features=(),
        classifier=classifier, guidance_weight=config["cls_weight"], blur_kimg=config["blur_fade_kimg"],
    )  # fmt: skip
    gan.images_seen, gan.discriminator = config["cur_nimg"], Linear(*judges)
    fake_logits, real_logits = gan.discriminator(gan.seen(fake)), gan.discriminator(gan.seen(real))
    (d_loss, _), (_, g_loss) = hinges(real_logits, fake_logits), hinges(fake_logits, fake_logits)
    guidance = gan.guidance(fake, c)
    losses = {"Dmain": len(fake) * d_loss, "Gmain": len(fake) * g_loss + guidance}
    found = {f"{phase}/loss": loss for phase, loss in losses.items()}
    found |= {"Gmain/guidance_loss": guidance / config["cls_weight"]} if config["cls_weight"] else {}
    for phase, loss in losses.items():
        found |= golden.gradients(loss, leaves, prefix=f"grad/{phase}/")
    golden.compare(found)


# ---- numbers ---------------------------------------------------------------------------------------------------------

HEADS = [[32, 7], [64, 7], [128, 7], [256, 7], [512, 7], [1024, 5]]


def specification(network: Generator) -> list[dict[str, Any]]:
    """Of the layers, as the official code has it."""
    synthesis, found = network.synthesis, []
    ends = zip([synthesis.signals[0], *synthesis.signals[:-1]], synthesis.signals, strict=True)
    for (name, layer), (before, after) in zip(synthesis.layers.items(), ends, strict=True):
        spec: dict[str, Any] = {"name": f"L{name}_{after.size}_{after.channels}"}
        for end, signal in {"in": before, "out": after}.items():
            numbers = ("size", "channels", "sampling_rate", "cutoff", "half_width")
            spec |= {f"{end}_{number}": getattr(signal, number) for number in numbers}
        filtered = isinstance(layer, SynthesisLayer)
        spec |= {"up_factor": layer.up if filtered else 1, "down_factor": layer.down if filtered else 1}
        spec |= {"padding": [*layer.padding] if filtered else [0] * 4, "is_critically_sampled": after.critical}
        found.append(spec)
    return found


@on("case", published("param_counts.json", "stylegan-xl_imagenet"))
def test_parameter_counts_and_layers(case: tuple[str, dict[str, Any]]) -> None:
    name, expected = case
    resolution = int(name.split("_")[1].removeprefix("imagenet"))
    with torch.device("meta"):
        network = Generator(c_dim=1000, heads=[head for head in HEADS if head[0] <= resolution])
    embedding = network.mapping.embed.weight.numel()
    found: dict[str, Any] = {"generator": count_parameters(network), "mapping": count_parameters(network.mapping)}
    found |= {"synthesis": count_parameters(network.synthesis), "num_ws": network.mapping.num_ws}
    found |= {"mapping_without_embedding_table": found["mapping"] - embedding}
    found |= {"trainable_head": sum(p.numel() for p in network.trained())} if resolution > 16 else {}
    layers = expected["layers"]
    expected = {key: value for key, value in expected.items() if key != "layers"}
    assert found == expected
    for ours, theirs in zip(specification(network), layers, strict=True):
        assert ours == {key: pytest.approx(v, rel=1e-12) if type(v) is float else v for key, v in theirs.items()}


@on("case", published("param_counts.json", "stylegan-xl_multiscaled"))
def test_counts_of_discriminators(case: tuple[str, dict[str, Any]]) -> None:
    config = {"channels": [64, 64, 128, 256], "resolutions": [128, 64, 32, 16], "num_discs": 4, "cond": 1}
    with torch.device("meta"):
        network = heads(config | {"embedding": [int(case[0].split("cond")[1].split("_")[0]), 320]})
    count, tables = count_parameters(network), sum(head.condition.embed.weight.numel() for head in network.heads)
    assert [count, count - tables] == [case[1]["discriminator"], case[1]["without_embedding_tables"]]


def test_defaults_are_as_published() -> None:
    expected, gan = facts("stylegan-training-formulas.json")["stylegan_xl"], inspect.signature(StyleGANXL).parameters
    names = {
        "map_layers": "mapping_layers", "G_lr": "lr_g", "D_lr": "lr_d", "G_reg_interval": "pl_interval",
        "D_reg_interval": "lazy_interval", "blur_init_sigma": "blur_sigma", "blur_fade_kimg": "blur_kimg",
        "pl_weight_stem": "pl_weight", "syn_layers_stem_16": "num_layers", "margin": "margin_px",
        **{name: name for name in ("w_dim", "z_dim", "channel_base", "channel_max")},
    }  # fmt: skip
    for theirs, ours in names.items():
        assert gan[ours].default == expected[theirs], ours
    assert [*gan["betas"].default] == expected["betas"] and 1000 * gan["pl_from_kimg"].default == expected[
        "pl_starts_at_nimg"
    ]
    assert inspect.signature(Classifier).parameters["name"].default in expected["cls_model"]
