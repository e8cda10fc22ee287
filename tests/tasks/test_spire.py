"""Options of the ESPnet task: what it obeys, and what it refuses."""

from pathlib import Path

import pytest
import yaml

from espnet_spire.bin import spire_train
from espnet_spire.tasks.spire import RANGES, UNUSED, ExampleIterFactory, SpireTask
from espnet_spire.train.engine import read_deepspeed_config
from espnet_spire.utils.errors import SpireError

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def options(tmp_path, lm_dir):
    config = tmp_path / "ds.json"
    config.write_text('{"zero_optimization": {"stage": 1}}')
    return [
        *("--ngpu", "0", "--output_dir", str(tmp_path / "run"), "--model", str(lm_dir)),
        *("--train_examples", str(tmp_path / "ex"), "--deepspeed_config", str(config)),
        *("--batch_sequences", "2"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        *(["--max_epoch", "3"], ["--accum-grad", "2"], ["--patience", "1"], ["--use_amp", "true"]),
        *(["--optim", "sgd"], ["--grad_clip", "1"], ["--use_deepspeed", "true"]),
        *(["--init_param", "x.pth"], ["--batch_bins", "5"], ["--collect_stats", "true"]),
    ],
)
def test_options_that_do_nothing_are_refused(options, words):
    name = words[0].replace("-", "_").lstrip("_")
    with pytest.raises(SpireError, match=f"--{name} does nothing in SpireTask"):
        spire_train.main([*options, *words])


def test_defaults_of_unused_options_are_hidden_in_help():
    parser = spire_train.get_parser()
    text = parser.format_help()
    assert "--learning_rate" in text and "--deepspeed_config" in text
    for name in ("--max_epoch", "--accum_grad", "--keep_nbest_models", "--batch_bins"):
        assert f"{name} " not in text
    known = {action.dest for action in parser._actions}
    assert set(UNUSED) <= known | {"use_deepspeed", "deepspeed_config"}


@pytest.mark.parametrize(
    "name", ["output_dir", "model", "train_examples", "deepspeed_config", "batch_sequences"]
)
def test_required_options(options, name, capsys):
    position = options.index(f"--{name}")
    with pytest.raises(SystemExit) as caught:
        spire_train.main(options[:position] + options[position + 2 :])
    assert caught.value.code == 2
    assert f"the following arguments are required: --{name}" in capsys.readouterr().err


@pytest.mark.parametrize("name", RANGES)
def test_values_out_of_range(options, name):
    value = "0" if RANGES[name][1] == "above 0" else "-1"
    with pytest.raises(SpireError, match=f"--{name} {value}(.0)?: must be (above|at least) 0"):
        spire_train.main([*options, f"--{name}", value])


def test_betas_are_below_one(options):
    with pytest.raises(SpireError, match="--adam_beta2 1.0: must be at least 0 and below 1"):
        spire_train.main([*options, "--adam_beta2", "1"])


def test_gpus_that_are_not_there(options, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SpireError, match="--ngpu 1: torch sees no GPU here; use --ngpu 0"):
        spire_train.main([*options, "--ngpu", "1"])


def test_an_output_directory_that_is_a_file(options, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(SpireError, match="--output_dir .*run: is a file"):
        spire_train.main(options)


def test_lora_by_config_and_by_option(options, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text("lora:\n    r: 8\n    alpha: 16\n")
    words = [*options, "--config", str(config), "--lora", "alpha=32"]
    assert spire_train.get_parser().parse_args(words).lora == {"r": 8, "alpha": 32}
    assert spire_train.get_parser().parse_args(options).lora is None


# Those of CTC training are another command's (tests/baselines/test_ctc_config.py).
TRAININGS = sorted(path for path in CONF.glob("*train_*.yaml") if "ctc" not in path.name)


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.name)
def test_the_configs_of_the_project_are_options(options, path):
    """Nothing in them is unknown, and each says what it needs."""
    parser = spire_train.get_parser()
    args = parser.parse_args([*options, "--config", str(path)])
    SpireTask.check_required_command_args(args)
    for name, value in yaml.safe_load(path.read_text()).items():
        if name != "batch_sequences":  # the command line says it here
            assert getattr(args, name) == value
    assert "Needs" in path.read_text() and args.dist_backend == "gloo"


@pytest.mark.parametrize("path", sorted(CONF.glob("ds_zero*.json")), ids=lambda path: path.name)
def test_the_deepspeed_files_of_the_project(path):
    dtype = "float32" if path.name == "ds_zero1.json" else "bfloat16"
    config = read_deepspeed_config(path, dtype=dtype, clip=1.0)
    assert f"zero{config['zero_optimization']['stage']}" in path.name


def test_an_unknown_option(options, capsys):
    with pytest.raises(SystemExit) as caught:
        spire_train.main([*options, "--no_such_option", "1"])
    assert caught.value.code == 2 and "no_such_option" in capsys.readouterr().err


def test_missing_examples_and_a_model_without_units(options, lm_base, tmp_path):
    with pytest.raises(SpireError, match=r"ex/dataset: no such examples; make them with"):
        spire_train.main(options)
    options[options.index("--model") + 1] = str(lm_base)
    with pytest.raises(SpireError, match=r"spire.json: no such file; make .* extend_vocabulary"):
        spire_train.main(options)


def test_an_optimizer_in_deepspeeds_file_is_refused(options, trained, tmp_path):
    (tmp_path / "ds.json").write_text('{"optimizer": {"type": "Adam"}}')
    options[options.index("--train_examples") + 1] = str(trained[0] / "train")
    with pytest.raises(SpireError, match="ds.json: 'optimizer' is decided by options"):
        spire_train.main(options)
    assert not list((tmp_path / "run").glob("step_*"))


def test_parts_of_abs_task_that_have_no_meaning_here():
    with pytest.raises(SpireError, match="AutoModelForCausalLM"):
        SpireTask.build_model_from_file()
    with pytest.raises(RuntimeError, match="by steps"):
        ExampleIterFactory(None, 0).build_iter(1)


@pytest.mark.parametrize("words", ["1 -1 2", "0 0 0", "1 nan 1", "1 inf 1"])
def test_weights_of_distillation_that_are_none(options, words):
    with pytest.raises(SpireError, match="--kd_weights .*: three numbers of at least 0, and not a"):
        spire_train.main([*options, "--kd_weights", *words.split()])


def test_weights_of_distillation_in_a_config(options, tmp_path):
    config = tmp_path / "train.yaml"
    parser = spire_train.get_parser()
    assert parser.parse_args(options).kd_weights == [1, 1, 2]
    for value in ("[1, 2]", "3", "[a, 1, 1]", "[1, 1, -1]"):
        config.write_text(f"kd_weights: {value}\n")
        with pytest.raises(SpireError, match="--kd_weights .*: three numbers"):
            SpireTask.check_required_command_args(
                spire_train.get_parser().parse_args([*options, "--config", str(config)])
            )
