"""How a study is resolved to runs: order of the options, budgets, shared runs and keys."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest

from iidm.cli import CHANGEABLE_ON_RESUME, config_as_dict, parse_config
from iidm.config import Config, DatasetConfig
from iidm.presets import preset_config
from iidm.studies.grid import find_study, known_studies
from iidm.studies.plan import Plan, Wishes, config_from_dict, make_plan, run_key
from iidm.types import UserError


def plan(text: str = made_up.GRID, **wishes: Any) -> Plan:
    return make_plan(made_up.study(text), Wishes(**wishes))


def grid(*rows: str, head: str = "budgets = [20]") -> str:
    return "\n".join([head, *("[[row]]\n" + row for row in rows)])


@pytest.mark.parametrize("name", known_studies())
def test_every_table_of_the_paper_resolves(name: str) -> None:
    study = find_study(name)
    found = make_plan(study, Wishes())
    assert found.preset == study.preset
    assert (found.steps, found.seeds) == (40_000, 3)
    assert {cell.row.name for cell in found.cells} == {row.name for row in study.rows}
    assert {(cell.row.name, cell.labeled) for cell in found.cells} >= {
        (row.name, count) for row in study.rows for count in row.paper
    }


def test_tables_share_the_runs_that_they_have_in_common() -> None:
    keys = {}
    for name in ("table4", "table5", "table6"):
        for cell in make_plan(find_study(name), Wishes(budgets=(100,), seeds=1)).cells:
            if "(IIDM)" in cell.row.name:
                keys[name] = cell.runs[0].key
    assert len(keys) == 3
    assert len(set(keys.values())) == 1


def test_each_run_is_what_its_command_resolves_to() -> None:
    for run in plan(seeds=2, steps=10, options=("--amp", "--optim.lr", "1e-3")).runs:
        words = shlex.split(run.command)
        assert words[:3] == ["python", "-m", "iidm.train"]
        assert parse_config(words[3:]) == (run.config, None)
        assert run.config.amp
        assert run.config.max_steps == 10


def test_a_seed_is_done_for_all_cells_before_the_next_one_starts_and_twins_are_run_once() -> None:
    found = plan(seeds=2)
    assert len(found.cells) == 1 + 3 * 2
    assert [(r.config.seed, r.config.method, r.labeled) for r in found.runs] == [
        (seed, method, labeled)
        for seed in (0, 1)
        for method, labels in (("source_only", [0]), ("source_target", [20, 40]), ("iidm", [20, 40]))
        for labeled in labels
    ]


def test_the_users_options_come_last_and_a_recipe_comes_first() -> None:
    text = grid('name = "a"\nmethod = "iidm"\noptions = ["--loss.inter-weight", "3", "--teacher.ema-decay", "0.5"]')
    config = (
        plan(text, preset="gta5-cityscapes-100", options=("--recipe", "daformer", "--loss.inter-weight", "4"))
        .runs[0]
        .config
    )
    assert config.recipe == "daformer"
    assert config.mixing.pasted_weight == "one"
    assert config.loss.inter_weight == 4
    assert config.teacher.ema_decay == 0.5


def test_pictures_and_tensorboard_are_off_unless_they_are_asked_for() -> None:
    text = grid('name = "a"\nmethod = "iidm"')
    quiet, loud = plan(text), plan(text, options=("--log.preview-every", "7", "--log.tensorboard"))
    assert (quiet.runs[0].config.log.preview_every, quiet.runs[0].config.log.tensorboard) == (0, False)
    assert (loud.runs[0].config.log.preview_every, loud.runs[0].config.log.tensorboard) == (7, True)
    assert [run.key for run in quiet.runs] == [run.key for run in loud.runs]


@pytest.mark.parametrize(
    ("head", "wishes", "preset", "budgets"),
    [
        ('preset = "gta5-cityscapes-100"\nbudgets = [100, 200]', {}, "gta5-cityscapes-100", [100, 200]),
        ('preset = "gta5-cityscapes-100"\nbudgets = [100, 200]', {"preset": "scenes"}, "scenes", [20]),
        ('preset = "gta5-cityscapes-100"\nbudgets = [100, 200]', {"budgets": (7, 3, 7)}, "gta5-cityscapes-100", [3, 7]),
        ("budgets = [40, 5]", {"preset": "camvid-dusk"}, "camvid-dusk", [5, 40]),
        ("budgets = [40]", {}, "scenes", [40]),
        ("", {}, "scenes", [20]),
        ("", {"preset": "camvid-dusk"}, "camvid-dusk", [3]),
    ],
)
def test_where_preset_and_budgets_come_from(head: str, wishes: dict[str, Any], preset: str, budgets: list[int]) -> None:
    found = plan(grid('name = "a"\nmethod = "iidm"', head=head), **wishes)
    assert (found.preset, found.budgets) == (preset, budgets)
    assert [run.config.data.labeled_count for run in found.runs[: len(budgets)]] == budgets


def test_a_row_has_its_own_budget_and_leaves_out_what_it_cannot() -> None:
    rows = ('name = "a"\nmethod = "source_only"\nlabeled = 0', 'name = "b"\nmethod = "iidm"\nskip_budgets = [40]')
    found = plan(grid(*rows, head="budgets = [20, 40]"), seeds=1)
    assert [(cell.row.name, cell.labeled) for cell in found.cells] == [("a", 0), ("b", 20)]


def test_a_list_of_labeled_images_is_the_budget(tmp_path: Path) -> None:
    path = tmp_path / "labeled.txt"
    path.write_text("# mine\na\n\nb\nc\n")
    rows = ('name = "a"\nmethod = "source_only"\nlabeled = 0', 'name = "b"\nmethod = "iidm"')
    options = ("--data.labeled-list", str(path))
    found = plan(grid(*rows), options=options, seeds=1)
    assert [cell.labeled for cell in found.cells] == [0, 3]
    assert [run.config.data.labeled_list for run in found.runs] == [None, path]
    for run in found.runs:
        assert parse_config(run.words)[0] == run.config
    with pytest.raises(UserError, match="names the 3 labeled images"):
        plan(grid(*rows), options=options, budgets=(5,))


# Keys


def changed(config: Config, path: str, value: Any) -> Config:
    group, _, name = path.rpartition(".")
    return replace(config, **({group: replace(getattr(config, group), **{name: value})} if group else {name: value}))


def test_what_changes_nothing_that_is_computed_changes_no_key() -> None:
    config = preset_config("scenes")
    values: dict[str, Any] = {
        "run_dir": Path("x"),
        "source_root": Path("x"),
        "target_root": Path("x"),
        "device": "cpu",
        "kernels": "reference",
        "profile": 3,
        "quiet": True,
        "log": replace(config.log, every=7),
        "step.branches": "merged",
        "step.graph": "off",
        "step.compile": True,
        "step.recompute": True,
        "data.workers": 3,
        "data.skip_damaged": True,
        "data.accept": ("ignored",),
        "eval.window_batch": 7,
        "preset": "other",
        "recipe": "paper",
    }
    assert {*values, "max_steps"} == {*CHANGEABLE_ON_RESUME, "preset", "recipe"}
    for path, value in values.items():
        assert run_key(changed(config, path, value)) == run_key(config), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("max_steps", 11),
        ("amp", True),
        ("method", "dacs"),
        ("data.labeled_count", 21),
        ("loss.inter_weight", 1.5),
        ("step.accumulate", 2),
        ("model.backbone", "resnet50"),
    ],
)
def test_what_changes_the_computation_changes_the_key(path: str, value: Any) -> None:
    config = preset_config("scenes")
    assert run_key(changed(config, path, value)) != run_key(config)


def test_the_same_values_from_another_preset_are_the_same_run() -> None:
    other = parse_config(["--preset", "gta5-cityscapes-100", "--data.labeled-count", "200"])[0]
    assert run_key(other) == run_key(preset_config("gta5-cityscapes-200"))
    whole = changed(preset_config("scenes"), "loss.inter_weight", 1)  # 1 and 1.0 are one number
    assert run_key(whole) == run_key(preset_config("scenes"))


def test_a_configuration_of_before_a_field_existed_has_the_key_of_its_default() -> None:
    config = preset_config("scenes")
    data = config_as_dict(config)
    assert config_from_dict(data) == config
    del data["mixing"]["pasted_weight"], data["data"]["prefetch"]
    expected = changed(changed(config, "mixing.pasted_weight", "quality"), "data.prefetch", 2)
    assert run_key(config_from_dict(data)) == run_key(expected)


def test_a_run_of_before_statistics_had_a_field_is_none_with_those_of_the_target() -> None:
    """A study took it for done, and its table for one of today's."""
    config = preset_config("scenes")
    data = config_as_dict(config)
    del data["eval"]
    assert run_key(config_from_dict(data)) == run_key(changed(config, "eval.statistics", "running")) != run_key(config)


def test_how_two_classes_are_pasted_is_in_the_key_where_it_is_done(tmp_path: Path) -> None:
    def key(config: Config, two_classes: str | None) -> str:
        data = config_as_dict(config)
        data["mixing"].pop("two_classes")
        return run_key(config_from_dict(data) if two_classes is None else with_value(config, two_classes))

    def with_value(config: Config, two_classes: str) -> Config:
        return changed(config, "mixing.two_classes", two_classes)

    street = preset_config("scenes")
    assert key(street, None) == key(street, "cutmix") == key(street, "classmix")
    for names, is_same in ((("crack", "ground"), False), (("crack", "ground", "sky"), True)):
        data = replace(street.data, target=DatasetConfig(spec="folder", images="a", labels="b", class_names=names))
        two = replace(street, data=data)
        assert (key(two, "cutmix") == key(two, "classmix")) is is_same
        assert key(two, None) == key(two, "classmix"), "what runs did before it could be said"
        alone = changed(changed(two, "loss.inter_weight", 0.0), "loss.intra_weight", 0.0)
        assert key(alone, "cutmix") == key(alone, "classmix")


# Errors


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"seeds": 0}, ["--seeds", "0"]),
        ({"steps": 0}, ["--steps", "0"]),
        ({"budgets": (-3,)}, ["--budgets", "-3"]),
        ({"preset": "scene"}, ["'scene'", "'scenes'"]),
        ({"options": ("--seed", "3")}, ["--seed", "--seeds"]),
        ({"options": ("--max_steps=3",)}, ["--max-steps", "--steps"]),
        ({"options": ("--data.labeled-count", "3")}, ["--data.labeled-count", "--budgets"]),
        ({"options": ("--run-dir", "x")}, ["--run-dir", "--out"]),
        ({"options": ("--method", "iidm")}, ["--method", "[[row]]"]),
        ({"options": ("--resume", "x")}, ["--resume", "same command"]),
        ({"options": ("--optim.lr", "-1")}, ["--optim.lr", "> 0"]),
        ({"options": ("--recipe", "papers")}, ["'papers'", "'paper'"]),
    ],
)
def test_wishes_that_cannot_be(wishes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        plan(**wishes)
    for word in words:
        assert word in str(error.value)


def test_a_mistake_in_a_row_is_told_with_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    for row, words in (
        ('name = "x"\nmethod = "idm"', ["small: x:", "'idm'", "'iidm'"]),
        ('name = "x"\nmethod = "iidm"\noptions = ["--loss.inter-weight", "-1"]', ["small: x:", "--loss.inter-weight"]),
        ('name = "x"\nmethod = "iidm"\noptions = ["--seed", "1"]', ["small: x:", "--seed"]),
        ('name = "x"\nmethod = "iidm"\noptions = ["--data.labeled-list", "f"]', ["small: x:", "after the --"]),
    ):
        with pytest.raises(UserError) as error:
            plan(grid(row))
        for word in words:
            assert word in str(error.value)
    with pytest.raises(SystemExit):
        plan(grid('name = "x"\nmethod = "iidm"\noptions = ["--loss.intre-weight", "1"]'))
    said = capsys.readouterr().err
    assert "--loss.intre-weight" in said
    assert said.strip().endswith("that is about the options of 'x' in study small.")
    with pytest.raises(SystemExit):
        plan(options=("--no-such-option",))
    assert "that is about" not in capsys.readouterr().err
