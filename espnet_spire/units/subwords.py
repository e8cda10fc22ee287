"""Byte pair encoding over units, with SentencePiece: shorter sequences, a larger vocabulary.

Numbers 0 … K-1 stay the units themselves; K … V-1 are merged pieces, most frequent merge first.
What is written is an ordinary unit file of numbers below V, so everything after takes either.

A model directory holds ``unit_bpe.model``, a SentencePiece model over the characters of
:mod:`espnet_spire.units.notation` whose ids are those numbers, and ``unit_bpe.json``: K, V, the
units of each merged piece, what it was learned from.
"""

import io
import random
import re
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from espnet_spire.units.notation import (
    MAX_UNITS,
    chars_to_units,
    line_to_units,
    unit_to_char,
    units_to_chars,
    units_to_line,
)
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.datadir import iter_table
from espnet_spire.utils.digest import file_sha256
from espnet_spire.utils.errors import SpireError

MODEL = "unit_bpe.model"
DESCRIPTION = "unit_bpe.json"
# SentencePiece's own limit.
MAX_PIECE_UNITS = 512
# SentencePiece counts positions in 16 bits and leaves out lines that are longer than an option
# says, in silence: longer sequences are learned from in parts of so many units.
_PART = 8192
_BYTES_PER_UNIT = 4  # of U+F0000 and above, in UTF-8
_TOO_HIGH = re.compile(r"Vocabulary size too high.*<= (\d+)")


class UnitBpe(NamedTuple):
    """A model: ``processor`` of SentencePiece, ``pieces[i]`` the units of number i."""

    processor: Any
    num_units: int
    pieces: List[Tuple[int, ...]]

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, units: Sequence[int]) -> List[int]:
        """Units below K → numbers below V."""
        if units and max(units) >= self.num_units:
            raise SpireError(
                f"unit {max(units)}, but the model was learned on K = {self.num_units}"
            )
        return self.processor.encode(units_to_chars(units))

    def decode(self, numbers: Sequence[int]) -> List[int]:
        """Inverse of :meth:`encode`."""
        if numbers and max(numbers) >= self.vocab_size:
            raise SpireError(f"number {max(numbers)}, but the model has V = {self.vocab_size}")
        return [unit for number in numbers for unit in self.pieces[number]]


class Sample(NamedTuple):
    """``sequences`` of units, in the order of the files; ``utterances``: of how many."""

    sequences: List[List[int]]
    utterances: int


def sample_sequences(
    unit_files: Iterable[PathLike], num_units: int, *, max_utterances: int, seed: int
) -> Sample:
    """Draw utterances from all files alike (reservoir sampling); only they are in memory.

    Raises:
        SpireError: a unit that is not below ``num_units``, or no units at all.
    """
    rng = random.Random(seed)
    chosen: List[Tuple[int, str, str]] = []
    seen = 0
    for path in unit_files:
        for key, line in iter_table(path, allow_empty_value=True):
            if not line:
                continue
            entry = (seen, f"{path}: {key}", line)
            seen += 1
            if len(chosen) < max_utterances:
                chosen.append(entry)
            elif (place := rng.randrange(seen)) < max_utterances:
                chosen[place] = entry
    if not chosen:
        raise SpireError("no units to learn from: every unit file is empty")
    sequences = []
    for _, where, line in sorted(chosen):
        units = line_to_units(line, where)
        if max(units) >= num_units:
            raise SpireError(f"{where}: unit {max(units)}, but K is {num_units}")
        sequences.append(units)
    return Sample(sequences, seen)


def _training_lines(sequences: Iterable[Sequence[int]], num_units: int) -> Iterator[str]:
    for units in sequences:
        for start in range(0, len(units), _PART):
            yield units_to_chars(units[start : start + _PART])
    # A unit that is not in the sample is a word of the model too; alone it makes no pair.
    for unit in range(num_units):
        yield unit_to_char(unit)


def train_model(
    sequences: Iterable[Sequence[int]],
    num_units: int,
    vocab_size: int,
    *,
    max_piece_units: int = 16,
) -> bytes:
    """Learn V - K merges.

    Args:
        sequences: of units below K.
        num_units: K.
        vocab_size: V, more than K.
        max_piece_units: units in one piece at most.

    Returns:
        a serialised SentencePiece model, number i = piece i; after them the unknown piece, which
        it must have and which no sequence of units below K gives.
    """
    import sentencepiece

    if not num_units < vocab_size <= MAX_UNITS:
        raise SpireError(
            f"--vocab_size {vocab_size}: must be more than K = {num_units}, {MAX_UNITS} at most"
        )
    if not 2 <= max_piece_units <= MAX_PIECE_UNITS:
        raise SpireError(
            f"--max_piece_units {max_piece_units}: must be from 2 to {MAX_PIECE_UNITS}"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_lines(sequences, num_units),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size + 1,
            max_sentence_length=_BYTES_PER_UNIT * _PART,
            max_sentencepiece_length=max_piece_units,
            # every unit is a letter of the alphabet, and nothing else is
            character_coverage=1.0,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            # units are no text: nothing is normalised, added, or a border between words
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_by_whitespace=False,
            split_by_unicode_script=False,
            split_by_number=False,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        found = _TOO_HIGH.search(str(error))
        if not found:
            raise
        raise SpireError(
            f"--vocab_size {vocab_size}: these units have too few pairs; {int(found[1]) - 1} is"
            " the most, or give more utterances"
        ) from None
    return _renumbered(model.getvalue(), num_units)


def _renumbered(serialized: bytes, num_units: int) -> bytes:
    """SentencePiece puts the unknown piece first, then merges in order, then characters."""
    from sentencepiece import sentencepiece_model_pb2 as pb2

    proto = pb2.ModelProto()
    proto.ParseFromString(serialized)
    unknown, *pieces = proto.pieces
    singles = sorted((p for p in pieces if len(p.piece) == 1), key=lambda p: p.piece)
    merged = [p for p in pieces if len(p.piece) > 1]
    if [p.piece for p in singles] != [unit_to_char(unit) for unit in range(num_units)]:
        raise RuntimeError("SentencePiece did not keep all units as pieces")
    renumbered = pb2.ModelProto()
    renumbered.CopyFrom(proto)
    del renumbered.pieces[:]
    renumbered.pieces.extend([*singles, *merged, unknown])
    renumbered.trainer_spec.unk_id = len(pieces)
    return renumbered.SerializeToString()


def learn_unit_bpe(
    unit_files: Sequence[PathLike],
    num_units: int,
    vocab_size: int,
    out: PathLike,
    *,
    max_utterances: int,
    max_piece_units: int = 16,
    seed: int = 0,
    codebook: Optional[Dict[str, Any]] = None,
) -> Dict[str, Any]:
    """Learn a model and write its directory, atomically.

    Args:
        unit_files: what to learn from.
        num_units, vocab_size, max_piece_units: see :func:`train_model`.
        out: directory to write.
        max_utterances: that are learned from at most, drawn from all files alike.
        seed: of that draw.
        codebook: whose units they are, noted.

    Returns:
        what was written to ``unit_bpe.json``.
    """
    if max_utterances < 1:
        raise SpireError(f"--max_utterances {max_utterances}: must be at least 1")
    sample = sample_sequences(unit_files, num_units, max_utterances=max_utterances, seed=seed)
    serialized = train_model(
        sample.sequences, num_units, vocab_size, max_piece_units=max_piece_units
    )
    model = _parse(serialized, num_units)
    before = sum(map(len, sample.sequences))
    after = sum(len(model.encode(units)) for units in sample.sequences)
    description = {
        "num_units": num_units,
        "vocab_size": model.vocab_size,
        "max_piece_units": max_piece_units,
        "utterances": len(sample.sequences),
        "of_utterances": sample.utterances,
        "seed": seed,
        "units": before,
        "numbers": after,
        "codebook": codebook,
        "pieces": {
            str(number): units_to_line(model.pieces[number])
            for number in range(num_units, model.vocab_size)
        },
    }
    with atomic_dir(out) as aside:
        (aside / MODEL).write_bytes(serialized)
        write_json(aside / DESCRIPTION, description)
    return description


def unit_bpe_identity(path: PathLike) -> Dict[str, Any]:
    """What tells a model directory from another: its description and the model's hash.

    Without the pieces, which are many and in the model too.
    """
    path = Path(path)
    _require(path)
    description = read_json(path / DESCRIPTION)
    description.pop("pieces", None)
    return {**description, "sha256": file_sha256(path / MODEL)}


def _require(path: Path) -> None:
    if not (path / MODEL).exists():
        raise SpireError(f"{path / MODEL}: no such file; learn_unit_bpe makes it")


def _parse(serialized: bytes, num_units: int) -> UnitBpe:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=serialized)
    pieces = [
        tuple(chars_to_units(processor.id_to_piece(number)))
        for number in range(processor.get_piece_size() - 1)
    ]
    return UnitBpe(processor, num_units, pieces)


def load_unit_bpe(path: PathLike) -> UnitBpe:
    """Read a model directory."""
    path = Path(path)
    _require(path)
    description = read_json(path / DESCRIPTION)
    model = _parse((path / MODEL).read_bytes(), description["num_units"])
    pieces = {
        str(number): units_to_line(model.pieces[number])
        for number in range(model.num_units, model.vocab_size)
    }
    if description["pieces"] != pieces:
        raise SpireError(f"{path}: {MODEL} and {DESCRIPTION} do not belong together")
    return model


def convert(
    model: UnitBpe, unit_file: PathLike, *, invert: bool = False
) -> Iterator[Tuple[str, List[int], List[int]]]:
    """Yield key, numbers read and numbers to write, for each utterance of a unit file.

    Units become pieces, or with ``invert`` pieces units; an empty utterance stays one.
    """
    change = model.decode if invert else model.encode
    for key, line in iter_table(unit_file, allow_empty_value=True):
        where = f"{unit_file}: {key}"
        numbers = line_to_units(line, where)
        try:
            yield key, numbers, change(numbers)
        except SpireError as error:
            raise SpireError(f"{where}: {error}") from None
