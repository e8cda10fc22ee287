"""From a data directory to a unit file through the command itself."""

from itertools import groupby

import numpy as np
import pytest
import torch

from espnet_spire.bin import extract_units
from espnet_spire.units.audio import load_audio, utterance_sources
from espnet_spire.units.codebook import Codebook, save_codebook
from espnet_spire.units.encoder import load_encoder
from espnet_spire.utils.errors import SpireError

LENGTHS = [719, 720, 721, 1039, 1040, 1041, 4000, 16000, 8001, 7999]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_data_dir, make_audio):
    """Utterances around frame edges; keys whose C order differs from a locale's."""
    names = ["B", "a", "Ä", "b", "a-1", "a_1", "a1", "ａ", "z", "\U00010000"]
    utterances = {
        f"{name}utt": make_audio(1.1, number)[:length]
        for number, (name, length) in enumerate(zip(names, LENGTHS, strict=True))
    }
    return make_data_dir(tmp_path_factory.mktemp("corpus") / "d", utterances)


@pytest.fixture(scope="module")
def codebook(tmp_path_factory, stable_hubert, corpus):
    """Twelve frames of the corpus as centroids."""
    encoder = load_encoder(stable_hubert, 2)
    sources = utterance_sources(corpus)
    frames = torch.cat([encoder([load_audio(source)])[0] for source in sources.values()])
    chosen = torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))[:12]
    out = tmp_path_factory.mktemp("codebook") / "km12"
    description = {**encoder.description, "num_clusters": 12}
    save_codebook(Codebook(frames[chosen].clone(), description), out)
    return str(out)


@pytest.fixture
def extract(stable_hubert, codebook):
    def run(data_dir, out, *options):
        extract_units.main(
            ["--data_dir", str(data_dir), "--encoder", stable_hubert, "--layer", "2"]
            + ["--codebook", codebook, "--out", str(out), "--device", "cpu", *options]
        )

    return run


def read(path):
    return [line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()]


def test_values_and_order(extract, corpus, codebook, stable_hubert, tmp_path):
    extract(corpus, tmp_path / "units", "--keep_repeats")
    extract(corpus, tmp_path / "merged")
    kept, merged = read(tmp_path / "units"), read(tmp_path / "merged")
    assert [key for key, _ in kept] == [key for key, _ in merged]
    assert [key.encode() for key, _ in kept] == sorted(key.encode() for key, _ in kept)
    assert len(kept) == len(LENGTHS)

    from safetensors.numpy import load_file

    book = load_file(f"{codebook}/codebook.safetensors")["centroids"]
    encoder = load_encoder(stable_hubert, 2)
    for (key, line), (_, short) in zip(kept, merged, strict=True):
        samples = load_audio(utterance_sources(corpus)[key])
        features = encoder([samples])[0].numpy()
        distance = np.linalg.norm(features[:, None] - book[None], axis=2)
        expected = distance.argmin(axis=1).tolist()
        assert len(expected) == (len(samples) - 400) // 320 + 1
        assert line == " ".join(map(str, expected))
        assert short == " ".join(str(unit) for unit, _ in groupby(expected))
    assert kept != merged
    assert (tmp_path / "units.rejected.tsv").read_text() == ""


def test_batch_size_does_not_matter(extract, corpus, tmp_path):
    extract(corpus, tmp_path / "together")
    extract(corpus, tmp_path / "alone", "--batch_seconds", "0.01")
    assert (tmp_path / "together").read_bytes() == (tmp_path / "alone").read_bytes()


@pytest.mark.parametrize("num_shards", [3, 11])  # 11: one of them has no utterance
def test_shards_merged_are_the_whole(extract, corpus, tmp_path, num_shards):
    extract(corpus, tmp_path / "whole")
    for shard in range(1, num_shards + 1):
        shards = ["--num_shards", str(num_shards)]
        extract(corpus, tmp_path / "units", *shards, "--shard", str(shard))
    assert not (tmp_path / "units").exists()
    extract(corpus, tmp_path / "units", *shards, "--merge")
    assert (tmp_path / "units").read_bytes() == (tmp_path / "whole").read_bytes()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"whole", "whole.rejected.tsv", "units", "units.rejected.tsv"}


def test_merge_names_the_missing_job(extract, corpus, tmp_path):
    for shard in ("1", "3"):
        extract(corpus, tmp_path / "units", "--num_shards", "3", "--shard", shard)
    with pytest.raises(SpireError, match="job 2 of 3 has not finished"):
        extract(corpus, tmp_path / "units", "--num_shards", "3", "--merge")
    assert not (tmp_path / "units").exists()


@pytest.fixture
def spoilt(tmp_path, make_data_dir, make_audio):
    utterances = {f"u{number}": make_audio(0.5, number) for number in range(5)}
    directory = make_data_dir(tmp_path / "spoilt", {**utterances, "u5": np.zeros(0)})
    (directory / "audio/u1.wav").write_bytes(b"this was a recording once")
    (directory / "audio/u2.wav").write_bytes((directory / "audio/u2.wav").read_bytes()[:-100])
    import soundfile

    soundfile.write(directory / "audio/u3.wav", np.zeros(399), 16000)
    return directory


def test_unusable_audio_is_listed_and_fails(extract, spoilt, tmp_path):
    with pytest.raises(SpireError) as caught:
        extract(spoilt, tmp_path / "units")
    message = str(caught.value)
    assert message.startswith("4 of 6 utterances are unusable, first u")
    assert "rejected.tsv" in message and "--max_rejected" in message
    assert "\n" not in message
    rejected = dict(
        line.split("\t") for line in (tmp_path / "units.rejected.tsv").read_text().splitlines()
    )
    assert list(rejected) == ["u1", "u2", "u3", "u5"]
    assert "u1.wav: unreadable audio" in rejected["u1"]
    assert "u2.wav: cut off" in rejected["u2"]
    assert rejected["u3"] == "399 samples are shorter than one frame"
    assert "u5.wav: no samples" in rejected["u5"]
    assert not (tmp_path / "units").exists()


def test_a_share_may_be_unusable(extract, spoilt, tmp_path):
    extract(spoilt, tmp_path / "units", "--max_rejected", "0.7")
    assert [key for key, _ in read(tmp_path / "units")] == ["u0", "u4"]
    assert len((tmp_path / "units.rejected.tsv").read_text().splitlines()) == 4
    with pytest.raises(SpireError, match="4 of 6"):
        extract(spoilt, tmp_path / "other", "--max_rejected", "0.6")


def test_shards_merge_what_was_rejected(extract, spoilt, tmp_path):
    for shard in ("1", "2"):
        extract(spoilt, tmp_path / "units", "--num_shards", "2", "--shard", shard)
    with pytest.raises(SpireError, match="4 of 6"):
        extract(spoilt, tmp_path / "units", "--num_shards", "2", "--merge")
    extract(spoilt, tmp_path / "units", "--num_shards", "2", "--merge", "--max_rejected", "0.7")
    assert [key for key, _ in read(tmp_path / "units")] == ["u0", "u4"]
    assert len((tmp_path / "units.rejected.tsv").read_text().splitlines()) == 4


def test_nothing_usable(extract, tmp_path, make_data_dir):
    directory = make_data_dir(tmp_path / "d", {"u": np.zeros(100)})
    with pytest.raises(SpireError, match="units: no utterance is usable"):
        extract(directory, tmp_path / "units", "--max_rejected", "1")


def test_impossible_options(extract, corpus, tmp_path):
    with pytest.raises(SpireError, match="--shard 4 is not between 1 and --num_shards 3"):
        extract(corpus, tmp_path / "units", "--num_shards", "3", "--shard", "4")
    with pytest.raises(SpireError, match="1 --data_dir need as many --out"):
        extract(corpus, tmp_path / "units", "--out", "a", "b")
    with pytest.raises(SpireError, match="layer 2 .*encoder gives 1"):
        extract(corpus, tmp_path / "units", "--layer", "1")
    with pytest.raises(SpireError, match="encoder_type hubert .*encoder gives mfcc"):
        extract(corpus, tmp_path / "units", "--encoder", "mfcc")
