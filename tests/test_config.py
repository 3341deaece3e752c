"""Configuration: presets, recipes, methods, files and the command line."""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from iidm.catalog import METHODS, with_method
from iidm.cli import parse_config, read_config, write_config
from iidm.config import Config, LossConfig, sliding_window
from iidm.presets import PRESETS, preset_config
from iidm.recipes import RECIPES, with_recipe
from iidm.types import UserError


def all_groups(value: Any, path: str = "") -> list[tuple[str, Any]]:
    found = [(path, value)]
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            found += all_groups(inner, f"{path}.{field.name}")
    return found


def test_every_field_is_documented() -> None:
    import ast

    import iidm.config as package

    seen = set()
    for file in sorted(Path(package.__file__).parent.glob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config"):
                continue
            seen.add(node.name)
            for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(statement, ast.AnnAssign):
                    documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    assert documented, f"{node.name}.{ast.unparse(statement.target)} has no docstring"
    assert {type(value).__name__ for _, value in all_groups(Config())} <= seen


def test_the_papers_preset_holds_the_papers_values() -> None:
    config = preset_config("gta5-cityscapes-100")
    assert config.data.crop_size == (512, 512)
    assert (config.data.source_batch, config.data.target_batch, config.data.unlabeled_batch) == (2, 2, 2)
    assert config.data.labeled_count == 100
    assert config.max_steps == 40_000
    assert (config.optim.lr, config.optim.head_lr_mult) == (6e-5, 10.0)
    assert (config.optim.betas, config.optim.weight_decay) == ((0.9, 0.999), 0.01)
    assert (config.optim.warmup_steps, config.optim.warmup_ratio, config.optim.poly_power) == (
        1500,
        1e-6,
        1.0,
    )
    assert (config.teacher.ema_decay, config.teacher.confidence_threshold) == (0.99, 0.968)
    assert config.loss == LossConfig(1.0, 1.0, 1.0, 2.0, "sum", "sum")
    assert (config.model.backbone, config.model.output_stride) == ("resnet101-v1c", 8)
    assert (config.data.rare_class_temperature, config.data.rare_class_min_px) == (0.01, 3000)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_survives_its_file(name: str, tmp_path: Path) -> None:
    config = preset_config(name)
    assert config.preset == name
    write_config(config, tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config


def test_the_papers_presets_are_scored_as_the_paper_is_and_the_others_for_the_target() -> None:
    for name in PRESETS:
        paper = name.startswith(("gta5", "synthia"))
        assert preset_config(name).eval.statistics == ("running" if paper else "target")


def test_a_budget_of_zero_labels_switches_the_labeled_target_losses_off() -> None:
    loss = preset_config("synthia-cityscapes-0").loss
    assert (loss.target_weight, loss.intra_weight) == (0.0, 0.0)
    assert (loss.source_weight, loss.inter_weight) == (1.0, 1.0)


def test_recipes_differ_where_the_table_says_and_nowhere_else() -> None:
    paper, daformer = with_recipe(Config(), "paper"), with_recipe(Config(), "daformer")
    assert (paper.mixing.pasted_weight, daformer.mixing.pasted_weight) == ("quality", "one")
    assert (paper.teacher.quality_per, daformer.teacher.quality_per) == ("image", "batch")
    assert (paper.teacher.comparison, daformer.teacher.comparison) == (">", ">=")
    assert (paper.mixing.classes_from, daformer.mixing.classes_from) == ("image", "batch")
    assert (paper.loss.mixed_normalizer, daformer.loss.mixed_normalizer) == ("sum", "pixels")
    assert (paper.teacher.ema_ramp, daformer.teacher.ema_ramp) == (False, True)
    adapt = with_recipe(Config(), "adapt")
    assert (paper.loss.class_balance, daformer.loss.class_balance, adapt.loss.class_balance) == (0.0, 0.0, 0.5)
    assert (paper.loss.intra_weight, daformer.loss.intra_weight, adapt.loss.intra_weight) == (2.0, 2.0, 1.0)
    assert (paper.teacher.weighting, adapt.teacher.weighting) == ("quality", "confidence")
    assert with_recipe(adapt, "daformer") == daformer
    assert with_recipe(daformer, "paper") == paper
    fields_of = [{group: set(values) for group, values in recipe.items()} for recipe in RECIPES.values()]
    assert all(fields == fields_of[0] for fields in fields_of)


def test_a_loss_that_is_off_stays_off_in_every_recipe() -> None:
    for recipe in RECIPES:
        assert with_recipe(preset_config("gta5-cityscapes-0"), recipe).loss.intra_weight == 0.0


def test_every_preset_but_the_papers_has_the_recipe_adapt() -> None:
    for name in PRESETS:
        paper = name.startswith(("gta5", "synthia"))
        assert preset_config(name).recipe == ("paper" if paper else "adapt")


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_says_of_its_teacher_holds_in_every_recipe(method: str) -> None:
    """The rows of IIDM's own tables take the recipe's; a published method must not change with it."""
    found = {with_method(with_recipe(Config(), recipe), method).teacher.weighting for recipe in RECIPES}
    labels = with_method(Config(), method).loss
    by_teacher = labels.inter_weight > 0 or labels.intra_weight > 0
    own = method.startswith("iidm") or method.startswith(("source_target", "target_intra"))
    assert len(found) == 1 or own or not by_teacher
    weights = {with_method(with_recipe(Config(), recipe), method).loss.intra_weight for recipe in RECIPES}
    assert len(weights) == 1 or own


def test_options_override_method_override_recipe_override_preset() -> None:
    config, resume = parse_config(
        "--preset camvid-dusk --recipe paper --method source_target --loss.inter-weight 0.5 --amp --max-steps 7".split()
    )
    assert resume is None
    assert (config.preset, config.recipe, config.method) == ("camvid-dusk", "paper", "source_target")
    assert config.mixing.pasted_weight == "quality"
    assert (config.loss.inter_weight, config.loss.intra_weight) == (0.5, 0.0)
    assert (config.amp, config.max_steps) == (True, 7)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--preset camvid-dsk", ["camvid-dsk", "'camvid-dusk'"]),
        ("--method iid", ["'iidm'"]),
        ("--recipe papr", ["'paper'"]),
        ("--config nowhere.json", ["nowhere.json"]),
        ("--resume nowhere", ["nowhere"]),
        ("--data.source-batch 3", ["source-batch is 3", "unlabeled-batch is 4"]),
        ("--loss.source-weight -1", ["source-weight", "-1"]),
        ("--data.crop-size 4 4", ["crop-size", "16"]),
        ("--teacher.confidence-threshold 2", ["confidence-threshold", "between 0 and 1"]),
        ("--eval.window 8 64", ["eval.window", "16", "(8, 64)"]),
        ("--data.crop-size 48 64 --eval.stride 24 65", ["eval.stride", "1 to 48 down", "1 to 64 right", "(24, 65)"]),
        ("--eval.window 48 64 --eval.stride 0 32", ["eval.stride", "(0, 32)"]),
        ("--eval.window-batch 0", ["eval.window-batch", "at least 1"]),
        ("--optim.lr inf", ["optim.lr", "finite"]),
        ("--optim.betas 1 2", ["optim.betas", "below 1"]),
        ("--optim.weight-decay -1", ["optim.weight-decay", ">= 0"]),
        ("--optim.head-lr-mult -1", ["optim.head-lr-mult", ">= 0"]),
        ("--optim.poly-power -3", ["optim.poly-power", ">= 0"]),
        ("--optim.warmup-ratio 5", ["optim.warmup-ratio", "between 0 and 1"]),
        ("--loss.auxiliary-weight 1", ["iidm has no further term", "mme"]),
        ("--loss.mask-weight 1", ["iidm hides nothing", "mic"]),
        ("--mixing.strategy one-xu-one-stream --mixing.intra-views 3", ["--mixing.intra-views at 1"]),
        (
            "--data.crop-size 32 32 --model.output-stride 32 --eval.statistics-crops 1",
            ["statistics-crops is 1", "2 or"],
        ),
        (
            "--data.crop-size 32 32 --model.output-stride 32 --mixing.strategy two-xu-two-streams"
            " --data.unlabeled-batch 2 --data.source-batch 2 --data.target-batch 2",
            ["unlabeled-batch is 2", "4 or more crops"],
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(line: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse_config(line.split())
    for word in words:
        assert word in str(error.value)


def test_the_recipe_that_a_preset_has_may_be_named() -> None:
    """A preset may have values of its own in its recipe."""
    for preset, config in ((name, preset_config(name)) for name in PRESETS):
        assert preset_config(preset, config.recipe) == config


def test_another_method_leaves_the_terms_of_the_one_before() -> None:
    config = with_method(preset_config("scenes", method="mic"), "iidm")
    assert config.loss.mask_weight == config.loss.auxiliary_weight == 0


def test_an_unknown_option_ends_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse_config(["--loss.inter-wieght", "1"])
    assert error.value.code != 0
    assert "--loss.inter-weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"losss": {}}, ["losss", "'loss'"]),
        ({"loss": {"inter_wieght": 1.0}}, ["loss.inter_wieght", "loss.inter_weight"]),
        ({"max_steps": "many"}, ["max_steps", "int"]),
        ({"max_steps": 0}, ["max-steps", "at least 1"]),
    ],
)
def test_a_config_file_with_a_mistake_names_file_and_field(
    change: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change))
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_resumed_run_refuses_what_would_make_it_another_run(tmp_path: Path) -> None:
    write_config(preset_config("scenes"), tmp_path / "config.json")
    with pytest.raises(UserError, match=r"--optim\.lr"):
        parse_config(["--resume", str(tmp_path), "--optim.lr", "1"])
    config, resume = parse_config(["--resume", str(tmp_path), "--quiet", "--data.workers", "2"])
    assert resume == tmp_path
    assert (config.quiet, config.data.workers) == (True, 2)
    assert replace(config, quiet=False, run_dir=None).optim == preset_config("scenes").optim


def test_a_configuration_of_before_there_were_windows_sees_whole_images(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_config(preset_config("camvid-dusk"), path)
    data = json.loads(path.read_text())
    data["eval"] = {"statistics": "target", "statistics_crops": 64}
    path.write_text(json.dumps(data))
    assert read_config(path) == preset_config("camvid-dusk")
    assert sliding_window(read_config(path)) is None


def test_what_a_run_of_before_did_not_write_is_as_it_ran_and_a_persons_file_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_config(preset_config("scenes"), path)
    data = json.loads(path.read_text())
    del data["eval"], data["mixing"]["two_classes"]
    path.write_text(json.dumps(data))
    found = read_config(path)
    assert (found.eval.statistics, found.mixing.two_classes) == ("running", "classmix")
    path.write_text(json.dumps({"mixing": {}, "data": {}}))
    found = read_config(path)
    assert (found.eval.statistics, found.mixing.two_classes) == ("target", "cutmix")


def test_windows_are_the_training_crop_every_half_of_it_unless_others_are_given() -> None:
    slide = "--preset folder --eval.mode slide --data.crop-size 49 64".split()
    assert sliding_window(parse_config(slide)[0]) == ((49, 64), (25, 32), 4)
    own = "--eval.window 100 81 --eval.window-batch 2".split()
    assert sliding_window(parse_config([*slide, *own])[0]) == ((100, 81), (50, 41), 2)
    assert sliding_window(parse_config([*slide, *own, "--eval.stride", "100", "1"])[0]) == ((100, 81), (100, 1), 2)


def test_every_method_has_a_line() -> None:
    assert all(entry.summary and entry.source for entry in METHODS.values())
    assert {"iidm", "source_only", "target_only", "source_target"} <= set(METHODS)


def test_a_recipe_leaves_what_the_presets_own_method_is() -> None:
    """HRDA's teacher is slower than that of any recipe, DINOv2's blocks are its patches."""
    config, _ = parse_config("--preset gta5-cityscapes-hrda-100 --recipe daformer".split())
    assert (config.method, config.recipe, config.mixing.classes_from) == ("iidm_hrda", "daformer", "batch")
    assert config.teacher.ema_decay == 0.999 and config.model.hrda and config.teacher.ignore_bottom_px == 240
    config, _ = parse_config("--preset gta5-cityscapes-hrda-100 --method source_target".split())
    assert not config.model.hrda and config.loss.auxiliary_weight == config.loss.mask_weight == 0, (
        "nothing of iidm_hrda's"
    )
    config, _ = parse_config("--preset gta5-cityscapes-dinov2-0 --recipe daformer".split())
    assert config.mixing.hidden_block_px == 14 and config.loss.mask_weight == 1 and config.loss.target_weight == 0


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        (["--data.target.spec", "camera.toml"], "folder"),
        (["--data.source.spec=old.toml", "--data.target.spec=camera.toml"], "folder"),
        (["--data.target.images", "photos"], "folder"),
        (["--max-steps", "3"], "scenes"),
        (["--preset", "camvid-dusk", "--data.target.spec", "camera.toml"], "camvid-dusk"),
    ],
)
def test_data_of_ones_own_chooses_the_preset_folder(words: list[str], preset: str) -> None:
    config, _ = parse_config(words)
    assert config.preset == preset
