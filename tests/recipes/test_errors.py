"""Each mistake gives one clear line, a non-zero exit, and nothing half-written."""

import pytest

from espnet_spire.utils.datadir import write_data_dir


def last_error(done) -> str:
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert errors, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return errors[-1]


def test_unknown_option(empty_recipe):
    done = empty_recipe.run("--num-gpus", "2")
    assert last_error(done) == "error: unknown option --num-gpus (--help lists all options)"
    assert not (empty_recipe.path / "data").exists()


def test_option_without_value(empty_recipe):
    assert "--stage needs a value" in last_error(empty_recipe.run("--stage"))


@pytest.mark.parametrize(
    "option, value, said",
    [
        ("--variant", "spirehalf", "choose spirefull"),
        ("--stage", "two", "not a whole number"),
        ("--python", "python9", "python9 is not installed"),
        ("--unit_bpe", "100", "must be more than --num_clusters 100, or 0"),
    ],
)
def test_bad_values(empty_recipe, option, value, said):
    error = last_error(empty_recipe.run(option, value))
    assert said in error and value in error


def test_help_lists_options_with_defaults(empty_recipe):
    done = empty_recipe.run("--help")
    assert done.returncode == 0
    for option in ("--stage", "--stop_stage", "--ngpu", "--nj", "--variant", "--encoder_layer"):
        assert option in done.stdout
    assert "[2]" in done.stdout


@pytest.mark.parametrize(
    "stage, missing, advice",
    [
        ("2", "data/train_cpt/wav.scp", "stage 1"),
        ("4", "codebook", "stages 2 and 3"),
        ("5", "codebook", "stage 3"),
        ("8", "dump/cpt", "before"),
        ("12", "hf", "stages 4 and 11"),
    ],
)
def test_missing_input_names_it_and_what_to_run(empty_recipe, stage, missing, advice):
    done = empty_recipe.run("--stage", stage, "--stop_stage", stage)
    error = last_error(done)
    if stage in ("4", "5"):
        missing = "clusters"
    if stage == "8":
        missing = "km100"
    assert missing in error and advice in error
    assert not (empty_recipe.path / "dump/raw").exists()


def write_set(recipe, name, wavs):
    write_data_dir(
        recipe.path / "data" / name,
        {
            "wav.scp": wavs,
            "text": {key: "One two three." for key in wavs},
            "utt2spk": {key: key for key in wavs},
        },
    )


SETS = ("--train_set", "train", "--valid_set", "dev", "--test_sets", "test")


def prepare_sets(recipe, tmp_path):
    import numpy as np
    import soundfile

    good = tmp_path / "good.wav"
    soundfile.write(good, np.sin(np.arange(22050) / 20).astype("float32"), 22050)
    for name in ("train", "dev", "test"):
        write_set(recipe, name, {"a": str(good), "b": str(good)})
    return good


def test_empty_data_set(empty_recipe, tmp_path):
    prepare_sets(empty_recipe, tmp_path)
    write_set(empty_recipe, "train", {})
    error = last_error(empty_recipe.run(*SETS, "--stage", "2", "--stop_stage", "2"))
    assert "data/train/wav.scp: the data set is empty" in error


def test_corrupt_wav(empty_recipe, tmp_path):
    prepare_sets(empty_recipe, tmp_path)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing of the kind")
    write_set(empty_recipe, "dev", {"a": str(broken)})
    error = last_error(empty_recipe.run(*SETS, "--stage", "2", "--stop_stage", "2"))
    assert "broken.wav" in error and "replace or remove it" in error
    dev = empty_recipe.path / "dump/raw/dev"
    assert not (dev / "wav.scp").exists() and not list((dev / "audio").glob("[!.]*"))
    assert "a\t" in (dev / "rejected.tsv").read_text()


def test_missing_wav(empty_recipe, tmp_path):
    prepare_sets(empty_recipe, tmp_path)
    write_set(empty_recipe, "train", {"a": str(tmp_path / "nowhere.wav")})
    error = last_error(empty_recipe.run(*SETS, "--stage", "2", "--stop_stage", "2"))
    assert "nowhere.wav: no such audio file" in error


def test_missing_transcript(empty_recipe, tmp_path):
    prepare_sets(empty_recipe, tmp_path)
    (empty_recipe.path / "data/train/text").write_text("a One two three.\n")
    error = last_error(empty_recipe.run(*SETS, "--stage", "2", "--stop_stage", "2"))
    assert "data/train/text" in error and "utterance b" in error
