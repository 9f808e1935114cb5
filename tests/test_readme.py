"""The README keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from webapp.services.speed import kept
from webapp.simulator.profile import load_all

ROOT = Path(__file__).resolve().parent.parent
README_ACCURACY = r"(?m)^\| (\d+) \| ([\d.]+ / [\d.]+ ms) \| ([\d.]+ / [\d.]+ ms) \|$"


def test_every_setting_from_the_environment_is_in_the_readme() -> None:
    read = set(re.findall(r'(?:env_\w+\(|environ\.get\()"(\w+)"', (ROOT / "webapp/settings.py").read_text()))
    told = set(re.findall(r"`([A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert read
    assert read <= told


def test_every_command_in_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    commands = {path.stem for path in (ROOT / "webapp/management/commands").glob("*.py")}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"manage\.py (\w+)", readme)) <= commands
    assert set(re.findall(r"(?m)(?:^|`)make (\w+)", readme)) <= targets


def test_the_readme_states_the_accuracy_that_was_measured_last() -> None:
    truth = {row["id"][1:]: row["ours"] for row in kept() if re.fullmatch(r"T\d+", row["id"])}
    assert truth
    told = {n: f"{ttft}, {gap}" for n, ttft, gap in re.findall(README_ACCURACY, (ROOT / "README.md").read_text())}
    assert told == truth


def test_the_readmes_picture_is_there_and_small() -> None:
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text())
    assert (ROOT / picture).stat().st_size <= 300_000


def test_the_readme_counts_the_simulated_servers() -> None:
    assert re.findall(r"(\d+) simulated servers", (ROOT / "README.md").read_text()) == [str(len(load_all()))]
