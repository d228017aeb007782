"""Names both ways: everything is renamed, changed or dropped by name, and comes back bit for bit."""

import pytest
import torch
from torch import Tensor

from lit_gans.official import Change, apply_keys, dropped_keys, fingerprint, invert

TABLE = {
    r".*\.resample_filter": None,
    r"b(\d+)\.conv([01])\.weight": r"blocks.\1.convs.\2.weight",
    r"mapping\.(w_avg)": r"\1",
    r"out\.(weight)": Change(r"head.\1", torch.t, torch.t),
}


def official() -> dict[str, Tensor]:
    torch.manual_seed(0)
    names = ("b8.conv0.weight", "b8.conv0.resample_filter", "b16.conv1.weight", "mapping.w_avg", "out.weight")
    state = {name: torch.randn(2, 3) for name in names}
    state["mapping.w_avg"][0, 0] = float("nan")
    return state


def test_every_name_is_renamed_changed_or_dropped() -> None:
    state = official()
    ours = apply_keys(state, TABLE)
    assert list(ours) == ["blocks.8.convs.0.weight", "blocks.16.convs.1.weight", "w_avg", "head.weight"]
    assert ours["blocks.8.convs.0.weight"] is state["b8.conv0.weight"]
    assert torch.equal(ours["head.weight"], state["out.weight"].T)
    assert list(dropped_keys(state, TABLE)) == ["b8.conv0.resample_filter"]


def test_round_trip_gives_every_bit() -> None:
    state = official()
    back = invert(apply_keys(state, TABLE), TABLE, official=list(state), dropped=dropped_keys(state, TABLE))
    assert list(back) == list(state) and fingerprint(back) == fingerprint(state)
    state["out.weight"] = state["out.weight"] * (1 + 1e-6)
    assert fingerprint(back) != fingerprint(state)


def test_the_first_entry_counts() -> None:
    table = {r"a\.bias": None, r"(\w)\.bias": r"\1.b"}
    state = {"a.bias": torch.zeros(1), "c.bias": torch.ones(1)}
    assert list(apply_keys(state, table)) == ["c.b"]


def test_unknown_official_names_are_listed() -> None:
    state = official() | {f"extra.{i}": torch.zeros(1) for i in range(7)}
    message = r"7 official names fit no entry of the table: extra\.0, extra\.1, extra\.2, extra\.3, extra\.4, \.\.\."
    with pytest.raises(ValueError, match=message):
        apply_keys(state, TABLE)
    with pytest.raises(ValueError, match=r"1 official names .*: out\.weights$"):
        apply_keys({"out.weights": torch.zeros(1)}, TABLE)  # the whole name must fit


def test_ours_must_be_filled_in_shape_and_type() -> None:
    state = official()
    ours = apply_keys(state, TABLE)
    assert apply_keys(state, TABLE, ours=ours).keys() == ours.keys()
    with pytest.raises(ValueError, match=r"2 of ours are not filled: bias, scale; 1 are not in our network: w_avg$"):
        wanted = {name: t for name, t in ours.items() if name != "w_avg"}
        apply_keys(state, TABLE, ours=wanted | {"bias": torch.zeros(1), "scale": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"another shape or type: w_avg \(2, 3\) float32 for \(2, 3\) float16"):
        apply_keys(state, TABLE, ours=ours | {"w_avg": ours["w_avg"].half()})


def test_two_names_may_not_become_one() -> None:
    with pytest.raises(ValueError, match=r"'a\.x' and 'b\.x' both become 'x'"):
        apply_keys({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, {r"\w\.(x)": r"\1"})


def test_nothing_is_forgotten_on_the_way_back() -> None:
    state = official()
    ours, aside = apply_keys(state, TABLE), dropped_keys(state, TABLE)
    with pytest.raises(ValueError, match=r"1 official names are not filled: b8\.conv0\.resample_filter; 0 of ours"):
        invert(ours, TABLE, official=list(state), dropped={})
    with pytest.raises(ValueError, match=r"0 official .*: none; 1 of ours have no official name: new$"):
        invert(ours | {"new": torch.zeros(1)}, TABLE, official=list(state), dropped=aside)
