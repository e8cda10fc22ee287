"""The command: files it leaves, the same bytes again, in shards, and after kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file, save_file

from espnet_spire.bin import learn_kmeans
from espnet_spire.units import clustering, workdir
from espnet_spire.units.codebook import load_codebook
from espnet_spire.utils.errors import SpireError

FILES = ["codebook.json", "codebook.safetensors", "kmeans.png"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, make_data_dir, make_audio):
    root = tmp_path_factory.mktemp("corpora")
    return [
        str(
            make_data_dir(
                root / name, {f"{name}{n}": make_audio(1 + 0.1 * n, n + 10 * i) for n in range(6)}
            )
        )
        for i, name in enumerate("ab")
    ]


def argv(corpora, out, *more):
    return (
        ["--data_dir", *corpora, "--encoder", "mfcc", "--layer", "0", "--num-clusters", "8"]
        + ["--out", str(out), "--device", "cpu", "--batch_seconds", "3", *more]
    )  # fmt: skip


def contents(out):
    assert sorted(path.name for path in out.iterdir()) == FILES
    return {name: (out / name).read_bytes() for name in FILES}


def test_the_same_seed_gives_the_same_bytes(corpora, tmp_path, capsys):
    for name, seed in (("one", "3"), ("two", "3"), ("three", "4")):
        learn_kmeans.main(argv(corpora, tmp_path / name, "--seed", seed))
    one, two, three = (contents(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one["codebook.safetensors"] != three["codebook.safetensors"]
    # 6 utterances of 1.0 to 1.5 seconds twice: 49, 54, 59, 64, 69 and 74 frames
    assert "frames 738, inertia " in capsys.readouterr().out
    loaded = load_codebook(tmp_path / "one")
    assert loaded.centroids.shape == (8, 39)
    assert loaded.description["encoder_type"] == "mfcc"
    assert loaded.description["seed"] == 3
    assert loaded.description["hours"] == round(15 / 3600, 4)
    assert (tmp_path / "one.rejected.tsv").read_text() == ""
    assert not (tmp_path / "one.work").exists()


@pytest.mark.parametrize("backend", ["sklearn", "torch"])
def test_shards_give_what_one_job_gives(corpora, tmp_path, backend):
    options = ["--backend", backend, "--kmeans_dtype", "float32"]
    learn_kmeans.main(argv(corpora, tmp_path / "one", *options))
    sharded = argv(corpora, tmp_path / "many", *options, "--num_shards", "3")
    learn_kmeans.main([*sharded, "--shard", "2"])
    with pytest.raises(SpireError, match="job 1 of 3 has not finished"):
        learn_kmeans.main([*sharded, "--merge"])
    learn_kmeans.main([*sharded, "--shard", "1"])
    learn_kmeans.main([*sharded, "--shard", "3"])
    assert not (tmp_path / "many").exists()
    learn_kmeans.main([*sharded, "--merge"])
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    assert not (tmp_path / "many.work").exists()


def test_options_of_a_killed_job_must_stay(corpora, tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(clustering, "_seed", die)
    with pytest.raises(KeyboardInterrupt):
        learn_kmeans.main(argv(corpora, tmp_path / "book"))
    with pytest.raises(SpireError, match="book.work: begun with seed 0, now 1"):
        learn_kmeans.main(argv(corpora, tmp_path / "book", "--seed", "1"))
    with pytest.raises(SpireError, match="book.work: begun with window_seconds 100.0, now 9.0"):
        learn_kmeans.main(argv(corpora, tmp_path / "book", "--window_seconds", "9"))
    monkeypatch.undo()
    learn_kmeans.main(argv(corpora, tmp_path / "book"))
    learn_kmeans.main(argv(corpora, tmp_path / "other"))
    assert contents(tmp_path / "book") == contents(tmp_path / "other")


def test_kept_frames_and_an_old_codebook_replaced(corpora, tmp_path, monkeypatch):
    out = tmp_path / "book"
    out.mkdir()
    (out / "old").write_text("")
    learn_kmeans.main(argv(corpora, out, "--keep_frames"))
    first = contents(out)
    assert (tmp_path / "book.work" / "checkpoint.safetensors").exists()
    # killed between the codebook and the end: the work is all there
    monkeypatch.setattr(clustering, "_seed", None)
    learn_kmeans.main(argv(corpora, out))
    assert contents(out) == first
    assert not (tmp_path / "book.work").exists()


def test_picture_fails_no_codebook(corpora, tmp_path, monkeypatch):
    """Codebook and picture come at once or not at all."""
    from espnet_spire.utils import plots

    monkeypatch.setattr(plots, "save_figure", None)
    with pytest.raises(TypeError):
        learn_kmeans.main(argv(corpora, tmp_path / "book"))
    assert not (tmp_path / "book").exists()
    assert workdir.work_directory(tmp_path / "book").exists()


def test_command_on_fewer_frames_than_can_be_held_out(tmp_path, make_data_dir, make_audio, capsys):
    directory = make_data_dir(tmp_path / "d", {"u": make_audio(0.3, 0)})  # 14 frames
    learn_kmeans.main(
        ["--data_dir", str(directory), "--encoder", "mfcc", "--layer", "0"]
        + ["--num_clusters", "2", "--out", str(tmp_path / "book")]
    )
    assert load_codebook(tmp_path / "book").description["held_out_inertia"] is None
    assert "held_out_inertia" not in capsys.readouterr().out


def test_limits_for_each_data_directory(corpora, tmp_path):
    learn_kmeans.main(argv(corpora, tmp_path / "book", "--max_per_speaker", "2", "0"))
    with pytest.raises(SpireError, match="3 values of --max_per_speaker for 2 --data_dir"):
        learn_kmeans.main(argv(corpora, tmp_path / "b", "--max_per_speaker", "2", "0", "1"))


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num_shards", "2", "--shard", "3"], "--shard 3"),
        (["--max_rejected", "2"], "--max_rejected 2"),
        (["--num_workers", "-1"], "--num_workers -1"),
        (["--max_gib", "0.5"], "--max_gib"),
        (["--dtype", "bfloat16"], "--dtype bfloat16: mfcc is float32 only"),
        (["--full_batch", "--backend", "sklearn"], "--backend sklearn: knows no --full_batch"),
        (
            ["--kmeans_dtype", "bfloat16", "--backend", "sklearn"],
            "knows no --kmeans_dtype bfloat16",
        ),
        (["--merge"], "book.work: no job has begun yet; run them before --merge"),
    ],
)
def test_bad_options(corpora, tmp_path, options, message):
    with pytest.raises(SpireError, match=message):
        learn_kmeans.main(argv(corpora, tmp_path / "book", *options))
    assert list(tmp_path.iterdir()) == []


def test_unreadable_audio_is_listed(tmp_path, make_data_dir, make_audio):
    directory = make_data_dir(tmp_path / "d", {f"u{n}": make_audio(1, n) for n in range(4)})
    (directory / "audio" / "u2.wav").write_bytes(b"RIFF")
    with pytest.raises(
        SpireError, match="1 of 4 utterances are unusable, first u2: .*rejected.tsv"
    ):
        learn_kmeans.main(argv([str(directory)], tmp_path / "book"))
    learn_kmeans.main(argv([str(directory)], tmp_path / "book", "--max_rejected", "0.25"))
    assert (tmp_path / "book.rejected.tsv").read_text().startswith("u2\t")
    assert load_codebook(tmp_path / "book").description["frames"] == 3 * 49


def test_killed_for_real(corpora, tmp_path):
    """SIGKILL while it collects, then the end: the same files as undisturbed."""
    options = ["--backend", "torch", "--tol", "0", "--passes", "40"]
    learn_kmeans.main(argv(corpora, tmp_path / "whole", *options))
    command = [sys.executable, "-m", "espnet_spire.bin.learn_kmeans"]
    command += argv(corpora, tmp_path / "killed", *options)
    work = tmp_path / "killed.work"

    def collecting():
        journal = work / "frames.1-of-1.jsonl"
        return journal.exists() and journal.read_bytes().count(b"\n") >= 2

    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not collecting():
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    learn_kmeans.main(command[3:])
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")
    history = json.loads((tmp_path / "killed" / "codebook.json").read_text())["history"]
    assert [entry["pass"] for entry in history] == list(range(len(history)))


def test_merge_without_the_jobs_gpu(corpora, tmp_path, monkeypatch):
    """Jobs on GPUs have other batches by default; who merges takes what they had."""

    def sharded(*more, out="book"):
        words = argv(corpora, tmp_path / out, "--num_shards", "2", *more)
        at = words.index("--batch_seconds")
        return words[:at] + words[at + 2 :]

    with monkeypatch.context() as patch:
        patch.setattr(learn_kmeans, "batch_seconds", lambda args: 400.0)
        learn_kmeans.main(sharded("--shard", "1"))
    learn_kmeans.main(sharded("--shard", "2"))  # on a CPU
    asked = []
    monkeypatch.setattr(
        learn_kmeans, "default_device", lambda device, *_: asked.append(device) or "cpu"
    )
    # scikit-learn needs no device, whatever it is that the jobs had
    learn_kmeans.main([*sharded("--merge"), "--device", "cuda"])
    assert not asked
    settings = load_codebook(tmp_path / "book").description["settings"]
    assert settings["batch_seconds"] == 400.0 and settings["max_gib"] == 4.0


def test_full_batch_is_done(corpora, tmp_path):
    learn_kmeans.main(argv(corpora, tmp_path / "book", "--full_batch"))
    assert load_codebook(tmp_path / "book").description["backend"] == "torch"


def test_killed_in_the_removal(corpora, tmp_path, monkeypatch, caplog):
    """The work directory goes all at once; what is left is removed, and nothing done again."""
    out = tmp_path / "book"

    def die(*_, **__):
        raise KeyboardInterrupt

    def die_at_the_end(work):
        if workdir.removal_begun(work):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workdir, "finish_removal", die_at_the_end)
        with pytest.raises(KeyboardInterrupt):
            learn_kmeans.main(argv(corpora, out))
    work = workdir.work_directory(out)
    first = contents(out)
    assert not work.exists() and workdir.removal_begun(work)
    left = tmp_path / ".book.work.tmp.removed"
    (left / "settings.json").unlink()
    # other settings: begun anew
    with monkeypatch.context() as patch:
        patch.setattr(clustering, "_seed", die)
        with pytest.raises(KeyboardInterrupt):
            learn_kmeans.main(argv(corpora, out, "--seed", "1"))
    assert not left.exists() and work.exists()
    work.rename(left)
    # a job of several leaves the removal to the last
    monkeypatch.setattr(clustering, "_seed", None)
    monkeypatch.setattr(learn_kmeans, "batch_seconds", lambda args: 99.0)  # as begun, not this
    words = argv(corpora, out)
    at = words.index("--batch_seconds")
    words = words[:at] + words[at + 2 :]
    learn_kmeans.main([*words, "--num_shards", "2", "--shard", "1"])
    assert left.exists() and not work.exists()
    caplog.set_level("INFO")
    learn_kmeans.main([*words, "--num_shards", "2", "--merge"])
    assert "was finished with these settings" in caplog.text
    assert contents(out) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book", "book.rejected.tsv"]


def test_mended_audio_is_read_again_and_nothing_else(tmp_path, make_data_dir, make_audio):
    directory = make_data_dir(tmp_path / "d", {f"u{n}": make_audio(1, n) for n in range(6)})
    audio = directory / "audio" / "u2.wav"
    good = audio.read_bytes()
    audio.write_bytes(b"RIFF")
    words = argv([str(directory)], tmp_path / "book")
    with pytest.raises(SpireError, match="1 of 6 utterances are unusable, first u2: "):
        learn_kmeans.main(words)
    # another length than the file has had: the sample stays what it was
    audio.write_bytes(good)
    learn_kmeans.main(words)
    assert load_codebook(tmp_path / "book").description["frames"] == 6 * 49
    assert (tmp_path / "book.rejected.tsv").read_text() == ""


def test_encoder_that_was_trained_on(stable_hubert, post_norm_hubert, corpora, tmp_path):
    """Other weights at the same path, of the same shape."""
    encoder = tmp_path / "encoder"
    shutil.copytree(stable_hubert, encoder)
    words = argv(corpora[:1], tmp_path / "book", "--keep_frames")
    words[words.index("mfcc")] = str(encoder)
    words[words.index("--layer") + 1] = "2"
    learn_kmeans.main(words)
    description = load_codebook(tmp_path / "book").description
    assert len(description["weights"]) >= 8
    weights = encoder / "model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.layers.1.attention.q_proj.weight"] *= 1.1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(SpireError, match=f"begun with weights {description['weights']}, now "):
        learn_kmeans.main(words)
    shutil.copy(f"{stable_hubert}/model.safetensors", weights)
    learn_kmeans.main(words)
    assert load_codebook(tmp_path / "book").description == description


def test_two_processes_at_the_clustering(corpora, tmp_path):
    out = tmp_path / "book"
    learn_kmeans.main(argv(corpora, out, "--keep_frames"))
    with workdir.only_one(workdir.work_directory(out)):
        with pytest.raises(SpireError, match="cluster.lock: another process is at this job"):
            learn_kmeans.main(argv(corpora, out))
