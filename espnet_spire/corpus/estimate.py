"""What a recipe will cost before anything runs: hours, units, tokens, GPU time and disk by stage.

All of it is arithmetic on what the corpora say of themselves (``conf/full_corpora.yaml``), on the
models' shapes and on the rates below. It is meant to be right within a factor of two.
"""

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.corpus.recipe import RecipeSet
from espnet_spire.train.mixture import load_mixture
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.config import read_yaml

# Merged units a second of speech: 4.4B of 35K hours (paper, Table 1).
UNITS_PER_SECOND = 35.0
# Tokens of text for one unit: 0.6B of transcripts beside 4.4B units in CPT (paper, 3.2.1); in IT
# translations into other scripts take more.
TEXT_PER_UNIT = {"cpt": 0.6 / 4.4, "it": 0.28}
# Of one sentence in the tokens of Llama-2: a prompt with its transcript, a translation.
PROMPT_TOKENS, ANSWER_TOKENS = 80, 45
# Bytes: FLAC of 16 kHz speech in an hour, a unit in a unit file, a token in examples, an utterance
# in the tables of a data directory.
FLAC_HOUR, UNIT, TOKEN, UTTERANCE = 62e6, 4.9, 4.2, 400
# Work of one core: hours of audio formatted in an hour (measured: Opus 780, WAV 4,000), tokens
# packed and utterances read a second.
FORMAT_SPEED, TOKENS_A_SECOND, UTTERANCES_A_SECOND = 800, 2e6, 30_000
# Parameters of the quality score's encoder (XLM-R large).
SCORER_PARAMETERS = 0.56e9
# Bytes a parameter: float32 weights and Adam's two moments beside bfloat16 weights; an export.
CHECKPOINT, EXPORT = 14, 2
# Where neither directory nor cache has the configuration: layers, width, inner width.
_ENCODERS = {"hubert-large-ll60k": (24, 1024, 4096), "mHuBERT-147": (12, 768, 3072)}


class Machine(NamedTuple):
    """GPUs used together, peak TFLOP/s of one, and what share of it training, encoding and
    decoding reach."""

    gpus: int
    tflops: float
    train: float
    encode: float
    decode: float

    def gpu_hours(self, operations: float, share: float) -> float:
        return operations / (self.tflops * 1e12 * share) / 3600


class Row(NamedTuple):
    """One stage; ``None`` where there is nothing to say."""

    stage: int
    what: str
    hours: Optional[float] = None
    units: Optional[float] = None
    tokens: Optional[float] = None
    core_hours: Optional[float] = None
    gpu_hours: Optional[float] = None
    disk: Optional[float] = None


class Work(NamedTuple):
    """What decides the cost, as ``spire.sh`` knows it. Mixtures and configurations are paths."""

    sets: Sequence[RecipeSet]
    encoder: str
    layer: int
    kmeans_hours: float
    base_model: str
    pseudo_model: str
    pseudo_langs: int
    pseudo_utterances: int
    cpt_mixture: str
    cpt_config: str
    it_config: str
    jobs: int
    text_jobs: int
    variant: str


def encoder_operations(encoder: str, layer: int) -> Optional[float]:
    """Operations for a second of audio up to a layer; ``None`` for an unknown encoder.

    The convolutions of wav2vec 2.0's kind, then transformer blocks on 50 frames.
    """
    shape = _shape(encoder)
    if shape is None:
        return None
    _, width, inner = shape
    rates, kernels = (3200, 1600, 800, 400, 200, 100, 50), (10, 3, 3, 3, 3, 2, 2)
    convolutions = sum(
        2 * rate * kernel * (512 if number else 1) * 512
        for number, (rate, kernel) in enumerate(zip(rates, kernels, strict=True))
    )
    return convolutions + 50 * 2 * layer * (4 * width**2 + 2 * width * inner)


def _shape(encoder: str) -> Optional[Tuple[int, int, int]]:
    config = _config(encoder)
    if config and {"num_hidden_layers", "hidden_size", "intermediate_size"} <= config.keys():
        return tuple(config[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    return _ENCODERS.get(Path(encoder).name)


def parameters(model: str) -> Optional[float]:
    """Parameters of an LLM, by its configuration or its name; ``None`` where neither tells."""
    config = _config(model)
    if config and "hidden_size" in config and "intermediate_size" in config:
        width, inner = config["hidden_size"], config["intermediate_size"]
        heads = config.get("num_attention_heads", 1)
        shared = config.get("num_key_value_heads", heads) / heads
        block = 2 * width**2 * (1 + shared) + 3 * width * inner
        matrices = 1 if config.get("tie_word_embeddings") else 2
        return config["num_hidden_layers"] * block + matrices * config["vocab_size"] * width
    found = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-z])", Path(model).name)
    return float(found[1]) * 1e9 if found else None


def _config(model: str) -> Optional[Dict[str, Any]]:
    path = Path(model) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _epochs(path: PathLike) -> float:
    return float((read_yaml(path) or {}).get("num_epochs", 1))


def cpt_tokens(mixture: Mapping[str, Any], sets: Sequence[RecipeSet]) -> Tuple[float, List[str]]:
    """Tokens of a CPT mixture, and a line for each source whose set is too small for its share."""
    spoken = {one.set: one for one in sets if one.spoken}
    weights = sum(source.get("weight", 0) for source in mixture["sources"])
    total, short = 0.0, []
    for source in mixture["sources"]:
        asked = source.get("max_tokens", 0)
        if "budget" in mixture and "weight" in source:
            asked = mixture["budget"] * source["weight"] / weights
        one = spoken.get(Path(source.get("data_dir", "")).name)
        if one is not None:
            units = one.hours * one.share * 3600 * UNITS_PER_SECOND
            there = units * (1 + TEXT_PER_UNIT["cpt"])
            if asked and there < 0.9 * asked:
                short.append(
                    f"{source['name']}: {asked / 1e6:,.0f}M tokens are asked for, the set has about"
                    f" {there / 1e6:,.0f}M"
                    + (f" after {', '.join(one.rules)}" if one.rules else "")
                )
            asked = min(asked, there) if asked else there
        total += asked
    return total, short


def estimate(work: Work, machine: Machine) -> Tuple[List[Row], List[str]]:
    """A row for each stage, and remarks."""
    spoken = [one for one in work.sets if one.spoken]
    remarks: List[str] = []
    read = sum(one.utterances for one in spoken)
    kept = sum(one.utterances * one.share for one in spoken)
    hours = sum(one.hours * one.share for one in spoken)
    rows = [
        Row(1, f"{len(work.sets)} sets", hours, core_hours=read / UTTERANCES_A_SECOND / 3600,
            disk=kept * UTTERANCE),
        Row(2, "16 kHz FLAC", hours, core_hours=hours / FORMAT_SPEED, disk=hours * FLAC_HOUR),
    ]  # fmt: skip

    second = encoder_operations(work.encoder, work.layer)
    if second is None:
        remarks.append(f"encoder {work.encoder}: its size is unknown, stages 3 and 4 take more")
    kmeans = [one for one in spoken if "kmeans" in one.use] or spoken
    drawn = min(work.kmeans_hours, sum(one.hours * one.share for one in kmeans))

    def encoding(length: float) -> Optional[float]:
        return second and machine.gpu_hours(length * 3600 * second, machine.encode)

    units = hours * 3600 * UNITS_PER_SECOND
    rows.append(Row(3, "k-means", drawn, gpu_hours=encoding(drawn)))
    rows.append(Row(4, "units", hours, units, gpu_hours=encoding(hours), disk=units * UNIT))

    size = parameters(work.base_model)
    if size is None:
        remarks.append(f"model {work.base_model}: its size is unknown, stages 5 to 12 take more")
    size = size or 0.0
    rows.append(Row(5, Path(work.base_model).name, disk=size * EXPORT))
    pseudo = [one for one in spoken if "pseudo" in one.use]
    limit = work.pseudo_utterances or float("inf")
    pairs = work.pseudo_langs * sum(min(limit, one.utterances * one.share) for one in pseudo)
    each = PROMPT_TOKENS + ANSWER_TOKENS
    teacher = parameters(work.pseudo_model) or 0.0
    translating = machine.gpu_hours(2 * teacher * pairs * each, machine.decode)
    scoring = machine.gpu_hours(2 * SCORER_PARAMETERS * pairs * each, machine.encode)
    what = f"{pairs / 1e6:.2f}M translations"
    rows.append(Row(6, what, tokens=pairs * each, gpu_hours=translating + scoring,
                    disk=pairs * UTTERANCE))  # fmt: skip

    if work.variant != "towerfull" and work.cpt_mixture:
        tokens, short = cpt_tokens(load_mixture(work.cpt_mixture), work.sets)
        remarks += short
        rows += _training(7, 8, tokens, _epochs(work.cpt_config), size, machine)
    tokens = sum(one.units.get("it", 0) for one in spoken) * 1e6 * (1 + TEXT_PER_UNIT["it"])
    rows += _training(9, 10, tokens, _epochs(work.it_config), size, machine)
    rows.append(Row(11, "export", disk=size * EXPORT))

    tests = [one for one in spoken if "test" in one.use]
    # A set has transcription, and two ways to translate into each of its languages.
    answers = sum(
        one.utterances * (1 + 2 * len(one.targets)) if one.targets is not None else
        one.utterances * (work.jobs if one.corpus == "fleurs" else 1)
        for one in tests
    )  # fmt: skip
    texts = [one for one in work.sets if not one.spoken and "test" in one.use]
    answers += sum(1000 * (work.text_jobs if one.corpus == "flores200" else 1) for one in texts)
    prompt = 8 * UNITS_PER_SECOND
    deciphering = machine.gpu_hours(2 * size * answers * (prompt + ANSWER_TOKENS), machine.decode)
    rows.append(Row(12, f"{answers / 1e3:.0f}K answers", gpu_hours=deciphering))
    rows.append(Row(13, "scores"))
    return rows, remarks


def _training(
    examples: int, stage: int, tokens: float, epochs: float, size: float, machine: Machine
) -> List[Row]:
    cost = machine.gpu_hours(6 * size * tokens * epochs, machine.train)
    packing = tokens / TOKENS_A_SECOND / 3600
    passes = f"{epochs:g} pass" + ("es" if epochs != 1 else "")
    # the last checkpoints, the best one, and the export
    disk = size * (3 * CHECKPOINT + EXPORT)
    return [
        Row(examples, "examples", tokens=tokens, core_hours=packing, disk=tokens * TOKEN),
        Row(stage, passes, tokens=tokens * epochs, gpu_hours=cost, disk=disk),
    ]


def table(rows: Sequence[Row], machine: Machine) -> List[List[str]]:
    """Cells to print, a header first and sums last."""
    head = ["stage", "what", "audio", "units", "tokens", "core hours", "GPU hours", "wall", "disk"]
    cells = [head]
    for row in rows:
        wall = None if row.gpu_hours is None else row.gpu_hours / machine.gpus
        cells.append(
            [
                str(row.stage),
                row.what,
                _with_unit(row.hours, 1, " h"),
                _count(row.units),
                _count(row.tokens),
                _with_unit(row.core_hours, 1, ""),
                _with_unit(row.gpu_hours, 1, ""),
                _with_unit(wall, 1, " h"),
                _with_unit(row.disk, 1e9, " GB"),
            ]
        )
    sums = [sum(getattr(row, name) or 0 for row in rows) for name in Row._fields[5:]]
    cells.append(
        ["all", "", "", "", "", _with_unit(sums[0], 1, ""), _with_unit(sums[1], 1, "")]
        + [_with_unit(sums[1] / machine.gpus, 1, " h"), _with_unit(sums[2], 1e9, " GB")]
    )
    return cells


def _count(value: Optional[float]) -> str:
    if not value:
        return "-"
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}"


def _with_unit(value: Optional[float], size: float, unit: str) -> str:
    if value is None or value == 0:
        return "-"
    value /= size
    return f"{value:,.0f}{unit}" if value >= 10 else f"{value:.2g}{unit}"
