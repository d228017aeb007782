"""What a model can do is asked of the model itself."""

import pytest
import torch

from lit_gans import papers
from lit_gans.adversarial.capabilities import (
    Averages,
    Captioned,
    FromLatents,
    Grows,
    HasLayers,
    HasStyles,
    Previews,
    Samples,
    Translates,
    can,
    require,
)  # fmt: skip
from tests.adversarial.tiny import build
from tests.cases import CASES

ABLE = {
    "dcgan": {Samples, FromLatents, Averages, Previews},
    "stylegan2": {Samples, FromLatents, HasStyles, HasLayers, Averages, Previews},
    "stylegan3-t": {Samples, FromLatents, HasStyles, HasLayers, Averages, Previews},
    "pggan": {Samples, FromLatents, Grows, Averages, Previews},
    "stylegan1": {Samples, FromLatents, HasStyles, HasLayers, Grows, Averages, Previews},
}
ALL = {Samples, FromLatents, HasStyles, HasLayers, Captioned, Translates, Grows, Averages, Previews}


def translator() -> papers.CycleGAN:
    return papers.CycleGAN(width=2, blocks=1, discriminator_width=2)


@pytest.mark.parametrize("name", ABLE)
def test_papers_can_what_they_are_known_for(name: str) -> None:
    assert {each for each in ALL if can(CASES[name](), each)} == ABLE[name]


def test_translators_translate_and_sample_nothing() -> None:
    model = translator()
    assert can(model, Translates) and not can(model, Samples)
    assert require(model, Translates, "lit-gans translate") is model


def test_a_text_model_without_captions_reads_none() -> None:
    model = papers.StackGAN2(encoder="none", resolution=64, width=4, discriminator_width=4)
    assert can(model, Samples) and not can(model, Captioned)


class Painter:
    """A model of no class of ours: it draws one colour a seed."""

    resolution, channels, num_classes, images_seen, device = 8, 3, 0, 0, torch.device("cpu")

    def sample(self, seeds: torch.Tensor, **settings: object) -> torch.Tensor:
        return torch.as_tensor(seeds).float().sin().view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


def test_a_strangers_model_is_asked_for_what_it_has() -> None:
    assert can(Painter(), Samples) and not can(Painter(), FromLatents)


def test_one_message_tells_what_is_needed_and_what_there_is() -> None:
    wanted = "lit-gans project needs a model that has styles .*, and a Painter does not: it draws images from seeds$"
    with pytest.raises(ValueError, match=wanted):
        require(Painter(), HasStyles, "lit-gans project")
    with pytest.raises(ValueError, match="a CycleGAN does not: it translates images$"):
        require(translator(), Samples, "lit-gans sample")
    with pytest.raises(ValueError, match="a TinyTranslator does not: it makes no images$"):
        require(build(), Samples, "lit-gans sample")
