"""From a data directory to a unit file through the command itself."""

import json
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


@pytest.fixture
def encoded(monkeypatch):
    """The utterances that are encoded, as they are."""
    from espnet_spire.units.extract import Job

    keys, encode = [], Job.encode

    def recorded(self, batch):
        keys.extend(key for key, _ in batch)
        return encode(self, batch)

    monkeypatch.setattr(Job, "encode", recorded)
    return keys


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
    assert left == {
        f"{name}{end}"
        for name in ("whole", "units")
        for end in ("", ".rejected.tsv", ".summary.json")
    }


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


class Killed(Exception):
    """Stands for a kill, at a moment that a test can choose."""


def test_killed_after_any_batch_goes_on_there(extract, encoded, corpus, tmp_path, monkeypatch):
    from espnet_spire.utils.journal import Journal

    small = ["--batch_seconds", "0.13"]  # many batches, several windows
    extract(corpus, tmp_path / "whole", *small)
    assert sorted(encoded) == sorted(key for key, _ in read(tmp_path / "whole"))
    append = Journal.append
    encoded.clear()
    kills = 0
    while not (tmp_path / "units").exists():
        budget = iter(range(2))

        def append_two(self, record, budget=budget):
            append(self, record)
            if "wall" in record.get("counts", {}) and next(budget, None) is None:
                raise Killed

        monkeypatch.setattr(Journal, "append", append_two)
        try:
            extract(corpus, tmp_path / "units", *small)
        except Killed:
            kills += 1
    assert kills >= 2
    # nothing was encoded twice
    assert sorted(encoded) == sorted(key for key, _ in read(tmp_path / "whole"))
    for end in ("", ".rejected.tsv"):
        one, other = (tmp_path / f"{name}{end}" for name in ("units", "whole"))
        assert one.read_bytes() == other.read_bytes()


def test_torn_line_is_done_again(extract, corpus, tmp_path, stable_hubert):
    """Whatever part of the journal reached the disk, the file comes out the same."""
    from espnet_spire.units.extract import journal_file

    extract(corpus, tmp_path / "whole", "--batch_seconds", "0.13")
    journal = journal_file(tmp_path / "units", 2, 1)
    shards = ["--num_shards", "2", "--batch_seconds", "0.13"]
    extract(corpus, tmp_path / "units", *shards, "--shard", "2")
    extract(corpus, tmp_path / "units", *shards, "--shard", "1")
    whole = journal.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(whole), 5):
        journal.write_bytes(whole[:size])
        extract(corpus, tmp_path / "units", *shards, "--shard", "1")
        done, again = (
            [
                {name: value for name, value in line.items() if name != "counts"}
                for line in lines(text)
            ]
            for text in (whole, journal.read_bytes())
        )
        assert done == again
    extract(corpus, tmp_path / "units", *shards, "--merge")
    assert (tmp_path / "units").read_bytes() == (tmp_path / "whole").read_bytes()


def lines(text):
    return [json.loads(line) for line in text.decode().splitlines()]


def test_journal_of_other_options_is_begun_anew(extract, corpus, tmp_path, caplog):
    shard = ["--num_shards", "2", "--shard", "1"]
    extract(corpus, tmp_path / "units", *shard, "--keep_repeats")
    extract(corpus, tmp_path / "units", *shard)
    assert "keep_repeats True, this has False; moved to" in caplog.text
    extract(corpus, tmp_path / "units", "--num_shards", "2", "--shard", "2", "--keep_repeats")
    with pytest.raises(SpireError, match="job 2 of 2 ran with keep_repeats True, not False"):
        extract(corpus, tmp_path / "units", "--num_shards", "2", "--merge")


def test_mended_audio_is_all_that_is_done_again(extract, encoded, spoilt, tmp_path, make_audio):
    import soundfile

    with pytest.raises(SpireError, match="4 of 6"):
        extract(spoilt, tmp_path / "units")
    for name in ("u1", "u3"):
        soundfile.write(spoilt / f"audio/{name}.wav", make_audio(0.4, 7), 16000, subtype="FLOAT")
    encoded.clear()
    with pytest.raises(SpireError, match="2 of 6"):
        extract(spoilt, tmp_path / "units")
    assert sorted(encoded) == ["u1", "u3"]
    extract(spoilt, tmp_path / "units", "--max_rejected", "0.4")
    assert sorted(encoded) == ["u1", "u3"]
    extract(spoilt, tmp_path / "fresh", "--max_rejected", "0.4")
    assert (tmp_path / "units").read_bytes() == (tmp_path / "fresh").read_bytes()
    assert [key for key, _ in read(tmp_path / "units")] == ["u0", "u1", "u3", "u4"]
    rejected = (tmp_path / "units.rejected.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in rejected] == ["u2", "u5"]


def test_frames_near_a_border_are_decided_alone(corpus, stable_hubert, monkeypatch):
    """A unit that rounding could change is that of transformers' own pass over the utterance."""
    from espnet_spire.units.assign import Assigner
    from espnet_spire.units.extract import SAFE_MARGIN, Job, Options

    encoder = load_encoder(stable_hubert, 2)
    key, source = next(iter(utterance_sources(corpus).items()))
    samples = load_audio(source)
    alone = encoder.alone(samples)
    # two centroids whose border runs through the first frame, but for less than rounding
    offset = torch.zeros(32).index_fill_(0, torch.tensor([3]), 1.0)
    shift = SAFE_MARGIN / 4 * alone[0].norm() * offset
    centroids = torch.stack([alone[0] - offset + shift, alone[0] + offset + shift])
    codebook = Codebook(centroids, encoder.description)
    job = Job(encoder, Assigner(codebook), codebook, Options())
    expected = torch.cdist(alone.double(), centroids.double()).argmin(dim=1)
    wrong = alone + 3 * shift  # as if the batch had been rounded across the border
    monkeypatch.setattr(Job, "_must_check", lambda *_: False)
    monkeypatch.setattr(type(encoder), "parts", lambda self, batch: [(0, wrong)])
    results, counts = job.encode([(key, samples)])
    if (torch.cdist(wrong.double(), centroids.double()).argmin(dim=1) != expected).any():
        assert counts["alone"] == 1
    assert results.units[key].split()[0] == str(expected[0].item())


def test_bfloat16_says_how_far_it_agrees(extract, corpus, tmp_path, capsys):
    extract(corpus, tmp_path / "exact")
    assert "bfloat16 agrees" not in capsys.readouterr().out
    extract(corpus, tmp_path / "rough", "--dtype", "bfloat16")
    assert "bfloat16 agrees on " in capsys.readouterr().out
    summary = json.loads((tmp_path / "rough.summary.json").read_text())
    assert 0 < summary["checked"] <= summary["frames"]
    assert 0.8 < summary["agreed"] / summary["checked"] <= 1
    assert summary["utterances"] == len(LENGTHS)
    assert summary["seconds"] == pytest.approx(sum(LENGTHS) / 16000)
    assert summary["frames"] == sum((length - 400) // 320 + 1 for length in LENGTHS)
    kept = [line for _, line in read(tmp_path / "rough")]
    assert summary["units"] == sum(len(line.split()) for line in kept)


def test_pooled_units_are_half_as_many(extract, stable_hubert, codebook, corpus, tmp_path):
    from espnet_spire.units.codebook import load_codebook

    with pytest.raises(SpireError, match="frame_rate 50.0 .*encoder gives 25.0"):
        extract(corpus, tmp_path / "units", "--pool_frames", "2")
    book = load_codebook(codebook)
    description = {**book.description, "pooling": "mean", "pool_frames": 2, "frame_rate": 25.0}
    save_codebook(Codebook(book.centroids, description), tmp_path / "km")
    options = ["--codebook", str(tmp_path / "km"), "--keep_repeats"]
    extract(corpus, tmp_path / "units", *options, "--pool_frames", "2")
    counts = {key: len(line.split()) for key, line in read(tmp_path / "units")}
    expected = sorted(-(-((length - 400) // 320 + 1) // 2) for length in LENGTHS)
    assert sorted(counts.values()) == expected


def test_windows_of_long_audio_join(extract, corpus, tmp_path):
    """Windows of 10 frames: as many units, and those that a window alone gives."""
    extract(corpus, tmp_path / "units", "--keep_repeats", "--window_seconds", "0.2")
    for (_, line), length in zip(
        read(tmp_path / "units"),
        [len(load_audio(s)) for s in utterance_sources(corpus).values()],
        strict=True,
    ):
        assert len(line.split()) == (length - 400) // 320 + 1


@pytest.fixture
def many(tmp_path, make_data_dir, make_audio):
    """Sixty utterances, several chunks."""
    utterances = {f"u{number:02d}": make_audio(0.1, number) for number in range(60)}
    return make_data_dir(tmp_path / "many", utterances)


@pytest.fixture
def mfcc_extract(tmp_path, many, encoded):
    """extract_units with MFCCs, which cost nothing; what it encodes is listed."""
    encoder = load_encoder("mfcc", 0)
    frames = torch.cat([encoder([load_audio(s)])[0] for s in utterance_sources(many).values()])
    save_codebook(
        Codebook(frames[::20].clone(), {**encoder.description, "num_clusters": len(frames[::20])}),
        tmp_path / "km",
    )

    def run(data_dirs, outs, *options):
        encoded.clear()
        extract_units.main(
            ["--data_dir", *map(str, data_dirs), "--out", *map(str, outs), "--encoder", "mfcc"]
            + ["--layer", "0", "--codebook", str(tmp_path / "km"), *options]
        )
        return list(encoded)

    run.encoded = encoded
    return run


def test_chunks_are_cut_by_names_and_stay(many):
    from espnet_spire.units.chunks import chunks
    from espnet_spire.units.sources import iter_sources

    before = list(chunks(iter_sources(many)))
    assert [key for chunk in before for key, _ in chunk.utterances] == [
        key for key, _ in iter_sources(many)
    ]
    assert len(before) > 2
    table = (many / "wav.scp").read_text().splitlines(keepends=True)
    (many / "wav.scp").write_text("".join(table[:3] + table[4:]))
    after = list(chunks(iter_sources(many)))
    assert [chunk.digest for chunk in after[-1:]] == [chunk.digest for chunk in before[-1:]]
    assert after[0].digest != before[0].digest


def test_jobs_share_out_chunks_and_look_at_no_others(many, monkeypatch):
    from espnet_spire.units import chunks as module
    from espnet_spire.units.sources import iter_sources

    whole = list(module.chunks(iter_sources(many)))
    seen = []
    monkeypatch.setattr(module, "file_state", lambda name: seen.append(name) or "1:1")
    parts = [list(module.chunks(iter_sources(many), 2, shard)) for shard in (1, 2)]
    assert [chunk.utterances for chunk in parts[0]] == [c.utterances for c in whole[::2]]
    assert [chunk.utterances for chunk in parts[1]] == [c.utterances for c in whole[1::2]]
    assert len(seen) == 60
    assert list(module.chunks(iter_sources(many), 99, 99)) == []
    assert len(seen) == 60


def test_another_number_of_jobs_goes_on(mfcc_extract, many, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "units"
    mfcc_extract([many], [whole])
    first = mfcc_extract([many], [out], "--num_shards", "2", "--shard", "2")
    rest = []
    for shard in ("1", "2", "3"):
        rest += mfcc_extract([many], [out], "--num_shards", "3", "--shard", shard)
    assert first and rest
    assert sorted(first + rest) == [key for key, _ in read(whole)]
    mfcc_extract([many], [out], "--num_shards", "3", "--merge")
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".units*"))


def test_work_with_other_settings_does_not_count(mfcc_extract, many, tmp_path):
    """Of what is beside the unit file the summary counts what went into it."""
    from espnet_spire.units.extract import journal_file

    out = tmp_path / "units"
    shards = [["--num_shards", "2", "--shard", shard] for shard in "12"]
    assert mfcc_extract([many], [out], "--num_shards", "3", "--shard", "1", "--keep_repeats")
    for shard in shards:
        mfcc_extract([many], [out], *shard)
    records = [
        record for shard in (1, 2) for record in lines(journal_file(out, 2, shard).read_bytes())[1:]
    ]
    mfcc_extract([many], [out], "--num_shards", "2", "--merge")
    summary = json.loads((tmp_path / "units.summary.json").read_text())
    wall = sum(record["counts"].get("wall", 0) for record in records)
    assert summary["wall"] == pytest.approx(wall) and wall > 0
    assert summary["utterances"] == 60
    assert not list(tmp_path.glob(".units*"))


def test_finished_sets_are_not_done_again(mfcc_extract, many, spoilt, tmp_path):
    """One bad set fails the command; the others are there, and stay."""
    outs = [tmp_path / "good", tmp_path / "bad"]
    with pytest.raises(SpireError, match="4 of 6 utterances are unusable"):
        mfcc_extract([many, spoilt], outs)
    assert len(read(outs[0])) == 60
    assert not outs[1].exists()
    with pytest.raises(SpireError, match="4 of 6"):
        mfcc_extract([many, spoilt], outs)
    assert mfcc_extract.encoded == []
    assert mfcc_extract([many, spoilt], outs, "--max_rejected", "0.7") == []
    # without a job in between, the merge finds the finished file
    assert mfcc_extract([many], outs[:1], "--merge") == []
    # another codebook option makes it anew
    assert len(mfcc_extract([many], outs[:1], "--keep_repeats")) == 60
    with pytest.raises(SpireError, match="job 1 of 2 has not finished"):
        mfcc_extract([many], outs[:1], "--num_shards", "2", "--merge")


def test_changed_audio_is_done_again_and_the_rest_is_not(mfcc_extract, many, tmp_path, make_audio):
    import soundfile

    out, shards = tmp_path / "units", ["--num_shards", "2"]
    everything = mfcc_extract([many], [out], *shards, "--shard", "1")
    everything += mfcc_extract([many], [out], *shards, "--shard", "2")
    assert len(everything) == 60
    soundfile.write(many / "audio/u07.wav", make_audio(0.2, 99), 16000, subtype="FLOAT")
    table = (many / "wav.scp").read_text().splitlines(keepends=True)
    (many / "wav.scp").write_text("".join(line for line in table if not line.startswith("u30 ")))
    again = []
    for shard in ("1", "2"):
        again += mfcc_extract([many], [out], *shards, "--shard", shard)
    assert "u07" in again
    # a chunk that begins elsewhere now is another one, and at most two have such a neighbour
    assert len(again) < 50
    mfcc_extract([many], [out], *shards, "--merge")
    mfcc_extract([many], [tmp_path / "fresh"])
    assert out.read_bytes() == (tmp_path / "fresh").read_bytes()
    assert len(read(out)) == 59


@pytest.mark.parametrize("then", ["lost", "found"])
def test_audio_that_comes_and_goes_between_kills(mfcc_extract, many, tmp_path, monkeypatch, then):
    """Killed within a chunk; an utterance of it is then unreadable, or readable at last."""
    from espnet_spire.utils.journal import Journal

    wav, kept = many / "audio/u00.wav", tmp_path / "kept.wav"
    if then == "found":
        wav.rename(kept)
    append = Journal.append
    budget = iter(range(2))

    def append_three(self, record):
        append(self, record)
        if "wall" in record.get("counts", {}) and next(budget, None) is None:
            raise Killed

    monkeypatch.setattr(Journal, "append", append_three)
    options = ["--batch_seconds", "0.1"]  # one utterance a batch
    with pytest.raises(Killed):
        mfcc_extract([many], [tmp_path / "units"], *options)
    monkeypatch.setattr(Journal, "append", append)
    assert len(mfcc_extract.encoded) == 3
    if then == "lost":
        wav.rename(kept)
        with pytest.raises(SpireError, match="1 of 60 utterances are unusable, first u00"):
            mfcc_extract([many], [tmp_path / "units"], *options)
        kept.rename(wav)
        mfcc_extract([many], [tmp_path / "units"], *options)
    else:
        kept.rename(wav)
        assert len(mfcc_extract([many], [tmp_path / "units"], *options)) == 57
    mfcc_extract([many], [tmp_path / "fresh"])
    assert (tmp_path / "units").read_bytes() == (tmp_path / "fresh").read_bytes()
    assert (tmp_path / "units.rejected.tsv").read_bytes() == b""


def test_one_process_a_job(mfcc_extract, many, tmp_path):
    from espnet_spire.units.extract import journal_file

    mfcc_extract([many], [tmp_path / "units"], "--num_shards", "2", "--shard", "1")
    import fcntl

    with open(journal_file(tmp_path / "units", 2, 1), "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(SpireError, match="another process is at this job"):
            mfcc_extract([many], [tmp_path / "units"], "--num_shards", "2", "--shard", "1")


def test_features_that_are_not_finite_are_rejected(mfcc_extract, many, tmp_path, monkeypatch):
    from espnet_spire.units.encoder import Encoder

    parts = Encoder.parts

    def broken(self, batch):
        for row, features in parts(self, batch):
            yield row, features * (float("nan") if len(batch[row]) % 2 else 1.0)

    monkeypatch.setattr(Encoder, "parts", broken)
    import soundfile

    soundfile.write(many / "audio/u05.wav", np.ones(1601, "float32") * 0.1, 16000)
    mfcc_extract([many], [tmp_path / "units"], "--max_rejected", "0.1")
    rejected = (tmp_path / "units.rejected.tsv").read_text()
    assert rejected == "u05\tits features are not finite\n"
