"""Noise that was recorded: other clips of the data set, or files."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kintsugi.core.errors import ConfigError, DataError
from kintsugi.core.schema import Modality
from kintsugi.imperfect.corrupt.audio._common import contents, power, within
from kintsugi.imperfect.corrupt.audio._resample import ratio, resample
from kintsugi.imperfect.corrupt.audio.noise import SNR, SNR_SOURCE, Snr
from kintsugi.imperfect.operator import OPERATORS
from kintsugi.imperfect.plan import Plan
from kintsugi.imperfect.seeds import stable_key, uniforms

if TYPE_CHECKING:
    from kintsugi.core.data import Data

ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
MOST_FILES = 256
MOST_SECONDS = 60.0  # of one file


@OPERATORS.register("babble")
class Babble(Snr):
    """Other clips of the data set, talking at once, at a signal-to-noise ratio of ``snr`` dB; see ``white_noise``.

    ``talkers`` clips are drawn for each row from a pool of ``pool`` reference rows that the plan holds; a row never
    meets itself. Each is brought to the same power, started at a random sample and repeated where it is too short.
    Where the pool has fewer other clips, these are all there are. Planning raises DataError where fewer than two clips
    of the reference rows sound.
    """

    key = "babble"
    title = "other clips of the data talking at once, at a signal-to-noise ratio"
    source = (
        f"{SNR_SOURCE}; babble of the same data and 5 talkers: proposed here, so that no other recordings are needed"
    )
    parameters = {"default": SNR}  # noqa: RUF012
    options = {"talkers": 5, "pool": 64}  # noqa: RUF012

    def settle(self, values: dict[str, Any]) -> None:
        for name in self.options:
            within(self.key, name, values[name], 1 if name == "talkers" else 2, 1e6)
            values[name] = int(values[name])

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        super().look(data, modality, values, seed)
        rows = data.reference
        here = rows.present[:, rows.schema.column(modality.name)].nonzero().flatten()
        order = torch.from_numpy(uniforms(stable_key("babble", seed), rows.index[here], 1)[:, 0]).argsort(stable=True)
        clips: list[Tensor] = []
        numbers: list[int] = []
        for batch in rows.batches(values["pool"], here[order]):
            x, mask = batch.inputs[modality.name], batch.mask.get(modality.name)
            for row, (first, last) in enumerate(contents(x, mask)):
                clip = x[row, first:last].float()
                if mask is not None:
                    clip = torch.where(mask[row, first:last], clip, 0)
                if len(clip) and power(clip) > 0 and len(clips) < values["pool"]:
                    clips.append(clip / power(clip) ** 0.5)
                    numbers.append(int(batch.index[row]))
            if len(clips) == values["pool"]:
                break
        if len(clips) < 2:
            raise DataError(
                f"{data.name}: babble is made of other rows' clips, and {len(clips)} of the reference rows has a sound in "
                f"{modality.name!r}; it takes two. Use pink_noise, or file_noise with recordings of your own"
            )
        return _pool(clips) | {"rows": torch.tensor(numbers)}

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        own = index.cpu()[:, None] == plan.tensors["rows"]
        order = (plan.uniforms(index, own.shape[1], "who") + own.double()).argsort(stable=True)
        others = (~own).sum(1).clamp(max=plan.parameters["talkers"]).tolist()
        starts = plan.uniforms(index, plan.parameters["talkers"], "where").tolist()
        return zip(([int(i) for i in row[:k]] for row, k in zip(order, others, strict=True)), starts, strict=True)

    def noise(self, count: int, draw: Any, plan: Plan) -> Tensor:
        noise = torch.zeros(count)
        for which, start in zip(*draw, strict=False):
            clip = _clip(plan, which)
            _add_repeated(noise, clip, int(start * len(clip)))
        return noise


@OPERATORS.register("file_noise")
class FileNoise(Snr):
    """Recorded noise from files, at a signal-to-noise ratio of ``snr`` dB; see ``white_noise``.

    ``files``, which has no default, is the path of a sound file or of a folder that is searched with its subfolders for
    WAV, FLAC, OGG, MP3 and AIFF; of more than 256 files 256 are read, evenly spaced in the order of their names, and of
    each the first 60 seconds. Channels are averaged, other rates resampled. Each row draws a file and where in it to
    begin; a file that is shorter than the clip is repeated. The plan holds the noise, and the names of the files in place
    of their path. Reading needs the extra ``audio``.
    """

    key = "file_noise"
    title = "noise from sound files at a signal-to-noise ratio"
    source = SNR_SOURCE
    parameters = {"default": SNR}  # noqa: RUF012
    options = {"files": None}  # noqa: RUF012
    needs_rate = True

    def look(self, data: Data, modality: Modality, values: dict[str, Any], seed: int) -> dict[str, Tensor]:
        super().look(data, modality, values, seed)
        files = _files(values["files"])
        clips = [_read(file, values["rate"]) for file in files]
        names = [file.name for file, clip in zip(files, clips, strict=True) if len(clip)]
        clips = [clip for clip in clips if len(clip)]
        if not clips:
            raise DataError(f"{values['files']}: no sound in {len(files)} files")
        values["files"] = names
        return _pool(clips)

    def draws(self, index: Tensor, plan: Plan, samples: int) -> Iterable[Any]:
        return plan.uniforms(index, 2).tolist()

    def noise(self, count: int, draw: Any, plan: Plan) -> Tensor:
        clip = _clip(plan, int(draw[0] * len(plan.tensors["stops"])))
        noise = torch.zeros(count)
        return _add_repeated(
            noise, clip, int(draw[1] * max(1, len(clip) - count + 1 if len(clip) > count else len(clip)))
        )


def _pool(clips: list[Tensor]) -> dict[str, Tensor]:
    """Clips of different lengths, one after the other, and where each stops."""
    return {"clips": torch.cat(clips), "stops": torch.tensor([len(clip) for clip in clips]).cumsum(0)}


def _clip(plan: Plan, which: int) -> Tensor:
    stops = plan.tensors["stops"]
    return plan.tensors["clips"][int(stops[which - 1]) if which else 0 : int(stops[which])]


def _add_repeated(noise: Tensor, clip: Tensor, start: int) -> Tensor:
    """Add a clip from ``start`` on, again and again until the end, in place."""
    at = 0
    while at < len(noise):
        piece = clip[start : start + len(noise) - at]
        noise[at : at + len(piece)] += piece
        at, start = at + len(piece), 0
    return noise


def _files(given: Any) -> list[Path]:
    if not isinstance(given, str | Path):
        raise ConfigError(
            "file_noise needs the path of a sound file or of a folder of them: "
            f"corrupt('file_noise', …, files='noise/'), not {given!r}"
        )
    path = Path(given)
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    else:
        found = [path] if path.is_file() else []
    if not found:
        raise ConfigError(f"file_noise: {path} is no sound file, nor a folder with {', '.join(ENDINGS)} in it")
    if len(found) > MOST_FILES:
        found = [found[i] for i in torch.linspace(0, len(found) - 1, MOST_FILES).long().tolist()]
    return found


def _read(file: Path, rate: float) -> Tensor:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise ImportError("reading sound needs soundfile: pip install 'kintsugi-ml[audio]'") from error
    try:
        with soundfile.SoundFile(file) as opened:
            native = int(opened.samplerate)
            wave = opened.read(math.ceil(MOST_SECONDS * native), dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file}: cannot be read as sound ({error})") from error
    sound = torch.from_numpy(wave.mean(1))
    if not bool(torch.isfinite(sound).all()):
        raise DataError(f"{file}: NaN or infinity in the sound")
    return resample(sound, ratio(rate / native, 1000)) if len(sound) else sound
