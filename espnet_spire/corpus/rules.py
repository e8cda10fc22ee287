"""The paper's rules for what of a corpus is used (Appendix A.1 and section 3.3.1).

A rule takes utterances sorted by key and gives them back so, less those that it leaves out. What is
random depends on the seed and the utterance's key alone.
"""

import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

from espnet_spire.corpus.records import TO_THE_END, LeftOut, Utterance
from espnet_spire.text.normalize import normalizer
from espnet_spire.train.selection import sample_hash
from espnet_spire.units.audio import Decoder, read_header
from espnet_spire.utils.datadir import iter_table
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.external_sort import external_sort

_HEADERS_AT_ONCE = 4096


class Setting(NamedTuple):
    """What rules may need: a seed, a directory for files that do not stay, threads that read."""

    seed: int
    work: Path
    nj: int


Result = Union[Utterance, LeftOut]


class Rule(NamedTuple):
    """``name``: as users see it; ``apply``: see the module's description; ``reads``: files beside
    the corpus that decide what is taken."""

    name: str
    apply: Callable[[Iterable[Utterance], Setting], Iterator[Result]]
    reads: Tuple[Path, ...] = ()


# GigaSpeech --------------------------------------------------------------------------------

# As the corpus writes them; the first two belong to the word before.
GIGASPEECH_TAGS = {
    "<COMMA>": ",",
    "<PERIOD>": ".",
    "<QUESTIONMARK>": "?",
    "<EXCLAMATIONPOINT>": "!",
}


def gigaspeech_text(text: str) -> str:
    """Lower case, and punctuation in place of its tags (Appendix A.1).

    >>> gigaspeech_text("AS THEY SAY <COMMA> WHO KNOWS <QUESTIONMARK>")
    'as they say, who knows?'
    """
    words: List[str] = []
    for word in text.split():
        mark = GIGASPEECH_TAGS.get(word.upper())
        if mark is None:
            words.append(word.lower())
        elif words:
            words[-1] += mark
        # a mark before all words belongs to none
    return " ".join(words)


# Caps --------------------------------------------------------------------------------------


def max_per_speaker(limit: int) -> Rule:
    """At most so many utterances a speaker, drawn uniformly (MLS: 13; k-means has its own)."""

    def reason(speaker: str, rank: int, _seen: Dict[str, None]) -> Optional[str]:
        return None if rank < limit else f"speaker {speaker} has {limit} already"

    return Rule(
        f"at most {limit} utterances a speaker",
        lambda utterances, setting: _capped(
            utterances, setting, "max_per_speaker", lambda u: u.speaker, reason
        ),
    )


def max_speakers_per_transcript(limit: int) -> Rule:
    """Each transcript in the voices of at most so many speakers, drawn uniformly (CV: 4)."""

    def reason(_text: str, _rank: int, seen: Dict[str, None]) -> Optional[str]:
        if len(seen) <= limit:
            return None
        seen.popitem()  # the newest, which is not taken
        return f"{limit} other speakers read this transcript"

    return Rule(
        f"at most {limit} speakers a transcript",
        lambda utterances, setting: _capped(
            utterances, setting, "max_speakers_per_transcript", lambda u: u.text, reason
        ),
    )


def _capped(
    utterances: Iterable[Utterance],
    setting: Setting,
    name: str,
    group_of: Callable[[Utterance], str],
    reason: Callable[[str, int, Dict[str, None]], Optional[str]],
) -> Iterator[Result]:
    """Go through each group in a random order; ``reason`` says why one is not taken.

    It is given the group, how many came before, and the speakers that were taken and this one's.
    """
    # with names of their own: a rule may be applied twice
    groups, keys = (tempfile.mkdtemp(prefix=f"{name}.", dir=setting.work) for _ in range(2))

    def shuffled() -> Iterator:
        for utterance in utterances:
            group = group_of(utterance)
            place = sample_hash(setting.seed, name, utterance.key)
            # no tab stands in a group: texts are one line, speakers one word
            yield f"{group}\t{place:016x}\t{utterance.key}", utterance

    def chosen() -> Iterator:
        rows = external_sort(shuffled(), groups)
        for group, members in itertools.groupby(rows, key=lambda row: row[0].split("\t", 1)[0]):
            seen: Dict[str, None] = {}
            for rank, (_, fields) in enumerate(members):
                utterance = Utterance(*fields)
                seen.setdefault(utterance.speaker)
                why = reason(group, rank, seen)
                yield utterance.key, [why, utterance]

    for key, (why, fields) in external_sort(chosen(), keys):
        yield Utterance(*fields) if why is None else LeftOut(key, why)


# Length ------------------------------------------------------------------------------------


def min_seconds(seconds: float) -> Rule:
    """At least so long (CommonVoice: 3 s); where a corpus does not say, its audio is asked."""
    return Rule(
        f"at least {seconds:g} s",
        lambda utterances, setting: _long_enough(utterances, setting, seconds),
    )


def _long_enough(
    utterances: Iterable[Utterance], setting: Setting, seconds: float
) -> Iterator[Result]:
    utterances = iter(utterances)
    with ThreadPoolExecutor(setting.nj) as pool:
        while batch := list(itertools.islice(utterances, _HEADERS_AT_ONCE)):
            for utterance, length in zip(batch, pool.map(_length, batch), strict=True):
                if isinstance(length, str):
                    yield LeftOut(utterance.key, f"its length is not known: {length}")
                elif length < seconds:
                    yield LeftOut(utterance.key, f"{length:.3f} s is shorter than {seconds:g} s")
                else:
                    yield utterance._replace(seconds=length)


def _length(utterance: Utterance) -> Union[float, str]:
    try:
        return seconds_of(utterance)
    except SpireError as error:
        return str(error)


def seconds_of(utterance: Utterance) -> float:
    """Length of an utterance by its corpus, its audio's header or, where neither tells, its audio.

    Raises:
        SpireError: the audio is needed and cannot be read.
    """
    if utterance.recording is not None and utterance.end != TO_THE_END:
        return utterance.end - utterance.start
    if utterance.seconds is not None:
        return utterance.seconds
    header = read_header(utterance.audio)
    frames = header.frames
    if frames is None:  # MP3 without a tag that has its length, as CommonVoice's first releases
        frames = Decoder().count_frames(utterance.audio)
    return frames / header.rate - utterance.start


# Overlap -----------------------------------------------------------------------------------


def without_overlap(table: str, lang: str = "en") -> Rule:
    """No transcript that is a sentence of a test set (FLEURS against FLORES devtest).

    Both sides are compared after Whisper's normaliser, so that case, punctuation and the spelling
    of numbers do not hide what is the same.

    Args:
        table: Kaldi table of the sentences.
    """
    normalize, _ = normalizer(lang)

    def apply(utterances: Iterable[Utterance], _setting: Setting) -> Iterator[Result]:
        test = {normalize(text): key for key, text in iter_table(table)}
        for utterance in utterances:
            found = test.get(normalize(utterance.text))
            if found is None:
                yield utterance
            else:
                yield LeftOut(utterance.key, f"is sentence {found} of {table}: {utterance.text}")

    return Rule(f"no sentence of {table}", apply, (Path(table),))


# Names -------------------------------------------------------------------------------------

_RULES: Dict[str, Callable[[str], Rule]] = {
    "max_per_speaker": lambda value: max_per_speaker(_positive(int, value)),
    "max_speakers_per_transcript": lambda value: max_speakers_per_transcript(_positive(int, value)),
    "min_seconds": lambda value: min_seconds(_positive(float, value)),
    "without_overlap": without_overlap,
}


def parse_rule(text: str) -> Rule:
    """``max_per_speaker=13`` → the rule; anything else is an error that names what there is."""
    name, equals, value = text.partition("=")
    if name not in _RULES or not equals:
        known = ", ".join(f"{known}=…" for known in _RULES)
        raise SpireError(f"rule {text!r} is unknown; known are {known}")
    try:
        return _RULES[name](value)
    except ValueError:
        raise SpireError(f"rule {text!r}: {value!r} is no positive number") from None


def _positive(kind: type, value: str):
    number = kind(value)
    if not number > 0:
        raise ValueError(value)
    return number
