"""Edit scripts: read strictly, written down again, and replayed to the same picture in another process."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from lit_gans.adversarial import GAN
from lit_gans.base.images import to_uint8
from lit_gans.edit import edit, main
from lit_gans.editing import styles_of
from lit_gans.editing.found import write_found
from lit_gans.editing.projector import KIND, noise_maps
from lit_gans.editing.script import film_states, parse_script, read_script
from lit_gans.editing.state import Edited, between, weights_digest
from lit_gans.editing.steps import STARTS, STEPS
from lit_gans.runs.pretrained import save_pretrained
from tests.cases import CASES

ALL = """
model: tiny
start: {seed: 3, psi: 0.8, label: 1}
steps:
- mix: {seed: 10, layers: '0-1', by: 0.5}
- blend: {seed: 4, by: 0.3}
- truncate: {psi: 0.6}
- noise: {kind: random, seed: 5}
"""


@pytest.fixture(scope="module")
def styled() -> GAN:
    return CASES["stylegan2"]().eval()


@pytest.fixture(scope="module")
def plain() -> GAN:
    return CASES["dcgan"]().eval()


def last(model: GAN, steps: str, start: str = "{seed: 3}") -> Edited:
    return parse_script(f"model: x\nstart: {start}\nsteps: {steps}").states(model)[-1]


def styles(model: GAN, seed: int, *, label: int = 3, psi: float = 1.0) -> torch.Tensor:
    return styles_of(model, [seed], label=label if model.num_classes else None, psi=psi)


def test_a_start_is_the_seeds_own_picture(styled: GAN, plain: GAN) -> None:
    for model in (styled, plain):
        label = 3 % model.num_classes if model.num_classes else None
        labels = None if label is None else torch.tensor([label])
        own = to_uint8(model.sample([3], labels=labels))[0]
        assert torch.equal(last(model, "[]").picture(), own)


def test_mixing_takes_the_layers_of_the_other(styled: GAN) -> None:
    label = 3 % styled.num_classes if styled.num_classes else 0
    a, b = styles(styled, 3, label=label), styles(styled, 10, label=label)
    ws = last(styled, "[mix: {seed: 10, layers: [1, 2]}]").ws
    assert torch.equal(ws[:, 1:3], b[:, 1:3]) and torch.equal(ws[:, 0], a[:, 0]) and torch.equal(ws[:, 3:], a[:, 3:])
    half = last(styled, "[mix: {seed: 10, layers: '1-2', by: 0.25}]").ws
    torch.testing.assert_close(half[:, 1:3], 0.75 * a[:, 1:3] + 0.25 * b[:, 1:3])


def test_truncation_is_the_papers(styled: GAN, plain: GAN) -> None:
    label = 3 % styled.num_classes if styled.num_classes else 0
    torch.testing.assert_close(last(styled, "[truncate: {psi: 0.4}]").ws, styles(styled, 3, label=label, psi=0.4))
    one = last(styled, "[truncate: {psi: 0, layers: '0'}]").ws
    assert torch.equal(one[:, 1:], styles(styled, 3, label=label)[:, 1:])
    torch.testing.assert_close(one[:, 0], styles(styled, 9, label=label, psi=0)[:, 0])
    half = last(plain, "[truncate: {psi: 0.5}]")
    assert torch.equal(half.picture(), to_uint8(plain.sample([3], psi=0.5, labels=half.labels()))[0])


def test_truncation_leaves_the_layers_that_the_paper_leaves() -> None:
    model = CASES["stylegan1"](trunc_layers=2).eval()
    label = 3 % model.num_classes
    torch.testing.assert_close(last(model, "[truncate: {psi: 0.4}]").ws, styles(model, 3, label=label, psi=0.4))


def test_a_blend_ends_at_the_other(styled: GAN, plain: GAN) -> None:
    for model in (styled, plain):
        there = last(model, "[blend: {seed: 9, by: 1}]")
        label = 3 % model.num_classes if model.num_classes else None
        other = Edited.from_seed(model, 9, label=label)
        torch.testing.assert_close(there.image(), other.image(), rtol=1e-4, atol=1e-4)
        stays = last(model, "[blend: {seed: 9, by: 0}]")
        torch.testing.assert_close(stays.image(), last(model, "[]").image(), rtol=1e-4, atol=1e-4)


def test_noise_is_put_in_and_the_model_stays_as_it_was(styled: GAN) -> None:
    with torch.no_grad():
        for layer in styled.generator_ema.modules():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.fill_(1.0)
    before = {name: one.clone() for name, one in styled.state_dict().items()}
    own, none, other, again = (
        last(styled, steps).image()
        for steps in ("[]", "[noise: {kind: none}]", "[noise: {kind: random}]", "[noise: {kind: random, seed: 0}]")
    )
    assert not torch.equal(own, none) and not torch.equal(none, other) and torch.equal(other, again)
    assert torch.equal(last(styled, "[{noise: {kind: none}}, {noise: {kind: const}}]").image(), own)
    assert all(torch.equal(one, before[name]) for name, one in styled.state_dict().items())


def test_weights_are_put_in_for_one_picture_alone(styled: GAN) -> None:
    edited = Edited.from_seed(styled, 3)
    name = next(n for n, _ in styled.named_parameters() if n.startswith("generator_ema.synthesis") and "const" in n)
    other = Edited(styled, edited.ws, label=edited.label, weights={name: styled.state_dict()[name] + 1})
    assert not torch.equal(other.image(), edited.image())
    assert torch.equal(Edited.from_seed(styled, 3).image(), edited.image())


def test_a_film_goes_from_the_first_state_to_the_last(styled: GAN) -> None:
    states = parse_script(ALL).states(styled)
    film = film_states(states, 9)
    assert len(film) == 9 and torch.equal(film[0].ws, states[0].ws) and torch.equal(film[-1].ws, states[-1].ws)
    assert torch.equal(film[2].ws, states[1].ws)  # every second is a state
    torch.testing.assert_close(film[1].ws, (states[0].ws + states[1].ws) / 2)
    a, b = (Edited(styled, states[0].ws, shifts=one) for one in ({}, {"4.conv1": torch.ones(1)}))
    torch.testing.assert_close(between(a, b, 0.25).shifts["4.conv1"], torch.full((1,), 0.25))


EACH_START = [
    "{seed: 3, psi: 0.8, label: 1}",
    "{caption: 'a red, round one: large', seed: 4, psi: 0.5}",
    "{styles: 'a/w.safetensors', weights: t.safetensors}",
    "{latent: z.safetensors, label: rose, psi: 0.5, weights: t.safetensors}",
]
EACH_STEP = [
    "truncate: {psi: 0.6, layers: [0, 2]}",
    "mix: {seed: 10, layers: '0-1', by: 0.5, label: tulip, psi: 0.7}",
    "blend: {seed: 4, by: 0.3, label: 2, psi: 0.9}",
    "noise: {kind: random, seed: 5}",
    "class: {label: 40-49}",
    "direction: {file: 'd.safetensors', name: Smiling, by: -2.5, layers: fine}",
    "drag: {handles: [[1, 2.5]], targets: [[3, 4]], mask: m.png, max_steps: 9, lr: 0.005}",
    "text: {text: 'a \"smile\"', image_text: pair.safetensors, weights: f.safetensors, by: 0.5, steps: 3}",
    "map: {file: m.safetensors, by: 0.2}",
    "shift: {file: s.safetensors, by: -1}",
]


@pytest.mark.parametrize("start", EACH_START)
def test_what_is_written_is_read_as_the_same(start: str) -> None:
    steps = "".join(f"- {one}\n" for one in EACH_STEP)
    script = parse_script(f"model: a run\nweights: '0123'\nema: false\nstart: {start}\nsteps:\n{steps}")
    assert parse_script(script.text()) == script
    assert [type(step) for step in script.steps] == [STEPS[one.partition(":")[0]] for one in EACH_STEP]
    assert script.from_seed(8).start.seed == 8 and script.from_seed(8).steps == script.steps


def test_each_step_and_start_is_in_the_round_trip() -> None:
    assert {one.partition(":")[0] for one in EACH_STEP} == set(STEPS)
    assert {one[1:].partition(":")[0] for one in EACH_START} == set(STARTS)


def test_tensors_of_another_model_are_refused(styled: GAN) -> None:
    edited, noise = Edited.from_seed(styled, 3), next(iter(noise_maps(styled)))
    for changed in ({"noise": {noise: torch.zeros(2, 2)}}, {"weights": {"generator_ema.other": torch.zeros(2, 2)}}):
        with pytest.raises(ValueError, match=r"is given as \[2, 2\], and this StyleGAN2 has .*: it belongs to another"):
            replace(edited, **changed).image()


WRONG = {
    "model: x\nstart: {seed: 1}\nsteps: [mixx: {seed: 1}]": "step 1: 'mixx' is unknown, did you mean 'mix': steps are",
    "model: x\nstart: {seed: 1}\nsteps: [mix: {sed: 1}]": "step 1, mix: 'sed' is unknown, did you mean 'seed'",
    "model: x\nstart: {seed: 1}\nsteps: [mix: {layers: fine}]": "step 1, mix: seed is missing",
    "model: x\nstart: {seed: 1}\nsteps: [{}, {mix: {seed: 1}}]": "step 1: {} is not of the form",
    "model: x\nstart: {seed: 1}\nsteps: [mix: {seed: 1, by: much}]": "step 1, mix: by cannot be 'much'",
    "model: x\nstart: {seed: 1}\nsteps: [mix: {seed: 1, by: .nan}]": "step 1, mix: by nan is no finite number",
    "model: x\nstart: {seed: 1}\nsteps: [noise: {kind: loud}]": "step 1, noise: kind cannot be 'loud'",
    "model: x\nstart: {seed: 1, styles: w}": "start: give one of .*seed, styles",
    "model: x\nstart: {}": "start: give one of .*seed, styles.*, found nothing",
    "model: x": "start is missing",
    "start: {seed: 1}": "model is missing",
    "model: x\nstart: {seed: 1}\nstep: []": "'step' is unknown, did you mean 'steps'",
    "model: 3\nstart: {seed: 1}": "model: 3 is no str",
    "[1, 2]": "an edit script is a mapping",
    "{": "this is no YAML",
    "model: &x x\nstart: {seed: *x}": "an edit script has no aliases",
    "[" * 10_000: "20 brackets within brackets",
    "- " * 2_000: "this is no YAML",
    "x" * 60_000: "at most 50,000 letters",
    "model: !!python/object/apply:os.system [ls]\nstart: {seed: 1}": "this is no YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_and_where(text: str) -> None:
    with pytest.raises(ValueError, match=WRONG[text]):
        parse_script(text)


CANNOT = {
    "[mix: {seed: 1, layers: '40'}]": "step 1, mix: layer 40 does not exist",
    "[{truncate: {psi: 1}}, {mix: {seed: 1, label: cat}}]": "step 2, mix: classes 'cat'",
}


@pytest.mark.parametrize("steps", CANNOT)
def test_what_the_model_cannot_is_said_with_the_step(steps: str, styled: GAN) -> None:
    with pytest.raises(ValueError, match=CANNOT[steps]):
        last(styled, steps)


def test_a_model_without_styles_mixes_none(plain: GAN) -> None:
    with pytest.raises(ValueError, match="step 1, mix: mix needs a model that has styles"):
        last(plain, "[mix: {seed: 1}]")
    with pytest.raises(ValueError, match="step 1, noise: noise needs a model that has styles"):
        last(plain, "[noise: {kind: none}]")


def test_other_weights_than_the_scripts_are_refused(styled: GAN) -> None:
    text = f"model: x\nweights: {weights_digest(styled)}\nstart: {{seed: 1}}"
    assert parse_script(text).states(styled)
    with pytest.raises(ValueError, match="was written with the weights 0123, and this model has"):
        parse_script("model: x\nweights: '0123'\nstart: {seed: 1}").states(styled)


def test_styles_of_a_file_are_a_start(styled: GAN, tmp_path: Path) -> None:
    ws = styles(styled, 7, label=0)
    write_found(tmp_path / "w.safetensors", KIND, {"ws": ws}, {})
    script = parse_script("model: x\nstart: {styles: w.safetensors}", tmp_path)
    assert torch.equal(script.states(styled)[0].ws, ws)
    write_found(tmp_path / "w.safetensors", KIND, {"ws": ws[:, :2]}, {})
    with pytest.raises(ValueError, match=r"has styles \[1, 2, .*another's"):
        script.states(styled)


def test_the_verb_replays_bit_for_bit_in_another_process(styled: GAN, tmp_path: Path) -> None:
    save_pretrained(styled, tmp_path / "tiny")
    (tmp_path / "a.yaml").write_text(ALL)
    (tmp_path / "elsewhere").mkdir()
    here = edit(tmp_path / "a.yaml", output=tmp_path / "here.png", device="cpu")
    command = [sys.executable, "-m", "lit_gans.edit", tmp_path / "a.yaml", "--output", tmp_path / "there.png"]
    subprocess.run([*command, "--device", "cpu"], check=True, cwd=tmp_path / "elsewhere")
    assert here.read_bytes() == (tmp_path / "there.png").read_bytes()
    own = read_script(tmp_path / "a.yaml").states(styled)[-1].picture()
    assert Image.open(here).size == (own.shape[2], own.shape[1])
    sheet = edit(tmp_path / "a.yaml", output=tmp_path / "s.png", sheet=True, seeds="0,1", device="cpu")
    film = edit(tmp_path / "a.yaml", output=tmp_path / "f.gif", frames=5, device="cpu")
    assert Image.open(sheet).width > 4 * own.shape[2] and 2 <= Image.open(film).n_frames <= 5  # equal ones become one


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.yaml").write_text("model: nowhere\nstart: {seed: 1}")
    assert main([str(tmp_path / "a.yaml"), "--output", str(tmp_path / "a.png")]) == 2
    assert "nowhere" in capsys.readouterr().err
    for arguments, told in (
        (["a.png", "--sheet", "--frames", "0"], "0 frames at 25 a second"),
        (["a.gif", "--sheet"], "a sheet is a picture"),
        (["a.txt"], "give a .png file"),
    ):
        assert main([str(tmp_path / "a.yaml"), "--output", *arguments]) == 2
        assert told in capsys.readouterr().err
    assert main([str(tmp_path / "no.yaml"), "--output", "a.png"]) == 2
    assert "no.yaml does not exist: give an edit script" in capsys.readouterr().err
