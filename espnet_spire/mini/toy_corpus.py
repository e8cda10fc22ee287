"""The spoken toy corpus: sentences of the mini grammar in the voices of eSpeak NG.

English is spoken, or another language of the grammar.

The sets play the parts of SPIRE's corpora: ``train_cpt`` those of continued pre-training
(SPGISpeech, GigaSpeech), ``train_it`` CommonVoice, ``train_st`` the only ones with gold
translations (Europarl-ST, FLEURS). ``dev`` has the voices of training, ``test`` two others; no
sentence is in two sets. Text and instructions come from sentences that are in neither dev nor
test, and as long as there are enough of them in no spoken set at all.
"""

import hashlib
import io
import json
import multiprocessing
import wave
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from espnet_spire.mini.blocks import build_blocks, dump_blocks
from espnet_spire.mini.espeak import SAMPLE_RATE, synthesize
from espnet_spire.mini.grammar import LANGS, NUM_SENTENCES, sentence, sentences
from espnet_spire.utils.atomic import PathLike, atomic_write, read_json, write_json
from espnet_spire.utils.datadir import (
    SPK2UTT,
    TEXT,
    UTT2SPK,
    WAV_SCP,
    read_table,
    speakers_to_utterances,
    translation_file,
    write_data_dir,
)
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

_EACH = ("f2", "f3", "f4", "f5", "klatt2", "m1", "m3", "m4", "m5", "m6", "m7", "m8")
# Of each language: those of training, those of the test set.
VOICES = {
    "en": (
        (
            "en+f2",
            "en+m8",
            "en-gb-scotland+m5",
            "en-gb-x-rp+f5",
            "en-us+f3",
            "en-us+f4",
            "en-us+klatt2",
            "en-us+m1",
            "en-us+m3",
            "en-us+m4",
            "en-us+m6",
            "en-us+m7",
        ),
        ("en-us+f1", "en-us+m2"),
    ),
    "de": (tuple(f"de+{name}" for name in _EACH), ("de+f1", "de+m2")),
    "fr": (tuple(f"fr+{name}" for name in _EACH), ("fr-ch+f1", "fr-be+m2")),
}

TRAIN_SETS = ("train_cpt", "train_it", "train_st")
GOLD_SETS = ("train_st", "dev", "test")
ALL_SETS = TRAIN_SETS + ("dev", "test")

# Both ends included; words a minute, then eSpeak NG's 0 to 100 (volume to 200).
PROSODY = {"rate": (185, 225), "pitch": (35, 65), "pitch_range": (35, 65), "volume": (70, 110)}

_WAV_HEADER = 44
_GENERATOR = "generator.json"


class Sizes(NamedTuple):
    """How much of everything; shares are percent of ``num_train``."""

    num_train: int = 2500
    num_dev: int = 60
    num_test: int = 150
    cpt_percent: float = 66.0
    it_percent: float = 30.0
    st_percent: float = 4.0
    num_mono: int = 1500
    num_parallel: int = 3000
    num_blocks: int = 2400


class Utterance(NamedTuple):
    """One recording to make: its set, voice and sentence of the grammar."""

    set_name: str
    voice: str
    index: int

    @property
    def speaker(self) -> str:
        """``en-us+f3`` → ``enus_f3``: utterance ids are ``<speaker>-<number>``."""
        return self.voice.replace("-", "").replace("+", "_")

    @property
    def key(self) -> str:
        return f"{self.speaker}-{self.index:05d}"

    def wav(self, downloads: PathLike) -> Path:
        return Path(downloads) / "wav" / self.set_name / f"{self.key}.wav"


class Plan(NamedTuple):
    """Who says what, and which sentences are text only."""

    utterances: List[Utterance]
    mono: Dict[str, List[int]]
    parallel: List[int]
    blocks: List[int]


# What is in the corpus (pure) --------------------------------------------------------------


def split_train(sizes: Sizes) -> Dict[str, int]:
    """Number of utterances of each training set, at least one each.

    Raises:
        SpireError: shares do not add up to 100, or there are too few utterances to share.
    """
    shares = (sizes.cpt_percent, sizes.it_percent, sizes.st_percent)
    if min(shares) <= 0 or abs(sum(shares) - 100) > 1e-6:
        raise SpireError(
            f"--cpt_percent, --it_percent and --st_percent are {shares}: they must be positive"
            " and add up to 100"
        )
    it, st = (max(1, round(sizes.num_train * share / 100)) for share in shares[1:])
    cpt = sizes.num_train - it - st
    if cpt < 1:
        raise SpireError(
            f"--num_train {sizes.num_train} is too small for one utterance in each of"
            f" {', '.join(TRAIN_SETS)}"
        )
    return {"train_cpt": cpt, "train_it": it, "train_st": st}


def _cyclic(items: Sequence[int], start: int, count: int) -> List[int]:
    return [items[(start + i) % len(items)] for i in range(count)]


def make_plan(sizes: Sizes, seed: int, speech_lang: str = "en") -> Plan:
    """Deal the grammar's sentences to the sets and the utterances to the voices.

    Raises:
        SpireError: more sentences wanted than the grammar has, an impossible size, or a language
            without voices.
    """
    if speech_lang not in VOICES:
        raise SpireError(
            f"--speech_lang {speech_lang}: the toy corpus is spoken in {', '.join(VOICES)}"
        )
    train_voices, test_voices = VOICES[speech_lang]
    for name in ("num_dev", "num_test", "num_mono", "num_parallel", "num_blocks"):
        if getattr(sizes, name) < 1:
            raise SpireError(f"--{name} {getattr(sizes, name)} must be at least 1")
    counts = split_train(sizes)
    counts.update(dev=sizes.num_dev, test=sizes.num_test)
    spoken = sum(counts.values())
    if spoken > NUM_SENTENCES:
        raise SpireError(
            f"--num_train + --num_dev + --num_test is {spoken}, but the mini grammar has only"
            f" {NUM_SENTENCES} sentences"
        )
    order = [int(i) for i in np.random.default_rng(seed).permutation(NUM_SENTENCES)]
    utterances, start, training = [], 0, []
    # Dev and test first: they stay the same when the amount of training data changes.
    for set_name in sorted(ALL_SETS, key=lambda name: name in TRAIN_SETS):
        voices = test_voices if set_name == "test" else train_voices
        chosen = order[start : start + counts[set_name]]
        start += counts[set_name]
        if set_name in TRAIN_SETS:
            training += chosen
        utterances += [
            Utterance(set_name, voices[number % len(voices)], index)
            for number, index in enumerate(chosen)
        ]
    unspoken = order[start:]
    needed = max(sizes.num_parallel, sizes.num_mono)
    pool = unspoken if len(unspoken) >= needed else unspoken + training
    if len(pool) < needed:
        raise SpireError(
            f"{needed} different sentences of text are wanted, but only {len(pool)} are not in"
            " dev or test; lower --num_parallel and --num_mono"
        )
    mono = {
        lang: _cyclic(pool, sizes.num_parallel + number * sizes.num_mono, sizes.num_mono)
        for number, lang in enumerate(LANGS)
    }
    return Plan(utterances, mono, pool[: sizes.num_parallel], pool)


def prosody(key: str) -> Dict[str, int]:
    """Rate, pitch, pitch range and volume of one utterance: drawn by its id and nothing else.

    So a recording that is already there is right whatever the seed of the corpus was.
    """
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    return {name: int(rng.integers(low, high + 1)) for name, (low, high) in PROSODY.items()}


def speech_tables(
    utterances: Sequence[Utterance], downloads: PathLike, *, gold: bool, speech_lang: str
) -> Dict[str, Dict[str, str]]:
    """The tables of one Kaldi data directory; ``gold`` adds the translations."""
    texts = {u.key: sentence(u.index) for u in utterances}
    tables = {
        WAV_SCP: {u.key: str(u.wav(downloads)) for u in utterances},
        TEXT: {key: text[speech_lang] for key, text in texts.items()},
        UTT2SPK: {u.key: u.speaker for u in utterances},
    }
    tables[SPK2UTT] = speakers_to_utterances(tables[UTT2SPK])
    for lang in [lang for lang in LANGS if gold and lang != speech_lang]:
        tables[translation_file(lang)] = {key: text[lang] for key, text in texts.items()}
    return tables


def mono_tables(mono: Mapping[str, Sequence[int]]) -> Dict[str, Dict[str, str]]:
    """``text.<lang>``: other sentences in each language."""
    return {
        f"text.{lang}": {f"mono-{lang}-{i:05d}": sentence(i)[lang] for i in indices}
        for lang, indices in mono.items()
    }


def parallel_tables(indices: Sequence[int]) -> Dict[str, Dict[str, str]]:
    """``text.tc.<lang>``: the same sentences, under the same keys, in every language."""
    texts = {f"parallel-{i:05d}": sentence(i) for i in indices}
    return {
        translation_file(lang): {key: text[lang] for key, text in texts.items()} for lang in LANGS
    }


def wav_bytes(samples: np.ndarray) -> bytes:
    """A mono 16-bit WAV file of int16 samples at eSpeak NG's rate."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


# Making it ---------------------------------------------------------------------------------


def is_complete(path: Path) -> bool:
    """Whether a WAV of ours is there, with sound in it and as long as its header says."""
    try:
        with open(path, "rb") as stream:
            header = stream.read(_WAV_HEADER)
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    return (
        size > _WAV_HEADER
        and header[:4] == b"RIFF"
        and header[36:40] == b"data"
        and _WAV_HEADER + int.from_bytes(header[40:44], "little") == size
    )


def _speak(job: Tuple[str, str, str, str]) -> float:
    path, text, voice, key = job
    samples = synthesize(text, voice, **prosody(key))
    with atomic_write(path, "wb") as stream:
        stream.write(wav_bytes(samples))
    return len(samples) / SAMPLE_RATE


def _generator() -> Dict[str, str]:
    content = json.dumps([list(sentences()), PROSODY, SAMPLE_RATE], sort_keys=True)
    return {"sha256": hashlib.sha256(content.encode()).hexdigest()}


def _discard_if_outdated(downloads: PathLike) -> None:
    """Remove recordings that an older version of the grammar or prosody made.

    The record of the version is written before the first recording: recordings without one are
    somebody else's.
    """
    root = Path(downloads) / "wav"
    record, generator = root / _GENERATOR, _generator()
    found = [path for name in ALL_SETS for path in sorted((root / name).glob("*.wav"))]
    if found and not record.exists():
        raise SpireError(
            f"{found[0]} was not made by this command ({record} is missing); give another"
            " --downloads or move it away"
        )
    try:
        current = read_json(record) == generator
    except SpireError:
        current = False
    if not current:
        for path in found:
            path.unlink()
        write_json(record, generator)


def synthesize_all(
    utterances: Sequence[Utterance], downloads: PathLike, nj: int, speech_lang: str = "en"
) -> int:
    """Make the recordings that are not there yet, with ``nj`` processes.

    Returns:
        How many were made.
    """
    if nj < 1:
        raise SpireError(f"--nj {nj} must be at least 1")
    _discard_if_outdated(downloads)
    jobs = [
        (str(u.wav(downloads)), sentence(u.index)[speech_lang], u.voice, u.key)
        for u in utterances
        if not is_complete(u.wav(downloads))
    ]
    bar = progress(total=len(utterances), initial=len(utterances) - len(jobs), desc="eSpeak NG")
    with bar:
        if nj == 1 or len(jobs) < 2:
            for job in jobs:
                _speak(job)
                bar.update()
        else:
            # spawn: a forked child would inherit locks of threads that it does not have.
            with multiprocessing.get_context("spawn").Pool(min(nj, len(jobs))) as pool:
                for _ in pool.imap_unordered(_speak, jobs, chunksize=8):
                    bar.update()
    return len(jobs)


def _write_tables(directory: Path, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Write what differs from what is there: later stages ask whether their input changed."""

    def same(name: str) -> bool:
        try:
            return read_table(directory / name) == dict(tables[name])
        except SpireError:
            return False

    write_data_dir(directory, {name: tables[name] for name in tables if not same(name)})


def _write_text(path: Path, content: str) -> None:
    if not path.exists() or path.read_bytes() != content.encode("utf-8"):
        with atomic_write(path) as stream:
            stream.write(content)


def make_toy_corpus(
    out: PathLike,
    downloads: PathLike,
    *,
    sizes: Sizes,
    seed: int,
    nj: int,
    speech_lang: str = "en",
) -> Dict[str, int]:
    """Make recordings, Kaldi data directories, texts and instructions.

    The same sizes and seed give the same files byte for byte; what is there is left alone.

    Args:
        out: gets ``<set>/``, ``text_mono/``, ``text_parallel/`` and ``blocks/blocks.jsonl``.
        downloads: gets ``wav/<set>/<utt>.wav``; wav.scp names the files under it as given.
        sizes: how much of everything.
        seed: of all that is drawn.
        nj: processes for the synthesis.
        speech_lang: what is spoken; the others are translations.

    Returns:
        Utterances of each set.

    Raises:
        SpireError: impossible sizes, eSpeak NG missing.
    """
    if any(c.isspace() for c in str(downloads)):
        raise SpireError(f"--downloads {str(downloads)!r}: white space cannot stand in wav.scp")
    plan = make_plan(sizes, seed, speech_lang)
    synthesize_all(plan.utterances, downloads, nj, speech_lang)
    out = Path(out)
    counts = {}
    for set_name in ALL_SETS:
        chosen = [u for u in plan.utterances if u.set_name == set_name]
        gold = set_name in GOLD_SETS
        tables = speech_tables(chosen, downloads, gold=gold, speech_lang=speech_lang)
        _write_tables(out / set_name, tables)
        counts[set_name] = len(chosen)
    _write_tables(out / "text_mono", mono_tables(plan.mono))
    _write_tables(out / "text_parallel", parallel_tables(plan.parallel))
    blocks = build_blocks(plan.blocks, sizes.num_blocks, seed)
    _write_text(out / "blocks" / "blocks.jsonl", dump_blocks(blocks))
    return counts
