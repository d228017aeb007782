"""What is asked for at a resume comes into force, and what differs from before is said."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml

from lit_gans.adversarial.optim import apply_changed, options_of
from lit_gans.base.checkpoints import checkpoints, read_checkpoint
from lit_gans.base.images import save_png
from lit_gans.callbacks import FadeIn
from lit_gans.fit import main
from lit_gans.runs.configs import differences
from tests.cases import CASES, train
from tests.resume.growing import SCHEDULE

SMALL = [
    "--model=lit_gans.papers.DCGAN", "--model.init_args.width=4", "--model.init_args.resolution=16",
    "--model.init_args.channels=1", "--data=lit_gans.data.Digits", "--data.init_args.batch_size=4",
    "--data.init_args.resolution=16", "--logger=none", "--evaluate.metrics=[]", "--image_grid.every_kimg=0",
    "--health.diversity_every_kimg=0", "--trainer.accelerator=cpu",
]  # fmt: skip


def groups(trainer: pl.Trainer) -> list[dict[str, object]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


def resumed(folder: Path, name: str, **changed: object) -> pl.Trainer:
    train(CASES[name](), folder, batches=10, stop_at=5)
    return train(CASES[name](**changed), folder, batches=10, resume=checkpoints(folder)[-1])


def test_a_lower_rate_and_other_betas_hold_after_a_resume(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trainer = resumed(tmp_path, "dcgan", lr=1e-5, betas=(0.25, 0.75))
    assert {(g["lr"], g["betas"]) for g in groups(trainer)} == {(1e-5, (0.25, 0.75))}
    assert "from here on the optimisers have lr 0.0002 -> 1e-05, betas (0.5, 0.999) -> (0.25, 0.75)" in (
        capsys.readouterr().err
    )


def test_a_rate_of_0_changes_no_weight_after_a_resume(tmp_path: Path) -> None:
    trainer = resumed(tmp_path, "dcgan", lr=0.0)
    before = read_checkpoint(checkpoints(tmp_path)[-1])["state_dict"]
    after = trainer.lightning_module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name, _ in trainer.lightning_module.named_parameters())


def test_a_schedule_multiplies_the_new_rate(tmp_path: Path) -> None:
    trainer = resumed(tmp_path, "dcgan-r1", lr=0.5)
    assert all(0 < g["lr"] < 0.5 and g["initial_lr"] == 0.5 for g in groups(trainer))


def test_of_a_checkpoint_that_kept_no_options_its_own_count() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    optimizer.param_groups[0] |= {"initial_lr": 0.5, "lr": 0.05}  # a schedule is on its way
    asked = [[{"lr": 0.5, "betas": (0.9, 0.99)}]]
    assert apply_changed([optimizer], before=None, now=asked) == ["betas (0.9, 0.999) -> (0.9, 0.99)"]
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_rate_that_was_set_meanwhile_stays_where_nothing_else_was_asked_for() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    built = options_of([optimizer])
    optimizer.param_groups[0]["lr"] = 0.125  # by a callback
    assert apply_changed([optimizer], before=built, now=built) == []
    assert optimizer.param_groups[0]["lr"] == 0.125


def test_what_a_scheduler_of_the_game_sets_is_left_to_it() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.5)
    now = [[{"lr": 0.25, "momentum": 0.75}]]
    changed = apply_changed([optimizer], before=options_of([optimizer]), now=now, but="lr")
    assert changed == ["momentum 0.5 -> 0.75"] and optimizer.param_groups[0]["lr"] == 0.5


def test_rates_of_stages_can_be_changed_in_the_middle_of_one(tmp_path: Path) -> None:
    def grown(**changed: object) -> pl.Trainer:
        fading = FadeIn(**{**SCHEDULE, "lrs": {8: 0.002}, **changed})
        kept = checkpoints(tmp_path)
        return train(
            CASES["pggan"](), tmp_path, batches=10, callbacks=[fading], stop_at=None if kept else 6,
            resume=kept[0] if kept else None,
        )  # fmt: skip

    assert {g["lr"] for g in groups(grown())} == {0.002}
    assert {g["lr"] for g in groups(grown(lrs={8: 1e-7}))} == {1e-7}
    assert {g["lr"] for g in groups(grown())} == {0.002}


def test_fit_names_each_setting_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    fit_small = [*SMALL, f"--run_folder={run}"]
    assert main([*fit_small, "--model.init_args.total_kimg=0.016"]) == 0
    capsys.readouterr()
    changed = ["--model.init_args.lr=0.01", "--model.init_args.betas=[0.9,0.9]", "--seed_everything=5"]
    assert main([*fit_small, "--ckpt_path=last", "--model.init_args.total_kimg=0.032", *changed]) == 0
    told = capsys.readouterr().out
    for line in (
        "model.init_args.total_kimg: 0.016 -> 0.032", "model.init_args.lr: 0.0002 -> 0.01",
        "model.init_args.betas: [0.5, 0.999] -> [0.9, 0.9]", "seed_everything: 0 -> 5",
    ):  # fmt: skip
        assert line in told
    assert "run_folder" not in told.split("grid")[0].replace(str(run), "")
    used = read_checkpoint(checkpoints(run)[-1])["optimizer_states"][0]["param_groups"][0]
    recorded = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert (used["lr"], list(used["betas"])) == (recorded["lr"], recorded["betas"]) == (0.01, [0.9, 0.9])


def test_settings_of_a_start_alone_are_no_difference() -> None:
    before = {"ckpt_path": None, "trainer": {"default_root_dir": "a", "devices": 1}, "model": {"lr": 1, "old": 2}}
    now = {"ckpt_path": "last", "trainer": {"default_root_dir": "b", "devices": 2}, "model": {"lr": 1, "new": [3]}}
    told = ["trainer.devices: 1 -> 2", "model.old: 2 -> None", "model.new: None -> [3]"]
    assert differences(before, now) == told


@pytest.mark.slow
def test_other_data_are_told_at_a_resume(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder, run = tmp_path / "data", tmp_path / "run"
    for number in range(4):
        save_png(torch.full((3, 16, 16), 50 * number, dtype=torch.uint8), folder / f"{number}.png")
    fit_small = ["--model=DCGAN", "--model.init_args.width=4", "--model.init_args.resolution=16", *SMALL[7:]]
    fit_small += ["--data=Images", f"--data.init_args.path={folder}", "--data.init_args.batch_size=4"]
    fit_small += ["--data.init_args.resolution=16", f"--run_folder={run}"]
    assert main([*fit_small, "--model.init_args.total_kimg=0.008"]) == 0
    assert main([*fit_small, "--model.init_args.total_kimg=0.016", "--ckpt_path=last"]) == 0
    assert not [w for w in recwarn if "the data are not those" in str(w.message)]
    save_png(torch.zeros(3, 16, 16, dtype=torch.uint8), folder / "4.png")
    assert main([*fit_small, "--model.init_args.total_kimg=0.024", "--ckpt_path=last"]) == 0
    told = [str(w.message) for w in recwarn if "the data are not those" in str(w.message)]
    assert len(told) == 1 and "4 pictures" in told[0] and "5 pictures" in told[0]
