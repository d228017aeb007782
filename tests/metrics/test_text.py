import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.metrics import text
from lit_gans.metrics.text import CLIPScore, RPrecision, clip_scores, r_precision, read_captions
from lit_gans.nn.clip import CLIP_MEAN, CLIP_STD, CLIPEncoder, build_clip, clip_pixels
from tests.distributed.launch import run_processes

NAME = "somebody/tiny-clip"
CAPTIONS = ["a red bird", "two black cats on a mat", "Ein Käfer!", "a red bird with a long tail, its wings open"]


def images(n: int, height: int = 12, width: int = 12, *, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(n * height + width)
    return torch.randint(256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def pairs(n: int, d: int = 6, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator)


class Halves:
    """A pair of embeddings in the plane that a hand can check: brightness, and the number of letters."""

    name, resize, fingerprint = "halves", "none", "0" * 16

    def images(self, images: Tensor) -> Tensor:
        x = images.double().mean(dim=(1, 2, 3)) / 255
        return torch.stack([2 * x - 1, 1 - x], dim=1)

    def texts(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([[len(caption), 1.0] for caption in captions])


# CLIP score


def test_clip_score_is_the_mean_of_what_pairs_have_above_zero() -> None:
    metric, pictures = CLIPScore(Halves()), images(4) // torch.tensor([1, 2, 9, 30], dtype=torch.uint8).view(4, 1, 1, 1)
    metric.update(pictures[:1], CAPTIONS[:1])
    metric.update(pictures[1:], CAPTIONS[1:])
    metric.update(pictures[:0], [])
    a, b = Halves().images(pictures), Halves().texts(CAPTIONS).double()
    cosines = [float(x @ y / (x.norm() * y.norm())) for x, y in zip(a, b, strict=True)]
    assert min(cosines) < 0 < max(cosines)
    assert metric.compute().item() == pytest.approx(100 * sum(max(c, 0) for c in cosines) / 4, rel=1e-12)
    assert metric.compute().dtype == torch.float64


def test_clip_score_of_parts_that_are_merged_is_that_of_the_whole() -> None:
    whole, parts = CLIPScore(Halves()), [CLIPScore(Halves()) for _ in range(3)]
    whole.update(images(4), CAPTIONS)
    for part, rows in zip(parts, ([0, 3], [1], [2]), strict=True):
        part.update(images(4)[rows], [CAPTIONS[row] for row in rows])
    for part in parts[1:]:
        parts[0].merge_state(part)
    assert parts[0].compute().item() == pytest.approx(whole.compute().item(), rel=1e-12)


def test_clip_score_says_what_is_wrong_with_captions() -> None:
    metric = CLIPScore(Halves())
    with pytest.raises(ValueError, match=r"caption 2 of 3 is ' \\n', expected a text that is not empty"):
        metric.update(images(3), ["a", "b", " \n"])
    with pytest.raises(ValueError, match="caption 0 of 1 is 7, expected"):
        metric.update(images(1), [7])
    with pytest.raises(ValueError, match="2 captions for 3 images"):
        metric.update(images(3), ["a", "b"])
    with pytest.raises(ValueError, match="one text for 3 images"):
        metric.update(images(3), "abc")
    with pytest.raises(ValueError, match="one pair of image and caption or more, got none"):
        metric.compute()
    assert clip_scores(torch.eye(2), torch.tensor([[3.0, 0], [1, -1]])).tolist() == [100, 0]


@pytest.mark.parametrize("size", [(224, 224), (40, 40), (37, 61), (300, 245)])
def test_pixels_are_pillows_up_to_a_level_or_two(size: tuple[int, int]) -> None:
    from PIL import Image

    x, scale = images(2, *size), 224 / min(size)
    height, width = (int(side * scale + 1e-9) for side in size)
    top, left = (height - 224) // 2, (width - 224) // 2
    pictures = [
        Image.fromarray(i.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BICUBIC) for i in x
    ]
    levels = [torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(height, width, 3) for p in pictures]
    theirs = torch.stack(levels).permute(0, 3, 1, 2)[..., top : top + 224, left : left + 224].float()
    std, mean = torch.tensor(CLIP_STD).view(3, 1, 1), torch.tensor(CLIP_MEAN).view(3, 1, 1)
    ours = (clip_pixels(x) * std + mean) * 255
    assert ours.shape == (2, 3, 224, 224)
    assert (ours - theirs).abs().max() < 2.01 and ((ours - theirs).abs() > 0.01).float().mean() < 0.02


def test_grey_pixels_are_those_of_the_repeated_grey() -> None:
    grey = images(1, 20, 30, channels=1)
    assert torch.equal(clip_pixels(grey, size_px=16), clip_pixels(grey.repeat(1, 3, 1, 1), size_px=16))


# CLIP of transformers


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has them: a random CLIP, and a tokenizer that knows single bytes."""
    pytest.importorskip("transformers")
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    shared = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(words), "bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
    config = CLIPConfig(
        text_config={**shared, **ids, "pad_token_id": len(words) - 1},
        vision_config={**shared, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


class Reference(nn.Module):
    """transformers' model with embeddings as tensors, which torchmetrics takes them for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import CLIPModel

        self.model = CLIPModel.from_pretrained(folder)
        self.config = self.model.config

    def get_image_features(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixels).pooler_output

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.get_text_features(ids, mask).pooler_output


@pytest.mark.parametrize("size", [(32, 32), (50, 50), (41, 80), (20, 17)])
def test_equals_torchmetrics_on_the_same_clip(tiny: Path, size: tuple[int, int]) -> None:
    from torchmetrics.multimodal import CLIPScore as Theirs
    from transformers import CLIPProcessor

    theirs = Theirs(lambda: (Reference(tiny), CLIPProcessor.from_pretrained(tiny)))
    encoder = build_clip(NAME, folder=tiny)
    ours, pictures = CLIPScore(encoder), images(4, *size)
    scores = clip_scores(encoder.images(pictures), encoder.texts(CAPTIONS))
    above = [i for i, score in enumerate(scores) if score > 0]  # torchmetrics lets others lower the mean
    for metric in (ours, theirs):
        metric.update(pictures[above], [CAPTIONS[i] for i in above])
    assert ours.compute().item() == pytest.approx(theirs.compute().item(), rel=1e-5) != 0


@pytest.mark.parametrize("size", [(224, 224), (100, 100), (61, 150), (301, 227)])
def test_pixels_are_those_of_transformers_processor(tiny: Path, size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessor

    pictures = images(2, *size)
    theirs = CLIPImageProcessor()(images=list(pictures), return_tensors="pt")["pixel_values"]
    assert torch.allclose(clip_pixels(pictures), theirs, atol=1e-5)


def test_encoder_is_frozen_named_and_independent_of_the_batch(tiny: Path) -> None:
    encoder = build_clip(NAME, folder=tiny)
    assert (encoder.name, encoder.resize) == (f"clip:{NAME}", "CLIP bicubic to 32 on uint8, centre crop")
    assert len(encoder.fingerprint) == 16 == len(build_clip(NAME, folder=tiny).fingerprint)
    assert encoder.fingerprint == build_clip(NAME, folder=tiny).fingerprint
    assert not encoder.train().training and not any(p.requires_grad for p in encoder.parameters())
    together, alone = encoder.texts(CAPTIONS), torch.cat([encoder.texts([caption]) for caption in CAPTIONS])
    assert together.dtype == torch.float32 and together.shape == (4, 8)
    assert torch.allclose(together, alone, atol=1e-6)
    assert torch.equal(encoder.images(images(1, channels=1)), encoder.images(images(1, channels=1).repeat(1, 3, 1, 1)))


def test_long_captions_are_cut_before_the_end_token_counted_and_told_of_once(tiny: Path, recwarn) -> None:
    encoder, long = build_clip(NAME, folder=tiny), "bird" * 40
    recwarn.clear()
    cut = encoder.texts([long, "a bird"])
    assert [str(w.message)[:60] for w in recwarn] == ["a caption of 162 tokens is cut to the 77 that clip:somebody/"]
    assert torch.allclose(cut[0], encoder.texts([long[:75] + "zz"])[0], atol=1e-6)  # 75 letters between two marks
    assert not torch.allclose(cut[0], encoder.texts([long[:74]])[0], atol=1e-4)
    assert encoder.truncated == 2 and len(recwarn) == 1


def test_files_that_lack_weights_or_words_are_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def folder(name: str, without: str = "") -> Path:
        (tmp_path / name).mkdir()
        for file in tiny.iterdir():
            if file.name != without:
                (tmp_path / name / file.name).write_bytes(file.read_bytes())
        return tmp_path / name

    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        with pytest.raises(FileNotFoundError, match=f"no {file} in .*huggingface.co/{NAME} there"):
            build_clip(NAME, folder=folder(f"no {file}", without=file))
    partial = folder("partial")
    state = load_file(partial / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, partial / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights, among them text_projection.weight"):
        build_clip(NAME, folder=partial)
    damaged = folder("damaged")
    (damaged / "model.safetensors").write_bytes(b"\xff" * 99)
    with pytest.raises(ValueError, match="damaged cannot be read as a CLIP"):
        build_clip(NAME, folder=damaged)
    with pytest.raises(ValueError, match="tokenizer of 514 tokens and a text network for 515"):
        other = build_clip(NAME, folder=tiny)
        other.model.config.text_config.vocab_size = 515
        CLIPEncoder(other.model, other.tokenizer, name="other")


def test_clip_is_taken_from_the_cache_folder_else_from_the_hub(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def offline(name: str, *, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(ConnectionError, match=f"not at {cache}/clip/{NAME} and could not be downloaded .no network"):
        build_clip(NAME)
    assert asked and not [pattern for pattern in asked if pattern.endswith((".bin", ".py", "*"))]
    (cache / "clip/somebody").mkdir(parents=True)
    (cache / "clip" / NAME).symlink_to(tiny)
    kept = build_clip(NAME)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(tiny))
    (cache / "clip" / NAME).unlink()
    assert build_clip(NAME).fingerprint == kept.fingerprint


def test_missing_package_and_bad_names_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clip", "../clip", "a/..", "/etc/x", "a/b/c"):
        with pytest.raises(ValueError, match="names no CLIP: expected Hugging Face's <owner>/<name>"):
            build_clip(name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'lit-gans\[text\]'"):
        build_clip(NAME)


# R-precision


def test_r_precision_of_perfect_pairs_is_one_and_of_random_ones_a_hundredth() -> None:
    a, b = pairs(3000, 16)
    assert r_precision(a, 3 * a, folds=10) == (1, 0)
    assert r_precision(a, -a)[0] == 0
    mean, deviation = r_precision(a, b)
    assert abs(mean.item() - 0.01) < 4 * (0.01 * 0.99 / 3000) ** 0.5
    assert 0 < deviation < 4 * (0.01 * 0.99 / 300) ** 0.5


def test_r_precision_equals_a_count_by_hand() -> None:
    a, b = pairs(23)
    a = a + b
    mismatches = text._mismatches(23, None, 4, 5)

    def hit(i: int) -> float:
        cosines = F.cosine_similarity(a[i : i + 1].double(), b.double())
        return float(all(cosines[i] > cosines[j] for j in mismatches[i]))

    hits = [hit(i) for i in range(23)]
    shares = torch.tensor([sum(hits[i * 23 // 5 : (i + 1) * 23 // 5]) / len(hits[i * 23 // 5 : (i + 1) * 23 // 5])
                           for i in range(5)]).double()  # fmt: skip
    mean, deviation = r_precision(a, b, candidates=5, folds=5, seed=5)
    assert 0 < mean < 1
    assert (mean.item(), deviation.item()) == pytest.approx((shares.mean().item(), shares.std(correction=0).item()))


def test_all_others_as_candidates_make_it_retrieval_and_ties_count_against() -> None:
    a, b = pairs(12)
    best = (F.normalize(a) @ F.normalize(b).T).argmax(dim=1) == torch.arange(12)
    assert r_precision(a, b, candidates=12, folds=1)[0].item() == pytest.approx(best.double().mean().item())
    b = a.clone()
    b[3] = 5 * b[7]  # one direction
    assert r_precision(a, b, candidates=12, folds=1)[0].item() == pytest.approx(10 / 12)
    groups = torch.tensor([0, 1, 2, 3, 4, 5, 6, 3, 8, 9, 10, 11])
    assert r_precision(a, b, candidates=11, folds=1, groups=groups)[0].item() == pytest.approx(11 / 12)


def test_chunks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pairs(60)
    whole = r_precision(a + b, b, candidates=20)
    monkeypatch.setattr(text, "_CHUNK_ELEMENTS", 300)
    assert r_precision(a + b, b, candidates=20) == whole


def test_mismatches_are_even_different_and_of_other_groups() -> None:
    groups = torch.arange(40) * 7 % 5
    drawn = text._mismatches(40, groups, 32, 0)  # all that there are
    for i, row in enumerate(drawn.tolist()):
        assert sorted(row) == [j for j in range(40) if groups[j] != groups[i]]
    counts: Counter[int] = Counter()
    for seed in range(400):
        row = text._mismatches(9, None, 3, seed)[4].tolist()
        assert len(set(row)) == 3 and 4 not in row
        counts.update(row)
    u = text._uniform(5, 3, 0)
    assert len({tuple(row) for row in u.tolist()}) == 5 and torch.equal(text._uniform(9, 3, 0)[:5], u)
    assert len(counts) == 8 and all(abs(count - 150) < 4 * (150 * 5 / 8) ** 0.5 for count in counts.values())


def test_r_precision_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    a, b = pairs(200)
    before = torch.get_rng_state()
    first, second, other = (r_precision(a + b, b, candidates=9, seed=seed) for seed in (0, 0, 1))
    assert first == second != other
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("groups", [None, torch.arange(150) % 11])
def test_order_and_parts_do_not_matter(groups: Tensor | None) -> None:
    a, b = pairs(150)
    a = a + b
    expected = r_precision(a, b, candidates=30, groups=groups, seed=2)
    parts = [RPrecision(6, candidates=30, seed=2) for _ in range(3)]
    order = torch.randperm(150, generator=torch.Generator().manual_seed(1))
    for i, rows in enumerate(order.split(31)):
        part = None if groups is None else groups[rows]
        parts[i % 3].update(a[rows], b[rows], index=rows, groups=part)
    for part in parts[1:]:
        parts[0].merge_state(part)
    assert parts[0].compute() == expected
    assert 0 < expected[0] < 1


def test_r_precision_says_what_is_wrong() -> None:
    a, b = pairs(30)
    rows = torch.arange(30)
    with pytest.raises(ValueError, match="pair 0 of 30 has 29 mismatching captions to draw 99 from: give more pairs"):
        r_precision(a, b)
    with pytest.raises(ValueError, match="pair 0 of 30 has 0 mismatching captions to draw 1 from"):
        r_precision(a, b, candidates=2, groups=torch.zeros(30))
    with pytest.raises(ValueError, match="to draw 0 from.*2 or more"):
        r_precision(a, b, candidates=1)
    with pytest.raises(ValueError, match="3 groups for 30 pairs"):
        r_precision(a, b, candidates=2, groups=rows[:3])
    with pytest.raises(ValueError, match="the embedding of text 4 is not finite"):
        r_precision(a, b.index_fill(0, torch.tensor(4), torch.nan))
    with pytest.raises(ValueError, match=r"images \[30, 6\] and texts \[29, 6\], expected both"):
        r_precision(a, b[1:])
    metric = RPrecision(6, candidates=5)
    with pytest.raises(ValueError, match="got none"):
        metric.compute()
    with pytest.raises(ValueError, match=r"\[\[30, 6\], \[30, 6\], \[29\], \[29\]\], expected \[N, 6\] twice"):
        metric.update(a, b, index=rows[1:])
    with pytest.raises(ValueError, match="group -1, expected numbers from 0 on"):
        metric.update(a, b, index=rows, groups=rows - 1)
    metric.update(a[:20], b[:20], index=rows[:20], groups=rows[:20])
    metric.update(a[20:], b[20:], index=rows[20:])
    with pytest.raises(ValueError, match="20 of 30 pairs have a group: give all of them one, or none"):
        metric.compute()
    metric.reset()
    metric.update(a, b, index=rows // 29)
    with pytest.raises(ValueError, match="index 0 was given twice"):
        metric.compute()


def measure(rank: int, world: int) -> list[float]:
    """What process `rank` finds; process 1 of 3 has no pair."""
    a, b = pairs(120)
    rows = (
        torch.arange(120)[rank::world]
        if world < 3
        else torch.arange(120)[[slice(0, 50), slice(0), slice(50, 120)][rank]]
    )
    score, precision = CLIPScore(Halves()), RPrecision(6, candidates=25)
    score.update(images(120)[rows], [CAPTIONS[row % 4] for row in rows])
    precision.update((a + b)[rows], b[rows], index=rows)
    return [score.compute().item(), *(value.item() for value in precision.compute())]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_find_what_one_finds(world: int) -> None:
    for output in run_processes(world, ["-m", "tests.metrics.test_text"]):
        assert json.loads(output.splitlines()[-1]) == pytest.approx(measure(0, 1), rel=1e-6)


# captions


def write(folder: Path, table: object) -> Path:
    (folder / "captions.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    return folder


def test_captions_are_read_from_a_table_or_from_files_beside(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "a.01.png").touch()
    (tmp_path / "birds" / "a.01.txt").write_bytes("\ufeff\n  ein Käfer \r\nanother line\n".encode())
    (tmp_path / "b.txt").write_text("a cat")
    assert read_captions(tmp_path, ["b.jpg", "birds/a.01.png"]) == ["a cat", "ein Käfer"]
    write(tmp_path, {"birds/a.01.png": " Häuser ", "b.jpg": "x", "more.png": "y"})
    assert read_captions(tmp_path, ["b.jpg", "birds/a.01.png"]) == ["x", "Häuser"]


def test_tables_that_cannot_serve_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for table, message in (
        ({"a": "x"}, "lacks captions of 2 of 3 pictures, first 'b'"),
        ({"a": "x", "b": " ", "c": "y"}, "has ' ' for 'b', expected a text that is not empty"),
        ({"a": "x", "b": ["y"], "c": "y"}, r"has \['y'\] for 'b'"),
        (["a"], 'must read {"name.png": "caption", ...}, found list'),
    ):
        with pytest.raises(ValueError, match=message):
            read_captions(write(tmp_path, table), ["a", "b", "c"])
    for content, message in ((b"{", "is no JSON"), (b'{"a": "\xff"}', "is not UTF-8"), (b"[" * 10**5, "is no JSON")):
        (tmp_path / "captions.json").write_bytes(content)
        with pytest.raises(ValueError, match=f"captions.json {message}"):
            read_captions(tmp_path, ["a"])
    monkeypatch.setattr(text, "_MAX_TABLE_BYTES", 4)
    with pytest.raises(ValueError, match="captions.json has more than 4 bytes: refused"):
        read_captions(write(tmp_path, {"a": "x"}), ["a"])


def test_files_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "inside" / "linked.txt").symlink_to(tmp_path / "secret.txt")
    for name, content in {"empty": b" \n", "latin": b"\xe4", "long": b"a" * (2**16 + 1)}.items():
        (tmp_path / "inside" / f"{name}.txt").write_bytes(content)
    for name, message in {
        "none.png": "no caption of 'none.png': neither .*none.txt nor .*captions.json is there",
        "empty.png": "empty.txt is empty, expected a caption of 'empty.png'",
        "latin.png": "latin.txt is not UTF-8",
        "long.png": "long.txt has more than 65536 bytes",
        "../secret.png": "leads out of",
        f"{tmp_path}/secret.png": "leads out of",
        "linked.png": "leads out of",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_captions(tmp_path / "inside", [name])
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere: give the folder"):
        read_captions(tmp_path / "nowhere", [])


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    print(json.dumps(measure(dist.get_rank(), dist.get_world_size())), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
