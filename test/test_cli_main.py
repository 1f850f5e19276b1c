"""The frame of the command: exit codes, one-line errors, and a help that does not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from nre_ros.cli import main as frame
from nre_ros.cli.main import COMMANDS, main
from nre_ros.errors import MapError


@pytest.fixture
def command(monkeypatch):
    """Adds a command ``try`` that does what the test wants."""

    def add(action) -> None:
        module = ModuleType("nre_ros.cli.try_it")
        module.add_parser = lambda subparsers: subparsers.add_parser("try").add_argument("word")
        module.run = action
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(frame.COMMANDS, "try", ("try_it", "a command of the test"))

    return add


def test_arguments_reach_the_command_and_its_code_is_returned(command):
    words = []
    command(lambda args: words.append(args.word) or 0)
    assert main(["try", "this"]) == 0
    assert words == ["this"]


def test_expected_failure_is_one_line_and_exit_1(command, capsys):
    def fail(args):
        raise MapError("map x is damaged; build it again")

    command(fail)
    assert main(["try", "this"]) == 1
    assert capsys.readouterr().err == "nre_ros try: map x is damaged; build it again\n"


def test_a_bug_keeps_its_traceback(command):
    def fail(args):
        raise ZeroDivisionError

    command(fail)
    with pytest.raises(ZeroDivisionError):
        main(["try", "this"])


def test_interrupt_is_130(command):
    def interrupt(args):
        raise KeyboardInterrupt

    command(interrupt)
    assert main(["try", "this"]) == 130


@pytest.mark.parametrize("argv", [[], ["frobnicate"], ["config"], ["config", "dump", "--node", "toaster"]])
def test_wrong_usage_is_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: nre_ros" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    child = subprocess.Popen(
        [sys.executable, "-m", "nre_ros.cli.main", "config", "dump"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    assert child.wait(timeout=60) == 141
    assert child.stderr.read() == b""


def test_help_names_every_command_and_loads_no_network_library():
    code = "import sys; from nre_ros.cli.main import main\ntry: main(['-h'])\nfinally: sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name, (_, help_line) in COMMANDS.items():
        assert name in done.stdout
        assert help_line.split()[0] in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: nre_ros {name}" in capsys.readouterr().out
