"""Model folders: what is saved comes back to the last bit, and nothing but our own classes is built."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from lit_gans.metrics import Evaluation
from lit_gans.papers.dcgan import Discriminator, Generator
from lit_gans.runs.pretrained import from_pretrained, push_to_hub, save_pretrained

from .callbacks.common import tiny_cgan, tiny_gan

ARGUMENTS = {"z_dim": 4, "width": 2, "kernel_size": 3, "channels": 1, "resolution": 8}


def same(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_pretrained(Generator(**ARGUMENTS), tmp_path / "model", arguments=ARGUMENTS)


def edit(folder: Path, **entries: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_network_alone(tmp_path: Path) -> None:
    generator = Generator(**ARGUMENTS).double().float()
    generator(torch.randn(8, 4))  # moves the running statistics
    save_pretrained(generator, tmp_path, arguments=ARGUMENTS)
    found = from_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert type(found) is Generator and same(found, generator)
    assert not found.training and not any(p.requires_grad for p in found.parameters())


@pytest.mark.parametrize("gan", [tiny_gan, tiny_cgan])
def test_a_training_class_samples_as_before(tmp_path: Path, gan: object) -> None:
    model = gan(total_kimg=0.016)
    model.images_seen = 1600
    save_pretrained(model, tmp_path)
    found = from_pretrained(str(tmp_path))
    assert type(found) is type(model) and same(found, model) and found.images_seen == 1600
    assert torch.equal(found.sample([3, 4]), model.sample([3, 4]))


def test_what_only_training_needs_stays_behind(tmp_path: Path) -> None:
    model = tiny_gan()
    model.augment = nn.Linear(1, 1)
    found = from_pretrained(save_pretrained(model, tmp_path))
    assert not any(name.startswith("augment") for name in found.state_dict()) and same(found.generator, model.generator)


def test_card_tells_numbers_with_their_protocols(tmp_path: Path) -> None:
    protocol = {"extractor": "digits", "numbers": {"kid": {"subsets": 10}}}
    evaluations = [Evaluation({"fid": 12.345678, "kid": 0.5}, protocol), Evaluation({"recall": 0.25}, protocol)]
    save_pretrained(
        Generator(**ARGUMENTS), tmp_path, arguments=ARGUMENTS, evaluations=evaluations, notes="Trained on digits."
    )
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: lit-gans\n") and "Trained on digits." in card
    assert "| fid | 12.3457 | 1 |\n| kid | 0.5 | 2 |\n| recall | 0.25 | 1 |" in card
    assert card.count("Protocol ") == 2 and '"subsets": 10' in card
    assert "- z_dim: `4`" in card and "from_pretrained" in card
    save_pretrained(Generator(**ARGUMENTS), tmp_path, arguments=ARGUMENTS)
    assert "None measured." in (tmp_path / "README.md").read_text()


def test_what_cannot_be_built_again_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not keep its constructor's arguments: pass arguments="):
        save_pretrained(Generator(**ARGUMENTS), tmp_path)

    class Mine(nn.Linear):
        pass

    with pytest.raises(ValueError, match="<locals>.Mine cannot be imported from elsewhere: define the class"):
        save_pretrained(Mine(2, 2), tmp_path, arguments={"in_features": 2, "out_features": 2})
    with pytest.raises(ValueError, match="build a network of other tensors than the weights': project.weight"):
        save_pretrained(Generator(**ARGUMENTS), tmp_path, arguments=ARGUMENTS | {"width": 3})
    with pytest.raises(ValueError, match="argument width is a Tensor"):
        save_pretrained(Generator(**ARGUMENTS), tmp_path, arguments=ARGUMENTS | {"width": torch.tensor(2)})
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="has a README.md of something else"):
        save_pretrained(Generator(**ARGUMENTS), tmp_path, arguments=ARGUMENTS)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"class_path": "torch.nn.Linear"}, "is not one of lit_gans.papers"),
        ({"class_path": "os.system"}, "is not one of lit_gans.papers"),
        ({"class_path": "lit_gans.papers.dcgan.GAN"}, "has no class"),
        ({"class_path": "lit_gans.papers.dcgan.widths"}, "has no class"),
        ({"class_path": "lit_gans.papers.dcgan.nn"}, "has no class"),
        ({"class_path": "lit_gans.papers.later.Generator"}, "later version"),
        ({"class_path": "lit_gans.papers..dcgan.Generator"}, "is not one of lit_gans.papers"),
        ({"class_path": 3}, "no class_path of the right type"),
        ({"arguments": {"z_dim": 4, "depth": 1}}, "cannot be built from its arguments"),
        ({"arguments": ARGUMENTS | {"width": 3}}, "other tensors than the weights'"),
        ({"arguments": ARGUMENTS | {"resolution": 9}}, "not a power of two"),
        ({"class_path": "lit_gans.papers.DCGAN", "arguments": {"loss": "os.system"}}, "loss 'os.system'"),
    ],
)
def test_configs_that_ask_for_more_are_refused(folder: Path, entries: dict, message: str) -> None:
    edit(folder, **entries)
    with pytest.raises(ValueError, match=message):
        from_pretrained(folder)


def test_a_strangers_class_is_built_where_its_package_is_trusted(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    save_pretrained(model, tmp_path, arguments={"in_features": 2, "out_features": 3})
    assert 'from_pretrained(".", trust="torch")' in (tmp_path / "README.md").read_text()
    for trust in (None, "tor", "torch.nn.functional"):
        with pytest.raises(ValueError, match=r"Linear' is not one of lit_gans.* if you trust its package, name it"):
            from_pretrained(tmp_path, trust=trust)
    assert same(from_pretrained(tmp_path, trust="torch"), model)


def test_damaged_and_missing_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor of the form owner/name"):
        from_pretrained(tmp_path / "nothing")
    (folder / "model.safetensors").write_bytes(b"PK")
    with pytest.raises(ValueError, match="no safetensors file, or is damaged"):
        from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="other formats than safetensors can hold code"):
        from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is no JSON"):
        from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json does not exist"):
        from_pretrained(folder)


# ---- the hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple]:
    """What is asked of the hub, whose one repository is `folder`."""
    asked: list[tuple] = []
    fake = types.ModuleType("huggingface_hub")

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision, allow_patterns))
        return str(folder)

    def create_repo(repo_id: str, *, private: bool, exist_ok: bool) -> None:
        asked.append(("create", repo_id, private, exist_ok))

    def upload_folder(*, repo_id: str, folder_path: str, commit_message: str) -> None:
        asked.append(("upload", repo_id, folder_path, commit_message))

    fake.snapshot_download, fake.create_repo, fake.upload_folder = snapshot_download, create_repo, upload_folder
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return asked


def test_from_the_hub_by_name(hub: list[tuple], folder: Path) -> None:
    found = from_pretrained("someone/digits", revision="v1")
    assert hub == [("someone/digits", "v1", ["model.safetensors", "config.json", "README.md"])]
    assert same(found, from_pretrained(folder)) and len(hub) == 1  # a folder that is there asks nobody


def test_push_to_the_hub(hub: list[tuple], folder: Path, tmp_path: Path) -> None:
    assert push_to_hub(folder, "someone/digits", private=True) == "https://huggingface.co/someone/digits"
    assert hub == [
        ("create", "someone/digits", True, True),
        ("upload", "someone/digits", str(folder), "Upload a Generator of lit_gans"),
    ]
    with pytest.raises(ValueError, match="'digits' is not of the form owner/name"):
        push_to_hub(folder, "digits")
    with pytest.raises(FileNotFoundError, match="has no model.safetensors, config.json, README.md"):
        push_to_hub(tmp_path, "someone/digits")
    assert len(hub) == 2


def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"pip install 'lit-gans\[hub\]'"):
        from_pretrained("someone/digits")
    with pytest.raises(ValueError, match="the extra 'hub'"):
        push_to_hub(folder, "someone/digits")


def test_networks_of_one_file_are_told_apart(tmp_path: Path) -> None:
    arguments = {"width": 2, "kernel_size": 3, "channels": 1, "resolution": 8}
    discriminator = Discriminator(**arguments)
    found = from_pretrained(save_pretrained(discriminator, tmp_path, arguments=arguments))
    assert type(found) is Discriminator and same(found, discriminator)
