"""Stands in for the commands of a page, as `python -m tests.readme.short NAME ARGUMENTS`.

Training takes a few images, on this machine in the place of several; no weights are downloaded.
"""

import socket
import subprocess
import sys
from importlib import import_module

from lit_gans import cli
from lit_gans.base.command import parsed

DONE_ELSEWHERE = ("docker", "make", "pip", "wandb")
READ = ("sweep", "dashboard", "studio", "modes")  # verbs that have tests of their own
NAMES = ("lit-gans", "python", "srun", "torchrun", *DONE_ELSEWHERE)
ONE = {"--trainer.devices=8": "--trainer.devices=1", "--nproc-per-node=8": "--nproc-per-node=1"}
ONLY_TOLD = ("--print_config", "--help", "--model.help", "--data.help")
FIT = ("--model.init_args.total_kimg=0.064", "--evaluate.every_kimg=0", "--logger=none", "--trainer.accelerator=cpu")
TINY = {"init_from": (), "stylegan2": ("--model.init_args.channel_max=4", "--image_grid.columns=2"),
        "stylegan3": ("--model.init_args.channel_max=4", "--image_grid.columns=2"),
        "celeba64": ("--model.init_args.width=4", "--data.init_args.batch_size=16")}  # fmt: skip


def lit_gans(verb: str, *argv: str) -> int:
    """The verb, with less to do; stages are read alone."""
    if "--stages" in argv:
        return max(cli.main([verb, "--config", word, "--print_config"]) for word in argv if word.endswith(".yaml"))
    if verb in READ:
        return int(parsed(getattr(import_module(f"lit_gans.{verb}"), verb), argv) is None)
    words = [ONE.get(word, word) for word in argv]
    if verb == "fit" and not set(argv) & set(ONLY_TOLD):
        words += ("--model.init_args.total_kimg=0.128", *FIT[1:]) if "--ckpt_path=last" in argv else FIT
        words += next((tiny for name, tiny in TINY.items() if name in " ".join(argv)), TINY["celeba64"][:1])
    if verb == "evaluate":
        words = ["2" if word == "8" else "digits" if word == "inception" else word for word in words]
        words += [] if "psnr" in words else ["--extractor", "digits"]
        words += ["--num_images", "20"] if words[0].startswith("runs/") else []
    if verb == "truncation":
        words += ["--extractor", "digits", "--num_images", "20"]
    if verb == "encode":
        words += ["--steps", "2"]
    if verb == "restyle":
        words += ["--effect_images", "1", "--samples", "16", *(["--steps", "2"] if "2000" not in words else [])]
        words = ["2" if word == "2000" else word for word in words]
    return cli.main([verb, *words])


def srun(python: str, dash_m: str, module: str, *argv: str) -> int:
    """One task of one machine."""
    return lit_gans(module.rpartition(".")[2], *(word for word in argv if "num_nodes" not in word))


def torchrun(*argv: str) -> int:
    """On as many machines as it names, all of them this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    at = {"--master-addr=10.0.0.1": "--master-addr=127.0.0.1", "--master-port=29500": f"--master-port={port}"}
    words = [{**ONE, **at}.get(word, word) for word in argv]
    where = words.index("-m")
    module = ["-m", "tests.readme.short", "lit-gans", words[where + 1].rpartition(".")[2]]
    words[where : where + 2] = module
    ranks = range(2 if "--nnodes=2" in words else 1)
    commands = [[w.replace("--node-rank=0", f"--node-rank={rank}") for w in words] for rank in ranks]
    started = [subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *command]) for command in commands]
    return max([process.wait() for process in started])


def main(name: str, *argv: str) -> int:
    if name in DONE_ELSEWHERE:
        return 0
    if name == "python":
        return subprocess.run([sys.executable, *argv]).returncode
    return {"lit-gans": lit_gans, "srun": srun, "torchrun": torchrun}[name](*argv)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
