"""The verb that turns released weights into ours and back: `lit-gans convert ffhq.pkl folder`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lit_gans.base.command import run_verb

if TYPE_CHECKING:
    from lit_gans.runs.conversion import Certificate


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Literal["ours", "official"] = "ours",
    epoch: str = "latest",
    golden: str | Path | None = None,
    num_labels: int | None = None,
    instances: bool = False,
) -> "Certificate":
    """Released weights as a folder of ours, such a folder back as the release's file or files, or an own model as one.

    Ours is the folder of the (averaged) generator, for `lit_gans.runs.pretrained.from_pretrained`, with a folder in it
    for each of the other networks. What has no place in our networks is kept beside them, so that the way back gives
    every tensor. Nothing that is in the files is run. What is printed tells what was converted, with fingerprints.

    Args:
        source: a .pkl file of stylegan2-ada-pytorch, stylegan3, projected-gan (FastGAN's generator or StyleGAN2's, and
            the discriminator), stylegan-xl, stylegan-t or R3GAN, or state dicts of pytorch-CycleGAN-and-pix2pix,
            pix2pixHD, genforce (PGGAN and StyleGAN), BMSG-GAN, BigGAN-PyTorch and pytorch-pretrained-BigGAN: a .pth,
            .pt or .bin file, or a folder of `<epoch>_net_<network>.pth`; on the way back, the folder of ours; or an own
            run, checkpoint or folder of StyleGAN2, which becomes a pickle in the format of stylegan2-ada-pytorch and
            stylegan3, with source of ours for their loader.
        target: the folder to write; on the way back, the .pkl or .pth file, or a folder for .pth files.
        to: the direction.
        epoch: of a folder of state dicts, which files are taken; on the way back, the epoch of those that are written.
        golden: a .safetensors file of recorded outputs of the official code, from the same weights: our networks are
            run on its inputs, on the way to ours.
        num_labels: what the weights of a generator of label maps do not tell (pix2pixHD): how many classes its maps
            have. Kept in the folder's config.json.
        instances: such a generator takes the edges of instances too, in one more channel.

    Raises:
        ValueError, FileNotFoundError: files that are not what they should be, or weights of no network of ours.
    """
    from lit_gans.runs.conversion import KEPT, export, to_official, to_ours
    from lit_gans.runs.folder import check_output
    from lit_gans.runs.load import load_run

    source, target = Path(source), Path(target)
    check_output(target)
    if instances and num_labels is None:
        raise ValueError("instances are of label maps: say of how many labels with num_labels, or leave them out")
    told = {} if num_labels is None else {"num_labels": num_labels, "instances": instances}
    if to == "ours":
        return to_ours(source, target, epoch, golden, told)
    if to != "official":
        raise ValueError(f"to is {to!r}: give 'ours' or 'official'")
    if golden is not None:
        raise ValueError("recorded outputs are compared on the way to ours: leave golden out")
    if told:
        raise ValueError("labels are told on the way to ours: leave num_labels out")
    if (source / KEPT).is_file() or not source.exists():
        return to_official(source, target, epoch)
    return export(load_run(source), source, target)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    return run_verb(convert, argv)


if __name__ == "__main__":
    sys.exit(main())
