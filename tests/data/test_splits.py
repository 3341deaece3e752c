"""Labeled budgets are nested, seeded and even; lists of names are read back as written."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidm.data.datasets.splits import labeled_split, read_list, write_list
from iidm.types import UserError

NAMES = [f"city/frame_{i:06d}" for i in range(2975)]


def test_random_budgets_are_nested() -> None:
    smaller: set[str] = set()
    for count in (0, 100, 200, 500, 1000, 2975):
        labeled, unlabeled = labeled_split(NAMES, count, "random", seed=0)
        assert len(labeled) == count and smaller <= set(labeled)
        smaller = set(labeled)


@given(st.sets(st.text(min_size=1, max_size=4), max_size=30), st.data(), st.sampled_from(["random", "even"]))
def test_every_name_is_labeled_or_unlabeled_once(names: set[str], data: st.DataObject, choice: str) -> None:
    count = data.draw(st.integers(0, len(names)))
    labeled, unlabeled = labeled_split(names, count, choice, seed=3)  # type: ignore[arg-type]
    assert len(labeled) == count
    assert sorted([*labeled, *unlabeled]) == sorted(names)
    assert list(labeled) == sorted(labeled) and list(unlabeled) == sorted(unlabeled)


def test_the_random_split_depends_on_the_seed_and_not_on_the_order_of_the_names() -> None:
    first = labeled_split(NAMES, 100, "random", seed=0)
    assert labeled_split(NAMES[::-1], 100, "random", seed=0) == first
    assert labeled_split(NAMES, 100, "random", seed=1) != first


def test_the_random_split_is_the_one_that_runs_are_compared_on() -> None:
    names = [f"n{i}" for i in range(10)]
    # numpy's Generator(PCG64(7)).permutation(10) starts 8, 0, 7: another start would change published splits
    assert labeled_split(names, 3, "random", seed=7)[0] == ("n0", "n7", "n8")


def test_the_random_split_draws_every_name_equally_often() -> None:
    names = [f"{i:02d}" for i in range(20)]
    runs = 2000
    times = np.zeros(20)
    for seed in range(runs):
        times[[int(n) for n in labeled_split(names, 5, "random", seed)[0]]] += 1
    spread = np.sqrt(runs * 0.25 * 0.75)
    assert np.abs(times - runs * 0.25).max() < 4 * spread


@pytest.mark.parametrize(
    ("count", "of", "expected"), [(3, 46, [7, 23, 38]), (1, 9, [4]), (4, 4, [0, 1, 2, 3]), (2, 5, [1, 3])]
)
def test_even_takes_the_middle_of_equal_stretches(count: int, of: int, expected: list[int]) -> None:
    names = [f"{i:03d}" for i in range(of)]
    assert labeled_split(names, count, "even", seed=9)[0] == tuple(f"{i:03d}" for i in expected)


def test_a_budget_beyond_the_data_names_both_numbers() -> None:
    with pytest.raises(UserError, match=r"labeled-count is 47, but there are 46 .*0 to 46"):
        labeled_split(NAMES[:46], 47, "random", seed=0)


def test_a_written_list_is_read_back(tmp_path: Path) -> None:
    write_list(tmp_path / "names.txt", NAMES[5:9])
    assert read_list(tmp_path / "names.txt", NAMES) == NAMES[5:9]


ODD = ["#1", "# two", '"quoted"', '"#1"', " blank ", "a\nb", "x.jpg", "\udce9", "é0", "tab\t", "\u2028", "日本/道"]


def test_names_of_any_letters_are_read_back(tmp_path: Path) -> None:
    write_list(tmp_path / "names.txt", ODD)
    assert read_list(tmp_path / "names.txt", ODD) == ODD
    assert b"#1\n" not in (tmp_path / "names.txt").read_bytes().splitlines(keepends=True)


LETTERS = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=6)


@given(st.lists(LETTERS, min_size=1, max_size=8, unique_by=lambda name: unicodedata.normalize("NFC", name)))
def test_any_list_is_read_back_as_it_was_written(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_list(Path(folder, "names.txt"), names)
        assert read_list(Path(folder, "names.txt"), names) == names


def test_a_hash_begins_a_comment_unless_an_image_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\n#1.jpg\n#2\n")
    assert read_list(tmp_path / "names.txt", ["#1", "#2"]) == ["#1", "#2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_lists_of_editors_are_read(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (tmp_path / "names.txt").write_bytes(mark + "é0\r\nb.jpg\r\n".encode(encoding))
    assert read_list(tmp_path / "names.txt", ["b", "é0"]) == ["é0", "b"]


def test_a_list_in_another_code_says_so(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("é0\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"line 1: .* save the list as UTF-8"):
        read_list(tmp_path / "names.txt", ["é0"])
    (tmp_path / "names.txt").write_bytes("a\n".encode("utf-16-le"))
    with pytest.raises(UserError, match=r"names\.txt is no UTF-8 text"):
        read_list(tmp_path / "names.txt", ["a"])


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    nfd, nfc = (unicodedata.normalize(form, "é0") for form in ("NFD", "NFC"))
    (tmp_path / "names.txt").write_text(f"{nfd}\n", encoding="utf-8")
    assert read_list(tmp_path / "names.txt", [nfc]) == [nfc]
    (tmp_path / "names.txt").write_text(f"{nfd}\n{nfc}.png\n", encoding="utf-8")
    with pytest.raises(UserError, match="stands in line 1 already"):
        read_list(tmp_path / "names.txt", [nfc])


def test_names_may_carry_their_ending_comments_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\na/one.png\n\n  two.JPG  \nv1.5\n")
    assert read_list(tmp_path / "names.txt", ["a/one", "two", "v1.5"]) == ["a/one", "two", "v1.5"]


def test_an_unknown_name_is_an_error_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("city/frame_000001\ncity/frme_000002\n")
    with pytest.raises(UserError, match=r"names\.txt, line 2: there is no image 'city/frme_000002'; the nearest is"):
        read_list(tmp_path / "names.txt", NAMES[:5])


@pytest.mark.parametrize("line", ["/data/photos/train/one.jpg", "photos\\train\\one.jpg", "train/one.JPG"])
def test_names_with_the_folders_above_are_told_how_they_begin(line: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(f"{line}\n")
    with pytest.raises(UserError, match="Names begin below the image folder: one\\."):
        read_list(tmp_path / "names.txt", ["one", "two", "ne"])


def test_a_name_given_twice_an_empty_list_and_a_missing_list_are_errors(tmp_path: Path) -> None:
    (tmp_path / "twice.txt").write_text("a\nb\na.png\n")
    with pytest.raises(UserError, match=r"twice\.txt, line 3: 'a\.png' stands in line 1"):
        read_list(tmp_path / "twice.txt", ["a", "b"])
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(UserError, match=r"empty\.txt holds no names"):
        read_list(tmp_path / "empty.txt", ["a"])
    with pytest.raises(UserError, match=r"gone\.txt cannot be read"):
        read_list(tmp_path / "gone.txt", ["a"])
