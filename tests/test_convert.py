"""Released weights to ours and back, from files in the layout of the releases."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_gans.convert import convert, main
from lit_gans.official import apply_keys, fingerprint, read_official
from lit_gans.papers import stylegan2
from lit_gans.runs.pretrained import from_pretrained

from .official import hostile
from .official.layout import EasyDict, official_modules, stylegan2_state, tree, written
from .parity.golden import Golden, cases

__all__ = ["official_modules"]

BUFFERS = ("resample_filter", "noise_const", "w_avg")
G_CONFIG = {
    "z_dim": 8, "c_dim": 0, "w_dim": 8, "img_resolution": 16, "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2}, "synthesis_kwargs": {"channel_base": 64, "channel_max": 8, "num_fp16_res": 0},
}  # fmt: skip
D_CONFIG = {
    "c_dim": 0, "img_resolution": 16, "img_channels": 3, "channel_base": 64, "channel_max": 8,
    "epilogue_kwargs": {"mbstd_group_size": 2},
}  # fmt: skip


def official_state(class_name: str, config: dict, *, seed: int) -> dict[str, Tensor]:
    """Random weights under the official names."""
    torch.manual_seed(seed)
    model = getattr(stylegan2, class_name)(**stylegan2.from_official_config(config))
    state = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    return stylegan2_state(state)


def network(class_name: str, config: dict, state: dict[str, Tensor]) -> torch.nn.Module:
    return tree(class_name, state, buffers=BUFFERS.__contains__, arguments=config)


@pytest.fixture
def states() -> dict[str, dict[str, Tensor]]:
    return {
        "G": official_state("Generator", G_CONFIG, seed=1),
        "D": official_state("Discriminator", D_CONFIG, seed=2),
        "G_ema": official_state("Generator", G_CONFIG, seed=3),
    }


@pytest.fixture
def release(tmp_path: Path, states: dict, official_modules: None) -> Path:
    contents = {
        name: network(*(("Discriminator", D_CONFIG) if name == "D" else ("Generator", G_CONFIG)), state)
        for name, state in states.items()
    }
    pipe = {"p": torch.tensor(0.25), "Hz_geom": torch.rand(12)}
    contents["augment_pipe"] = network("AugmentPipe", {"xflip": 1}, pipe)
    contents["training_set_kwargs"] = EasyDict(path="ffhq.zip", use_labels=False)
    return written(tmp_path / "official.pkl", contents)


def test_to_ours_and_back_gives_every_tensor(release: Path, states: dict, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    certificate = convert(release, folder)
    assert {name: n.official_fingerprint for name, n in certificate.networks.items() if name in states} == {
        name: fingerprint(state) for name, state in states.items()
    }
    again = convert(folder, tmp_path / "again.pkl", to="official")
    first, second = read_official(release), read_official(tmp_path / "again.pkl")
    assert second.networks.keys() == first.networks.keys() and second.extra == first.extra
    for name, network in first.networks.items():
        found = second.networks[name]
        assert found.state.keys() == network.state.keys() and found.fingerprint == network.fingerprint
        assert found.buffers == network.buffers and found.modules.keys() >= network.modules.keys()
        assert (found.class_name, found.init_kwargs) == (network.class_name, network.init_kwargs)
        assert again.networks[name].official_fingerprint == network.fingerprint
    assert "The networks' source goes along, under lit_gans's own licence" in str(again)
    assert "augment_pipe: weights and names alone; their source is not ours to write" in str(again)


def test_the_folder_is_the_averaged_generator(release: Path, states: dict, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    convert(release, folder)
    model = from_pretrained(folder)
    assert type(model) is stylegan2.Generator and type(from_pretrained(folder / "D")) is stylegan2.Discriminator
    expected = apply_keys(states["G_ema"], stylegan2.OFFICIAL_KEYS)
    assert fingerprint(model.state_dict()) == fingerprint(expected)
    assert model(torch.randn(2, 8), noise="const").shape == (2, 3, 16, 16)
    assert not (folder / "augment_pipe" / "config.json").exists()
    assert load_file(folder / "augment_pipe" / "official.safetensors")["p"] == 0.25
    assert "whose licence holds" in (folder / "README.md").read_text()


def test_the_verbs_take_the_folder_as_they_take_a_run(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from lit_gans.evaluate import evaluate
    from lit_gans.runs.load import load_run
    from lit_gans.sample import main as sample

    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "ours"
    convert(release, folder)
    gan = load_run(folder)
    z = gan.seeded_latents([5])
    expected = from_pretrained(folder)(z, noise="const", psi=0.5).clamp(-1, 1)
    assert torch.equal(gan.sample([5], psi=0.5), expected) and gan.styles(z).shape[2] == 8
    assert sample([str(folder), "--seeds", "0-24", "--output", str(tmp_path / "fakes")]) == 0
    assert sample([str(folder), "--mix", "0-1", "2-3", "--mix-layers", "0-1", "--output", str(tmp_path / "mix")]) == 0
    found = evaluate(
        folder, tmp_path / "fakes", extractor="random_inception", metrics=["kid"], num_images=6, num_real=9
    )
    assert found.protocol["generator"] == "ema" and found.protocol["n_real"] == 9
    with pytest.raises(ValueError, match="holds a Discriminator alone, which makes no images: give a run"):
        load_run(folder / "D")


def test_changed_weights_go_back_too(release: Path, states: dict, tmp_path: Path) -> None:
    folder = tmp_path / "ours"
    convert(release, folder)
    state = load_file(folder / "model.safetensors")
    state["synthesis.blocks.4.const"] += 1
    save_file(state, folder / "model.safetensors")
    convert(folder, tmp_path / "changed.pkl", to="official")
    found = read_official(tmp_path / "changed.pkl").networks["G_ema"].state
    name = "synthesis.b4.const"
    assert torch.equal(found[name], states["G_ema"][name] + 1)
    assert all(torch.equal(found[n], tensor) for n, tensor in states["G_ema"].items() if n != name)


@pytest.mark.parametrize("given", [{}, {"num_fp16_res": 0, "conv_clamp": None, "w_avg_beta": 0.9}])
def test_stylegan2_of_later_code_has_other_defaults(
    given: dict, states: dict, tmp_path: Path, official_modules: None
) -> None:
    """Of NVlabs/stylegan3 and projected-gan, which `fused_modconv_default` tells."""
    given = dict(given)
    mapping = {"num_layers": 2} | {name: given.pop(name) for name in ("w_avg_beta",) if name in given}
    sizes = {"channel_base": 64, "channel_max": 8, "fused_modconv_default": "inference_only"}
    config = {k: v for k, v in G_CONFIG.items() if k != "synthesis_kwargs"} | {"mapping_kwargs": mapping}
    config |= sizes | given
    path = written(tmp_path / "official.pkl", {"G_ema": network("Generator", config, states["G_ema"])})
    arguments = convert(path, tmp_path / "ours").networks["G_ema"].arguments
    expected = {"num_half_res": 0, "conv_clamp": None, "w_avg_decay": 0.9} if given else stylegan2.official.LATER
    assert {name: arguments[name] for name in expected} == expected
    assert from_pretrained(tmp_path / "ours").mapping.w_avg_decay == expected["w_avg_decay"]


RECORDED = [case for player in ("Generator", "Discriminator") for case in cases(f"networks.{player}", "stylegan2-ada")]


@pytest.mark.parametrize("golden", RECORDED)
def test_recorded_outputs(golden: Golden, tmp_path: Path, official_modules: None) -> None:
    """A release made of recorded weights draws what was recorded."""
    if not golden.outputs.keys() & {"img", "logits"}:
        pytest.skip("neither images nor logits are recorded")
    class_name = golden.official_class.rpartition(".")[2]
    name = "D" if class_name == "Discriminator" else "G_ema"
    path = written(tmp_path / "official.pkl", {name: network(class_name, golden.config, golden.state)})
    certificate = convert(path, tmp_path / "ours", golden=golden.path)
    absolute, relative = certificate.differences[name]
    assert 0 <= relative <= golden.tolerance["forward"] and absolute >= 0
    assert "recorded output" in str(certificate)


def test_the_certificate(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = read_official(release)
    assert main([str(release), str(tmp_path / "ours")]) == 0
    printed = capsys.readouterr().out
    assert f"{file.sha256}  {release}" in printed and str(tmp_path / "ours" / "D" / "model.safetensors") in printed
    for name, network in file.networks.items():
        assert f"\n{name}: " in printed and network.fingerprint in printed
        assert f"  {network.num_parameters:,} parameters" in printed
    assert "G_ema: lit_gans.papers.stylegan2.Generator" in printed and "  resolution = 16" in printed
    assert "augment_pipe: kept aside" in printed


def test_other_recorded_values_are_refused(release: Path, states: dict, tmp_path: Path) -> None:
    save_file({"state/mapping.w_avg": torch.zeros(8), "in/z": torch.zeros(1, 8)}, tmp_path / "golden.safetensors")
    with pytest.raises(ValueError, match="recorded from other weights"):
        convert(release, tmp_path / "ours", golden=tmp_path / "golden.safetensors")
    with pytest.raises(FileNotFoundError, match="file of recorded outputs"):
        convert(release, tmp_path / "ours", golden=tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="leave golden out"):
        convert(tmp_path, tmp_path / "a.pkl", to="official", golden=tmp_path / "golden.safetensors")
    metadata = {"call": json.dumps({"kwargs": {"update_emas": True}})}
    recorded = {f"state/{name}": tensor for name, tensor in states["G_ema"].items()}
    save_file(recorded, tmp_path / "golden.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="the recorded call has 'update_emas'"):
        convert(release, tmp_path / "ours", golden=tmp_path / "golden.safetensors")
    save_file(recorded, tmp_path / "golden.safetensors")
    with pytest.raises(ValueError, match="recorded outputs have no in/img, out/logits"):
        convert(release, tmp_path / "ours", golden=tmp_path / "golden.safetensors")
    assert not (tmp_path / "ours").exists()


def test_networks_that_are_not_ours(tmp_path: Path, states: dict, official_modules: None) -> None:
    strange = states["G"] | {"synthesis.input.freqs": torch.zeros(2)}
    path = written(tmp_path / "g.pkl", {"G_ema": network("Generator", G_CONFIG, strange)})
    with pytest.raises(ValueError, match=r"1 official names fit no entry of the table: synthesis\.input\.freqs"):
        convert(path, tmp_path / "ours")
    smaller = {name: tensor for name, tensor in states["G"].items() if name != "synthesis.b16.conv1.bias"}
    path = written(tmp_path / "g.pkl", {"G_ema": network("Generator", G_CONFIG, smaller)})
    with pytest.raises(ValueError, match=r"1 of ours are not filled: synthesis\.blocks\.16\.conv1\.bias"):
        convert(path, tmp_path / "ours")
    path = written(tmp_path / "g.pkl", {"G_ema": network("MSGGenerator", {}, states["G"])})
    with pytest.raises(ValueError, match="G_ema is a MSGGenerator, of which there is none here"):
        convert(path, tmp_path / "ours")
    path = written(tmp_path / "g.pkl", {"../G": network("Generator", G_CONFIG, states["G"])})
    with pytest.raises(ValueError, match="cannot be a folder's name"):
        convert(path, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_folders_that_hold_something_else(release: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="holds something else: give a new folder"):
        convert(release, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "theirs" / "checkpoints").mkdir(parents=True)
    (tmp_path / "theirs" / "out").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads by a link"):
        convert(release, tmp_path / "theirs" / "out" / "ours")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        convert(tmp_path, tmp_path / "a.pkl", to="official")
    folder = tmp_path / "ours"
    convert(release, folder)
    convert(release, folder)  # its own may be written again
    with pytest.raises(ValueError, match="is no .pkl file"):
        convert(folder, tmp_path / "a.pt", to="official")
    kept = json.loads((folder / "official.json").read_text())
    (folder / "official.json").write_text(json.dumps({**kept, "names": None}))
    with pytest.raises(ValueError, match="'names' is missing or of another type"):
        convert(folder, tmp_path / "a.pkl", to="official")


def test_hostile_files_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    sentinel = tmp_path / "sentinel"
    (tmp_path / "g.pkl").write_bytes(hostile.attacks(sentinel)["os.system"][0])
    assert main([str(tmp_path / "g.pkl"), str(tmp_path / "ours")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("lit-gans convert: ") and "asks for os.system" in message and message.count("\n") == 1
    assert not sentinel.exists() and "torch_utils" not in sys.modules and "dnnlib" not in sys.modules
