"""The studio without a browser: what it draws is what edit scripts draw, and what it refuses."""

import asyncio
import base64
import io
import json
import struct
import sys
import threading
import zipfile
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from lit_gans.base.images import to_pil, to_uint8
from lit_gans.edit import edit
from lit_gans.editing import styles_of
from lit_gans.editing.directions import Directions, stamp
from lit_gans.editing.found import write_found
from lit_gans.editing.projector import KIND
from lit_gans.editing.steps import STARTS, STEPS
from lit_gans.editing.studio import files as studio_files
from lit_gans.editing.studio import server, work
from lit_gans.editing.studio.files import Files
from lit_gans.editing.studio.models import Models, models_of
from lit_gans.editing.studio.turns import Job, Stopped, Turns
from lit_gans.editing.studio.work import Studio
from lit_gans.editing.text import train_pair
from lit_gans.runs.pretrained import save_pretrained
from lit_gans.studio import main
from tests.cases import CASES
from tests.editing.test_image_text import colours
from tests.editing.text_models import tiny
from tests.papers import test_cyclegan
from tests.papers.captioned import RED
from tests.papers.test_attngan import attngan

Asking = Callable[[TestClient], Awaitable[Any]]
MIX = {"mix": {"seed": 4, "layers": "0-1"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saved folders of a styled model and of one without styles."""
    folder = tmp_path_factory.mktemp("models")
    translator = next(iter(test_cyclegan.CASES.values()))
    built = {"stylegan2": CASES["stylegan2"], "dcgan": CASES["dcgan"], "cyclegan": translator, "attngan": attngan}
    for name, build in built.items():
        save_pretrained(build().eval(), folder / name)
    return folder


@pytest.fixture
def studio(home: Path, tmp_path: Path) -> Studio:
    return Studio(Models(models_of(home), device="cpu"), Files(tmp_path / "files"))


def picture_file(size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def asked(studio: Studio, asking: Asking, **host: str) -> Any:
    """What a client sees that `asking` is given."""

    async def run() -> Any:
        async with TestClient(TestServer(server.build_app(studio, **host))) as client:
            return await asking(client)

    return asyncio.run(run())


def image_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


# ---- what it draws ---------------------------------------------------------------------------------------------------


def test_what_it_shows_is_what_edit_replays(studio: Studio, tmp_path: Path) -> None:
    for model, steps in (("stylegan2", [MIX, {"truncate": {"psi": 0.6}}]), ("dcgan", [{"blend": {"seed": 2}}])):
        said = {"model": model, "start": {"seed": 3, "psi": 0.8}, "steps": steps}
        shown = studio.draw(said)
        data, name = studio.pack(said)
        (tmp_path / name).write_bytes(data)
        assert name == "edit.yaml" and data.decode() == shown["text"]
        replayed = edit(tmp_path / name, output=tmp_path / "replayed.png", device="cpu")
        assert Image.open(replayed).tobytes() == Image.open(io.BytesIO(image_of(shown["image"]))).tobytes()
        assert studio.read({"model": model, "text": shown["text"]}) == shown | {"start": said["start"], "steps": steps}


def test_nothing_is_drawn_twice(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []
    own = STEPS["mix"].apply
    monkeypatch.setattr(STEPS["mix"], "apply", lambda self, *given: applied.append(self.seed) or own(self, *given))
    for psi in (0.5, 0.6, 0.7):
        studio.draw({"model": "stylegan2", "start": {"seed": 1}, "steps": [MIX, {"truncate": {"psi": psi}}]})
    assert applied == [4]
    monkeypatch.setattr(work, "CACHED", 5)
    for seed in range(6):
        studio.draw({"model": "dcgan", "start": {"seed": seed}})
    studio.draw({"model": "stylegan2", "start": {"seed": 1}, "steps": [MIX]})
    assert applied == [4, 4]


def test_models_are_told_by_what_they_can(studio: Studio, home: Path) -> None:
    styled, plain, translator = (studio.describe({"model": name}) for name in ("stylegan2", "dcgan", "cyclegan"))
    assert styled["steps"][:4] == ["truncate", "mix", "blend", "noise"] and styled["rows"] and styled["styles"]
    assert plain["steps"][:2] == ["truncate", "blend"] and not plain["styles"] and "mix" not in plain["steps"]
    assert len(styled["classes"]) == 10 and plain["classes"] == [] and set(translator["directions"]) == {"ab", "ba"}
    assert list(models_of(home / "dcgan")) == ["dcgan"]
    with pytest.raises(ValueError, match="holds none"):
        models_of(studio.files.folder)


def test_a_walk_is_filmed_and_a_grid_drawn(studio: Studio) -> None:
    told = []
    walk = {"model": "dcgan", "start": {"seed": 0}, "steps": [{"blend": {"seed": s, "by": 1}} for s in (1, 0)]}
    made = studio.film(walk | {"frames": 5}, Job(studio.turns, told.append))
    film = Image.open(studio.files.path(made["file"]))
    assert film.n_frames == 5 and [one["done"] for one in told] == [1, 2, 3, 4, 5]
    shown = studio.grid({"model": "dcgan", "start": {"seed": 9, "psi": 0.5}, "seeds": [4, 5]})["images"]
    assert shown[1] == studio.draw({"model": "dcgan", "start": {"seed": 5, "psi": 0.5}})["image"]


def test_a_picture_is_translated(studio: Studio) -> None:
    made = studio.translate(picture_file(), {"model": "cyclegan", "direction": "ba"})
    assert Image.open(io.BytesIO(image_of(made["image"]))).size == (40, 30)
    assert made["text"].startswith("lit-gans translate ") and made["text"].endswith("PICTURE --direction ba")
    with pytest.raises(ValueError, match="direction 'up': choose one of ab, ba"):
        studio.translate(picture_file(), {"model": "cyclegan", "direction": "up"})
    with pytest.raises(ValueError, match="cannot be read"):
        studio.translate(b"no picture", {"model": "cyclegan"})
    large = studio.translate(picture_file((1500, 30)), {"model": "cyclegan"})
    assert Image.open(io.BytesIO(image_of(large["image"]))).size == (1024, 20)
    assert "scaled to 1024 x 20" in large["told"]


@pytest.mark.slow
def test_captions_are_drawn(studio: Studio, tmp_path: Path) -> None:
    told = studio.describe({"model": "attngan"})
    assert told["captions"] and not told["styles"] and told["steps"][:2] == ["truncate", "blend"]
    said = {"model": "attngan", "start": {"caption": RED, "seed": 3}, "steps": [{"blend": {"seed": 5, "by": 0.5}}]}
    shown = studio.draw(said)
    (tmp_path / "edit.yaml").write_text(shown["text"])
    replayed = edit(tmp_path / "edit.yaml", output=tmp_path / "a.png", device="cpu")
    assert Image.open(replayed).tobytes() == Image.open(io.BytesIO(image_of(shown["image"]))).tobytes()
    model, own = studio.models["attngan"], studio.draw(said | {"steps": []})["image"]
    drawn = to_uint8(model.sample([3], captions=[RED]))[0]
    assert Image.open(io.BytesIO(image_of(own))).tobytes() == to_pil(drawn).tobytes()
    with pytest.raises(ValueError, match="a start from a caption needs a model that draws what captions say"):
        studio.draw({"model": "dcgan", "start": {"caption": RED}})


def pull(count: int) -> dict:
    drag = {"handles": [[4, 4]], "targets": [[12, 12]], "max_steps": count}
    return {"model": "stylegan2", "start": {"seed": 3}, "steps": [MIX], "drag": drag}


def test_points_are_dragged_until_it_is_stopped(studio: Studio) -> None:
    told: list[dict] = []
    job = Job(studio.turns, lambda said: told.append(said) or setattr(job, "stopped", said["done"] == 3))
    made = studio.drag(pull(9), job)
    assert [one["done"] for one in told] == [1, 2, 3] and made["step"]["drag"]["max_steps"] == 4
    assert all(len(one["handles"]) == 1 for one in told) and told[0]["image"].startswith("data:image/png")
    said = {"model": "stylegan2", "start": {"seed": 3}, "steps": [MIX, made["step"]]}
    assert studio.draw(said) == {"image": made["image"], "text": made["text"]}
    studio._states.clear()
    assert studio.draw(said)["image"] == made["image"] != studio.draw(said | {"steps": [MIX]})["image"]
    with pytest.raises(ValueError, match="step 1, drag: handles cannot be 3"):
        studio.drag(pull(1) | {"drag": {"handles": 3, "targets": []}}, job)


def test_a_mask_is_kept(studio: Studio) -> None:
    light = io.BytesIO()
    Image.new("L", (16, 16), 0).save(light, "PNG")
    file = studio.mask(light.getvalue(), {"model": "stylegan2"})["file"]
    said = pull(2)
    made = studio.drag(said | {"drag": said["drag"] | {"mask": file}}, Job(studio.turns, lambda said: None))
    assert made["step"]["drag"]["mask"] == file and f"mask: {file}" in made["text"]


def test_a_photograph_is_found(studio: Studio) -> None:
    studio.lpips = "pixels"
    for model, more, keys in (("stylegan2", {"tune": 1}, {"styles", "weights"}), ("dcgan", {}, {"latent"})):
        photo = studio.photo(picture_file(), {"model": model})
        assert photo["told"] == "40 x 30 px, cropped to the middle 30 and scaled to 16"
        said = {"model": model, "file": photo["file"], "steps": 2, **more}
        told: list[dict] = []
        found = studio.project(said, Job(studio.turns, told.append))
        assert set(found["start"]) == keys and "PSNR" in found["told"] and len(told) == 2 + more.get("tune", 0)
        assert studio.draw({"model": model, "start": found["start"]})["text"].count("safetensors") == len(keys)


def test_files_of_directions_are_offered(studio: Studio, tmp_path: Path) -> None:
    one, vectors = torch.ones(2), torch.eye(8)[:2].clone()
    model = studio.models["stylegan2"]
    ways = Directions("w", ("pose", "smile"), vectors, one, one.clone(), one.clone(), settings=stamp(model))
    ways.save(tmp_path / "a.safetensors")
    offer = studio.move((tmp_path / "a.safetensors").read_bytes(), {"title": "mine"})
    assert (offer["step"], offer["title"], offer["names"]) == ("direction", "mine", ["pose", "smile"])
    step = {"direction": {"file": offer["file"], "name": "smile", "by": 2}}
    moved = studio.draw({"model": "stylegan2", "start": {"seed": 1}, "steps": [step]})
    assert moved["image"] != studio.draw({"model": "stylegan2", "start": {"seed": 1}})["image"]
    with pytest.raises(ValueError, match="mine is no file of `lit-gans directions`"):
        studio.move(b"no tensors", {"title": "mine"})


@pytest.mark.slow
def test_a_text_leads_a_picture_by_the_model_of_the_command_line_alone(home: Path, tmp_path: Path) -> None:
    images, captions = colours(48)
    how = {"features": "torchvision:squeezenet1_1", "weights": "random", "px": 32, "epochs": 2, "batch_size": 16}
    train_pair([images], captions, **how)[0].save(tmp_path / "pair.safetensors")
    save_pretrained(tiny(), tmp_path / "gan")
    texts = {"image_text": str(tmp_path / "pair.safetensors"), "weights": "random"}
    models = Models(models_of(tmp_path / "gan"), device="cpu")
    studio = Studio(models, Files(tmp_path / "files", granted=list(texts.values())), image_text=texts)
    assert "text" in studio.describe({"model": "gan"})["steps"]
    said = {"model": "gan", "start": {"seed": 1}, "text": {"text": "a red picture", "steps": 2, **texts}}
    told: list[dict] = []
    made = studio.text(said, Job(studio.turns, told.append))
    assert [one["done"] for one in told] == [1, 2] and made["step"]["text"]["text"] == "a red picture"
    (tmp_path / "edit.yaml").write_text(made["text"])
    replayed = edit(tmp_path / "edit.yaml", output=tmp_path / "a.png", device="cpu")
    assert Image.open(replayed).tobytes() == Image.open(io.BytesIO(image_of(made["image"]))).tobytes()
    for other in ("clip:openai/clip-vit-base-patch32", str(home), "pair.safetensors"):
        with pytest.raises(ValueError, match="the studio was not started with --image_text"):
            studio.text(said | {"text": said["text"] | {"image_text": other}}, Job(studio.turns, told.append))


# ---- one after the other ---------------------------------------------------------------------------------------------


def test_long_work_lets_others_between_its_steps() -> None:
    turns, order, began = Turns(), [], threading.Event()

    def long() -> None:
        job = Job(turns, lambda said: None)
        with turns:
            began.set()
            while len(turns._waiting) < 2:
                pass
            for step in range(3):
                order.append(step)
                job.step(step, 3)

    def short() -> None:
        began.wait()
        with turns:
            order.append("short")

    threads = [threading.Thread(target=one) for one in (long, short)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert order == [0, "short", 1, 2]


def test_a_job_stops_where_it_is(studio: Studio) -> None:
    job = Job(studio.turns, lambda said: setattr(job, "stopped", said["done"] == 2))
    with pytest.raises(Stopped):
        studio.film({"model": "dcgan", "start": {"seed": 0}, "frames": 9}, job)
    assert studio.draw({"model": "dcgan", "start": {"seed": 0}})  # and the turn is given back


def test_two_browsers_have_their_own_pictures(studio: Studio) -> None:
    said = [{"model": "stylegan2", "start": {"seed": s}, "steps": [{"mix": {"seed": s + 9}}]} for s in range(4)]
    alone = [studio.draw(one)["image"] for one in said]
    studio._states.clear()

    async def asking(client: TestClient) -> list[str]:
        answers = await asyncio.gather(*(client.post("/api/draw", json=said[i % 4]) for i in range(16)))
        return [(await one.json())["image"] for one in answers]

    assert asked(studio, asking) == alone * 4


# ---- what is refused -------------------------------------------------------------------------------------------------

PLACES = ("/etc/passwd", "../secret.safetensors", "a/b.png", "styles-0123456789abcdef.safetensors", "..", "", "\0")


def test_scripts_read_no_file_but_the_studios(studio: Studio, tmp_path: Path) -> None:
    """Whatever a step does with a text, no file outside is opened for it."""
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
    for table, place in ((STARTS, "start"), (STEPS, "steps")):
        for name, kind in table.items():
            texts = [f.name for f in fields(kind) if "str" in str(f.type)]
            for field in texts:
                for path in PLACES:
                    said = {name: 1, field: path} if place == "start" else {name: {"seed": 1, field: path}}
                    start, steps = (said, []) if place == "start" else ({"seed": 1}, [said])
                    opened.clear()
                    try:
                        studio.draw({"model": "stylegan2", "start": start, "steps": steps})
                    except ValueError:
                        pass
                    assert not [one for one in opened if "secret.s" in one or "passwd" in one], (name, field, path)
    for path in PLACES:
        with pytest.raises(ValueError, match="is no file of the studio"):
            studio.draw({"model": "stylegan2", "start": {"styles": path}})
    secret = studio.files.folder / "styles-0123456789abcdef.safetensors"
    secret.symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(ValueError, match="is no file of the studio"):
        studio.draw({"model": "stylegan2", "start": {"styles": secret.name}})


def test_addresses_read_no_file_but_the_studios(studio: Studio) -> None:
    name = studio.files.keep(picture_file(), "photo", ".png")

    async def asking(client: TestClient) -> list[int]:
        paths = [f"/files/{name}", "/files/..%2F..%2Fetc%2Fpasswd", "/files/%2Fetc%2Fpasswd", "/files/../studio.py"]
        return [(await client.get(path)).status for path in [*paths, "/page/studio.js", "/work.py"]]

    assert asked(studio, asking) == [200, 400, 400, 404, 404, 404]


def declaring(png: bytes, width: int, height: int) -> bytes:
    """A PNG file that says it is so large."""
    head = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a picture", "cannot be read as a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as a picture"),
        (picture_file()[:60], "cannot be read as a picture"),
        (picture_file((40, 30), "GIF"), "cannot be read as a picture"),
        (declaring(picture_file(), 12000, 12000), "declares 12000 x 12000 pixels, more than max_pixels"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_pictures_are_refused(studio: Studio, data: bytes, message: str) -> None:
    async def asking(client: TestClient) -> tuple[int, str]:
        answer = await client.post("/api/photo", params={"said": '{"model": "stylegan2"}'}, data=data)
        return answer.status, (await answer.json())["error"]

    status, error = asked(studio, asking)
    assert status == 400 and message in error and not list(studio.files.folder.iterdir())


def test_what_is_too_large_is_refused(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asking(client: TestClient) -> list[tuple[int, str]]:
        large = await client.post("/api/photo", params={"said": "{}"}, data=bytes(studio_files.MAX_UPLOAD_BYTES + 1))
        long = await client.post("/api/draw", data='{"a": "' + "a" * 2**20 + '"}')
        deep = await client.post("/api/draw", data='{"a":' + "[" * 100_000)
        form = await client.post("/api/draw", data=FormData({"a": "b"}))
        return [(one.status, (await one.json())["error"]) for one in (large, long, deep, form)]

    large, long, deep, form = asked(studio, asking)
    assert large == (413, "this file has more than 20 MB, which is the most")
    assert (long[0], deep[0], form[0]) == (400, 400, 400) and "a question has at most 1,048,576 bytes" in long[1]
    small = Files(studio.files.folder, max_bytes=1000)
    with pytest.raises(ValueError, match="the studio's folder holds 0 MB of at most 0"):
        small.keep(bytes(1001), "photo", ".png")


def zipped(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


SCRIPT = b"model: x\nstart: {seed: 1}\n"


HOSTILE = {  # made in the test: a zip has the time in it
    "a path upwards": (lambda: zipped(**{"edit.yaml": SCRIPT, "../evil.png": b"x"}), "is none of the studio's.*evil"),
    "a path from the root": (lambda: zipped(**{"edit.yaml": SCRIPT, "/etc/passwd": b"x"}), "is none of the studio's"),
    "no script": (lambda: zipped(other=SCRIPT), "this zip is none of the studio's"),
    "a bomb": (
        lambda: zipped(**{"edit.yaml": SCRIPT, "photo-0123456789abcdef.png": bytes(201 * 2**20)}), "unpacks to 210,"
    ),
    "half a zip": (lambda: zipped(**{"edit.yaml": SCRIPT})[:60], "this zip cannot be read"),
    "no text": (lambda: b"\xff\xfe\x00", "neither a script as text nor a zip"),
    "code": (lambda: b"model: !!python/object/apply:os.system [ls]\nstart: {seed: 1}", "this is no YAML"),
    "a command": (lambda: b"model: x\nstart: {seed: 1}\nsteps: [run: {command: ls}]", "'run' is unknown"),
    "other weights": (lambda: b"model: x\nweights: '0123'\nstart: {seed: 1}", "was written with other weights"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_scripts_are_refused(studio: Studio, what: str, tmp_path: Path) -> None:
    make, message = HOSTILE[what]
    data = make()
    with pytest.raises(ValueError, match=message):
        studio.load(data, {"model": "stylegan2"})
    assert not list(studio.files.folder.iterdir()) and {one.name for one in tmp_path.iterdir()} == {"files"}


def test_a_script_comes_back_with_its_files(studio: Studio, home: Path, tmp_path: Path) -> None:
    ws = styles_of(studio.models["stylegan2"], [7], label=1)
    write_found(tmp_path / "w.safetensors", KIND, {"ws": ws}, {})
    said = {"model": "stylegan2", "start": {"styles": studio.files.adopt(tmp_path / "w.safetensors", "styles")}}
    data, name = studio.pack(said)
    assert name == "edit.zip"
    elsewhere = Studio(studio.models, Files(tmp_path / "other"))
    assert elsewhere.load(data, {"model": "stylegan2"})["image"] == studio.draw(said)["image"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(tmp_path / "unpacked")
    replayed = edit(tmp_path / "unpacked" / "edit.yaml", output=tmp_path / "a.png", device="cpu")
    own = Image.open(io.BytesIO(image_of(studio.draw(said)["image"])))
    assert Image.open(replayed).tobytes() == own.tobytes()


def test_other_sites_are_refused(studio: Studio) -> None:
    async def asking(client: TestClient) -> list[int]:
        own = {"Origin": f"http://{client.host}:{client.port}"}
        heads = [{}, own, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}]
        said = {"model": "dcgan", "start": {"seed": 1}}
        return [(await client.post("/api/draw", json=said, headers=head)).status for head in heads]

    assert asked(studio, asking) == [200, 200, 403, 403, 403]
    assert asked(studio, asking, host="0.0.0.0") == [200, 200, 403, 403, 200]


def test_the_page_may_load_nothing_from_elsewhere(studio: Studio) -> None:
    async def asking(client: TestClient) -> list[tuple[dict, str]]:
        answers = [await client.get(f"/{name}") for name in server.PAGE]
        return [(dict(one.headers), await one.text()) for one in answers]

    for headers, text in asked(studio, asking):
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert "https://" not in text and "http://" not in text and "innerHTML" not in text


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("draw", {"model": "no"}, "there is no model 'no': there are"),
        ("draw", {"model": "../stylegan2"}, "there is no model"),
        ("draw", {"model": "dcgan", "start": 3}, "start: 3 is no mapping"),
        ("draw", {"model": "dcgan", "start": {"seed": "x"}}, "start: seed cannot be 'x'"),
        ("draw", {"model": "dcgan", "start": {"seed": 1}, "steps": [MIX]}, "step 1, mix: mix needs a model that has"),
        ("draw", {"model": "dcgan", "start": {"seed": 1}, "steps": [MIX] * 41}, "at most 40 steps"),
        ("draw", {"model": "dcgan", "start": {"seed": 1}, "steps": "mix"}, "at most 40 steps"),
        ("grid", {"model": "dcgan", "start": {"seed": 1}, "seeds": list(range(13))}, "give 1 to 12 of them"),
        ("grid", {"model": "dcgan", "start": {"seed": 1}, "seeds": ["a"]}, "seed 'a': give a whole number"),
        ("read", {"model": "dcgan", "text": 3}, "text 3: give a text"),
    ],
)
def test_questions_that_have_no_answer_are_told_so(studio: Studio, name: str, said: dict, message: str) -> None:
    async def asking(client: TestClient) -> tuple[int, dict]:
        answer = await client.post(f"/api/{name}", json=said)
        return answer.status, await answer.json()

    status, told = asked(studio, asking)
    assert status == 400 and message in told["error"]


def test_a_job_tells_its_way_and_its_end(studio: Studio) -> None:
    async def asking(client: TestClient) -> list[list[dict]]:
        said = {"model": "dcgan", "start": {"seed": 1}, "steps": [{"blend": {"seed": 2}}]}
        answers = [await client.post("/api/film", json=one) for one in (said | {"frames": 3}, said | {"frames": 0})]
        return [[json.loads(line) for line in (await one.text()).splitlines()] for one in answers]

    (named, *steps, end), (_, wrong) = asked(studio, asking)
    assert len(named["job"]) == 16 and [one["done"] for one in steps] == [1, 2, 3] and end["result"]["file"]
    assert wrong["error"] == "frames 0: give a whole number from 2 to 240" and not wrong["stopped"]


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere"], "nowhere does not exist: give a run"),
        (["{home}", "--port", "70000"], "port 70000: give 0 to 65535"),
        (["{home}/dcgan/config.json"], "is not a checkpoint that can be read safely"),
    ],
)
def test_the_command_says_what_is_wrong(
    argv: list[str], message: str, home: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([one.format(home=home) for one in argv]) == 2
    assert message in capsys.readouterr().err


def test_without_its_extra_it_says_how_to_get_it(
    home: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "lit_gans.editing.studio.server", raising=False)
    assert main([str(home / "dcgan")]) == 2
    assert "the studio needs aiohttp: pip install 'lit-gans[studio]'" in capsys.readouterr().err


def test_only_this_machine_is_local() -> None:
    here = ["127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.0.4", "evil.example"]
    assert [server.is_local(host) for host in here] == [True, True, True, False, False, False]
