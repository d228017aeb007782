import pytest

from lit_gans.metrics.protocol import differing, direction, key_of, stamp

PROTOCOL = {
    "extractor": "inception", "n_fake": 10, "versions": {"torch": "1"}, "numbers": {"kid": {"kid_subsets": 100}}
}  # fmt: skip


def test_a_number_has_its_own_settings_over_the_shared_ones() -> None:
    assert stamp(PROTOCOL, "fid") == {"extractor": "inception", "n_fake": 10, "versions": {"torch": "1"}}  # fmt: skip
    assert stamp(PROTOCOL, "kid")["kid_subsets"] == 100
    assert stamp({"numbers": {"swd": {"extractor": None}}, "extractor": "x"}, "swd") == {"extractor": None}
    assert stamp({"n_fake": 3}, "fid") == {"n_fake": 3}  # a line written before numbers had settings


def test_what_forbids_ranking() -> None:
    a, b = {"n_fake": 10, "psi": 1.0, "images_seen": 5}, {"n_fake": 20, "psi": 1.0, "images_seen": 9, "split": "test"}
    assert differing([a, b]) == {"n_fake": [10, 20], "split": [None, "test"]}
    assert differing([a, {**a, "versions": {"torch": "2"}, "images": "x"}]) == {} == differing([a])


def test_a_key_is_equal_where_nothing_forbids_ranking() -> None:
    one = {"n_fake": 10, "psi": 1.0, "images_seen": 5, "numbers": 3, "sizes": [1, 2]}
    unlike = [{"n_fake": 11}, {"psi": 0.5}, {"split": "test"}]
    alike = [{"images_seen": 9}, {"psi": 1}, {"sizes": (1, 2)}, {"split": None}]
    assert [key_of({**one, **other}) == key_of(one) for other in (*unlike, *alike)] == [False] * 3 + [True] * 4
    assert len(key_of(one)) == 12


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("fid", "lower"), ("frechet_mnist", "lower"), ("ppl_w_end", "lower"), ("swd_16", "lower"), ("is", "higher"),
        ("precision_k5", "higher"), ("mode_divergence", "lower"), ("modes", "higher"), ("is_std", None),
        ("score_mnist_std", None), ("loss_d", None), ("isolation", None),
    ],
)  # fmt: skip
def test_direction(name: str, better: str | None) -> None:
    assert direction(name) == better


def test_subsets_of_earlier_versions_are_those_that_were_drawn() -> None:
    def told(**own: object) -> tuple[object, object]:
        found = stamp({"n_real": 40, "n_fake": 30, **own, "numbers": {"kid": {"kid_subsets": 100}}}, "kid")
        return found["kid_subset_size"], found["kid_subsets"]

    assert told(kid_subset_size=1000) == told(kid_subset_size=30) == (30, 100)
    assert told(kid_subset_size=1000, n_fake=40) == (40, 1) and told(kid_subset_size=20) == (20, 100)
