"""The command line's shared parts, and the commands that live on the configuration."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from leastwise.budget import BudgetRule
from leastwise.build import Plans, Runtime, open_store
from leastwise.cascade import Calibration, stamp_of
from leastwise.catalogue import Catalogue
from leastwise.cli import doctor, main
from leastwise.cli.config import edited_file
from leastwise.cli.console import print_json
from leastwise.cli.doctor import Check, examine, mount_of
from leastwise.cli.init import template
from leastwise.cli.switch import switched, write
from leastwise.config import Config, load, settings
from leastwise.errors import ConfigError, UpstreamFailure
from leastwise.judge import VERSION
from leastwise.ladder import Mode, Verdict
from leastwise.ledger import Exchange
from leastwise.money import NUSD_PER_USD as USD
from leastwise.routing import Switch
from leastwise.simulate import serve
from leastwise.steps import Record
from leastwise.stores.sqlite import SqliteStore
from tests.paid import entry_id, paid, reserve, row, settle

AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the configuration file of a home of this test's own, in an empty working directory."""
    for name, folder in (("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "config/leastwise/leastwise.toml"


# --- the command line itself -----------------------------------------------------------------


def test_help_names_the_commands_in_groups_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; from leastwise.cli import main; main(['--help']); "
        "print(*(name for name in sys.modules if name.startswith('leastwise.')), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)  # noqa: S603

    assert 0 == main(["--help"])
    assert ran.stdout == capsys.readouterr().out
    groups = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("╭")]
    names = [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("│")]
    assert ["Start", "See", "Control", "Improve", "Options"] == groups
    assert [
        "demo",
        "init",
        "doctor",
        "route",
        "report",
        "why",
        "on",
        "off",
        "budget",
        "cache",
        "config",
        "feedback",
        "trial",
        "tune",
        "simulate",
        "--help",
        "--version",
    ] == names
    assert {"leastwise.cli", "leastwise.cli.console", "leastwise.errors"} == set(ran.stderr.split())
    assert 80 == max(map(len, ran.stdout.splitlines()))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("reprot", "there is no command 'reprot'; did you mean 'report'?"),
        ("xyz", "there is no command 'xyz'; see leastwise --help"),
        ("on --tga x", "Unknown option: --tga. Did you mean --tag?"),
        ("on --percent 0", 'Invalid value "0.0" for --percent. Must be > 0.'),
        (
            "config show --config /no/such",
            "cannot read the configuration /no/such: No such file or directory",
        ),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    assert 2 == main(arguments.split())
    captured = capsys.readouterr()
    assert "" == captured.out
    assert captured.err.startswith(f"leastwise: error: {said}")
    assert 1 == captured.err.count("\n")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["--version"])
    assert f"{importlib.metadata.version('leastwise')}\n" == capsys.readouterr().out


def test_json_names_its_schema_and_keeps_decimals_exact(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"cost_usd": Decimal("0.000000021"), "file": Path("/x")})

    assert '{\n  "schema": 1,\n  "cost_usd": 2.1E-8,\n  "file": "/x"\n}\n' == capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code, said = in_a_process("config", "path", stdout=writer)
    os.close(writer)

    assert (1, b"") == (code, said.removeprefix(b"next   leastwise init\n"))  # said where output is buffered


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ran = in_a_process("config", "path", stdout=full.fileno())

    assert (1, b"leastwise: error: [Errno 28] No space left on device") == (ran[0], ran[1].splitlines()[-1])


def in_a_process(*arguments: str, stdout: int) -> tuple[int, bytes]:
    """Return the exit code and stderr of the command line, run as a program of its own."""
    program = f"import sys; from leastwise.cli import main; sys.exit(main({list(arguments)}))"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, check=False)  # noqa: S603
    return ran.returncode, ran.stderr


# --- config ----------------------------------------------------------------------------------


def test_config_show_prints_each_value_with_its_origin(
    capsys: pytest.CaptureFixture[str], user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(user, 'unsure = "opus"\n[upstream.other]\nbase_url = "https://h/?key=abcdef"\n')
    monkeypatch.setenv("LEASTWISE_MODE", "enforce")

    assert 0 == main(["config", "show"])
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["file", "1", str(user)] == shown[0]
    assert ["mode", '"enforce"', "LEASTWISE_MODE"] in shown
    assert ["unsure", '"opus"', "file", "1"] in shown
    assert ["percent", "100", "default"] in shown
    assert ["upstream.other.base_url", '"https://h/?key=***"', "file", "1"] in shown


def test_config_show_as_json_has_the_same(capsys: pytest.CaptureFixture[str], user: Path) -> None:
    write(user, "discount = 0.15\n[[rule]]\nmatch = 'spam'\ntier = 'haiku'\n")

    assert 0 == main(["config", "show", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (1, [str(user)]) == (printed["schema"], printed["files"])
    assert {"key": "discount", "value": 0.15, "origin": f"file {user}"} in printed["settings"]
    rule = {"key": "rule.1", "value": {"match": "spam", "tier": "haiku"}, "origin": f"file {user}"}
    assert rule in printed["settings"]


def test_config_path_is_the_file_that_on_and_off_edit(
    capsys: pytest.CaptureFixture[str], user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 0 == main(["config", "path"])
    assert f"{user}\n" == capsys.readouterr().out

    monkeypatch.setenv("LEASTWISE_CONFIG", "mine.toml")
    assert 0 == main(["config", "path", "--json"])
    expected = {"schema": 1, "path": str(Path.cwd() / "mine.toml"), "exists": False}
    assert expected == json.loads(capsys.readouterr().out)


def test_without_a_home_the_file_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "APPDATA", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name)

    with pytest.raises(ConfigError, match="no home directory to keep a configuration in; name a file"):
        edited_file(None)


DESCENDING = """
[[tier]]
name = "haiku"
model = "claude-haiku-5-5"
[[tier]]
name = "opus"
model = "claude-opus-5-5"
[[tier]]
name = "sonnet"
model = "claude-sonnet-5-5"
"""


def test_config_check_sees_prices_that_do_not_rise(capsys: pytest.CaptureFixture[str], user: Path) -> None:
    write(user, DESCENDING)

    assert 2 == main(["config", "check"])
    captured = capsys.readouterr()
    expected = (
        "leastwise: error: prices do not rise along the ladder: opus before sonnet, but claude-opus-5-5 "
        "costs $4 in, $20 out per million tokens and claude-sonnet-5-5 costs $2 in, $10 out per million "
        "tokens. Write the cheaper [[tier]] first, or leave one out"
    )
    assert ("", expected) == (captured.out, captured.err.splitlines()[0])


def test_config_check_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASTWISE_MDOE", "off")

    assert 0 == main(["config", "check"])
    captured = capsys.readouterr()
    assert "the configuration is right\n" == captured.out
    warning = "leastwise: warning: LEASTWISE_MDOE means nothing here; LEASTWISE_MODE would"
    assert [warning, "next   leastwise doctor"] == captured.err.splitlines()


def test_config_check_as_json(
    capsys: pytest.CaptureFixture[str], user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_MDOE", "off")
    assert 0 == main(["config", "check", "--json"])
    warning = "LEASTWISE_MDOE means nothing here; LEASTWISE_MODE would"
    expected = {"schema": 1, "ok": True, "wrong": [], "warnings": [warning]}
    assert expected == json.loads(capsys.readouterr().out)

    write(user, "mode = 1\npercent = 'x'\n")
    assert 2 == main(["config", "check", "--json"])
    wrong = [
        f"file {user}: mode = 1: expected observe, enforce, off",
        f'file {user}: percent = "x": expected a number from 0 to 100',
    ]
    assert wrong == json.loads(capsys.readouterr().out)["wrong"]


# --- on and off ------------------------------------------------------------------------------

COMMENTED = """# mine
schema = 1
mode = "observe"  # for now

# the ladder
[[tier]]
name = "haiku"
model = "claude-haiku-5-5"
"""


def test_on_edits_the_mode_keeps_comments_and_shows_the_diff(
    capsys: pytest.CaptureFixture[str], user: Path
) -> None:
    write(user, COMMENTED)
    user.chmod(0o640)

    assert 0 == main(["on"])
    captured = capsys.readouterr()
    assert COMMENTED.replace('"observe"', '"enforce"') == user.read_text(encoding="utf-8")
    assert 0o640 == user.stat().st_mode & 0o777
    assert ['-mode = "observe"  # for now', '+mode = "enforce"  # for now'] == [
        line for line in captured.out.splitlines()[2:] if line.startswith(("+", "-"))
    ]
    said = [f"written: {user}; running processes take it up within a second", "next   leastwise report"]
    assert said == captured.err.splitlines()
    assert [user] == list(user.parent.iterdir())


def test_on_makes_a_private_file_where_there_is_none(user: Path) -> None:
    assert 0 == main(["on", "--percent", "10"])
    assert 'schema = 1\nmode = "enforce"\npercent = 10\n' == user.read_text(encoding="utf-8")
    assert (0o600, 0o700) == (user.stat().st_mode & 0o777, user.parent.stat().st_mode & 0o777)


def test_a_dry_run_shows_the_diff_and_writes_nothing(capsys: pytest.CaptureFixture[str], user: Path) -> None:
    assert 0 == main(["off", "--dry-run"])
    assert '+mode = "off"' in capsys.readouterr().out.splitlines()
    assert not user.exists()


def test_off_twice_changes_nothing(capsys: pytest.CaptureFixture[str], user: Path) -> None:
    main(["off"])
    capsys.readouterr()

    assert 0 == main(["off"])
    captured = capsys.readouterr()
    assert ("", f"nothing to change: {user} says so already") == (captured.out, captured.err.splitlines()[0])


@pytest.mark.parametrize(
    ("before", "mode", "tag", "percent", "expected"),
    [
        ('mode = "off"\npercent = 10\n', "enforce", None, 100, 'mode = "enforce"\npercent = 100\n'),
        ("", "enforce", None, 100, 'schema = 1\nmode = "enforce"\n'),
        ('[store]\nurl = ":memory:"\n', "off", None, None, 'mode = "off"\n[store]\nurl = ":memory:"\n'),
        (
            'mode = "observe"\n',
            "enforce",
            "triage",
            2.5,
            'mode = "observe"\n[[switch]]\ntag = "triage"\nmode = "enforce"\npercent = 2.5\n',
        ),
        (
            '[[switch]]\ntag = "a"\nmode = "off"  # why\n[[switch]]\ntag = "b"\nmode = "off"\n',
            "enforce",
            "a",
            100,
            '[[switch]]\ntag = "a"\nmode = "enforce"  # why\n[[switch]]\ntag = "b"\nmode = "off"\n',
        ),
        (
            'mode = "off"\n',
            "enforce",
            "a",
            100,
            'mode = "observe"\n[[switch]]\ntag = "a"\nmode = "enforce"\n',
        ),
        (
            'mode = "enforce"\n',
            "off",
            "a",
            None,
            'mode = "enforce"\n[[switch]]\ntag = "a"\nmode = "off"\n',
        ),
    ],
)
def test_what_a_switch_writes(
    before: str, mode: Mode, tag: str | None, percent: float | None, expected: str
) -> None:
    assert expected.split() == switched(before, mode, tag=tag, percent=percent).split()


def test_a_switched_tag_is_read_back(user: Path) -> None:
    main(["on", "--tag", "triage", "--percent", "10"])
    main(["off", "--tag", "digest"])

    assert (Switch("triage", "enforce", 10), Switch("digest", "off")) == load().switches
    assert (user,) == load().files


def test_on_says_when_a_variable_overrules_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASTWISE_MODE", "off")

    main(["on"])
    main(["on", "--tag", "a"])

    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    says = 'leastwise: warning: LEASTWISE_MODE says mode = "off"'
    assert [f"{says} and wins over this file", f"{says}, which stands above every tag"] == said


def test_off_in_a_file_that_is_wrong_elsewhere_says_that_nobody_takes_it_up(
    capsys: pytest.CaptureFixture[str], user: Path
) -> None:
    write(user, "percent = 101\n")

    assert 2 == main(["off"])
    said = capsys.readouterr().err
    assert "nobody takes it up before this is mended; at once, without the file: LEASTWISE_MODE=off\n" in said
    assert f"leastwise: error: file {user}: percent = 101: expected a number from 0 to 100\n" in said


def test_off_in_a_file_that_is_not_toml_names_the_way_without_the_file(
    capsys: pytest.CaptureFixture[str], user: Path
) -> None:
    write(user, "mode = \n")

    assert 2 == main(["off"])
    assert "At once, without the file: LEASTWISE_MODE=off\n" in capsys.readouterr().err
    assert "mode = \n" == user.read_text(encoding="utf-8")


def test_a_link_stays_a_link(user: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("schema = 1\n", encoding="utf-8")
    user.parent.mkdir()
    user.symlink_to(real)

    main(["off"])

    assert user.is_symlink()
    assert 'schema = 1\nmode = "off"\n' == real.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert 2 == main(["off", "--config", str(tmp_path / "file/leastwise.toml")])
    assert f"{tmp_path}/file" in capsys.readouterr().err


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "etc/leastwise.toml"
    folder.mkdir(parents=True)

    with pytest.raises(ConfigError, match=f"cannot write {folder}: Is a directory"):
        write(folder, "schema = 1")
    assert [folder] == list(folder.parent.iterdir())


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert 2 == main(["on", "--config", str(tmp_path)])
    assert capsys.readouterr().err.startswith(f"leastwise: error: cannot read {tmp_path}: ")


# --- init ------------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    """Return the template with every setting of its comments turned on."""
    commented = re.compile(r"^#(?=[^ \n])", re.MULTILINE)
    return commented.sub("", text)


def test_what_init_writes_equals_the_defaults(user: Path) -> None:
    before = load()

    assert 0 == main(["init"])
    assert before == load()
    assert (user,) == load().files
    assert 0o600 == user.stat().st_mode & 0o777


def test_every_setting_of_the_template_is_its_default_or_said_to_be_an_example(user: Path) -> None:
    defaults = {one.key: one.value for one in settings(load())}
    write(user, uncommented(template()))

    config = load()

    differing = {one.key for one in settings(config) if defaults.get(one.key) != one.value}
    rows = {f"{name}.1" for name in ("rule", "type", "switch", "check", "price", "budget")}
    assert {"reroute", "store.url"} | rows == differing
    named = {key.partition(".")[0] for key in config.origins}
    assert named >= {one.key.partition(".")[0] for one in settings(Config())}


def test_init_overwrites_only_when_forced(capsys: pytest.CaptureFixture[str], user: Path) -> None:
    write(user, "mine = \n")

    assert 2 == main(["init"])
    assert f"{user} is there already. Overwrite it with --force" in capsys.readouterr().err
    assert "mine = \n" == user.read_text(encoding="utf-8")
    assert 0 == main(["init", "--force"])
    assert template() == user.read_text(encoding="utf-8")


def test_init_to_stdout_writes_nothing(capsys: pytest.CaptureFixture[str], user: Path) -> None:
    assert 0 == main(["init", "--stdout"])
    assert template() == capsys.readouterr().out
    assert not user.exists()


def test_init_with_a_key_notes_which_models_the_account_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as upstream:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "simulated")
        assert 0 == main(["init", "--stdout"])

    assert 3 == capsys.readouterr().out.count("# your account has it")


def test_a_model_that_the_account_lacks_is_noted() -> None:
    noted = [line for line in template(["claude-haiku-5-5"]).splitlines() if "your account" in line]

    assert [
        'model = "claude-haiku-5-5"   # your account has it',
        'model = "claude-sonnet-5-5"   # NOT among the models of your account',
        'model = "claude-opus-5-5"   # NOT among the models of your account',
    ] == noted


def test_init_offline_says_so_and_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "simulated")

    assert 0 == main(["init", "--stdout"])
    captured = capsys.readouterr()
    assert template() == captured.out
    assert "did not list your models" in captured.err


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


#: A request as the ledger keeps it: empty but for its time.
ROW: dict[str, Any] = {one.name: "" if one.type == "str" else 0 for one in fields(Exchange)} | {
    "at": AT.timestamp()
}

# --- doctor ----------------------------------------------------------------------------------


def examined(environ: Mapping[str, str], name: str, path: Path | None = None) -> list[tuple[str, str, str]]:
    """Return state, words and mend of what `doctor` finds of one thing."""
    checks = examine(path, {**os.environ, **environ}, AT)
    return [(check.state, check.words, check.do) for check in checks if check.name == name]


def test_doctor_finds_nothing_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as upstream:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", upstream.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-simulated")
        assert 0 == main(["doctor", "--json"])
        printed = capsys.readouterr().out
        assert 0 == main(["doctor"])
        shown = capsys.readouterr().out

    found = json.loads(printed)
    names = [check["name"] for check in found["checks"] if check["state"] == "ok"]
    assert (1, True) == (found["schema"], found["ok"])
    assert ["config", "mode", "ladder", "store", "key", "upstream", "sdk"] == names
    assert "sk-ant" not in printed + shown
    assert 80 == max(map(len, shown.splitlines()))


def test_doctor_without_a_key_says_what_to_export(capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["doctor"])
    assert "fail  key     ANTHROPIC_API_KEY is not set" in capsys.readouterr().out
    words = "ANTHROPIC_API_KEY is not set, upstream anthropic wants it"
    assert [("fail", words, "export ANTHROPIC_API_KEY=...")] == examined({}, "key")


def test_doctor_tells_a_dead_upstream() -> None:
    port = closed_port()
    found = examined({"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{port}", "ANTHROPIC_API_KEY": "x"}, "upstream")

    (state, words, mend) = found[0]
    assert ("fail", "check address, network and proxy") == (state, mend)
    assert words.startswith(f"anthropic at http://127.0.0.1:{port} cannot be reached: ")


def test_doctor_tells_a_model_that_the_upstream_does_not_offer(user: Path) -> None:
    price = '[[price]]\nmodel = "claude-haiku-9"\ninput = 1\noutput = 1\n'
    write(user, f'[[tier]]\nname = "x"\nmodel = "claude-haiku-9"\n{price}')
    with serve() as upstream:
        environ = {"ANTHROPIC_BASE_URL": upstream.url, "ANTHROPIC_API_KEY": "x"}
        found = examined(environ, "upstream")
        models = examined(environ, "models")

    missing = ("fail", "anthropic does not offer claude-haiku-9", "name another model in its [[tier]]")
    assert missing == found[1]
    unknown = "x = claude-haiku-9 is not a model we know: what it accepts is not checked"
    assert [("warn", unknown, "")] == models


def test_doctor_tells_models_that_retire(user: Path) -> None:
    write(user, '[[tier]]\nname = "s"\nmodel = "claude-sonnet-4-5"\n')

    mend = "name a newer model in its [[tier]]"
    assert [("warn", "s = claude-sonnet-4-5 retires on 2026-11-30", mend)] == examined({}, "models")
    later = examine(None, os.environ, datetime(2026, 12, 1, tzinfo=UTC))
    gone = Check("models", "fail", "s = claude-sonnet-4-5 was retired on 2026-11-30", mend)
    assert [gone] == [check for check in later if check.name == "models"]


def test_doctor_tells_a_wrong_configuration_and_stops(user: Path) -> None:
    write(user, "mode = 1\n")

    words = f"file {user}: mode = 1: expected observe, enforce, off"
    expected = [Check("config", "fail", words, "leastwise config check, when mended")]
    assert expected == list(examine(None, os.environ, AT))


def test_doctor_tells_a_ladder_whose_prices_fall(user: Path) -> None:
    write(user, DESCENDING)

    ((state, words, _),) = examined({}, "ladder")
    assert ("fail", True) == (
        state,
        words.startswith("prices do not rise along the ladder"),
    )


def test_doctor_tells_variables_that_look_like_typing_errors() -> None:
    expected = ("warn", "the variable LEASTWISE_MDOE means nothing", "rename it to LEASTWISE_MODE")
    assert expected in examined({"LEASTWISE_MDOE": "off"}, "config")


def test_doctor_on_the_store(tmp_path: Path) -> None:
    good, open_, broken = tmp_path / "good.db", tmp_path / "open.db", tmp_path / "broken.db"
    for file in (good, open_):
        sqlite3.connect(file).close()
        file.touch()
    good.chmod(0o600)
    open_.chmod(0o644)
    broken.write_bytes(b"not a database" * 100)
    broken.chmod(0o600)

    def found(url: str) -> list[tuple[str, str, str]]:
        # The type of the disk that tests run on is no matter of theirs.
        return [one for one in examined({"LEASTWISE_STORE_URL": url}, "store") if " lies on " not in one[1]]

    assert [("ok", str(good), "")] == found(f"sqlite:///{good}")
    assert ("warn", f"{open_} can be read by others", f"chmod 600 {open_}") == found(f"sqlite:///{open_}")[1]
    not_one = ("fail", f"{broken}: file is not a database", "move it away, or choose another: [store] url")
    assert [not_one] == found(f"sqlite:///{broken}")
    below = ("fail", f"{good} cannot be written to", "choose another place: [store] url")
    assert [below] == found(f"sqlite:///{good}/x.db")
    memory = ("warn", "in memory: it ends with the process", "give it a file: [store] url")
    assert [memory] == found(":memory:")


def test_the_file_system_of_a_file_is_its_nearest_mount(tmp_path: Path) -> None:
    folder = tmp_path.resolve()
    mounts = f"overlay / overlay rw 0 0\nhost:/x {folder} nfs4 rw\n/dev/sda {folder}/a\\040b ext4 rw\n"

    assert "nfs4" == mount_of(tmp_path / "x.db", mounts)
    assert "ext4" == mount_of(tmp_path / "a b/x.db", mounts)
    assert "overlay" == mount_of(Path("/x.db"), mounts)
    assert "" == mount_of(Path("/x.db"), "")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("nfs4", ["fail"]), ("overlay", ["warn"]), ("tmpfs", ["warn"]), ("ext4", []), ("", [])],
)
def test_doctor_tells_file_systems_that_lose_a_ledger(kind: str, expected: list[str]) -> None:
    assert expected == [check.state for check in doctor._of_mount(Path("/x/leastwise.db"), kind)]


def test_doctor_waits_for_nobody_who_is_writing(tmp_path: Path) -> None:
    file = tmp_path / "busy.db"
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    found = doctor._can_write(file)
    writer.close()

    assert Check("store", "ok", f"{file}, in use at the moment") == found


def test_doctor_tells_a_folder_in_the_place_of_the_ledger(tmp_path: Path) -> None:
    mend = "mend its rights, or choose another: [store] url"
    expected = Check("store", "fail", f"{tmp_path}: unable to open database file", mend)
    assert expected == doctor._can_write(tmp_path)


def test_doctor_tells_a_ledger_of_a_newer_version(tmp_path: Path) -> None:
    file = tmp_path / "newer.db"
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version=999")
    connection.close()

    checks = examined({"LEASTWISE_STORE_URL": f"sqlite:///{file}"}, "store")
    assert ("fail", True) == (checks[1][0], "has schema 999" in checks[1][1])


def keep_cascade(
    folder: Path, *, judge: str = "", calibrated: str = "", planted: tuple[int, int] = (0, 0), more: str = ""
) -> Path:
    """Return a configuration with a cascade, and its ledger filled: a threshold, planted answers."""
    file = folder / "mine.toml"
    text = f'[store]\nurl = "sqlite:///{folder}/ledger.db"\n[cascade]\nenabled = true\njudge = "{judge}"\n'
    file.write_text(text + more, "utf-8")
    settings = load(file)
    plan = Plans(settings).usual
    stamp = stamp_of(plan, settings.ladder.tiers[0].model, VERSION)
    passed, asked = planted
    verdicts = tuple(
        Verdict("judge", "accept" if n < passed else "escalate", "", 1.0, is_control=True, stamp=stamp)
        for n in range(asked)
    )
    now = time.time()
    with closing(SqliteStore(folder / "ledger.db")) as store:
        call = row(id=entry_id(now), at=now, result="ok")
        store.write(Record(call, verdicts=verdicts, checks="c"), may_wait=True)
        if calibrated:
            store.put_calibration(Calibration(calibrated.replace("now", stamp), "", 4.0), now)
    return file


OWN_JUDGE = (
    "warn",
    "haiku is its own judge, not calibrated: none of its answers is accepted, calls begin above",
    'leastwise tune calibrate, or another: [cascade] judge = "sonnet"',
)
STALE = (
    "warn",
    "1 calibration of another judge, model or question: not used any more",
    "leastwise tune calibrate",
)
PASSES = (
    "warn",
    "the judge accepted 4 of 31 planted bad answers",
    "leastwise tune calibrate, or a better judge: [cascade] judge",
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [OWN_JUDGE]),
        ({"calibrated": "now"}, []),
        ({"calibrated": "before"}, [OWN_JUDGE, STALE]),
        ({"judge": "sonnet"}, []),
        ({"judge": "sonnet", "calibrated": "before"}, [STALE]),
        ({"judge": "sonnet", "planted": (4, 31)}, [PASSES]),
        ({"judge": "sonnet", "planted": (1, 31)}, []),
        ({"more": 'checks = ["empty"]\n'}, []),
        ({"more": '[[check]]\nname = "own"\nlabels = ["yes"]\n'}, [OWN_JUDGE]),
    ],
)
def test_doctor_on_the_judge(
    tmp_path: Path, given: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert expected == examined({}, "cascade", keep_cascade(tmp_path, **given))


def test_doctor_tells_a_judge_of_its_own_without_a_ledger(user: Path) -> None:
    write(user, "[cascade]\nenabled = true\n")

    assert [OWN_JUDGE] == examined({}, "cascade")
    write(user, 'preset = "reference"\n[cascade]\nenabled = true\n')
    assert [] == examined({}, "cascade")


def test_doctor_shows_what_is_checked(user: Path) -> None:
    write(user, '[cascade]\nenabled = true\njudge = "sonnet"\n')
    assert [("ok", "truncation, empty, refusal, schema, tools, judge, by sonnet", "")] == examined(
        {}, "checks"
    )
    write(user, '[cascade]\nenabled = true\nchecks = ["empty"]\n')
    assert [("ok", "empty", "")] == examined({}, "checks")
    write(user, '[cascade]\njudge = "sonnet"\n')
    assert [] == examined({}, "checks")


NO_JUDGE = (
    "cascade.judge = 'sonet': no tier (haiku, sonnet, opus), and no model with a price; "
    "did you mean 'sonnet'?"
)


def test_a_judge_that_does_not_exist(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(user, '[cascade]\njudge = "sonet"\n')

    assert [("fail", NO_JUDGE, "edit the file that `leastwise config path` names")] == examined({}, "cascade")
    assert 2 == main(["config", "check"])
    assert f"leastwise: error: {NO_JUDGE}\n" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"cascade\.judge = 'sonet'"):
        Runtime(load())
    write(user, '[cascade]\njudge = "gpt-4"\n')
    ((_, words, _),) = examined({}, "cascade")
    assert words.endswith("name a tier, or add a [[price]] row for the model")
    write(user, '[cascade]\njudge = "claude-sonnet-4-6"\n')
    assert [] == examined({}, "cascade")


def test_doctor_tells_a_command_that_will_not_be_found(user: Path) -> None:
    write(user, '[[check]]\nname = "own"\ncommand = "no-such-program -q"\n')

    words = "[[check]] own: there is no program no-such-program on PATH"
    assert [("warn", words, "mend its command, or its folder, the whole path")] == examined({}, "cascade")


def test_doctor_tells_a_check_that_cannot_be_made(user: Path) -> None:
    write(user, '[[check]]\nname = "own"\nfunction = "no_such_module:check"\n')

    ((state, words, mend),) = examined({}, "cascade")
    assert ("warn", "see that your program finds it: it need not be on this command's path") == (state, mend)
    assert words.startswith("[[check]] own: function = 'no_such_module:check' cannot be imported")
    write(user, '[[check]]\nname = "own"\nfunction = "os:sep"\n')
    words = "[[check]] own: function = 'os:sep' is a str: expected a function"
    assert [("fail", words, "mend its [[check]]")] == examined({}, "cascade")


def test_doctor_counts_the_calls_that_a_fault_of_ours_left_unrouted(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    store = SqliteStore(file)
    for id_, fault in (("a", ""), ("b", "routing: KeyError")):
        store.write(Record(Exchange(**{**ROW, "id": id_, "fault": fault})), may_wait=True)
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{file}"}
    with_fault = examined(environ, "calls")
    store.close()

    words = "1 of 2 calls in 7 days went unrouted: a fault of Leastwise"
    assert [("warn", words, "leastwise report; please tell us what the log says")] == with_fault


@pytest.mark.parametrize(
    ("budgets", "warned"),
    [
        ({"s": "session"}, ["s counts by session, which callers name: another name has another limit"]),
        ({"t": "tag", "m": "model"}, ["t counts by tag, which callers name: another name has another limit"]),
        ({"t": "tag", "k": "key"}, []),
        ({"t": "tag", "all": "global"}, []),
        ({"k": "key"}, []),
    ],
)
def test_doctor_tells_budgets_that_callers_can_dodge(
    user: Path, budgets: dict[str, str], warned: list[str]
) -> None:
    rows = (f'[[budget]]\nname = "{name}"\nscope = ["{scope}"]' for name, scope in budgets.items())
    write(user, "\n".join(f"{row}\nlimit_usd = 1" for row in rows))

    expected = [("warn", words, "leastwise budget set all --limit USD") for words in warned]
    assert expected == examined({}, "budget")


def test_doctor_tells_what_dead_processes_left(user: Path, tmp_path: Path) -> None:
    write(user, '[[budget]]\nname = "all"\nlimit_usd = 10\nwindow = "total"\n')
    budget, now = BudgetRule("all", 10 * USD, window="total"), time.time()
    file = tmp_path / "ledger.db"
    environ = {"LEASTWISE_STORE_URL": f"sqlite:///{file}"}
    with closing(SqliteStore(file)) as store:
        reserve(store, budget, now, 2)
        settle(store, paid(budget, now, 3, certainty="lost"))
        waiting = paid(budget, now, 1, certainty="lost")
        settle(store, replace(waiting, purpose="batch", message_id="msgbatch_1"))
        alive = examined(environ, "budget")
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("UPDATE owner SET beat = 0")
            other.execute("UPDATE lease SET owner = 'gone'")

        found = examined(environ, "budget")

    lost = "1 call counted at the most, $3.00: their process died"
    last = ("warn", lost, "leastwise budget reconcile --entry ID --usd X")
    left = ("warn", "$2.00 reserved for 1 call of processes that died", "leastwise budget reconcile")
    assert ([last], [left, last]) == (alive, found)


@pytest.mark.parametrize("has_ledger", [False, True])
def test_doctor_reaches_for_servers_and_shows_no_password(user: Path, *, has_ledger: bool) -> None:
    if has_ledger:
        open_store(load()).close()
    write(
        user,
        f"""
[store]
budget = "redis://me:geheim@127.0.0.1:{closed_port()}/0"
cache = "redis://me:geheim@127.0.0.1:{closed_port()}/1"
""",
    )

    (store,) = [one for one in examined({}, "store") if one[0] == "fail"]
    (cache,) = examined({}, "cache")

    mend = "check address, network and password: [store]"
    assert ("fail", mend, "fail", mend) == (store[0], store[2], cache[0], cache[2])
    assert "geheim" not in store[1] + cache[1]


def test_doctor_tells_asked_models_that_retire(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    store = SqliteStore(file)
    for id_, asked in (("a", "claude-sonnet-4-5-20250929"), ("b", "claude-opus-5-5"), ("c", "my-own")):
        store.write(Record(Exchange(**{**ROW, "id": id_, "asked": asked})), may_wait=True)
    store.close()

    words = "claude-sonnet-4-5-20250929, asked for 1 time in 7 days, retires on 2026-11-30"
    expected = [("warn", words, "name a newer model where it is called")]
    assert expected == examined({"LEASTWISE_STORE_URL": f"sqlite:///{file}"}, "models")


def test_doctor_keeps_what_the_upstream_lists(tmp_path: Path) -> None:
    with serve() as upstream:
        environ = {
            "ANTHROPIC_BASE_URL": upstream.url,
            "ANTHROPIC_API_KEY": "x",
            "XDG_CACHE_HOME": str(tmp_path),
        }
        examined(environ, "upstream")

        (file,) = (tmp_path / "leastwise").iterdir()
        assert file == Catalogue(tmp_path / "leastwise").file(upstream.url)


def test_doctor_shows_the_mode_and_who_set_it() -> None:
    expected = [("ok", "enforce (LEASTWISE_MODE)", "")]
    assert expected == examined({"LEASTWISE_MODE": "enforce"}, "mode")


def test_doctor_asks_every_upstream_of_the_ladder_with_its_own_key(user: Path) -> None:
    address = f"http://0.0.0.0:{closed_port()}"  # this machine, but not by its loopback address
    write(
        user,
        f"""
[[tier]]
name = "local"
model = "claude-haiku-5-5"
upstream = "ollama"
[[tier]]
name = "opus"
model = "claude-opus-5-5"
[upstream.ollama]
base_url = "{address}"
""",
    )

    found = list(examine(None, {**os.environ, "ANTHROPIC_BASE_URL": address, "ANTHROPIC_API_KEY": "x"}, AT))

    said = [(check.name, check.state) for check in found if check.name in ("key", "upstream")]
    assert [("upstream", "fail"), ("key", "ok"), ("key", "warn"), ("upstream", "fail")] == said
    assert f"{address} gets the key unencrypted" in [check.words for check in found]


def test_doctor_accepts_a_token_for_the_client() -> None:
    words = "ANTHROPIC_AUTH_TOKEN is set and does for the client, but ANTHROPIC_API_KEY is not"
    mend = "for `route --send` and `init`: export ANTHROPIC_API_KEY=..."
    assert [("warn", words, mend)] == examined({"ANTHROPIC_AUTH_TOKEN": "x"}, "key")


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("https://api.anthropic.com", False),
        ("http://127.0.0.1:8377", False),
        ("http://[::1]:8377", False),
        ("http://localhost:11434", False),
        ("http://10.0.0.7", True),
        ("http://gateway.example", True),
    ],
)
def test_doctor_tells_a_key_that_goes_out_unencrypted(address: str, *, is_open: bool) -> None:
    assert is_open == doctor._is_open(address)


@pytest.mark.parametrize(
    ("status", "state", "mend"),
    [
        (401, "fail", "give it another key"),
        (404, "warn", ""),
        (529, "fail", "try again later"),
        (None, "fail", "check address, network and proxy"),
    ],
)
def test_doctor_tells_why_an_upstream_did_not_answer(status: int | None, state: str, mend: str) -> None:
    found = doctor._of_failure("anthropic at https://x", UpstreamFailure(OSError("no"), status=status))

    assert (state, mend) == (found.state, found.do)


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (None, "warn"),
        ("0.93.0", "ok"),
        ("1.17.0", "ok"),
        ("2.20.1", "ok"),
        ("0.92.1", "fail"),
        ("3.0.0", "fail"),
    ],
)
def test_doctor_knows_which_clients_are_supported(version: str | None, state: str) -> None:
    assert state == doctor._of_sdk(version).state


# --- simulate --------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["haiku", "haiku=2", "=0.1", "haiku=x"])
def test_simulate_refuses_a_rate_that_is_none(capsys: pytest.CaptureFixture[str], rate: str) -> None:
    assert 2 == main(["simulate", "--error-rate", rate])
    expected = (
        f"leastwise: error: --error-rate {rate!r}: expected a line or model and a share, such as haiku=0.1\n"
    )
    assert ("", expected) == capsys.readouterr()


def test_an_empty_tag_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], user: Path
) -> None:
    assert 2 == main(["on", "--tag", " "])
    assert not user.exists()
    assert "--tag is empty" in capsys.readouterr().err


def test_simulate_tells_no_variables_when_the_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert 2 == main(["simulate", "--port", str(port), "--error-rate", "haiku=0.1"])

    captured = capsys.readouterr()
    assert not captured.out
    assert f"leastwise: error: cannot listen at 127.0.0.1 port {port}: " in captured.err


def test_doctor_names_the_models_that_refused_what_was_taken_to_fit(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    store = SqliteStore(file)
    for id_ in ("a", "b"):
        store.write(Record(Exchange(**{**ROW, "id": id_, "misfit": "claude-haiku-5-5"})), may_wait=True)
    store.close()

    words = "claude-haiku-5-5 refused 2 requests taken to fit it; another model answered"
    found = examined({"LEASTWISE_STORE_URL": f"sqlite:///{file}"}, "misfit")
    assert [("warn", words, "leastwise report; please tell us what they had in common")] == found
