"""State dicts of pytorch-CycleGAN-and-pix2pix, pix2pixHD, genforce and BMSG-GAN: names and tensors, and nothing else.

What a network was built from is not in such a file; it follows from the names and shapes. The files of one training of
the first two lie in one folder as `<epoch>_net_<network>.pth`; genforce has the networks of one model in one file.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_gans.base.files import replacing
from lit_gans.official import grown
from lit_gans.official.grown import IN_ONE_FILE
from lit_gans.official.names import Table, apply_keys
from lit_gans.official.pickles import OfficialFile, OfficialNetwork

if TYPE_CHECKING:
    from torch import nn

ENDINGS = (".pth", ".pt")
FILE_NAME = re.compile(r"(?P<epoch>\w+)_net_(?P<network>[A-Z](?:_[A-Z])?)\.pth")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

State = Mapping[str, Tensor]
Config = dict[str, Any]


@dataclass(frozen=True)
class Counterpart:
    """Our class for an official one: where it is, official arguments to ours, and the paper's table of names.

    Official arguments in `without` say nothing that ours would not find by itself.
    """

    module: str
    name: str
    arguments: Mapping[str, str]
    keys: str = "OFFICIAL_KEYS"
    without: tuple[str, ...] = field(default=())


_PORT = {"resolution": "resolution", "image_channels": "channels", "fmaps_base": "channel_base",
         "fmaps_max": "channel_max", "fused_scale": "fused_scale"}  # fmt: skip
_GROUPS = {"label_size": "num_classes", "minibatch_std_group_size": "mbstd_group_size"}
_STYLES = {"z_space_dim": "z_dim", "w_space_dim": "w_dim", "mapping_layers": "num_layers",
           "mapping_fmaps": "hidden_dim", "label_size": "num_classes"}  # fmt: skip
_PIX2PIX, _CYCLEGAN, _HD = (f"lit_gans.papers.{paper}" for paper in ("pix2pix", "cyclegan", "pix2pixhd"))
_PGGAN, _STYLEGAN, _MSG = (f"lit_gans.papers.{paper}" for paper in ("pggan", "stylegan1", "msg_gan"))
_IMAGES = {"input_nc": "in_channels", "output_nc": "out_channels", "ngf": "width", "norm": "norm"}
_JUDGED = {"input_nc": "channels", "ndf": "width", "norm": "norm"}
_HALVED = {"n_downsample_global": "downsamplings", "n_blocks_global": "blocks"}
COUNTERPARTS = {
    "UnetGenerator": Counterpart(
        _PIX2PIX, "UNet", {**_IMAGES, "num_downs": "levels", "use_dropout": "dropout"}
    ),
    "ResnetGenerator": Counterpart(
        _CYCLEGAN,
        "ResNet",
        {**_IMAGES, "n_blocks": "blocks", "padding_type": "padding", "use_dropout": "dropout"},
        keys="RESNET_KEYS",
    ),
    "NLayerDiscriminator": Counterpart(_PIX2PIX, "PatchGAN", {**_JUDGED, "n_layers": "layers"}),
    "PixelDiscriminator": Counterpart(_PIX2PIX, "PixelGAN", _JUDGED),
    "GlobalGenerator": Counterpart(
        _HD, "GlobalGenerator", {**_IMAGES, "n_downsampling": "downsamplings", "n_blocks": "blocks"}
    ),
    "LocalEnhancer": Counterpart(
        _HD,
        "LocalEnhancer",
        {**_IMAGES, **_HALVED, "n_local_enhancers": "enhancers", "n_blocks_local": "local_blocks"},
    ),
    "MultiscaleDiscriminator": Counterpart(
        _HD, "MultiscaleDiscriminator", {**_JUDGED, "n_layers": "layers", "num_D": "scales"}, without=("getIntermFeat",)
    ),
    "Encoder": Counterpart(
        _HD,
        "Encoder",
        {"input_nc": "channels", "output_nc": "features", "ngf": "width", "norm": "norm",
         "n_downsampling": "downsamplings"},
    ),
    "PGGANGenerator": Counterpart(_PGGAN, "Generator", {**_PORT, "z_space_dim": "z_dim"}),
    "PGGANDiscriminator": Counterpart(_PGGAN, "Discriminator", {**_PORT, **_GROUPS}),
    "StyleGANGenerator": Counterpart(_STYLEGAN, "Generator", {**_PORT, **_STYLES}),
    "StyleGANDiscriminator": Counterpart(
        _STYLEGAN, "Discriminator", {**_PORT, **_GROUPS, "minibatch_std_channels": "mbstd_channels"}
    ),
    "MSGGenerator": Counterpart(
        _MSG, "Generator", {"resolution": "resolution", "image_channels": "channels", "latent_size": "z_dim",
                            "width": "width", "use_eql": "equalized"}
    ),
    "MSGDiscriminator": Counterpart(
        _MSG, "Discriminator", {"resolution": "resolution", "image_channels": "channels", "feature_size": "width",
                                "use_eql": "equalized"}
    ),
}  # fmt: skip


# ---- files -----------------------------------------------------------------------------------------------------------


def are_state_dicts(source: str | Path) -> bool:
    """Whether `source` is a .pth or .pt file, or a folder with files `<epoch>_net_<network>.pth`."""
    source = Path(source)
    if source.is_dir():
        return any(FILE_NAME.fullmatch(path.name) for path in source.glob("*_net_*.pth"))
    return source.suffix in ENDINGS


def read_state_dicts(source: str | Path, *, epoch: str = "latest") -> OfficialFile:
    """The networks of one file, or of a folder's files `<epoch>_net_<network>.pth`, by name: "G", "D_A", ...

    A file of another name is called "G", "D" or "E" after its class; one of genforce has "G", "D" and "G_ema". Each
    network comes with its official class and arguments, as far as weights tell (see `official_config`). Nothing in the
    files is run.
    FileNotFoundError where there is none; ValueError for what is no such file, or of no class that is known.
    """
    source, networks, total = Path(source), {}, hashlib.sha256()
    for path in state_dict_files(source, epoch):
        match = FILE_NAME.fullmatch(path.name)
        for part, state in read_named_states(path).items():
            try:
                network = official_network(state)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            named = match["network"] if match else _letter(network.class_name)
            networks[IN_ONE_FILE.get(part, named)] = network
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return OfficialFile(total.hexdigest(), networks, {})


def state_dict_files(source: Path, epoch: str) -> list[Path]:
    """The file itself, or of a training's folder those of this epoch. FileNotFoundError where there are none."""
    if not source.is_dir():
        return [source]
    found = {path: match for path in sorted(source.glob("*.pth")) if (match := FILE_NAME.fullmatch(path.name))}
    chosen = [path for path, match in found.items() if match["epoch"] == epoch]
    if not chosen:
        epochs = ", ".join(sorted({match["epoch"] for match in found.values()})) or "none"
        raise FileNotFoundError(f"{source} has no {epoch}_net_*.pth; its epochs are: {epochs}")
    return chosen


def _letter(class_name: str) -> str:
    return "D" if class_name.endswith("Discriminator") else "E" if class_name == "Encoder" else "G"


def read_named_states(path: Path) -> dict[str, dict[str, Tensor]]:
    """{"": the state dict} of a file with one, or those of genforce's networks by their names in the file."""
    from lit_gans.base.checkpoints import read_pth

    content = read_pth(path) if path.is_file() else None
    if not isinstance(content, dict) or not content or not set(content) <= {*IN_ONE_FILE}:
        return {"": read_state_dict(path)}
    for name, state in content.items():
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError(f"{path}: {name!r} holds {type(state).__name__}, expected names and tensors alone")
    return {name: {k: t.float() if t.is_floating_point() else t for k, t in s.items()} for name, s in content.items()}


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The names and tensors of a .pth file, read without running anything in it; floats as float32.

    A common first part "module." (of a network saved from within a parallel one) is taken away, and the counters of
    batch norms, which PyTorch did not write before 0.4.1, are added as 0.
    FileNotFoundError where there is none; ValueError where it holds anything but named tensors.
    """
    from lit_gans.base.checkpoints import read_weights

    state = read_weights(Path(path))
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        whole[name] = tensor
        norm, _, own = name.rpartition(".")
        counter = f"{norm}.num_batches_tracked"
        if own == "running_var" and f"{norm}.weight" in state and counter not in state:
            whole[counter] = torch.tensor(0)
    return whole


def write_state_dict(path: str | Path, state: State) -> Path:
    """The file as the official code loads it, written beside and renamed."""
    with replacing(path) as unfinished:
        torch.save(_plain(state), unfinished)
    return Path(path)


def write_named_states(path: str | Path, states: Mapping[str, State]) -> Path:
    """Networks "G", "D" and "G_ema" in one file, as genforce has them."""
    theirs = {ours: name for name, ours in IN_ONE_FILE.items()}
    with replacing(path) as unfinished:
        torch.save({theirs[name]: _plain(state) for name, state in states.items()}, unfinished)
    return Path(path)


def _plain(state: State) -> OrderedDict[str, Tensor]:
    return OrderedDict((name, tensor.detach().cpu().clone()) for name, tensor in state.items())


# ---- ours ------------------------------------------------------------------------------------------------------------


def official_network(state: State, *, dropout: bool | None = None) -> OfficialNetwork:
    """The network that the tensors are of. ValueError for those of no class of the two repositories.

    dropout: of a U-Net, whose weights do not tell; None as its repository trains it: on in pix2pix, off in CycleGAN.
    """
    class_name, config = official_config(state)
    if class_name == "UnetGenerator":
        config["use_dropout"] = config["norm"] == "batch" if dropout is None else dropout
    buffers = frozenset(name for name in state if name.endswith(STATISTICS))
    return OfficialNetwork(class_name, (), config, dict(state), buffers, {}, "")


def official_keys(class_name: str, names: Collection[str]) -> Table:
    """Official names -> ours, of a network of this class with these names; what only old files have is dropped."""
    ours = COUNTERPARTS[class_name]
    table = getattr(import_module(ours.module), ours.keys)
    return {**{re.escape(name): None for name in stale_statistics(names)}, **table}


def build_ours(network: OfficialNetwork, name: str = "") -> tuple[nn.Module, dict[str, Any]]:
    """Our network with the official weights, for evaluation, and the arguments that it was built with.

    `name` is what messages call it. ValueError for weights that do not fit.
    """
    ours = COUNTERPARTS[network.class_name]
    given = {own: network.init_kwargs[name] for name, own in ours.arguments.items()}
    if given.get("mbstd_group_size") == 0:  # the port's way to have none
        given |= {"mbstd_group_size": 1, "mbstd_channels": 0}
    assert network.init_kwargs.keys() == {*ours.arguments, *ours.without}, network.init_kwargs
    model = getattr(import_module(ours.module), ours.name)(**given)
    table = official_keys(network.class_name, network.state)
    try:
        state = apply_keys(network.state, table, ours=model.state_dict())
    except ValueError as error:
        raise ValueError(f"{name or 'a network'}, a {network.class_name}: {error}") from error
    model.load_state_dict(state)
    return model.eval().requires_grad_(False), given


def stale_statistics(names: Collection[str]) -> list[str]:
    """Names of statistics that instance norms kept in old files: nobody reads them, and these norms have no weight."""
    return [name for name in names if name.endswith(STATISTICS) and f"{name.rpartition('.')[0]}.weight" not in names]


# ---- what a network was built from -----------------------------------------------------------------------------------


def official_config(state: State) -> tuple[str, Config]:
    """(official class, its arguments under the official names) of a state dict, from names and shapes alone.

    Not told by weights, and therefore not in it: the dropout of a U-Net. A padding that could be "reflect" or
    "replicate" is taken for "reflect", as in all that was published; pix2pixHD's global generator with two halvings is
    CycleGAN's ResNet, and is called so.
    A padding, groups of a minibatch, and what is fused are as published where nothing tells. ValueError for names of no
    class that is known.
    """
    readers: dict[str, tuple[str, Callable[[State], tuple[str, Config]]]] = {
        "synthesis.layer0.const": ("StyleGANGenerator", grown.stylegan_generator),
        "output0.weight": ("PGGANGenerator", grown.pggan_generator),
        "input0.weight": ("PGGANDiscriminator", grown.discriminator),
        "rgb_converters.0.weight": ("MSGGenerator", grown.msg_generator),
        "rgb_to_features.0.weight": ("MSGDiscriminator", grown.msg_discriminator),
        "model1_1.1.weight": ("LocalEnhancer", _local_enhancer),
        "model.model.0.weight": ("UnetGenerator", _unet),
        "scale0_layer0.0.weight": ("MultiscaleDiscriminator", _multiscale),
        "layer0.0.weight": ("MultiscaleDiscriminator", _multiscale_in_a_row),
        "net.0.weight": ("PixelDiscriminator", _pixel),
        "model.0.weight": ("NLayerDiscriminator", _patch),
        "model.1.weight": ("ResnetGenerator", _resnet),
    }
    for name, (class_name, read) in readers.items():
        if name in state:
            try:
                return read(state)
            except LookupError as error:
                raise ValueError(f"it begins like a {class_name}, and lacks tensors of one ({error})") from error
    first = ", ".join(list(state)[:3]) or "none"
    raise ValueError(
        f"its names ({first}, ...) are of no network of pytorch-CycleGAN-and-pix2pix, pix2pixHD, genforce or BMSG-GAN, "
        f"each of which has one of {', '.join(readers)}"
    )


def _norm(state: State, conv: str, norm: str) -> str:
    """A convolution has a bias only before an instance norm, which has no weight (pix2pix and CycleGAN)."""
    if f"{norm}.weight" in state:
        return "batch"
    return "instance" if f"{conv}.bias" in state else "none"


def _hd_norm(state: State, norm: str) -> str:
    """pix2pixHD has batch or instance norm, and biases before both."""
    return "batch" if f"{norm}.weight" in state else "instance"


def _convs(state: State, prefix: str = "model.") -> list[tuple[int, torch.Size]]:
    """(number, shape) of the convolutions directly below `prefix`, in order."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.weight")
    found = [(int(match[1]), state[name].shape) for name in state if (match := pattern.fullmatch(name))]
    return sorted((number, shape) for number, shape in found if len(shape) == 4)


def _halvings(convs: list[tuple[int, torch.Size]]) -> int:
    """There are as many doublings, and both have kernels of 3 pixels, as no other convolution outside of blocks."""
    return sum(shape[-1] == 3 for _, shape in convs) // 2


def _blocks(state: State, prefix: str = "model.") -> list[list[int]]:
    """For each residual block below `prefix` the numbers of the convolutions in it."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.conv_block\.(\d+)\.weight")
    found: dict[int, list[int]] = {}
    for name, tensor in state.items():
        if (match := pattern.fullmatch(name)) and tensor.ndim == 4:
            found.setdefault(int(match[1]), []).append(int(match[2]))
    return [sorted(convs) for _, convs in sorted(found.items())]


def _unet(state: State) -> tuple[str, Config]:
    at, levels = "model.model.1.model.", 1
    while f"{at}1.weight" in state:
        at, levels = f"{at}3.model.", levels + 1
    first, last = state["model.model.0.weight"].shape, state["model.model.3.weight"].shape
    norm = _norm(state, "model.model.1.model.1", "model.model.1.model.2")
    config = {"input_nc": first[1], "output_nc": last[1], "num_downs": levels, "ngf": first[0]}
    return "UnetGenerator", {**config, "norm": norm}


def _patch(state: State) -> tuple[str, Config]:
    convs = _convs(state)
    second = convs[1][0]
    config = {"input_nc": convs[0][1][1], "ndf": convs[0][1][0], "n_layers": len(convs) - 2}
    return "NLayerDiscriminator", {**config, "norm": _norm(state, f"model.{second}", f"model.{second + 1}")}


def _pixel(state: State) -> tuple[str, Config]:
    ndf, input_nc = state["net.0.weight"].shape[:2]
    return "PixelDiscriminator", {"input_nc": input_nc, "ndf": ndf, "norm": _norm(state, "net.2", "net.3")}


def _resnet(state: State) -> tuple[str, Config]:
    """A ResnetGenerator (two halvings), a GlobalGenerator (another number), or an Encoder (no block)."""
    convs, blocks = _convs(state), _blocks(state)
    ngf, input_nc = convs[0][1][:2]
    halvings = _halvings(convs)
    config = {"input_nc": input_nc, "output_nc": convs[-1][1][0], "ngf": ngf}
    if not blocks:
        return "Encoder", {**config, "n_downsampling": halvings, "norm": _hd_norm(state, "model.2")}
    config["n_blocks"] = len(blocks)
    if halvings != 2:
        return "GlobalGenerator", {**config, "n_downsampling": halvings, "norm": _hd_norm(state, "model.2")}
    first, second = blocks[0]
    config["padding_type"] = "zero" if first == 0 else "reflect"
    config["use_dropout"] = second > (3 if first == 0 else 5)  # one more layer lies between the convolutions
    return "ResnetGenerator", {**config, "norm": _norm(state, "model.1", "model.2")}


def _local_enhancer(state: State) -> tuple[str, Config]:
    enhancers = max(int(m[1]) for name in state if (m := re.fullmatch(r"model(\d+)_1\.1\.weight", name)))
    ngf, input_nc = state[f"model{enhancers}_1.1.weight"].shape[:2]  # the finest has the highest number
    output_nc = _convs(state, f"model{enhancers}_2.")[-1][1][0]
    config = {"input_nc": input_nc, "output_nc": output_nc, "ngf": ngf, "n_local_enhancers": enhancers}
    blocks = {"n_blocks_global": len(_blocks(state)), "n_blocks_local": len(_blocks(state, "model1_2."))}
    halvings = {"n_downsample_global": _halvings(_convs(state))}
    return "LocalEnhancer", {**config, **blocks, **halvings, "norm": _hd_norm(state, "model.2")}


def _multiscale(state: State) -> tuple[str, Config]:
    found = [re.fullmatch(r"scale(\d+)_layer(\d+)\.0\.weight", name) for name in state]
    scales, layers = ({int(match[part]) for match in found if match} for part in (1, 2))
    ndf, input_nc = state["scale0_layer0.0.weight"].shape[:2]
    config = {"input_nc": input_nc, "ndf": ndf, "n_layers": len(layers) - 2, "num_D": len(scales)}
    return "MultiscaleDiscriminator", {**config, "getIntermFeat": True, "norm": _hd_norm(state, "scale0_layer1.1")}


def _multiscale_in_a_row(state: State) -> tuple[str, Config]:
    """Without intermediate features the layers of a scale are numbered through."""
    scales = {match[1] for name in state if (match := re.fullmatch(r"layer(\d+)\.0\.weight", name))}
    convs = _convs(state, "layer0.")
    ndf, input_nc = convs[0][1][:2]
    config = {"input_nc": input_nc, "ndf": ndf, "n_layers": len(convs) - 2, "num_D": len(scales)}
    return "MultiscaleDiscriminator", {**config, "getIntermFeat": False, "norm": _hd_norm(state, "layer0.3")}
