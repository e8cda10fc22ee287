"""60K direct and another 60K multi-turn prompts a corpus and pair: the paper's mixture does it.

(Section 3.3.1.) First by its numbers, then with 5 in place of 60K, built for real.
"""

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from datasets import load_from_disk
from helpers_lm import UNITS_NAME, make_data_dir

from espnet_spire.train.build import build_examples
from espnet_spire.train.mixture import budget_of, load_mixture
from espnet_spire.train.selection import uniform_limits

MIXTURE = Path(__file__).parents[2] / "conf/mixture_it.yaml"
LANGUAGES = {"de", "es", "fr", "it", "ko", "nl", "pt", "ru", "zh"}
FEW = 5


def pseudo_sources(dumpdir):
    mixture = load_mixture(MIXTURE, str(dumpdir))
    sources = [
        source for source in mixture["sources"] if "/pseudo/" in source.get("translations", "")
    ]
    return mixture, sources


def test_the_numbers_of_the_papers_mixture():
    _, sources = pseudo_sources("dump")
    by_corpus = defaultdict(dict)
    for source in sources:
        by_corpus[source["data_dir"]][source["task"]] = source
        # Both read what stage 6 leaves of the very set.
        corpus = Path(source["data_dir"]).name
        assert source["translations"] == f"dump/pseudo/{corpus}.{{lang}}"
        assert set(source["targets"]) == LANGUAGES and source["uniform"]
        limits = uniform_limits(budget_of({"sources": sources}, source), len(source["targets"]))
        assert limits.max_examples == 60_000 and limits.max_tokens is None
        assert "repeat" not in source
    assert len(by_corpus) == 3 and len(sources) == 6
    for tasks in by_corpus.values():
        assert tasks["st"]["range"] == [0.0, 0.5] and tasks["st_multi_turn"]["range"] == [0.5, 1.0]


@pytest.fixture(scope="module")
def built(tmp_path_factory, lm_tokenizer):
    """The mixture with 5 a pair in place of 60K, over sets of 60 utterances.

    Of each language a random 40 of them were kept, of Chinese 8.
    """
    dump, draw = tmp_path_factory.mktemp("dump"), random.Random(1)
    mixture, sources = pseudo_sources(dump)
    for corpus in {Path(source["data_dir"]).name for source in sources}:
        data = make_data_dir(dump / "raw" / corpus, 60)
        keys = [line.split()[0] for line in (data / "text").read_text().splitlines()]
        for lang in LANGUAGES:
            kept = sorted(draw.sample(keys, 8 if lang == "zh" else 40))
            where = dump / "pseudo" / f"{corpus}.{lang}"
            where.mkdir(parents=True)
            (where / f"text.tc.{lang}").write_text("".join(f"{key} Brot\n" for key in kept))
    small = [{**source, "max_examples": FEW * len(source["targets"])} for source in sources]
    out = dump / "it"
    build_examples({**mixture, "sources": small}, lm_tokenizer, out, units_name=UNITS_NAME)
    rows = load_from_disk(str(out / "dataset"))["key"]
    # <source>:<utterance>.<language>
    return [(source, *rest.rsplit(".", 1)) for source, rest in (row.split(":", 1) for row in rows)]


def test_as_many_of_each_corpus_and_pair_as_it_says(built):
    counts = Counter((source, lang) for source, _, lang in built)
    assert max(counts.values()) == FEW
    # 20 of 40 lie in each half, so that there are enough of all but Chinese, about 4 in each.
    assert {lang for (_, lang), count in counts.items() if count < FEW} <= {"zh"}
    assert len(counts) in range(6 * 8, 6 * 9 + 1)


def test_no_utterance_is_both_direct_and_multi_turn(built):
    of = defaultdict(lambda: defaultdict(set))
    for source, utterance, _ in built:
        kind = "multi-turn" if source.startswith("multi_turn_") else "direct"
        corpus = source.removeprefix("multi_turn_").removeprefix("pseudo_")
        of[corpus][kind].add(utterance)
    assert set(of) == {"commonvoice", "spgispeech", "gigaspeech"}
    for kinds in of.values():
        assert len(kinds["direct"]) > FEW and len(kinds["multi-turn"]) > FEW
        assert not kinds["direct"] & kinds["multi-turn"]


def test_no_example_is_there_twice(built):
    assert len(set(built)) == len(built)
