"""The words of a command line: `~`, those of other programs, what stands first, what a resumed run may be given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from iidm.cli import PARSERS, parse_arguments, parse_config, parse_study, read_config, write_config
from iidm.cli.arguments import (
    EvaluateArguments,
    InspectArguments,
    PredictArguments,
    PrepareArguments,
    SelectArguments,
)
from iidm.presets import preset_config
from iidm.types import UserError


def test_words_of_other_commands_and_programs_are_taken_for_the_option_that_is_meant(tmp_path: Path) -> None:
    for word in ("--out", "--output", "--work-dir", "--run-dir"):
        config, _ = parse_config([word, str(tmp_path / "run"), "--steps=7"])
        assert config.run_dir == tmp_path / "run" and config.max_steps == 7
    for word in ("-o", "--output"):
        assert parse_arguments(PredictArguments, "predict", ["run", "images", word, "x"]).out == Path("x")
    assert parse_arguments(InspectArguments, "inspect", ["photos", "--out", "c.toml"]).write == (Path("c.toml"),)
    assert parse_study(["table4", "--out", "x", "--", "--steps", "3"])[1] == ["--max-steps", "3"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "3"], "--max-steps"),
        (["--batch-size=4"], "--data.source-batch"),
        (["--gpu", "1"], "CUDA_VISIBLE_DEVICES=1"),
    ],
)
def test_an_option_that_only_others_have_is_answered_with_what_there_is(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=f"has no {words[0].partition('=')[0]}: .*{said}"):
        parse_config(words)


def test_an_option_without_its_value_is_told_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--resume"])
    said = capsys.readouterr().err
    assert "train --help lists them" in said and "argument --resume: expected one argument" in said


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["--config", "own.toml"], "follows --config"),
        (["--config=own.toml", "--amp"], "follows --config"),
        (["--cfg", "own.toml"], "follows --cfg"),
        (["--max-steps", "3", "--data=own.toml"], "follows --data"),
        (["--data.target", "own.toml"], "follows --data.target"),
        (["--preset", "own.toml"], "follows --preset"),
        (["--amp", "own.toml"], "follows --amp"),
        (["own.toml", "--amp"], "stands without an option"),
        (["--max-steps", "3", "own.toml"], "stands without an option"),
    ],
)
def test_a_toml_file_in_another_place_is_answered_with_its_own(words: list[str], place: str) -> None:
    with pytest.raises(UserError, match=rf"as --data\.target\.spec own\.toml .* own\.toml {place}\.") as refused:
        PARSERS["train"](words)
    assert "iidm study own.toml" in str(refused.value)


@pytest.mark.parametrize(
    "words", [["--config", "own.toml"], ["--config=own.toml"], ["--out", "x", "--cfg", "own.toml"]]
)
def test_a_toml_file_that_stands_first_needs_no_option(words: list[str]) -> None:
    for command in ("prepare", "study"):
        with pytest.raises(UserError, match=f"first word, without an option, .* Write iidm {command} own.toml"):
            PARSERS[command](words)
        with pytest.raises(UserError, match=f"follows --{'dataset' if command == 'prepare' else 'study'}"):
            PARSERS[command]([f"--{'dataset' if command == 'prepare' else 'study'}", "own.toml"])


def test_a_toml_file_in_its_place_and_a_folder_called_so_are_read(tmp_path: Path) -> None:
    run = tmp_path / "run.toml"
    run.mkdir()
    write_config(preset_config("scenes"), run / "config.json")
    assert parse_config(["--config", str(run)])[0].preset == "scenes"
    assert parse_config([f"--resume={run}"])[1] == run
    config, _ = parse_config(["--data.source.spec=old.toml", "--data.target.spec", "own.toml", "--amp"])
    assert (config.data.source.spec, config.data.target.spec) == ("old.toml", "own.toml")
    assert parse_study(["--dry-run", "grid.toml", "--out", "x"])[0].study == "grid.toml"
    assert parse_study(["--preset", "scenes", "grid.toml", "--out", "x"])[0].study == "grid.toml"
    assert PARSERS["prepare"](["--skip-damaged", "own.toml"]).dataset == "own.toml"


def test_an_option_that_takes_all_words_after_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(SelectArguments, "select", ["--images", "photos", "runs/first", "--count", "3"])
    assert "iidm: --images takes all words after it; what is no option stands first." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse_arguments(SelectArguments, "select", ["--cuont", "3", "runs/first"])
    assert "takes all words" not in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "--out=", "--out"])
def test_an_empty_word_is_no_current_folder(value: str) -> None:
    """As of a variable that is not set: as a path it would be `.`."""
    words = {"": ["run", ""], "--out=": ["run", "a.jpg", "--out="], "--out": ["run", "a.jpg", "--out", ""]}[value]
    for name in ("predict", "evaluate", "report", "select", "export", "prepare", "inspect"):
        with pytest.raises(UserError, match=f"^(--out|What follows {value or 'run'}) is empty, .* not set"):
            PARSERS[name](words)
    for words in (["--data.target.spec", ""], ["--target-root="], ["--config", ""], ["--data.target.images", ""]):
        with pytest.raises(UserError, match=f"{words[0].rstrip('=')} is empty"):
            parse_config(words)
        with pytest.raises(UserError, match=f"{words[0].rstrip('=')} is empty"):
            parse_study(["table4", "--out", "x", "--", *words])


def test_a_file_with_the_name_of_an_option_is_answered_with_how_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-lead.jpg", "-own.toml"):
        (tmp_path / name).touch()
    calls = [("predict", ["run", "-lead.jpg", "--out", "x"]), ("train", ["--data.target.spec", "-own.toml"])]
    for command, words in calls:
        with pytest.raises(SystemExit):
            PARSERS[command](words)
        assert (
            f"iidm: {words[1]} is read as an option; the file of this name is ./{words[1]}\n" in capsys.readouterr().err
        )
    with pytest.raises(SystemExit):
        PARSERS["predict"](["run", "-other.jpg", "--out", "x"])
    assert "is read as an option" not in capsys.readouterr().err
    assert PARSERS["predict"](["run", "./-lead.jpg", "--out", "x"]).images == (Path("-lead.jpg"),)


def test_a_resumed_run_stays_in_its_folder_and_a_folder_is_a_config_too(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_config(preset_config("scenes"), run_dir / "config.json")
    with pytest.raises(UserError, match=f"goes on in {run_dir}, so leave out --run-dir"):
        parse_config(["--resume", str(run_dir), "--run-dir", str(tmp_path / "other")])
    assert parse_config(["--resume", str(run_dir), "--run-dir", f"{run_dir}/"])[1] == run_dir
    assert parse_config(["--config", str(run_dir)]) == parse_config(["--config", str(run_dir / "config.json")])


def test_a_profile_is_recorded_at_the_start_and_not_again_after_a_resume(tmp_path: Path) -> None:
    write_config(replace(preset_config("scenes"), profile=3), tmp_path / "config.json")
    assert parse_config(["--resume", str(tmp_path)])[0].profile == 0
    assert parse_config(["--resume", str(tmp_path), "--profile", "5"])[0].profile == 5


def test_a_tilde_is_the_home_folder_in_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    home = str(tmp_path)
    config, _ = parse_config(
        [
            "--preset",
            "folder",
            "--run-dir=~/run",
            "--source-root",
            "~/old",
            "--target-root=~",
            "--model.weights=~/w.pth",
        ]
        + ["--data.source.spec=~/old.toml", "--data.target.images", "~/images", "--data.labeled-list", "~/list.txt"]
    )
    found = (config.run_dir, config.source_root, config.target_root, config.model.weights)
    assert [*map(str, found)] == [f"{home}/run", f"{home}/old", home, f"{home}/w.pth"]
    data = config.data
    assert (data.source.spec, data.target.images) == (f"{home}/old.toml", f"{home}/images")
    assert str(data.labeled_list) == f"{home}/list.txt"
    write_config(config, tmp_path / "config.json")
    assert parse_config(["--config=~/config.json"])[0].run_dir == config.run_dir
    assert parse_config(["--resume=~"])[1] == tmp_path
    predict = parse_arguments(PredictArguments, "predict", ["~/run", "~/a.jpg", "~/b", "--out=~/out"])
    assert [*map(str, (predict.run, *predict.images, predict.out))] == [
        f"{home}/{x}" for x in "run a.jpg b out".split()
    ]
    evaluate = parse_arguments(EvaluateArguments, "evaluate", ["~/run", "--images=~/i", "--labels=~/l"])
    assert (str(evaluate.images), str(evaluate.labels)) == (f"{home}/i", f"{home}/l")
    prepare = parse_arguments(PrepareArguments, "prepare", ["~/my.toml", "--root=~/r", "--out=~/o"])
    assert (prepare.dataset, str(prepare.root), str(prepare.out)) == (f"{home}/my.toml", f"{home}/r", f"{home}/o")
    study, options = parse_study(["~/grid.toml", "--out=~/s", "--", "--source-root=~/old"])
    assert (study.study, str(study.out), options) == (f"{home}/grid.toml", f"{home}/s", [f"--source-root={home}/old"])


def test_a_tilde_in_a_config_file_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"source_root": "~/old"}))
    assert read_config(path).source_root == tmp_path / "old"
