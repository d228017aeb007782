"""What a studio does with its models, of plain values and to plain values: there is no web in it, and no state.

What a browser shows is what its edit script draws: each request brings the whole script, so that nothing of one browser
can become another's. What was found on the way is kept by what it was found of.
"""

from __future__ import annotations

import io
import json
import shlex
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.adversarial.capabilities import FromLatents, HasStyles, Translates, can, require
from lit_gans.base.images import from_uint8, to_uint8
from lit_gans.base.video import save_film
from lit_gans.editing.directions import read_directions
from lit_gans.editing.drag import begin_drag
from lit_gans.editing.inversion import invert
from lit_gans.editing.moving_steps import Pull
from lit_gans.editing.script import MAX_BYTES, Script, film_states, name_of, parse_script, plain, script_of
from lit_gans.editing.state import Edited
from lit_gans.editing.studio.files import Files
from lit_gans.editing.studio.models import Models, about
from lit_gans.editing.studio.turns import Job, Stopped, Turns
from lit_gans.editing.studio.values import data_url, one_of, png, square_of, thumbnail, whole, words
from lit_gans.editing.text.mapper import read_mapper
from lit_gans.editing.text.shifts import read_shift
from lit_gans.editing.text.steps import Text
from lit_gans.editing.translation import read_picture, translate_picture
from lit_gans.editing.tuning import save_weights
from lit_gans.metrics.perceptual import FrozenDistance, build_distance

Said = Mapping[str, Any]
MAX_STEPS, MAX_SEEDS, MAX_FRAMES, MAX_SEARCH = 40, 12, 240, 2000
CACHED = 64  # states, of a few kilobytes each unless a step changes weights
TRANSLATED_PX = 1024  # the longer side of what is translated; larger pictures are scaled down

READERS: dict[str, Callable[[Path], list[str]]] = {
    "direction": lambda path: list(read_directions(path).names),
    "map": lambda path: [str(read_mapper(path)[1].get("text", ""))],
    "shift": lambda path: [" to ".join(map(str, read_shift(path).settings.get("texts", [])))],
}


class Studio:
    """All that its page asks for. One piece of work at a time: `turns`.

    lpips, lpips_weights: what photographs are compared by; image_text: what a step `text` says of the model that
    compares images with texts; moves: what `offer` gave of files that all may use; local: browsers are on this machine,
    and scripts say where models lie on it.
    """

    def __init__(
        self,
        models: Models,
        files: Files,
        *,
        lpips: str = "squeeze",
        lpips_weights: Path | None = None,
        image_text: Mapping[str, str] | None = None,
        local: bool = True,
    ) -> None:
        self.models, self.files, self.turns = models, files, Turns()
        self.lpips, self.lpips_weights, self.image_text, self.local = lpips, lpips_weights, image_text, local
        self.moves: list[dict[str, Any]] = []
        self._distance: FrozenDistance | None = None
        self._states: OrderedDict[str, Edited] = OrderedDict()

    # ---- scripts -----------------------------------------------------------------------------------------------------

    def script(self, said: Said) -> Script:
        """The script of a request. ValueError for what is wrong in it."""
        steps = said.get("steps", [])
        if not isinstance(steps, list) or len(steps) > MAX_STEPS:
            raise ValueError(f"a script of the studio has at most {MAX_STEPS} steps")
        name = str(said.get("model"))
        head = {"model": self.path_of(name), "weights": self.models.digest(name)}
        script = script_of(head | {"start": said.get("start"), "steps": steps}, self.files)
        for step in script.steps:
            if isinstance(step, Text) and step.image_text not in self.files.granted:
                raise ValueError(f"the studio was not started with --image_text {step.image_text}")
        return script

    def path_of(self, name: str) -> str:
        """What scripts call a model: its place on this machine, and for browsers elsewhere its name alone."""
        self.models[name]
        return str(self.models.places[name].resolve()) if self.local else name

    def states(self, name: str, script: Script) -> list[Edited]:
        """As `script.states`, where nothing is done twice."""
        found = list[Edited]()
        for count in range(len(script.steps) + 1):
            key = key_of(name, replace(script, steps=script.steps[:count]))
            if key not in self._states:
                self._states[key] = self._after(name, script, count, found)
            found.append(self.remember(key, self._states[key]))
        return found

    def _after(self, name: str, script: Script, count: int, before: list[Edited]) -> Edited:
        if count == 0:
            return script.start.begin(self.models[name], script.files, ema=script.ema)
        step = script.steps[count - 1]
        try:
            return step.apply(before[-1], script.files)
        except ValueError as error:
            raise ValueError(f"step {count}, {name_of(step)}: {error}") from error

    def remember(self, key: str, state: Edited) -> Edited:
        self._states[key] = state
        self._states.move_to_end(key)
        while len(self._states) > CACHED:
            self._states.popitem(last=False)
        return state

    # ---- what is asked for -------------------------------------------------------------------------------------------

    def describe(self, said: Said) -> dict[str, Any]:
        """What the page has to know of a model."""
        with self.turns:
            model = self.models[str(said.get("model"))]
            told = {"model": said["model"], "moves": self.moves, "image_text": self.image_text, **about(model)}
            steps = [one for one in told.get("steps", []) if one != "text" or self.image_text is not None]
            return told | {"steps": steps}

    def draw(self, said: Said) -> dict[str, Any]:
        """The picture of a script, and its text."""
        with self.turns:
            return self._drawn(str(said.get("model")), self.script(said))

    def _drawn(self, name: str, script: Script) -> dict[str, Any]:
        return {"image": data_url(self.states(name, script)[-1].picture()), "text": script.text()}

    def grid(self, said: Said) -> dict[str, Any]:
        """The pictures of a start with other seeds, small."""
        seeds = said.get("seeds")
        if not isinstance(seeds, list) or not 0 < len(seeds) <= MAX_SEEDS:
            raise ValueError(f"seeds {repr(seeds)[:100]}: give 1 to {MAX_SEEDS} of them")
        with self.turns:
            script = self.script({**said, "steps": []})
            scripts = [script.from_seed(whole({"seed": seed}, "seed", 0, 2**31)) for seed in seeds]
            states = [self._after(said["model"], script, 0, []) for script in scripts]
            return {"images": [data_url(thumbnail(state.picture())) for state in states]}

    def read(self, said: Said) -> dict[str, Any]:
        """What a script's text draws with the page's own model, and its start and steps."""
        script, name = parse_script(words(said, "text", MAX_BYTES), self.files), str(said.get("model"))
        with self.turns:
            if script.weights not in (None, self.models.digest(name)):
                raise ValueError(
                    f"the script was written with other weights ({script.weights}) than {name} has: choose its model, "
                    "or take the line `weights` out"
                )
            values = {"start": plain(script.start), "steps": [{name_of(one): plain(one)} for one in script.steps]}
            return self._drawn(name, self.script({"model": name, **values})) | values

    def load(self, data: bytes, said: Said) -> dict[str, Any]:
        """`read` of a file that `pack` wrote."""
        return self.read({"model": said.get("model"), "text": self.files.unpack(data)})

    def pack(self, said: Said) -> tuple[bytes, str]:
        """(bytes, name) of the script to take away."""
        with self.turns:
            return self.files.pack(self.script(said).text(), [said["start"], said.get("steps", [])])

    def film(self, said: Said, job: Job) -> dict[str, Any]:
        """A film through all states of a script, as a file."""
        frames, fps = whole(said, "frames", 2, MAX_FRAMES, 60), whole(said, "fps", 1, 60, 25)
        suffix = f".{one_of(said, 'format', ('gif', 'mp4'))}"
        with self.turns, tempfile.TemporaryDirectory() as folder:
            script, pictures = self.script(said), list[Tensor]()
            for state in film_states(self.states(said["model"], script), frames):
                pictures.append(state.picture())
                job.step(len(pictures), frames)
            path = save_film(torch.stack(pictures), Path(folder) / f"film{suffix}", frames=frames, columns=1, fps=fps)
            return {"file": self.files.keep(path.read_bytes(), "film", suffix)}

    def photo(self, data: bytes, said: Said) -> dict[str, Any]:
        """An uploaded picture as the model takes it."""
        with self.turns:
            model = self.models[str(said.get("model"))]
            pixels, told = square_of(data, resolution=model.resolution, channels=model.channels)
            file = self.files.keep(png(pixels), "photo", ".png")
            return {"file": file, "image": data_url(pixels), "told": told}

    def project(self, said: Said, job: Job) -> dict[str, Any]:
        """The start of a script whose picture is nearest to an uploaded one."""
        steps, tuning = whole(said, "steps", 1, MAX_SEARCH, 300), whole(said, "tune", 0, MAX_SEARCH, 0)
        path = self.files.path(said.get("file"))
        with self.turns, tempfile.TemporaryDirectory() as folder:
            model = require(self.models[str(said.get("model"))], FromLatents, "projection")
            pixels, _ = square_of(path.read_bytes(), resolution=model.resolution, channels=model.channels)
            found = invert(
                model,
                from_uint8(pixels),
                distance=self.distance(),
                space=one_of(said, "space", ("w", "w+") if can(model, HasStyles) else ("z",)),
                steps=steps,
                tuning_steps=tuning,
                label=None if said.get("label") is None else whole(said, "label", 0, model.num_classes - 1),
                frames=1,
                on_step=lambda at: job.step(at.step + 1, steps, f"distance {at.distance:.4f}"),
                on_tuning_step=lambda at: job.step(at.step + 1, tuning, f"tuning, distance {at.distance:.4f}"),
            )
            found.save(Path(folder) / "found.safetensors")
            kind = "styles" if found.code.ndim == 3 else "latent"
            start = {kind: self.files.adopt(Path(folder) / "found.safetensors", kind)}
            if found.weights:
                save_weights(found, model, Path(folder) / "weights.safetensors")
                start["weights"] = self.files.adopt(Path(folder) / "weights.safetensors", "weights")
        told = f"PSNR {found.psnr_db:.1f} dB, distance {found.distance:.4f} ({self.distance().name})"
        return {"start": start, "told": told}

    def drag(self, said: Said, job: Job) -> dict[str, Any]:
        """A script with one step more, in which points are dragged, until they arrive or the job is stopped."""
        with self.turns:
            name, script = str(said.get("model")), self.script(said)
            (pull,) = self.script({**said, "steps": [{"drag": said.get("drag")}]}).steps
            assert isinstance(pull, Pull)
            edited, moved = self.states(name, script)[-1], 0
            going = begin_drag(edited.model, edited.styled("drag"), **pull.settings(edited, self.files))
            try:
                while moved < pull.max_steps and not (at := going.step()).arrived:
                    moved += 1
                    far = f"{at.distances.max():.1f} px to go"
                    seen = partial(data_url, to_uint8(at.image).cpu()[0])
                    job.step(moved, pull.max_steps, far, picture=seen, handles=at.handles.tolist())
            except Stopped:
                pass  # what has been dragged so far is kept
            ended = replace(pull, max_steps=max(moved, 1))
            longer = replace(script, steps=(*script.steps, ended))
            self.remember(key_of(name, longer), replace(edited, ws=going.ws.to(edited.styled("drag"))))
            shown = {"handles": going.handles.tolist(), "step": {"drag": plain(ended)}}
            return self._drawn(name, longer) | shown

    def text(self, said: Said, job: Job) -> dict[str, Any]:
        """A script with one step more, which a text leads."""
        with self.turns:
            name, script = str(said.get("model")), self.script(said)
            (led,) = self.script({**said, "steps": [{"text": said.get("text")}]}).steps
            assert isinstance(led, Text)
            edited = self.states(name, script)[-1]
            tell = lambda done, total, loss: job.step(done, total, f"loss {loss:.3f}")  # noqa: E731
            longer = replace(script, steps=(*script.steps, led))
            self.remember(key_of(name, longer), led.apply(edited, self.files, on_step=tell))
            return self._drawn(name, longer) | {"step": {"text": plain(led)}}

    def mask(self, data: bytes, said: Said) -> dict[str, Any]:
        """The name of an uploaded mask."""
        with self.turns:
            model = self.models[str(said.get("model"))]
            pixels, _ = square_of(data, resolution=model.resolution, channels=1)
            return {"file": self.files.keep(png(pixels), "mask", ".png")}

    def move(self, data: bytes, said: Said) -> dict[str, Any]:
        """What an uploaded file of directions, of a mapper or of a shift offers."""
        with self.turns:
            return self.offer(data, words(said, "title", 200))

    def offer(self, data: bytes, title: str) -> dict[str, Any]:
        """What steps there can be with a file, which is kept. ValueError for one that is none of those."""
        with tempfile.TemporaryDirectory() as folder:
            (path := Path(folder) / "move.safetensors").write_bytes(data)
            for step, read in READERS.items():
                try:
                    names = read(path)
                except (ValueError, LookupError, TypeError):
                    continue
                kept = self.files.keep(data, step, ".safetensors")
                return {"step": step, "file": kept, "title": title, "names": names}
        raise ValueError(f"{title} is no file of `lit-gans directions` or `lit-gans restyle`")

    def distance(self) -> FrozenDistance:
        """What pictures are compared by. ConnectionError, FileNotFoundError where its weights cannot be had."""
        if self._distance is None:
            self._distance = build_distance(self.lpips, weights_path=self.lpips_weights).to(self.models.device)
        return self._distance

    def translate(self, data: bytes, said: Said) -> dict[str, Any]:
        """An uploaded picture translated, with the command that does it to a whole folder."""
        name = str(said.get("model"))
        with self.turns:
            model = require(self.models[name], Translates, "translation")
            direction, seed = one_of(said, "direction", tuple(model.directions)), whole(said, "seed", 0, 2**31, 0)
            taken = model.takes(direction)
            picture, told = bounded(read_picture(lambda: io.BytesIO(data), taken), labels=taken.labels)
            made = translate_picture(model, picture, direction=direction, seed=seed, device=self.models.device)
        command = ["lit-gans", "translate", self.path_of(name), "PICTURE", "--direction", direction]
        command += ["--seed", str(seed)] if seed else []
        shown = picture * (255 // max(int(picture.max()), 1)) if taken.labels else picture
        return {"before": data_url(shown), "image": data_url(made), "told": told, "text": shlex.join(command)}


def key_of(name: str, script: Script) -> str:
    """Equal for scripts whose pictures are equal."""
    return json.dumps([name, plain(script.start), [[name_of(step), plain(step)] for step in script.steps]])


def bounded(picture: Tensor, *, labels: bool) -> tuple[Tensor, str]:
    """(uint8 [C, H, W] of at most `TRANSLATED_PX` a side, what was done). ValueError for a label map that is larger."""
    height, width = picture.shape[1:]
    longer = max(height, width)
    if longer <= TRANSLATED_PX:
        return picture, f"{width} x {height} px"
    if labels:
        raise ValueError(
            f"the map is {width} x {height} px, and {TRANSLATED_PX} a side are the most: see lit-gans translate"
        )
    size = [max(round(side * TRANSLATED_PX / longer), 1) for side in (height, width)]
    small = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)[0].round().byte()
    return small, f"{width} x {height} px, scaled to {size[1]} x {size[0]}: lit-gans translate takes it whole"
