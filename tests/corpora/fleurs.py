"""FLEURS in miniature, in the layout of the hub or of lhotse: no header, numbers as file names."""

from pathlib import Path

from corpora.material import say, speech, write_audio, write_lines

LANGUAGES = {
    "en": "en_us",
    "de": "de_de",
    "es": "es_419",
    "fr": "fr_fr",
    "it": "it_it",
    "ko": "ko_kr",
    "nl": "nl_nl",
    "pt": "pt_br",
    "ru": "ru_ru",
    "zh": "cmn_hans_cn",
}
# split → (number of the sentence, file, speaker): some sentences are read by several
RECORDINGS = {
    "train": [
        (903, "10004088536354799741", 0),
        (903, "10009414287632395082", 1),
        (7, "10027656994021350210", 2),
    ],
    "dev": [(1204, "10196187415036402817", 3)],
    "test": [(1675, "10028138967225172980", 4), (31, "10038765301216435672", 5)],
}
# Sentences that a language lacks.
LACKING = {"ko": {7}, "zh": {1675}}


def row(number: int, file: str, lang: str, samples: int) -> str:
    text = say(number)[lang]
    plain = text.lower().replace(".", "").replace(",", "")
    letters = " ".join("|".join(plain.split())) + " |"
    return "\t".join([str(number), f"{file}.wav", text, plain, letters, str(samples), "FEMALE"])


def build(root: Path, *, lhotse: bool = False) -> Path:
    """Write the corpus; returns what ``FLEURS`` is set to."""
    for split, recordings in RECORDINGS.items():
        for lang, language in LANGUAGES.items():
            lines = []
            for number, file, speaker in recordings:
                if number in LACKING.get(lang, ()):
                    continue
                samples = speech(number, speaker)
                if lang == "en":
                    data = root / language if lhotse else root / "data" / language / "audio"
                    write_audio(data / split / f"{file}.wav", samples)
                lines.append(row(number, file, lang, len(samples)))
            tables = root / "metadata" if lhotse else root / "data"
            write_lines(tables / language / f"{split}.tsv", lines)
    return root
