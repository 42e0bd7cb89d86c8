"""Provenance names the code and the machine, and nobody."""

from __future__ import annotations

import getpass
import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments import provenance

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a copy of the module, committed."""
    package = tmp_path / "experiments"
    package.mkdir()
    shutil.copy(provenance.__file__, package / "provenance.py")
    monkeypatch.setattr(provenance, "_HERE", package / "provenance.py")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit_all(folder: Path) -> str:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def test_commit_and_dirty_tree(checkout):
    commit = commit_all(checkout)
    assert provenance.commit() == commit
    assert provenance.dirty() is False
    (checkout / "notes.txt").touch()
    assert provenance.dirty() is False, "what cannot change a number does not count"
    (checkout / "experiments" / "new.py").touch()
    assert provenance.dirty() is True


def test_a_copy_inside_another_repository_has_no_commit(checkout):
    (checkout / "other.txt").touch()
    git(checkout, "add", "other.txt")
    git(checkout, "commit", "--quiet", "-m", "not ours")
    assert provenance.commit() is None
    assert provenance.dirty() is None


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_HERE", tmp_path / "experiments" / "provenance.py")
    assert provenance.commit() is None
    assert provenance.dirty() is None


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
    assert provenance.dirty() is None


def test_it_is_complete_and_names_nobody():
    collected = provenance.collect("cpu")
    assert collected["device"] == "cpu"
    assert collected["gpu"] is None
    assert collected["cpu"]
    assert collected["threads"] >= 1
    assert collected["versions"]["torch"]
    assert collected["python"] == platform.python_version()
    text = json.dumps(collected)
    assert str(ROOT) not in text
    assert str(Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_package_that_is_not_installed_is_null(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert provenance.collect("cpu")["versions"]["no-such-package"] is None
