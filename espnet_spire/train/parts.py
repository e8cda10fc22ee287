"""One part of a stream, tokenised into files of its own; what cannot be learned from is rejected.

Memory is bounded by a batch, not by the part.
"""

from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.text.prompts import chatml_pieces
from espnet_spire.train.examples import (
    Encoder,
    Rendered,
    Tokens,
    assemble,
    cut_off,
    forbidden_text,
    full_length,
    render_pieces,
    tokenize,
)
from espnet_spire.train.inputs import Input, check_unchanged
from espnet_spire.train.pairs import PAIRED, answer_of, join_pairs
from espnet_spire.train.part_files import Batch, write_part
from espnet_spire.train.selection import FACTS, sample_hash
from espnet_spire.train.sources import (
    Part,
    Raw,
    Stream,
    content_hash,
    conversation,
    conversations,
    plain_text,
    read_stream,
)
from espnet_spire.units.notation import FIRST_CODE_POINT, UNIT_CHARS
from espnet_spire.units.unit_lines import no_such_unit, parse_lines

# Why an example is rejected, as reports call it.
NO_UNITS, FORBIDDEN, EMPTY, TOO_LONG, NO_ANSWER, UNUSABLE, NOT_ALIGNED = (
    *("no_units", "forbidden_text", "empty_text", "too_long", "no_answer", "unusable"),
    "not_aligned",
)
# What is tokenised together.
_BATCH_EXAMPLES, _BATCH_CHARS = 1024, 2**21
_ONE_UNIT = (0,)


class Job(NamedTuple):
    """A part to be done: where its files go, the settings of the mixture, what is read."""

    stem: str
    stream: Stream
    part: Part
    plain: bool
    max_length: int
    seed: int
    inputs: Sequence[Input] = ()


def encode_part(encoder: Encoder, job: Job) -> int:
    """Write the files of a part.

    Returns:
        its tokens.

    Raises:
        SpireError: the data has a fault, or changed since the job was planned.
    """
    summary: Dict[str, Any] = {
        **{"cut": 0, "cut_tokens": 0, "langs": [], "rejected": [], "content": 0},
    }

    def batches() -> Iterator[Batch]:
        for raws in _batches(read_stream(job.stream, job.seed, job.part)):
            batch = _encode(encoder, job, raws, summary)
            if batch is not None:
                yield batch
        check_unchanged(job.inputs)  # before the files are put in place

    return write_part(job.stem, job.stream.task, batches(), summary)


def _batches(raws: Iterable[Raw]) -> Iterator[List[Raw]]:
    batch: List[Raw] = []
    size = 0
    for raw in raws:
        batch.append(raw)
        size += sum(map(len, raw.texts)) + len(raw.line or "")
        if len(batch) == _BATCH_EXAMPLES or size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(
    encoder: Encoder,
    job: Job,
    raws: List[Raw],
    summary: Dict[str, Any],
) -> Optional[Batch]:
    """The examples of a batch; what is rejected or cut goes into the summary."""
    name, langs = job.stream.source, summary["langs"]
    faults = [_fault(encoder, job, raw) for raw in raws]
    usable = [raw for raw, fault in zip(raws, faults, strict=True) if fault is None]
    paired = job.stream.task == PAIRED
    tokens = iter(tokenize(encoder, _rendered(encoder, job, usable)))
    twins = iter(tokenize(encoder, _rendered_twins(job, usable)) if paired else ())
    examples: List[Tokens] = []
    teachers: List[Tokens] = []
    keys, owners, places = [], [], []
    for raw, fault in zip(raws, faults, strict=True):
        summary["content"] = (summary["content"] + content_hash(raw)) % 2**64
        if fault is None:
            example = next(tokens)
            twin = next(twins, None)
            length = full_length(encoder, example)
            length += full_length(encoder, twin) if paired else 0
            if length > job.max_length and job.stream.settings.get("too_long") == "cut":
                example = cut_off(encoder, example, job.max_length)
                summary["cut"] += 1
                summary["cut_tokens"] += length - job.max_length
            elif length > job.max_length:
                fault = TOO_LONG, f"{length} tokens, max_length is {job.max_length}"
            if example.spans is not None and not example.spans:
                fault = NO_ANSWER, "there is no answer in it to learn"
            elif fault is None and paired and answer_of(example) != answer_of(twin):
                fault = NOT_ALIGNED, "the translation's tokens after speech and text differ"
        key = f"{name}:{raw.key}"
        if fault is not None:
            summary["rejected"].append((key, *fault))
            continue
        examples.append(example)
        if paired:
            teachers.append(twin)
        keys.append(key)
        if raw.lang not in langs:
            langs.append(raw.lang)
        owners.append(langs.index(raw.lang))
        places.append(sample_hash(job.seed, name, raw.key))
    if not examples:
        return None
    ids, spans = assemble(encoder, examples)
    facts = np.empty(len(examples), FACTS)
    facts["place"], facts["lang"] = np.fromiter(places, np.uint64, len(places)), owners
    widths = spans.values[1::2] - spans.values[::2]
    facts["targets"] = np.add.reduceat(widths, spans.offsets[:-1] // 2)
    if paired:
        ids, spans = join_pairs((ids, spans), assemble(encoder, teachers))
    facts["length"] = np.diff(ids.offsets)
    return Batch(ids, spans, facts, [langs[owner] for owner in owners], keys)


def _fault(encoder: Encoder, job: Job, raw: Raw) -> Optional[Tuple[str, str]]:
    """Why an example is rejected before it is tokenised: kind and reason."""
    if raw.unusable is not None:
        return UNUSABLE, raw.unusable
    if raw.without_units is not None:
        return NO_UNITS, f"no units: {raw.without_units}"
    texts = raw.texts
    if job.stream.settings.get("with_units"):
        for text in texts:
            _check_units(encoder, max(text, default=""), f"{job.stream.source}:{raw.key}")
        texts = [UNIT_CHARS.sub("u", text) for text in texts]
    for text in texts:
        reason = forbidden_text(text, encoder.specials)
        if reason is not None:
            return FORBIDDEN, reason
    if not all(text.strip() for text in texts):
        return EMPTY, "an empty text"
    return None


def _check_units(encoder: Encoder, highest: str, where: str) -> None:
    if highest and ord(highest) >= FIRST_CODE_POINT + encoder.num_units:
        raise no_such_unit(where, ord(highest) - FIRST_CODE_POINT, encoder.num_units)


def _rendered(encoder: Encoder, job: Job, raws: List[Raw]) -> List[Rendered]:
    """Texts with one character for all units, and the units."""
    units: List[Optional[np.ndarray]] = [None] * len(raws)
    if job.stream.with_units and raws:
        file = job.stream.tables[-1]
        values, offsets = parse_lines(
            [raw.line for raw in raws],
            encoder.num_units,
            lambda i: f"{file}: {raws[i].key.removesuffix(f'.{job.stream.target}')}",
        )
        units = np.split(values, offsets[1:-1])
    result = []
    for raw, row in zip(raws, units, strict=True):
        one = () if row is None else _ONE_UNIT
        if job.plain:
            result.append(Rendered(plain_text(job.stream, raw, one), None, row))
        else:
            result.append(render_pieces(chatml_pieces(conversation(job.stream, raw, one)), row))
    return result


def _rendered_twins(job: Job, raws: List[Raw]) -> List[Rendered]:
    """What the teachers of pairs read."""
    twins = [conversations(job.stream, raw, ())[1] for raw in raws]
    return [render_pieces(chatml_pieces(turns)) for turns in twins]
