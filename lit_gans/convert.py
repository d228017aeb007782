"""The verb that turns released weights into ours and back: `lit-gans convert ffhq.pkl folder`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
) -> Certificate:
    """Released weights `source` as a folder `target` of ours, or such a folder back as the release's file or files.

    A release is a .pkl file of StyleGAN2-ADA and its kin, or state dicts of pytorch-CycleGAN-and-pix2pix, pix2pixHD,
    genforce (PGGAN and StyleGAN) and BMSG-GAN: a .pth file, or a folder of `<epoch>_net_<network>.pth`.
    Ours is the folder of the (averaged) generator, for `lit_gans.runs.pretrained.from_pretrained`, with a folder in it
    for each of the other networks. What has no place in our networks is kept beside them, so that the way back gives
    every tensor. Nothing that is in the files is run.

    Args:
        epoch: of a folder of state dicts, which files are taken; on the way back, the epoch of those that are written.
        golden: a .safetensors file of recorded outputs of the official code, from the same weights: with `to` "ours",
            our networks are run on its inputs.
        num_labels: what the weights of a generator of label maps do not tell (pix2pixHD): how many classes its maps
            have. Kept in the folder's config.json.
        instances: such a generator takes the edges of instances too, in one more channel.

    Raises:
        ValueError, FileNotFoundError: files that are not what they should be, or weights of no network of ours.
    """
    from lit_gans.runs.conversion import to_official, to_ours

    source, target = Path(source), Path(target)
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
    return to_official(source, target, epoch)


# ---- the command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0, or 2 with a message on standard error for what the user can mend."""
    arguments = vars(_parser().parse_args(argv))
    try:
        certificate = convert(**arguments)
    except (ValueError, OSError) as error:
        if os.environ.get("LIT_GANS_TRACEBACK") == "1":
            raise
        print(f"lit-gans convert: {error}", file=sys.stderr)
        return 2
    print(certificate)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lit-gans convert",
        description="Released weights as a folder of ours, or that folder back as they were released; nothing in the "
        "files is run. Prints what was converted, with fingerprints.",
    )
    add = parser.add_argument
    add("source", help="a .pkl file of StyleGAN2-ADA and its kin, a .pth file of pix2pix, CycleGAN, pix2pixHD, PGGAN, "
        "StyleGAN or MSG-GAN, or a folder of files <epoch>_net_<network>.pth; with --to official, the folder of "
        "ours")  # fmt: skip
    add("target", help="the folder to write; with --to official, the .pkl or .pth file, or a folder for .pth files")
    add("--epoch", default="latest", help="of a folder of .pth files (default: %(default)s)")
    add("--to", default="ours", choices=["ours", "official"], help="the direction (default: %(default)s)")
    add("--golden", metavar="FILE", help="outputs that the official code gave for the same weights (.safetensors)")
    labels = "of a generator of label maps (pix2pixHD), which its weights do not tell: how many classes they have"
    add("--num-labels", "--num_labels", type=int, metavar="N", help=labels)
    add("--instances", action="store_true", help="that generator also takes the edges of instances")
    return parser


if __name__ == "__main__":
    sys.exit(main())
