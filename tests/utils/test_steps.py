"""Steps of a recipe, with small shell commands that leave traces."""

import json
import signal
import subprocess
import sys
import time

import pytest

from espnet_spire.bin import run_step as command
from espnet_spire.utils import steps
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.steps import fingerprint, run_step, without_volatile


@pytest.fixture
def recipe(tmp_path):
    """Run step 'make it': copies ``in`` to ``out`` and notes each start in ``starts``."""

    class Recipe:
        root = tmp_path
        source, out, starts = tmp_path / "in", tmp_path / "out", tmp_path / "starts"
        script = 'echo x >> "$2"; cp "$1" "$3"'

        def run(self, *options, script=None, **changes):
            words = ["bash", "-c", script or self.script, "bash"]
            words += [str(self.source), str(self.starts), str(self.out), *options]
            settings = {"expdir": tmp_path / "exp", "inputs": [self.source], "outputs": [self.out]}
            return run_step("make it", words, **{**settings, **changes})

        def count(self):
            return len(self.starts.read_text().splitlines()) if self.starts.exists() else 0

        def stale(self):
            folder = tmp_path / ".stale"
            return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    Recipe.source.write_text("one")
    return Recipe()


def test_runs_once(recipe, capfd):
    assert recipe.run() == 0
    assert recipe.out.read_text() == "one"
    assert recipe.run() == 0
    assert recipe.count() == 1
    assert "make it: up to date" in capfd.readouterr().out
    assert recipe.stale() == []


def test_runs_again_when_the_output_is_gone(recipe):
    recipe.run()
    recipe.out.unlink()
    recipe.run()
    assert recipe.count() == 2
    assert recipe.out.exists()


def test_touching_an_input_is_no_change(recipe):
    import os

    recipe.run()
    os.utime(recipe.source, (1, 1))
    recipe.run()
    assert recipe.count() == 1


def test_another_input_sets_the_old_output_aside(recipe, capfd):
    recipe.run()
    recipe.source.write_text("two")
    recipe.run()
    assert recipe.out.read_text() == "two"
    assert recipe.count() == 2
    (old,) = recipe.stale()
    assert old.startswith("out-")
    assert (recipe.root / ".stale" / old).read_text() == "one"
    assert "was made from other inputs; moved to" in capfd.readouterr().out


def test_nothing_is_lost_when_inputs_change_twice_in_a_second(recipe, monkeypatch):
    monkeypatch.setattr(steps.time, "strftime", lambda _: "20250101-000000")
    script = 'mkdir "$3"; cp "$1" "$3/copy"'
    for content in ("one", "two", "three", "four"):
        recipe.source.write_text(content)
        assert recipe.run(script=script) == 0
    stale = [recipe.root / ".stale" / name / "copy" for name in recipe.stale()]
    assert sorted(path.read_text() for path in stale) == ["one", "three", "two"]
    assert (recipe.out / "copy").read_text() == "four"


def test_another_command_sets_the_old_output_aside(recipe):
    recipe.run("--seed", "1")
    recipe.run("--seed", "2")
    assert recipe.count() == 2
    assert len(recipe.stale()) == 1


def test_how_fast_does_not_matter(recipe):
    recipe.run("--nj", "1", "--device", "cpu", "--num_threads=1")
    recipe.run("--nj", "8", "--device", "cuda", "--num_threads=4")
    recipe.run()
    assert recipe.count() == 1


def test_killed_steps_go_on(recipe, capfd):
    script = (
        'echo x >> "$2"; if [ -e "$3" ]; then echo whole > "$3"; else echo half > "$3"; exit 9; fi'
    )
    assert recipe.run(script=script) == 9
    assert recipe.out.read_text() == "half\n"
    assert recipe.run(script=script) == 0  # the same command finds what it had left
    assert recipe.out.read_text() == "whole\n"
    assert recipe.stale() == []
    assert "make it: going on" in capfd.readouterr().out
    assert recipe.run(script=script) == 0
    assert recipe.count() == 2


def test_killed_and_changed_starts_anew(recipe):
    script = 'echo half > "$3"; exit 1'
    assert recipe.run(script=script) == 1
    recipe.source.write_text("two")
    assert recipe.run(script='test ! -e "$3" && echo whole > "$3"') == 0
    assert len(recipe.stale()) == 1


def test_seconds_add_up_over_starts(recipe):
    recipe.run(script="sleep 0.2; exit 1")
    recipe.run(script="sleep 0.2; exit 1")
    record = json.loads((recipe.root / ".steps/out.json").read_text())
    assert record["seconds"] >= 0.4
    assert record["finished"] is False
    recipe.run()
    times = json.loads((recipe.root / "exp/.timing.json").read_text())
    assert list(times) == ["make it"]
    assert times["make it"] < 0.4  # another command: the old time does not count


def test_missing_input(recipe):
    recipe.source.unlink()
    with pytest.raises(SpireError) as caught:
        recipe.run(hint="run stage 3 first")
    assert str(caught.value) == (
        f"step 'make it' needs {recipe.source}, which is not there; run stage 3 first"
    )
    assert recipe.count() == 0
    assert not (recipe.root / "exp").exists()


def test_missing_tool_and_missing_output(recipe):
    with pytest.raises(SpireError, match="step 'x': no-such-tool is not installed"):
        run_step("x", ["no-such-tool"], expdir=recipe.root, inputs=[], outputs=[])
    with pytest.raises(SpireError, match="ended well but left no .*out"):
        recipe.run(script="true")
    assert recipe.run() == 0  # and it does not count as done
    assert recipe.count() == 1


def test_fingerprint(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = fingerprint(["x"], [folder])
    assert fingerprint(["x"], [folder]) == first
    assert fingerprint(["y"], [folder]) != first
    assert fingerprint(["x"], []) != first
    (folder / ".hidden").write_text("no part of it")
    assert fingerprint(["x"], [folder]) == first
    (folder / "deep").mkdir()
    (folder / "deep/b").write_text("2")
    second = fingerprint(["x"], [folder])
    assert second != first
    (folder / "deep/b").rename(folder / "b")
    assert fingerprint(["x"], [folder]) not in (first, second)


def test_what_was_set_aside_is_no_input(tmp_path):
    """A folder in which outputs were set aside is still the same input."""
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a").write_text("1")
    first = fingerprint(["x"], [folder])
    (folder / ".stale").mkdir()
    (folder / ".stale/a-2025").write_text("0")
    assert fingerprint(["x"], [folder]) == first


def test_large_files_by_size_and_time(tmp_path, monkeypatch):
    import os

    monkeypatch.setattr(steps, "_HASHED_BYTES", 3)
    path = tmp_path / "large"
    path.write_text("12345")
    os.utime(path, (1, 1))
    first = fingerprint([], [path])
    path.write_text("54321")
    os.utime(path, (1, 1))
    assert fingerprint([], [path]) == first
    os.utime(path, (2, 2))
    assert fingerprint([], [path]) != first


def test_volatile_options_by_hand():
    words = "cmd --nj 4 --lr 1 --device cuda --num_threads=2 --num_shards 3 --njx 1 --log_level D"
    assert without_volatile(words.split()) == "cmd --lr 1 --njx 1".split()


def test_command(recipe, capfd):
    options = ["--name", "copy", "--expdir", str(recipe.root / "exp")]
    options += ["--inputs", str(recipe.source), "--outputs", str(recipe.out)]
    copy = "import shutil, sys; shutil.copy(*sys.argv[1:3])"
    words = [sys.executable, "-c", copy, str(recipe.source), str(recipe.out), "--its-own", "--x"]
    command.main([*options, "--", *words])
    assert recipe.out.read_text() == "one"
    command.main([*options, "--", *words])
    assert "copy: up to date" in capfd.readouterr().out
    with pytest.raises(SystemExit) as caught:
        command.main([*options, "--", "bash", "-c", "exit 7"])
    assert caught.value.code == 7
    with pytest.raises(SpireError, match="nothing is there|needs .*gone.*; look elsewhere"):
        gone = str(recipe.root / "gone")
        command.main(
            ["--name", "n", "--expdir", str(recipe.root), "--inputs", gone]
            + ["--hint", "look elsewhere", "--", "true"]
        )


def test_what_was_set_aside_comes_back_when_the_change_is_reverted(recipe, capfd):
    recipe.run("--seed", "1")
    assert recipe.run("--seed", "2", script="exit 3") == 3  # a mistyped option
    assert len(recipe.stale()) == 1 and not recipe.out.exists()
    assert recipe.run("--seed", "1") == 0
    assert recipe.count() == 1 and recipe.out.read_text() == "one" and recipe.stale() == []
    said = capfd.readouterr().out
    assert "moved back" in said and "make it: up to date" in said


def test_runs_with_other_outputs_do_not_disturb_each_other(recipe):
    recipe.run("a", outputs=[recipe.out])
    first, recipe.out = recipe.out, recipe.root / "other"
    recipe.run("b", outputs=[recipe.out])
    recipe.out = first
    recipe.run("a", outputs=[first])
    assert recipe.count() == 2 and recipe.stale() == []


def test_changed_audio_behind_an_unchanged_table_is_noticed(tmp_path):
    audio, table = tmp_path / "a.wav", tmp_path / "wav.scp"
    audio.write_bytes(b"1234")
    table.write_text(f"a {audio}\nb cat x |\n")
    before = fingerprint(["x"], [table])
    assert fingerprint(["x"], [table]) == before
    audio.write_bytes(b"123456")
    assert fingerprint(["x"], [table]) != before


def test_where_it_runs_is_no_part_of_what_it_does(tmp_path, capfd):
    out = tmp_path / "out"
    write = [sys.executable, "-c", f"open({str(out)!r}, 'a').write('x')"]
    options = {"expdir": tmp_path, "inputs": [], "outputs": [out]}
    env = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    assert run_step("t", write, **options, launcher=env) == 0
    assert run_step("t", write, **options) == 0
    assert out.read_text() == "x" and "up to date" in capfd.readouterr().out
    with pytest.raises(SpireError, match="step 'u': no-such-launcher is not installed"):
        run_step(
            "u", write, **{**options, "outputs": [tmp_path / "u"]}, launcher=["no-such-launcher"]
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_schedulers_warning_reaches_the_command_and_is_waited_for(tmp_path, number):
    child = (
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(0.3)\n"  # the time that a checkpoint takes
        "    pathlib.Path('saved').write_text('all of it')\n"
        "    sys.exit(7)\n"
        f"signal.signal({int(number)}, end)\n"
        "pathlib.Path('ready').write_text('')\n"
        "time.sleep(60)\n"
    )
    step = [sys.executable, "-m", "espnet_spire.bin.run_step", "--name", "t", "--expdir", "."]
    process = subprocess.Popen(
        [*step, "--outputs", "saved", "--", sys.executable, "-c", child], cwd=tmp_path
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == 7
    assert (tmp_path / "saved").read_text() == "all of it"
