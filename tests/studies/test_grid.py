"""TOML files of studies: the paper's tables hold the paper's numbers, and a mistake is named with file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from iidm.studies.grid import describe_studies, find_study, known_studies, parse_study
from iidm.types import UserError

TABLES = ["table1", "table2", "table3", "table4", "table5", "table6", "table7"]


def paper(name: str) -> dict[str, list[float]]:
    return {row.name: list(row.paper.values()) for row in find_study(name).rows}


def test_the_papers_tables_come_with_iidm() -> None:
    assert known_studies() == TABLES
    text = describe_studies()
    for name in TABLES:
        assert name in text


def test_table_1_is_the_papers() -> None:
    study = find_study("table1")
    assert study.budgets == (100, 200, 500, 1000)
    assert [row.type for row in study.rows] == ["UDA"] * 5 + ["Sup."] + ["SSL"] * 3 + ["SSDA"] * 6
    values = paper("table1")
    assert values["DACS"] == [52.1]
    assert values["DIGA"] == [62.7]
    assert values["DeepLabV2 (L_t alone)"] == [41.9, 47.7, 55.5, 58.6]
    assert values["DST-CBC"] == [48.7, 54.1, 60.6, 63.2]
    assert values["ASS+SDSS"] == [56.1, 58.4, 62.8, 65.7]
    assert values["IIDM"] == [69.5, 70.0, 70.6, 72.8]
    assert [row.labeled for row in study.rows] == [0] * 5 + [None] * 10
    assert "41.9" in study.note and "48.7" in study.note


def test_table_2_is_the_papers() -> None:
    study = find_study("table2")
    assert study.preset == "synthia-cityscapes-100"
    assert [row.type for row in study.rows] == ["UDA"] * 4 + ["Sup."] + ["SSL"] * 3 + ["SSDA"] * 6
    values = paper("table2")
    assert values["ProDA"] == [62.0]
    assert values["DusPerb*"] == [68.4, 71.4, 74.2, 76.1]
    assert values["ComplexMix"] == [70.6, 71.8, 72.6, 74.0]
    assert values["IIDM"] == [74.2, 76.4, 77.0, 78.8]


def test_table_3_is_the_papers() -> None:
    assert list(paper("table3").values()) == [
        [73.8],
        [74.3],
        [75.9],
        [77.8, 78.9, 79.6, 81.1],
        [78.6, 79.5, 80.2, 81.2],
    ]
    study = find_study("table3")
    assert [row.method for row in study.rows] == ["hrda", "diga_hrda", "mic_hrda", "iidm_hrda", "iidm_mic_hrda"]
    assert [row.labeled for row in study.rows] == [0, 0, 0, None, None]


def test_table_4_is_the_papers() -> None:
    assert list(paper("table4").values()) == [
        [37.3],
        [48.7, 52.3, 60.1, 67.3],
        [48.5, 53.5, 60.9, 66.7],
        [59.1, 65.5, 68.2, 70.5],
        [65.7, 67.5, 67.8, 70.5],
        [66.9, 68.4, 70.0, 71.7],
        [69.5, 70.0, 70.6, 72.8],
    ]
    methods = "source_only target_only source_target target_intra source_target_inter source_target_intra iidm"
    assert [row.method for row in find_study("table4").rows] == methods.split()


def test_tables_5_and_6_are_the_papers() -> None:
    assert list(paper("table5").values()) == [
        [66.8, 67.4, 69.7, 72.0],
        [67.2, 68.2, 69.0, 71.6],
        [69.5, 70.0, 70.6, 72.8],
    ]
    assert {tuple(row.options[1::2]): row.paper[100] for row in find_study("table6").rows} == {
        ("0.1", "1"): 66.1,
        ("2", "1"): 68.5,
        ("1", "1"): 68.7,
        ("1", "2"): 69.5,
        ("1", "0.1"): 67.3,
    }


def test_table_7_is_the_papers_and_all_labels_leave_nothing_to_mix() -> None:
    study = find_study("table7")
    assert [list(row.paper.values()) for row in study.rows] == [
        [58.6, 69.4, 71.1, 71.9, 72.6],
        [72.1, 72.8, 73.2, 74.2],
        [72.8, 73.0, 73.3, 73.7],
    ]
    assert [row.budgets(study.budgets)[-1] for row in study.rows] == [2975, 2475, 2475]


def test_an_unknown_study_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="no study 'tabel4'. Did you mean 'table4'"):
        find_study("tabel4")


def test_a_file_of_ones_own_is_a_study(tmp_path: Path) -> None:
    path = tmp_path / "my-grid.toml"
    path.write_text('[[row]]\nname = "all"\nmethod = "iidm"\n')
    study = find_study(str(path))
    assert (study.name, study.title, study.preset, study.budgets) == ("my-grid", "my-grid", None, ())
    with pytest.raises(UserError, match="no study file .*nowhere.toml"):
        find_study(str(tmp_path / "nowhere.toml"))


ROW = '[[row]]\nname = "a"\nmethod = "iidm"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel = 'x'\n" + ROW, ["my.toml", "'titel'", "'title'"]),
        ("budgets = ['20']\n" + ROW, ["my.toml", "budgets", "whole numbers"]),
        ("budgets = [-1]\n" + ROW, ["budgets", "-1"]),
        ("title = 3\n" + ROW, ["title", "text"]),
        ("row = 3\n", ["row", "[[row]]"]),
        ("title = 'x'\n", ["no rows", "[[row]]"]),
        ("title = \n", ["my.toml", "line 1"]),
        (ROW.replace("[[row]]", "[row]"), ["row must be [[row]] tables, not one table.", "a line [[row]]"]),
        (ROW + ROW.replace("[[row]]", "[row]"), ["line 4 is [row], which is one table", "a line [[row]]"]),
        (ROW + "[[row.paper]]\n100 = 3\n", ["paper", "not a list of tables", "a line paper = ..."]),
        (ROW + "metod = 'x'\n", ["row 1 (a)", "'metod'", "'method'"]),
        (ROW + "labeled = true\n", ["labeled", "True"]),
        (ROW + "options = '--amp'\n", ["options", "list"]),
        (ROW + "paper = { few = 3 }\n", ["paper", "few"]),
        (ROW + "paper = [3]\n", ["paper"]),
        (ROW + "\n[[row]]\nname = 'b'\n", ["row 2 (b)", "lacks 'method'"]),
        (ROW + "\n[[row]]\nmethod = 'iidm'\n", ["row 2", "lacks 'name'"]),
        (ROW + ROW, ["two rows", "'a'"]),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse_study(text, "my", "my.toml")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
