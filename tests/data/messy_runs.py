"""What a drawn case says to a run: TOML files or fields, and which of its faults must or may stop it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from messy_cases import ASIDE, BAD_LABELS, CLASSES, COLORS, SUFFIX, Case, Folder, Picture, composed
from messy_folders import Known, label_place, write_folder

from iidm.config import Config, DataConfig, DatasetConfig, LossConfig

ACCEPT = ("ignored", "one-class", "train-ids", "missing-class", "class-names")


def folders_of(case: Case) -> dict[str, Folder]:
    """Split -> folder; the source's split has a root of its own."""
    val = case.val
    if val is not None and case.val_is_alike:
        val = replace(val, labels=case.train.labels)
    every = {"source": case.source, "train": case.train, "val": val}
    return {name: folder for name, folder in every.items() if folder is not None}


def write(case: Case, root: Path) -> dict[str, Known]:
    """The case's folders and descriptions."""
    known = {}
    for name, folder in folders_of(case).items():
        home = root / ("source" if name == "source" else "target")
        known[name] = write_folder(folder, home, "train" if name == "source" else name)
    for home in ("source", "target"):
        if (root / home).exists():
            (root / home / "data.toml").write_text(toml(case, home), encoding="utf-8")
    return known


def toml(case: Case, home: str) -> str:
    """The description of the source or the target."""
    folder = case.train if home == "target" or case.source is None else case.source
    split = "{split}" if home == "source" or case.val is not None else "train"
    wrong = case.mistake if home == "target" else "none"
    lines = [
        f'images = "{"pictures" if wrong == "folder" else "images"}/{split}"',
        f'{"lables" if wrong == "key" else "labels"} = "{label_place(folder).replace("{split}", split)}"',
    ]
    if folder.labels == "beside":
        lines.append(f'label_suffix = "{SUFFIX}"')
    if case.resize is not None:
        lines.append(f"resize = {list(case.resize)}")
    for k, name in enumerate(CLASSES):
        color = "blue-ish" if wrong == "colour" else f"#{COLORS[k][0]:02x}{COLORS[k][1]:02x}{COLORS[k][2]:02x}"
        name = CLASSES[0] if wrong == "class twice" else name
        lines += ["[[classes]]", f'name = "{name}"', f'color = "{color}"']
    return "\n".join(lines)


def config_of(case: Case, root: Path) -> Config:
    """The run's configuration, from TOML files or from fields."""
    roots = [root / home if (root / home).exists() else None for home in ("source", "target")]
    source, target = (described(case, home) for home in roots)
    data = DataConfig(
        source=source,
        target=target,
        crop_size=case.crop_size,
        labeled_count=case.labeled_count,
        val_count=case.val_count,
        scale_range=case.scale_range,
        rare_class_min_px=20,
        rare_class_min_crop_px=10,
        accept=ACCEPT if case.accepts else (),  # type: ignore[arg-type]
        skip_damaged=case.skip_damaged,
    )
    loss = LossConfig() if case.source else LossConfig(source_weight=0, inter_weight=0)
    return Config(data=data, loss=loss, source_root=roots[0], target_root=roots[1])


def described(case: Case, home: Path | None) -> DatasetConfig:
    if home is None:
        return DatasetConfig()
    if is_by_toml(case):
        return DatasetConfig(spec=str(home / "data.toml"))
    folder = case.train if home.name == "target" or case.source is None else case.source
    split = "{split}" if home.name == "source" or case.val is not None else "train"
    return DatasetConfig(
        images=f"images/{split}",
        labels=label_place(folder).replace("{split}", split),
        class_names=CLASSES,
        palette=tuple("#{:02x}{:02x}{:02x}".format(*color) for color in COLORS),
        resize=case.resize,
    )


def is_by_toml(case: Case) -> bool:
    """Labels beside images have a suffix, which only a TOML file names."""
    return case.toml or any(folder.labels == "beside" for folder in folders_of(case).values())


def one_way(case: Case) -> bool:
    """Whether train and val keep their labels alike, as one description says."""
    return case.val is None or case.val_is_alike or case.val.labels == case.train.labels


def certain_faults(case: Case) -> list[str]:
    """What must stop the run."""
    faults = []
    if is_by_toml(case) and case.mistake != "none":
        faults.append(case.mistake)
    with_label = len(case.train.annotated())
    if case.labeled_count == 0 or with_label == 0:
        faults.append("nothing is labeled")
    if (case.labeled_count or 0) > with_label or (case.val_count or 0) > with_label:
        faults.append("more than there are")
    for name, folder in folders_of(case).items():
        if name == "val" and case.val_count is not None:
            continue
        skips = case.skip_damaged and name != "val"
        broken = [p.name for p in folder.pictures if p.is_broken and p.kind not in ASIDE]
        if (broken or "broken" in folder.links) and not skips:
            faults.append(f"{name}: {broken} cannot be read")
        bad = {"wrong size", "unknown id", "unknown colour"}
        reads_all = name in ("source", "val") and folder.labels in ("pictures", "beside")
        if reads_all and not skips and one_way(case):
            faults += [f"{name}: {p.label}" for p in folder.annotated() if p.label in bad and p.kind not in ASIDE]
    return faults


def may_fail(case: Case) -> bool:
    """Whether something in a case might stop a run, after what this test knows."""
    if not one_way(case) or not case.accepts:
        return True
    if case.val_count is not None or case.labeled_count is not None:
        return True
    for name, folder in folders_of(case).items():
        for picture in folder.pictures:
            is_odd = picture.label in BAD_LABELS or picture.damage != "none" or picture.is_broken
            lacks = name != "train" and picture.label == "none"
            if is_odd or lacks or picture.kind in ASIDE or not picture.stem.isprintable():
                return True
        if "broken" in folder.links:
            return True
    labeled = {composed(picture.stem) for picture in case.train.annotated()}
    images = [picture for picture in case.train.pictures if picture.kind not in ASIDE]
    none_is_unlabeled = all(composed(p.stem) in labeled for p in images) and "folder" not in case.train.links
    names = [composed(p.name) for folder in folders_of(case).values() for p in folder.pictures]
    return none_is_unlabeled or len(set(names)) < len(names)


def is_doubtful(picture: Picture) -> bool:
    """Whether a label may not fit to its image's brightness: it was drawn on the stored pixels, a decoder makes pixels
    up, or one of them tells two classes apart."""
    return picture.damage == "middle" or picture.label in (*BAD_LABELS, "mask") or picture.kind == "bit png"
