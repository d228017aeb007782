"""A generator as one file that runs without this package: of torch.export (.pt2) or ONNX (.onnx), beside it a card.

The file is a function of tensors, with any number of images in a batch: its randomness, latents and noise alike, is
among its inputs, or is fixed and said so. It is run before it takes its name, and compared with the model.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lit_gans import __version__
from lit_gans.adversarial.capabilities import (
    FromLatents,
    HasStyles,
    Kept,
    Named,
    ReadsFeatures,
    Translates,
    can,
    class_labels,
    require,
)
from lit_gans.base.cache import digest
from lit_gans.base.files import replacing
from lit_gans.base.random import Draws, derive_seed
from lit_gans.nn.mode import evaluating

BATCHES = (1, 3, 16)  # at which a file is compared with the model
TOLERANCE = 1e-4
OPSET = 18
DEFAULT_PX = 256  # of translators
MOST_BYTES = 2**31 - 2**24  # of weights: an .onnx file ends at 2 GB
FIXED = "nothing: an image depends on the inputs alone"
LICENCE = (
    "The weights are under the terms of those who trained or released them and of the pictures they were trained on; "
    "lit_gans, which wrote this file, is under the MIT licence and adds none."
)
Call = Callable[..., Tensor]


class Given(NamedTuple):
    """An input: examples of it, row i of seeds[i] alone (or one number for all rows), and what it is."""

    of_seeds: Callable[[Sequence[int]], Tensor]
    meaning: str


class Function(NamedTuple):
    """`traced` becomes the file, and is compared with `model`: both take tensors by the names of `inputs`."""

    traced: Call
    model: Call
    inputs: dict[str, Given]
    fixed: str = FIXED


class Exported(NamedTuple):
    """The file, its card, and what stands in it."""

    file: Path
    card: Path
    told: dict[str, Any]


def save_exported(
    model: nn.Module,
    output: Path,
    *,
    ema: bool = True,
    direction: str = "ab",
    size: Sequence[int] | None = None,
    seed: int = 0,
) -> Exported:
    """Writes a model, which lies on the CPU, to `output`, a .pt2 or .onnx file, and its card to `<output>.json`.

    ema: averaged weights, where there are some. Of translators: the direction, the height and width of pictures (one
    number for both; by default 256) and the seed of the noise of those that have some, which the file fixes.

    Raises:
        ValueError: another suffix, a model that makes no images of latents or images, an argument that it has no place
            for, packages that are not installed, or a file that does not do what the model does.
    """
    if output.suffix not in (".pt2", ".onnx"):
        raise ValueError(f"output {output} ends with neither .pt2 (torch.export) nor .onnx: give a file that does")
    versions = {"lit_gans": __version__, "torch": torch.__version__}
    versions |= onnx_versions() if output.suffix == ".onnx" else {}
    with evaluating(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = function_of(model, ema=ema, direction=direction, size=size, seed=seed)
        networks, inputs = used(model, function)
        program = traced(function, networks, inputs)
        with replacing(output) as unfinished, replacing(output.with_name(f"{output.name}.json")) as card:
            (_write_onnx if output.suffix == ".onnx" else _write_pt2)(program, unfinished, list(inputs))
            run = (_onnx_run if output.suffix == ".onnx" else _pt2_run)(unfinished)
            images = function.model(**examples(function.inputs, 1))
            told = {
                "file": output.name,
                "model": f"{type(model).__module__}.{type(model).__qualname__}",
                "weights": "averaged where the model keeps averages" if ema else "as trained, not averaged",
                "weights_sha256": digest(networks.state_dict()),
                "images_seen": model.images_seen if can(model, Kept) else None,
                "inputs": {name: described(given) for name, given in inputs.items()},
                "output": {"images": shape_of(images) | {"meaning": "in [-1, 1]: (images + 1) * 127.5 is 0 to 255"}},
                "classes": list(model.class_names) if can(model, Named) else [],
                "fixed": function.fixed,
                "largest_difference": differences(run, function, inputs),
                "opset": OPSET if output.suffix == ".onnx" else None,
                "versions": versions,
                "licence": LICENCE,
            }
            card.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return Exported(output, output.with_name(f"{output.name}.json"), told)


# ---- what models do --------------------------------------------------------------------------------------------------


def function_of(
    model: nn.Module, *, ema: bool, direction: str, size: Sequence[int] | None, seed: int
) -> Function:
    """What is exported of a model, by what it can do. ValueError where that is nothing."""
    if can(model, Translates):
        return translating(model, direction=direction, size=sides(model, size), seed=seed)
    if size is not None or direction != "ab":
        raise ValueError(f"size and direction are of translators, and a {type(model).__name__} is none: leave them out")
    drawing = require(model, FromLatents, "lit-gans export")
    if can(model, ReadsFeatures):
        return captioned(model, ema=ema)
    inputs = {"z": Given(model.seeded_latents, f"latents, {prior_told(drawing.prior)}")}
    if drawing.num_classes:
        told = f"classes, 0 to {drawing.num_classes - 1}"
        inputs["labels"] = Given(lambda seeds: class_labels(drawing, seeds), told)
    if can(model, HasStyles):
        return styled(model, inputs, ema=ema)
    drawn = lambda z, **labels: drawing.generate(z, ema=ema, **labels)  # noqa: E731
    return Function(drawn, drawn, inputs)


def styled(model: HasStyles, inputs: dict[str, Given], *, ema: bool) -> Function:
    """With psi as an input, in which styles are linear: between the truncation centre and their own place."""

    def run(z: Tensor, psi: Tensor, **labels: Tensor) -> Tensor:
        centre, ws = (model.styles(z, psi=end, ema=ema, **labels) for end in (0.0, 1.0))
        return model.synthesize(centre.lerp(ws, psi), ema=ema).clamp(-1, 1)

    def drawn(z: Tensor, psi: Tensor, **labels: Tensor) -> Tensor:
        return model.generate(z, psi=psi.item(), ema=ema, **labels)

    psi = Given(lambda seeds: torch.tensor(0.7), "truncation of all rows: 1 is none, below it images are more typical")
    fixed = "noise maps, where there are some, to the model's own: an image depends on the inputs alone"
    return Function(run, drawn, {**inputs, "psi": psi}, fixed)


def captioned(model: ReadsFeatures, *, ema: bool) -> Function:
    """Of features of captions, which the model's text encoder makes: it stays behind."""
    features = model.made_up_features([0])
    names = [name for name, tensor in features._asdict().items() if tensor is not None]
    inputs = {"z": Given(model.seeded_latents, f"latents, {prior_told(model.prior)}")}
    inputs["noise"] = Given(model.seeded_noise, "N(0, 1) beside the latents; 0 is the mean of what a caption may mean")
    for name in names:
        told = f"`{name}` of what the model's `read` gives of captions"
        inputs[name] = Given(lambda seeds, name=name: getattr(model.made_up_features(seeds), name), told)

    def run(z: Tensor, noise: Tensor, **given: Tensor) -> Tensor:
        return model.generate(z, features=features._replace(**given), noise=noise, ema=ema)

    return Function(run, run, inputs)


def translating(model: Translates, *, direction: str, size: tuple[int, int], seed: int) -> Function:
    """At one size. Dropout that acts as noise has one mask for all images: that of a translation with this seed."""
    if direction not in model.directions:
        raise ValueError(f"direction {direction!r}: this model translates only {' and '.join(model.directions)}")
    taken = model.takes(direction)

    def of_seeds(low: int, high: int, *channels: int) -> Callable[[Sequence[int]], Tensor]:
        def draw(seed: int) -> Tensor:
            generator = torch.Generator().manual_seed(derive_seed("export", seed))
            return torch.randint(low, high, (*channels, *size), generator=generator)

        return lambda seeds: torch.stack([draw(seed) for seed in seeds])

    shades = of_seeds(0, taken.labels or 256, taken.channels)
    told = f"label maps: k / 127.5 - 1 is class k, 0 to {taken.labels - 1}" if taken.labels else "pictures in [-1, 1]"
    inputs = {"image": Given(lambda seeds: shades(seeds) / 127.5 - 1, told)}
    if taken.labels:
        inputs["instance"] = Given(of_seeds(0, 4), "ids of instances; the classes, where instances are not known")
    masks = Masks(seed, "translate")
    model.translate(inputs["image"].of_seeds([0]), direction=direction, draws=masks)
    noise = f"the size of pictures, and the noise (dropout), to the masks of seed {seed}" if masks.kept else ""

    def run(image: Tensor, **instance: Tensor) -> Tensor:
        masks.given = 0
        return model.translate(image, direction=direction, draws=masks if masks.kept else None, **instance)

    return Function(run, run, inputs, noise or "the size of pictures; nothing is drawn")


class Masks(Draws):
    """Dropout masks that are drawn once, for one image, and given to all images each time that `given` is set to 0."""

    def __init__(self, *key: int | str) -> None:
        super().__init__(*key)
        self.kept, self.given = list[Tensor](), 0

    def bernoulli(self, p: float, like: Tensor) -> Tensor:
        if self.given == len(self.kept):
            self.kept.append(super().bernoulli(p, like[:1]))
        self.given += 1
        return self.kept[self.given - 1].expand_as(like).clone()


def sides(model: Translates, size: Sequence[int] | None) -> tuple[int, int]:
    """(height, width) of pictures. ValueError for one that the model's stride does not divide."""
    asked = [DEFAULT_PX] if size is None else list(size)
    if len(asked) not in (1, 2) or any(side < 1 or side % model.stride for side in asked):
        raise ValueError(
            f"size {asked} of pictures: give height and width, or one number for both, that this model's stride of "
            f"{model.stride} px divides"
        )
    return asked[0], asked[-1]


def prior_told(prior: object) -> str:
    """What a distribution of latents calls itself, and the first line of what it says."""
    said = (inspect.getdoc(type(prior)) or "").partition("\n")[0]
    return f"{type(prior).__name__} {vars(prior) or ''}: {said}".replace(" :", ":")


# ---- examples, and what they use -------------------------------------------------------------------------------------


def examples(inputs: Mapping[str, Given], count: int) -> dict[str, Tensor]:
    return {name: given.of_seeds(range(count)) for name, given in inputs.items()}


class _Uses(TorchFunctionMode):
    """Remembers which tensors torch's functions were given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set[int]()

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return func(*args, **(kwargs or {}))


def used(model: nn.Module, function: Function) -> tuple[nn.Module, dict[str, Given]]:
    """The networks of the model that the function runs, under their names, and the inputs that it looks at."""
    given, networks = examples(function.inputs, BATCHES[1]), nn.Module()
    with _Uses() as uses:
        function.traced(**given)
    for name, network in model.named_children():
        if any(id(tensor) in uses.seen for tensor in chain(network.parameters(), network.buffers())):
            networks.add_module(name, network)
    return networks, {name: one for name, one in function.inputs.items() if id(given[name]) in uses.seen}


def traced(function: Function, networks: nn.Module, inputs: Mapping[str, Given]) -> ExportedProgram:
    """The function as a graph, for any batch."""
    graph, given = _Graph(function, networks, inputs), examples(inputs, BATCHES[1])
    batch = torch.export.Dim("batch")
    shapes = {name: {0: batch} if tensor.dim() else {} for name, tensor in given.items()}
    try:
        program = torch.export.export(graph, (), given, dynamic_shapes=shapes, strict=False)
    except (RuntimeError, TypeError, ValueError) as error:  # the model's own, or of values that it looks at
        raise ValueError(f"torch.export cannot follow this model: {' '.join(str(error).split()):.400}") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


class _Graph(nn.Module):
    """The function, with the networks that it runs as its only ones; what it does not look at is an example's."""

    def __init__(self, function: Function, networks: nn.Module, inputs: Mapping[str, Given]) -> None:
        super().__init__()
        self.networks = networks
        rest = examples({name: one for name, one in function.inputs.items() if name not in inputs}, BATCHES[1])

        def forward(**given: Tensor) -> Tensor:
            return function.traced(**given, **rest)

        named = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in inputs]
        forward.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]  # what torch.export goes by
        self.forward = forward


# ---- files -----------------------------------------------------------------------------------------------------------


def _write_pt2(program: ExportedProgram, path: Path, names: list[str]) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file)


def _pt2_run(path: Path) -> Call:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def onnx_versions() -> dict[str, str]:
    """Of what writes and runs .onnx files. ValueError where it is not installed."""
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ValueError(
            "an .onnx file is written and checked by onnx, onnxscript and onnxruntime, the extra 'onnx': pip install "
            "'lit-gans[onnx]'; or give an output that ends with .pt2, which needs none of them"
        ) from error
    return {package.__name__: package.__version__ for package in (onnx, onnxscript, onnxruntime)}


def _write_onnx(program: ExportedProgram, path: Path, names: list[str]) -> None:
    import onnx

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size > MOST_BYTES:
        raise ValueError(f"weights of {size / 1e9:.1f} GB, and an .onnx file ends at 2 GB: give an output of .pt2")
    asked = {"input_names": names, "output_names": ["images"], "opset_version": OPSET}
    try:
        made = torch.onnx.export(program, (), dynamo=True, verbose=False, **asked)
    except RuntimeError as error:
        raise ValueError(f"ONNX has no place for this model: {' '.join(str(error).split()):.400}") from error
    assert made is not None
    proto = made.model_proto
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # where each came from, with paths of this machine
    for each in (*graph.input, *graph.output):
        for dim in each.type.tensor_type.shape.dim[:1]:
            dim.dim_param = "N"
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def _onnx_run(path: Path) -> Call:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(**given: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in given.items()})[0])

    return run


# ---- the card --------------------------------------------------------------------------------------------------------


def differences(run: Call, function: Function, inputs: Mapping[str, Given]) -> dict[str, float]:
    """By the size of the batch, the largest difference between the file's images and the model's.

    Raises:
        ValueError: it is above the tolerance, or none.
    """
    found = {}
    for count in BATCHES:
        whole = examples(function.inputs, count)
        made, wanted = run(**{name: whole[name] for name in inputs}), function.model(**whole)
        assert made.shape == wanted.shape
        found[str(count)] = (made - wanted).abs().max().item()
    if not max(found.values()) <= TOLERANCE:
        raise ValueError(
            f"the exported file differs from the model by {found}, by the size of the batch, and {TOLERANCE} is "
            "allowed: nothing is written; try the other format, .pt2 or .onnx"
        )
    return found


def described(given: Given) -> dict[str, Any]:
    return shape_of(given.of_seeds([0])) | {"meaning": given.meaning}


def shape_of(tensor: Tensor) -> dict[str, Any]:
    """Of a batch of any size N."""
    shape = ["N", *tensor.shape[1:]] if tensor.dim() else []
    return {"shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")}
