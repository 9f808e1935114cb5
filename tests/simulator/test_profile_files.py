"""A folder of profiles of one's own: where its files go, and which of them are refused."""

from pathlib import Path

import pytest

from webapp.simulator.profile import PROFILE_DIR, ProfileError, load, load_all

TOML = """
label = "Mine"
hardware = "two of mine"
family = "llama-70b"
machine = "{machine}"
model = "llama-70b"
devices = 4
precision = "fp8"
layer_us = 70.0
api_ms = 20.0
source = "this test"
date = "2026-11"
calibrated_on = "nothing"
error = "not known"
status = "D"
confidence = "L"
"""


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(b"label = \xff")
    with pytest.raises(ProfileError, match=r"broken\.toml: file is not TOML"):
        load(path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (f"figures = {'[' * 5000}{']' * 5000}", "file holds values too deep inside each other"),
        (f"devices = {'9' * 5000}", "file holds a number of too many digits"),
        (f"devices = {'9' * 4000}", "devices must lie between 1 and 100,000, not a number of so many digits"),
        (f"devices = 0x{'f' * 5000}", "devices must lie between 1 and 100,000, not a number of so many digits"),
    ],
    ids=["nested", "unread", "decimal", "hexadecimal"],
)
def test_a_file_that_no_sane_hand_wrote_is_refused_in_a_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    kept = TOML.format(machine="h200").replace("devices = 4\n", "" if line.startswith("devices") else "devices = 4\n")
    (tmp_path / "mine.toml").write_text(f"{line}\n{kept}", encoding="utf-8")
    with pytest.raises(ProfileError) as refused:
        load_all(tmp_path)
    assert str(refused.value) == f"mine.toml: {sentence}"


def test_a_folder_without_profiles_and_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"\*\.toml is missing"):
        load_all(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ProfileError, match=r"folder\.toml: file cannot be read"):
        load_all(tmp_path)


@pytest.mark.parametrize("name", ["mine+stall", "mine@vendor", "my own", ".mine", "größer"])
def test_a_name_that_no_request_could_ask_for_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.toml").write_text(TOML.format(machine="h200"), encoding="utf-8")
    with pytest.raises(ProfileError, match="file needs a name of letters"):
        load_all(tmp_path)


@pytest.mark.parametrize("place", ["mine.toml", "served/mine.toml"])
def test_a_user_adds_a_profile_by_writing_a_file(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(TOML.format(machine="h200"), encoding="utf-8")
    profiles = load_all(tmp_path)
    assert profiles["mine"].serving.machine.slug == "h200"
    assert set(load_all()) < set(profiles)


def test_a_user_adds_a_machine_by_writing_a_file(tmp_path: Path) -> None:
    (tmp_path / "machines").mkdir()
    shipped = (PROFILE_DIR / "machines/h100.toml").read_text(encoding="utf-8")
    (tmp_path / "machines/h900.toml").write_text(shipped.replace("memory_gb = 80", "memory_gb = 90"), encoding="utf-8")
    (tmp_path / "mine.toml").write_text(TOML.format(machine="h900"), encoding="utf-8")
    assert load_all(tmp_path)["mine"].serving.machine.memory_gb == 90


def test_a_profile_of_ones_own_comes_before_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "oci-llama-70b.toml").write_text(TOML.format(machine="h200"), encoding="utf-8")
    assert load_all(tmp_path)["oci-llama-70b"].label == "Mine"


def test_two_files_of_one_name_are_refused_by_both_names(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    for place in ("mine.toml", "served/mine.toml"):
        (tmp_path / place).write_text(TOML.format(machine="h200"), encoding="utf-8")
    with pytest.raises(ProfileError, match=r"served/mine\.toml: file has the name of .*mine\.toml"):
        load_all(tmp_path)


@pytest.mark.parametrize("place", ["mine.toml", "machines/mine.toml", "models/mine.toml"])
def test_a_file_that_names_itself_is_refused(tmp_path: Path, place: str) -> None:
    """Its name would take the place of another's, or break the lines of /metrics."""
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'slug = "wse3-llama-8b"\n{TOML.format(machine="h200")}', encoding="utf-8")
    with pytest.raises(ProfileError, match=r"mine\.toml: slug is the file's name"):
        load_all(tmp_path)


@pytest.mark.parametrize("place", ["foo/mine.toml", "served/old/mine.toml", "Served/mine.toml"])
def test_a_file_that_lies_where_nothing_is_read_is_refused_with_its_place(tmp_path: Path, place: str) -> None:
    (tmp_path / "other.toml").write_text(TOML.format(machine="h200"), encoding="utf-8")
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(TOML.format(machine="h200"), encoding="utf-8")
    with pytest.raises(ProfileError) as refused:
        load_all(tmp_path)
    sentence = "file is not read there: only at the top and in machines, models, served"
    assert str(refused.value) == f"{Path(place)}: {sentence}"
