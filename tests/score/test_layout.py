import pytest
from helpers_tables import put_scores

from espnet_spire.score.layout import Run, find, run_of, scored
from espnet_spire.utils.errors import SpireError

RIGHT = {"u1": "a b", "u2": "c"}


@pytest.fixture
def exp(tmp_path):
    exp = tmp_path / "exp"
    for where in ("spire_it_spirefull_x/greedy", "spire_it_spirefull_x/beam", "spire_cpt_x/greedy"):
        put_scores(exp / where / "test", "asr.en-en", RIGHT, RIGHT, metrics=["wer"])
    put_scores(exp / "whisper/greedy/test", "asr.en-en", RIGHT, {"u1": "a"}, metrics=["wer"])
    return exp


def runs(found):
    return [entry.run for entry in found]


def test_whose_directory():
    assert run_of("spire_it_towerfull_kd_a_b") == {"variant": "towerfull_kd", "tag": "a_b"}
    assert run_of("spire_it_spirefull") == {"variant": "spirefull", "tag": ""}
    assert run_of("spire_cpt_a") == {"variant": "spirebase", "tag": "a"}
    assert run_of("baseline_Whisper-base") == {"variant": "Whisper-base", "tag": ""}
    assert run_of("whisper") is None and run_of("spire_other") is None


def test_all_of_a_directory_or_some(exp):
    base = Run("x", "greedy", "spirebase")
    beam, greedy = (Run("x", how, "spirefull") for how in ("beam", "greedy"))
    assert runs(scored(exp)) == runs(find([str(exp)])) == [base, beam, greedy]
    assert runs(find([str(exp / "spire_it_spirefull_x")])) == [beam, greedy]
    assert runs(find([f"{exp}/spire_it_spirefull_x/beam/"])) == [beam]
    both = find([str(exp / "spire_it_spirefull_x/greedy"), str(exp)])
    assert runs(both) == [greedy, base, beam]  # each once
    entry = both[0]
    assert entry.set == "test" and entry.job.name == "asr.en-en" and entry.path.is_file()


def test_a_system_by_its_name(exp):
    found = find([f"Whisper-base={exp}/whisper", str(exp)])
    assert runs(found)[0] == Run("", "greedy", "Whisper-base")
    assert found[0].run.system == "Whisper-base" and found[1].run.system == "SpireBase"
    assert len(found) == 4


def test_baselines_are_found_as_models_are(exp):
    (exp / "whisper").rename(exp / "baseline_Whisper-base")
    assert Run("", "greedy", "Whisper-base") in runs(scored(exp))


def test_runs_of_one_name_from_two_places(exp, tmp_path):
    put_scores(
        tmp_path / "exp2/spire_cpt_x/greedy/test", "asr.en-en", RIGHT, RIGHT, metrics=["wer"]
    )
    found = runs(find([str(exp), str(tmp_path / "exp2")]))
    assert found[0] == Run("x", "greedy", "spirebase")
    assert found[-1] == Run("exp2/x", "greedy", "spirebase")


def test_unfinished_work_is_no_score(exp):
    hidden = exp / "spire_cpt_x/greedy/.stale/asr.en-en/score_wer"
    hidden.mkdir(parents=True)
    (hidden / "score.json").write_text("{}")
    assert len(scored(exp)) == 3


def test_errors(exp, tmp_path):
    with pytest.raises(SpireError, match="nowhere: no such experiment directory"):
        find([str(tmp_path / "nowhere")])
    with pytest.raises(SpireError, match="no score in it .*score first"):
        find([str(tmp_path)])
    with pytest.raises(SpireError, match="spire_it_k/greedy: no score"):
        (tmp_path / "spire_it_k/greedy").mkdir(parents=True)
        find([str(tmp_path / "spire_it_k/greedy")])
    with pytest.raises(SpireError, match="a name is missing before the ="):
        find([f"={exp}/whisper"])
    with pytest.raises(SpireError, match="no score"):
        find([f"Name={exp}"])
