"""Models as folders in the convention of model hubs: `model.safetensors`, `config.json`, and the card `README.md`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lit_gans import __version__
from lit_gans.adversarial.capabilities import Kept, Named, can
from lit_gans.augment.image_pool import pool_buffers
from lit_gans.base.files import replacing
from lit_gans.runs.classes import OURS, check_loss, trusted_class

if TYPE_CHECKING:
    from lit_gans.metrics import Evaluation

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    arguments: Mapping[str, Any] | None = None,
    told: Mapping[str, Any] | None = None,
    evaluations: Sequence[Evaluation] = (),
    notes: str = "",
) -> Path:
    """The folder, with a model that `from_pretrained` builds again to the last bit.

    A training class is saved with all its networks, so that it samples and trains on; a network alone, such as
    `gan.generator_ema`, needs the `arguments` that it was built with. A class of another package than lit_gans is
    loaded by who trusts it; see `from_pretrained`.

    Args:
        arguments: of the constructor, plain values; by default those that a training class keeps.
        told: of a generator alone, what its weights do not say of its input: what `from_generator` of its training
            class takes beside it, such as num_labels.
        evaluations: measured numbers for the card, each with its protocol.
        notes: Markdown for the card: data, licence, limits.

    Raises:
        ValueError: a class that cannot be imported, arguments that are not plain, or that build something else.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if (folder / CARD).exists() and not (folder / CONFIG).exists():
        raise ValueError(f"{folder} has a {CARD} of something else, which would be overwritten: give another folder")
    config = _config(model, arguments) | ({"input": dict(told)} if told else {})
    rebuilt = _built(type(model), config)
    # What training alone uses and the arguments leave out, such as an augmentation, stays behind.
    left = {f"{name}." for name, _ in model.named_children()} - {f"{name}." for name, _ in rebuilt.named_children()}
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(tuple(left))
    }
    state |= {name: rebuilt.state_dict()[name] for name in pool_buffers(rebuilt)}  # empty: training's history
    _check_same(state, rebuilt)
    with replacing(folder / WEIGHTS) as unfinished:
        save_file(state, unfinished, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config, state, evaluations=evaluations, notes=notes), encoding="utf-8")
    return folder


def from_pretrained(source: str | Path, *, revision: str | None = None, trust: str | None = None) -> nn.Module:
    """The model of a folder, or of a repository "owner/name" of the Hugging Face Hub; on the CPU, for evaluation.

    A folder that exists comes first. Nothing in it is run: only classes of lit_gans and of installed packages of papers
    are built, and of the package `trust`, if you name one, from plain arguments; and only tensors are read. revision:
    branch, tag or commit of the repository.

    Raises:
        FileNotFoundError: no such folder, or a file is missing. ValueError: what is in the files is not ours, or is
        damaged; or the hub is asked for without the extra `hub`.
    """
    folder = local_folder(source, revision)
    config = read_config(folder)
    check_loss(config["arguments"], trust=trust)
    model = _built(trusted_class(config["class_path"], nn.Module, trust=trust), config)
    state = read_tensors(folder / WEIGHTS)
    _check_same(state, model)
    model.load_state_dict(state)
    if can(model, Kept):
        model.images_seen = config["images_seen"]
    if can(model, Named) and isinstance(config.get("class_names"), list):
        model.class_names = tuple(map(str, config["class_names"]))
    return model.eval().requires_grad_(False)


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """The address of the hub's repository "owner/name", made if it is not there, after the upload of the folder."""
    folder = Path(folder)
    if missing := [name for name in (WEIGHTS, CONFIG, CARD) if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}: write it with save_pretrained first")
    if not REPOSITORY.fullmatch(repo_id):
        raise ValueError(f"repo_id {repo_id!r} is not of the form owner/name")
    hub = _hub()
    message = f"Upload a {read_config(folder)['class_path'].rpartition('.')[2]} of lit_gans"
    try:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=message)
    except Exception as error:
        # Which library of connections the hub's uses depends on its version: so they are told by name.
        theirs = type(error).__module__.startswith(("huggingface_hub", "httpx", "requests"))
        if not (theirs or isinstance(error, OSError)):
            raise
        raise ConnectionError(
            f"{repo_id} could not be written to ({(str(error) or type(error).__name__).splitlines()[0]}): it needs the "
            "network and a token that may write there, by `hf auth login` or in HF_TOKEN"
        ) from error
    return f"https://huggingface.co/{repo_id}"


# ---- files -----------------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, checked.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is not ours.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: is {folder} a folder of save_pretrained?")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    kinds = {"class_path": str, "arguments": dict, "lit_gans": str, "images_seen": int}
    found = config if isinstance(config, dict) else {}
    wrong = [key for key, kind in kinds.items() if not isinstance(found.get(key), kind)]
    if wrong:
        raise ValueError(f"{path} was not written by lit_gans: it has no {', '.join(wrong)} of the right type")
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; other formats than safetensors can hold code and are not read")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is damaged: {error}") from error


def local_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder itself, or of a repository of the hub its files here.

    Raises:
        FileNotFoundError, ConnectionError: there is no such folder, or the hub cannot be reached.
    """
    if Path(source).is_dir():
        return Path(source)
    if not isinstance(source, str) or not REPOSITORY.fullmatch(source):
        raise FileNotFoundError(f"{source} is neither a folder nor of the form owner/name, a repository of the hub")
    hub = _hub()
    try:
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except (OSError, hub.errors.HfHubHTTPError) as error:
        raise ConnectionError(
            f"{source} could not be fetched from the hub ({str(error).splitlines()[0]}): fetch {WEIGHTS} and {CONFIG} "
            f"of https://huggingface.co/{source} elsewhere, and give the folder that they are in"
        ) from error


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            "the hub needs huggingface_hub, the extra 'hub': pip install 'lit-gans[hub]'; or give a local folder"
        ) from error
    return huggingface_hub


# ---- classes and arguments -------------------------------------------------------------------------------------------


def _config(model: nn.Module, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    cls, kept = type(model), can(model, Kept)
    class_path = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__ == "__main__" or "." in cls.__qualname__:
        raise ValueError(f"{class_path} cannot be imported from elsewhere: define the class in a module, at its top")
    if arguments is None and not kept:
        raise ValueError(f"a {cls.__name__} does not keep its constructor's arguments: pass arguments=")
    if arguments is None:
        arguments = {name: value for name, value in model.hparams.items() if not name.startswith("_")}
    plain = {name: _plain(value, name) for name, value in arguments.items()}
    images_seen = model.images_seen if kept else 0
    named = {"class_names": list(model.class_names)} if can(model, Named) and model.class_names else {}
    own = {"class_path": class_path, "arguments": plain, "lit_gans": __version__, "images_seen": images_seen}
    return own | named


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each, name) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(each, name) for key, each in value.items()}
    raise ValueError(
        f"the argument {name} is a {type(value).__name__}, which config.json cannot hold: pass arguments= without it"
    )


def _built(cls: type[nn.Module], config: Mapping[str, Any]) -> nn.Module:
    try:
        return cls(**config["arguments"])
    except TypeError as error:
        raise ValueError(f"{config['class_path']} cannot be built from its arguments: {error}") from error


def _check_same(state: Mapping[str, Tensor], model: nn.Module) -> None:
    expected = {name: (tuple(t.shape), t.dtype) for name, t in model.state_dict().items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in state.items()}
    wrong = [name for name in (*expected, *found) if expected.get(name) != found.get(name)]
    if wrong:
        first = ", ".join(dict.fromkeys(wrong[:5]))
        raise ValueError(f"the arguments build a network of other tensors than the weights': {first}")


# ---- the card --------------------------------------------------------------------------------------------------------


def model_card(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    evaluations: Sequence[Evaluation] = (),
    notes: str = "",
) -> str:
    """The Markdown of README.md: what it is, how it is used, its numbers with their protocols."""
    name = config["class_path"].rpartition(".")[2]
    lines = ["---", "library_name: lit-gans", "tags: [gan, image-generation]", "---", f"# {name}", ""]
    lines += [f"`{config['class_path']}` of lit_gans {config['lit_gans']}, {_count(state)} numbers in its tensors."]
    if config["images_seen"]:
        lines += [f"Trained on {config['images_seen'] / 1000:g} thousand images."]
    lines += ["", *([notes, ""] if notes else [])]
    lines += ["```python", "from lit_gans.runs.pretrained import from_pretrained", ""]
    theirs = "" if config["class_path"].startswith(OURS) else f', trust="{config["class_path"].partition(".")[0]}"'
    lines += [f'model = from_pretrained("."{theirs})  # this folder, or the name of its repository', "```", ""]
    lines += ["## Arguments", ""]
    lines += [f"- {key}: `{json.dumps(value)}`" for key, value in config["arguments"].items()]
    return "\n".join([*lines, "", *_numbers(evaluations)])


def _count(state: Mapping[str, Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in state.values()):,}"


def _numbers(evaluations: Sequence[Evaluation]) -> list[str]:
    """A table of numbers, and below it the protocol of each: numbers of different protocols are not comparable."""
    if not evaluations:
        return ["## Numbers", "", "None measured.", ""]
    lines = ["## Numbers", "", "| metric | value | protocol |", "|---|---|---|"]
    stamps: list[str] = []
    for evaluation in evaluations:
        for name, value in evaluation.values.items():
            stamp = json.dumps(evaluation.stamp(name), sort_keys=True, default=str)
            if stamp not in stamps:
                stamps.append(stamp)
            lines.append(f"| {name} | {value:.6g} | {stamps.index(stamp) + 1} |")
    lines += ["", "Numbers of different protocols are not comparable.", ""]
    for number, stamp in enumerate(stamps, 1):
        lines += [f"Protocol {number}:", "```json", json.dumps(json.loads(stamp), indent=2), "```", ""]
    return lines
