"""The command: exit codes, and what it prints."""

import socket
from pathlib import Path

import pytest

from counterfault import __version__
from counterfault.proxy.cli.main import main
from tests.support.supervisor_world import SLOW, World

ROOT = Path(__file__).parents[3]


def test_check_of_the_shipped_configuration_says_what_would_happen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", str(ROOT / "config")]) == 0
    assert "slow-payments: running, run 1" in capsys.readouterr().out


def test_check_of_a_bad_configuration_says_where_and_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sidecar.yaml").write_text("service: shop\nlisteners: []\n")
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("sidecar.yaml:2:12: listeners: ")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["run"], ["stop", "a", "b"]])
def test_bad_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"counterfault {__version__}\n"


def test_a_sidecar_that_is_not_there_is_one_sentence_and_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        assert main(["status", "--admin", url]) == 2
    assert capsys.readouterr().err.startswith(f"counterfault: no sidecar answers at {url}")


def test_a_report_of_what_is_not_there_is_one_sentence_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "x", "--state-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"counterfault: state_dir {tmp_path}: there is no history.sqlite in it\n"
    )


def test_a_report_may_need_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "token")
    code = main(["report", "x", "--admin", "http://127.0.0.1:1", "--token-file", file])
    assert (code, capsys.readouterr().err) == (
        2,
        f"counterfault: cannot read {file}: no such file or directory\n",
    )


def test_a_report_that_cannot_be_written_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path / "config")
    world.write(SLOW)
    world.start(tmp_path / "state")
    world.close()
    file = tmp_path / "nowhere" / "report.txt"
    arguments = ["report", "slow", "--state-dir", str(tmp_path / "state"), "-o", str(file)]
    assert main(arguments) == 2
    assert (
        capsys.readouterr().err == f"counterfault: cannot write {file}: no such file or directory\n"
    )


@pytest.mark.parametrize(
    "more", [["--format", "pdf"], ["--run", "x"], ["--admin", "http://x", "--state-dir", "y"]]
)
def test_bad_options_of_a_report_are_2(more: list[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["report", "x", *more])
    assert exit.value.code == 2
