"""Which changes of the directory are changes of the configuration."""

from pathlib import Path

import pytest
from watchfiles import Change

from counterfault.proxy.supervisor.config_watcher import _matters


@pytest.mark.parametrize(
    ("path", "matters"),
    [
        ("sidecar.yaml", True),
        ("experiments", True),
        ("experiments/x.yaml", True),
        ("experiments/..data", True),
        ("..data", True),
        ("..2026_11_23/sidecar.yaml", True),
        ("state/history.sqlite-wal", False),
        ("sidecar.log", False),
    ],
)
def test_only_configuration_matters(tmp_path: Path, path: str, matters: bool) -> None:
    assert _matters(tmp_path, Change.modified, str(tmp_path / path)) == matters


def test_a_directory_behind_a_link_is_the_same(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    assert _matters(link, Change.added, str(real / "experiments" / "x.yaml"))
    assert not _matters(link, Change.added, str(real / "state" / "x"))


def test_the_folder_that_the_settings_are_linked_into_matters(tmp_path: Path) -> None:
    (tmp_path / "sidecar.yaml").symlink_to("settings/sidecar.yaml")
    assert _matters(tmp_path, Change.added, str(tmp_path / "settings" / "..data"))
    assert not _matters(tmp_path, Change.added, str(tmp_path / "state" / "x"))
