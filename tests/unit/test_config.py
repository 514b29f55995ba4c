"""The configuration: precedence, origins, and how wrong settings are told."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from leastwise.budget import BudgetRule, Ceiling, Limits
from leastwise.config import (
    CacheOptions,
    Config,
    LimitOptions,
    NotifyOptions,
    StoreAt,
    Upstream,
    host_only,
    limits,
    load,
    masked,
    misspelt,
    policy,
    price_book,
    settings,
    shown_place,
    user_file,
)
from leastwise.errors import ConfigError
from leastwise.ladder import DEFAULT_LADDER, Tier
from leastwise.routing import OwnType, Policy, Rule, Signals, Switch

#: The part of the documented sample that this version carries out.
SAMPLE = """
schema = 1
mode = "observe"                      # observe | enforce | off
reroute = []
unsure = "baseline"
[[tier]]
name = "haiku"
model = "claude-haiku-5-5"
upstream = "anthropic"
[[tier]]
name = "sonnet"
model = "claude-sonnet-5-5"
[[tier]]
name = "opus"
model = "claude-opus-5-5"
[upstream.anthropic]
base_url = "https://api.anthropic.com"
api_key_env = "ANTHROPIC_API_KEY"
[store]
url = "sqlite:////var/lib/leastwise/leastwise.db"
[complexity]
simple = "haiku"
standard = "sonnet"
complex = "opus"
[signals]
small_input_tokens = 500
large_input_tokens = 3000
small_output_tokens = 100
large_output_tokens = 1000
[[rule]]
match = "spam or not"
complexity = "simple"
[cache]
on = "asked"
ttl_s = 86400
max_mb = 512
[[budget]]
name = "team-a"
scope = ["key"]
window = "month"
limit_usd = 8000
ceilings = [{above = 0.70, tier = "sonnet"}, {above = 0.90, tier = "haiku"}]
cap = "allow_critical"
critical_limit_usd = 8000
[notify]
webhook = ""
"""

TEAM = BudgetRule(
    "team-a",
    8_000_000_000_000,
    scope=("key",),
    ceilings=(Ceiling(Decimal("0.70"), "sonnet"), Ceiling(Decimal("0.90"), "haiku")),
    critical_limit_nusd=8_000_000_000_000,
)

NOT_YET = "not in this version of Leastwise, so it would have no effect; take it out"

ADDRESS = "expected an address such as sqlite:////var/lib/leastwise/leastwise.db"


class Place:
    """A home and a working directory of a test's own, and the environment that leads there."""

    def __init__(self, root: Path) -> None:
        self.home, self.cwd = root / "home", root / "work"
        self.user = self.home / ".config/leastwise/leastwise.toml"
        self.found = self.cwd / "leastwise.toml"
        self.user.parent.mkdir(parents=True)
        self.cwd.mkdir()

    def load(
        self, environ: Mapping[str, str] | None = None, path: Path | None = None, **arguments: object
    ) -> Config:
        return load(path, {"HOME": str(self.home), **(environ or {})}, cwd=self.cwd, arguments=arguments)

    def wrong(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return what is said of a user's file with this text, without the file's name."""
        self.user.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            self.load(environ)
        return [line.removeprefix(f"file {self.user}: ") for line in str(caught.value).splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_without_a_file_everything_has_a_default(place: Place) -> None:
    config = place.load()

    expected = Config(
        upstreams={"anthropic": Upstream("https://api.anthropic.com", "ANTHROPIC_API_KEY")},
        store=StoreAt(f"sqlite:///{place.home}/.local/state/leastwise/leastwise.db"),
        complexity={"simple": "haiku", "standard": "sonnet", "complex": "opus"},
    )
    assert expected == config
    assert () == config.files
    assert (place.user, place.found) == config.watched
    assert f"{place.home}/.local/state/leastwise/leastwise.db" == config.store.path


def test_own_types_and_the_classifier_become_policy(place: Place) -> None:
    place.user.write_text(
        '[classifier]\nlearned = false\n[[type]]\nname = "x"\ntier = "opus"\nexamples = ["a", "b", "c"]\n',
        encoding="utf-8",
    )
    own = OwnType("x", ("a", "b", "c"), tier="opus")

    assert Policy(learned=False, types=(own,)) == policy(place.load())
    assert place.load({"LEASTWISE_CLASSIFIER_LEARNED": "true"}).classifier.learned
    assert not place.load({"LEASTWISE_CLASSIFIER_LEARNED": "0"}).classifier.learned


def test_the_documented_sample_is_read(place: Place) -> None:
    place.user.write_text(SAMPLE, encoding="utf-8")

    config = place.load()

    assert DEFAULT_LADDER == config.ladder
    assert (Rule(match="spam or not", complexity="simple"),) == config.rules
    assert "/var/lib/leastwise/leastwise.db" == config.store.path
    assert Policy(rules=config.rules) == policy(config)
    assert (TEAM,) == config.budgets
    assert (CacheOptions(), LimitOptions(), NotifyOptions()) == (config.cache, config.limits, config.notify)
    assert (place.user,) == config.files


def test_arguments_beat_variables_beat_the_working_directory_beats_the_users_file(place: Place) -> None:
    place.user.write_text('mode = "off"\npercent = 1\nunsure = "haiku"\ndiscount = 0.1\n', encoding="utf-8")
    place.found.write_text('mode = "observe"\npercent = 2\nunsure = "sonnet"\n', encoding="utf-8")

    config = place.load(
        {"LEASTWISE_MODE": "observe", "LEASTWISE_PERCENT": "2.5"}, mode="enforce", unsure=None
    )

    origins = {one.key: one.origin for one in settings(config)}
    assert ("enforce", "argument") == (config.mode, origins["mode"])
    assert (2.5, "LEASTWISE_PERCENT") == (config.percent, origins["percent"])
    assert ("sonnet", f"file {place.found}") == (config.unsure, origins["unsure"])
    assert (Decimal("0.1"), f"file {place.user}") == (config.discount, origins["discount"])
    assert ((), "default") == (config.reroute, origins["reroute"])


def test_every_scalar_setting_has_a_variable(place: Place) -> None:
    config = place.load(
        {
            "LEASTWISE_REROUTE": "claude-opus-*, claude-fable-*",
            "LEASTWISE_UNSURE": "opus",
            "LEASTWISE_PRESET": "reference",
            "LEASTWISE_STORE_URL": ":memory:",
            "LEASTWISE_STORE_KEEP_DAYS": "30",
            "LEASTWISE_SIGNALS_SMALL_INPUT_TOKENS": "400",
            "LEASTWISE_COMPLEXITY_SIMPLE": "sonnet",
            "LEASTWISE_DISCOUNT": "0.15",
            "LEASTWISE_UNPRICED": "allow",
            "LEASTWISE_UPSTREAM_ANTHROPIC_BASE_URL": "http://127.0.0.1:8377/",
        }
    )

    assert ("claude-opus-*", "claude-fable-*") == config.reroute
    assert ("opus", "reference") == (config.unsure, config.preset)
    assert StoreAt(":memory:", 30) == config.store
    assert Signals(small_input_tokens=400) == config.signals
    assert "sonnet" == config.complexity["simple"]
    assert (Decimal("0.15"), "allow") == (price_book(config).discount, price_book(config).unpriced)
    assert "http://127.0.0.1:8377" == config.upstreams["anthropic"].base_url


def test_a_wrong_variable_is_named(place: Place) -> None:
    with pytest.raises(ConfigError) as caught:
        place.load({"LEASTWISE_MODE": "enforced", "LEASTWISE_PERCENT": "all"})

    expected = [
        "LEASTWISE_MODE: mode = \"enforced\": expected observe, enforce, off; did you mean 'enforce'?",
        'LEASTWISE_PERCENT: percent = "all": expected a number from 0 to 100',
    ]
    assert expected == str(caught.value).splitlines()


def test_an_explicit_file_is_the_only_one(place: Place) -> None:
    place.user.write_text('mode = "off"\n', encoding="utf-8")
    place.found.write_text('mode = "off"\n', encoding="utf-8")
    other = place.cwd / "other.toml"
    other.write_text("percent = 5\n", encoding="utf-8")

    by_argument = place.load(path=other)
    by_variable = place.load({"LEASTWISE_CONFIG": "other.toml"})

    assert ("observe", 5) == (by_argument.mode, by_argument.percent)
    assert by_argument == by_variable
    assert (other,) == by_variable.watched


def test_an_explicit_file_that_is_not_there_is_an_error(place: Place) -> None:
    missing = place.cwd / "missing.toml"

    with pytest.raises(
        ConfigError, match=f"{missing}: No such file or directory. Write one with: leastwise init"
    ):
        place.load(path=missing)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[store]\nurl = "sqlite:////tmp/x.db"\n', "store.url"),
        ('[upstream.anthropic]\nbase_url = "https://evil.example"\n', "upstream.anthropic.base_url"),
        ('[upstream.anthropic]\napi_key_env = "AWS_SECRET"\n', "upstream.anthropic.api_key_env"),
        (
            '[[price]]\nmodel = "claude-opus-5-5"\ninput = 0\noutput = 0\nsource = "x"\nas_of = 2026-11-23\n',
            "price",
        ),
        ("discount = 0.9\n", "discount"),
        ('unpriced = "allow"\n', "unpriced"),
        ('[notify]\nwebhook = "https://evil.example"\n', "notify.webhook"),
        ('[store]\ncache = "redis://evil.example"\n', "store.cache"),
    ],
)
def test_a_file_found_in_the_working_directory_sets_policy_only(place: Place, text: str, key: str) -> None:
    place.found.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        place.load()

    expected = (
        f"file {place.found}: {key}: a file found in the working directory may set policy only; "
        f"move it to {place.user}, or pass --config {place.found}"
    )
    assert expected == str(caught.value)


def test_the_same_file_passed_explicitly_may_set_everything(place: Place) -> None:
    place.found.write_text('[store]\nurl = ":memory:"\n', encoding="utf-8")

    assert ":memory:" == place.load(path=place.found).store.path


def test_the_users_directory_may_be_the_working_directory(place: Place) -> None:
    place.user.write_text('[store]\nurl = ":memory:"\n', encoding="utf-8")

    config = load(None, {"HOME": str(place.home)}, cwd=place.user.parent)

    assert ":memory:" == config.store.path
    assert (place.user,) == config.watched


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('mod = "enforce"', "mod: not known; did you mean 'mode'?"),
        ('mode = "on"', 'mode = "on": expected observe, enforce, off'),
        ("mode = true", "mode = true: expected observe, enforce, off"),
        ("schema = 2", "schema = 2: this version of Leastwise reads schema = 1 only; write that, or upgrade"),
        ("percent = 101", "percent = 101: expected a number from 0 to 100"),
        ("percent = nan", "percent = NaN: expected a number from 0 to 100"),
        ("discount = 15", "discount = 15: expected a share from 0 to 1, such as 0.15"),
        ('reroute = "x"', 'reroute = "x": expected a list of texts, such as ["one", "another"]'),
        (
            'unsure = "opsu"',
            "unsure = \"opsu\": expected baseline, haiku, sonnet, opus; did you mean 'opus'?",
        ),
        ("cascade = []", "cascade: [] is not a table; write [cascade]"),
        ("[record]\nsample = 1", f"record: {NOT_YET}"),
        ("[cache]\non = 1", "cache.on = 1: expected asked, all, off"),
        ("[cache]\nttl = 1", "cache.ttl: not known; did you mean 'ttl_s'?"),
        ("[cache]\nmax_mb = 0", "cache.max_mb = 0: expected a whole number from 1"),
        ('[cache]\ntags = "x"', 'cache.tags = "x": expected a list of texts, such as ["one", "another"]'),
        ('[limits]\nlease_wait_s = "x"', 'limits.lease_wait_s = "x": expected seconds, such as 10'),
        ("[limits]\nlease_wait_s = -1", "limits.lease_wait_s = -1: expected seconds, such as 10"),
        ('[limits]\nunbounded = "allow"', 'limits.unbounded = "allow": expected refuse, estimate'),
        ("[[budget]]\nlimit_usd = 1", "[[budget]] 1: name is missing"),
        ('[[budget]]\nname = "a"', "[[budget]] 1: limit_usd is missing"),
        (
            '[[budget]]\nname = "a"\nlimit_usd = "8k"',
            '[[budget]] 1: limit_usd = "8k": expected dollars, such as 8000 or 12.50',
        ),
        (
            '[[budget]]\nname = "a"\nlimit_usd = 1\nlimit = 2',
            "[[budget]] 1: limit is not known; did you mean 'limit_usd'?",
        ),
        (
            '[[budget]]\nname = "a"\nlimit_usd = 1\nscope = ["label"]',
            '[[budget]] 1: scope = ["label"]: expected session, key, tag, tenant, model, global',
        ),
        (
            '[[budget]]\nname = "a"\nlimit_usd = 1\nwindow = "mont"',
            (
                '[[budget]] 1: window = "mont": '
                "expected session, hour, day, week, month, total; did you mean 'month'?"
            ),
        ),
        (
            '[[budget]]\nname = "a"\nlimit_usd = 1\nceilings = [{over = 0.5, tier = "haiku"}]',
            (
                '[[budget]] 1: ceilings = [{"over": 0.5, "tier": "haiku"}]: '
                "over is not known; did you mean 'above'?; above is missing"
            ),
        ),
        (
            '[[budget]]\nname = "a"\nlimit_usd = 1\nceilings = [{above = 0.5, tier = "haikoo"}]',
            (
                "[[budget]] 'a': ceilings: tier = \"haikoo\": "
                "expected haiku, sonnet, opus; did you mean 'haiku'?"
            ),
        ),
        (
            (
                '[[budget]]\nname = "a"\nlimit_usd = 1\n'
                'ceilings = [{above = 0.5, tier = "haiku"}, {above = 0.7, tier = "opus"}]'
            ),
            "[[budget]] 'a': ceilings: a larger share must not allow a dearer tier",
        ),
        (
            '[[budget]]\nname = "a"\nlimit_usd = 1\nceilings = "none"',
            (
                '[[budget]] 1: ceilings = "none": '
                'expected a list such as [{above = 0.70, tier = "sonnet"}], or [] for none'
            ),
        ),
        (
            2 * '[[budget]]\nname = "a"\nlimit_usd = 1\n',
            '[[budget]] name = "a": given twice; keep one of them',
        ),
        (
            '[notify]\nwebhook = "ftp://hooks.example/secret"',
            (
                'notify.webhook = "ftp://hooks.example/***": '
                'expected an address such as https://hooks.example.com/leastwise, or "" for none'
            ),
        ),
        (
            '[notify]\nwebhook = "hooks.example/secret"',
            (
                'notify.webhook = "***": '
                'expected an address such as https://hooks.example.com/leastwise, or "" for none'
            ),
        ),
        ("store = 1", "store: 1 is not a table; write [store]"),
        ("[store]\nkeep_days = 0", "store.keep_days = 0: expected a whole number from 1"),
        (
            "[signals]\nsmal_input_tokens = 1",
            "signals.smal_input_tokens: not known; did you mean 'small_input_tokens'?",
        ),
        (
            "[signals]\nsmall_input_tokens = 4000",
            "[signals] small_input_tokens = 4000 is above large_input_tokens = 3000",
        ),
        (
            '[complexity]\nsimple = "haikoo"',
            "complexity.simple = \"haikoo\": expected haiku, sonnet, opus; did you mean 'haiku'?",
        ),
        ("[store]\nurl = ''", f'store.url = "": {ADDRESS}'),
        ("[upstream.x]\nbase = 1", "upstream.x.base: not known; did you mean 'base_url'?"),
        ("[complexity]\nhard = 1", "complexity.hard: not known; known: simple, standard, complex"),
        ('[tier]\nname = "x"', "tier: write each as [[tier]]"),
        ('[[tier]]\nname = "x"', "[[tier]] 1: model is missing"),
        (
            '[[tier]]\nname = "a"\nmodel = "m"\n[[tier]]\nname = "a"\nmodel = "n"',
            "two tiers are named 'a'; give each [[tier]] its own name",
        ),
        (
            '[[tier]]\nname = "a"\nmodel = "m"\nupstream = "local"',
            '[[tier]] a: upstream = "local": expected anthropic',
        ),
        ('[[rule]]\nmatch = "x"', "[[rule]] 1: match = 'x': give either complexity or tier"),
        ('[[rule]]\nmatch = "x"\ntier = "big"', '[[rule]] 1: tier = "big": expected haiku, sonnet, opus'),
        ('[[rule]]\nmach = "x"', "[[rule]] 1: mach is not known; did you mean 'match'?"),
        ("[classifier]\nlearnt = true", "classifier.learnt: not known; did you mean 'learned'?"),
        (
            '[classifier]\nllm_tier = "small"',
            'classifier.llm_tier = "small": expected haiku, sonnet, opus',
        ),
        ("[classifier]\nllm_tier = 1", "classifier.llm_tier = 1: expected text"),
        ('[classifier]\nlearned = "no"', 'classifier.learned = "no": expected true or false'),
        ("classifier = 1", "classifier: 1 is not a table; write [classifier]"),
        ('[[type]]\nname = "x"', "[[type]] 1: examples is missing"),
        (
            '[[type]]\nname = "x"\nexamples = "a"',
            '[[type]] 1: examples = "a": expected a list of texts, such as ["one", "another"]',
        ),
        (
            '[[type]]\nname = "x"\nexamples = ["a", "b", "c"]',
            "[[type]] 1: x: give either complexity or tier",
        ),
        (
            '[[type]]\nname = "x"\nexamples = ["a", "b", "c"]\ntier = "big"',
            '[[type]] x: tier = "big": expected haiku, sonnet, opus',
        ),
        (
            2 * '[[type]]\nname = "x"\nexamples = ["a", "b", "c"]\ntier = "opus"\n',
            '[[type]] name = "x": given twice; keep one of them',
        ),
        ('[[switch]]\ntag = "x"', "[[switch]] 1: mode is missing"),
        (
            '[[switch]]\ntag = "x"\nmode = "off"\n[[switch]]\ntag = "x"\nmode = "off"',
            '[[switch]] tag = "x": given twice; keep one of them',
        ),
        (
            '[[price]]\nmodel = "m"\ninput = 1',
            "[[price]] 1: 'm': output is missing (rates: dollars per million tokens)",
        ),
        (
            '[[price]]\nprovider = "local"\nmodel = "m"\ninput = 0\noutput = 0',
            '[[price]] 1: provider = "local": expected anthropic',
        ),
        ('[upstream.local]\nkind = "anthropic"', "upstream.local.base_url is missing"),
        (
            '[upstream.local]\nbase_url = "localhost:11434"',
            'upstream.local.base_url = "localhost:11434": expected an address such as https://api.anthropic.com',
        ),
        (
            '[upstream.local]\nbase_url = "http://me:pass@host"',
            (
                'upstream.local.base_url = "http://***@host": '
                "an address must not hold a password: name a variable in api_key_env"
            ),
        ),
        (
            '[upstream.anthropic]\napi_key_env = "sk-ant-api03-0123456789"',
            (
                'upstream.anthropic.api_key_env = "***": '
                'expected the name of an environment variable, never a key itself, or "" for no key'
            ),
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_allowed(
    place: Place, text: str, said: str
) -> None:
    assert [said] == place.wrong(text)


def test_everything_wrong_is_told_at_once(place: Place) -> None:
    said = place.wrong('mode = "x"\n[store]\ndurability = "x"\n[[tier]]\nnam = "x"\nmodel = ""\n')

    expected = [
        'mode = "x": expected observe, enforce, off',
        'store.durability = "x": expected process, power',
        "[[tier]] 1: nam is not known; did you mean 'name'?",
        '[[tier]] 1: model = "": expected text',
        "[[tier]] 1: name is missing",
    ]
    assert expected == said


def test_a_file_that_is_not_toml_or_not_text_is_named(place: Place) -> None:
    assert place.wrong("mode = ")[0].startswith("not TOML: ")

    place.user.write_bytes(b'mode = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8 text: invalid start byte at byte 8"):
        place.load()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///C:/data/x.db", "C:/data/x.db"),
        (":memory:", ":memory:"),
        ("sqlite://:memory:", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
    ],
)
def test_store_urls(place: Place, url: str, path: str) -> None:
    assert path == place.load({"LEASTWISE_STORE_URL": url}).store.path


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///leastwise.db", "four slashes, such as sqlite:////absolute/path/leastwise.db"),
        ("sqlite://data/x.db", "four slashes, such as sqlite:////absolute/path/x.db"),
        (
            "/var/x.db",
            "write a file as sqlite:/// and its absolute path, such as sqlite:////absolute/path/x.db",
        ),
        (
            "redis://me:secret@host/0",
            (
                'store.url = "redis://***@host/0": '
                "expected sqlite:////absolute/path.db, postgresql://user@host/name, or :memory:"
            ),
        ),
        (
            "postgres://me:secret@host/db",
            (
                'store.url = "postgres://***@host/db": expected sqlite:////absolute/path.db, '
                "postgresql://user@host/name, or :memory:; did you mean 'postgresql'?"
            ),
        ),
    ],
)
def test_store_urls_that_are_refused(place: Place, url: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place.load({"LEASTWISE_STORE_URL": url})

    assert str(caught.value).endswith(said)


def test_the_reference_preset_brings_its_ladder_and_its_clamps(place: Place) -> None:
    place.user.write_text('preset = "reference"\n', encoding="utf-8")

    config = place.load()

    assert ["claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-6"] == [
        tier.model for tier in config.ladder
    ]
    assert Policy.reference() == policy(config)
    origins = {one.key: one.origin for one in settings(config)}
    assert 'preset "reference"' == origins["tier.haiku.model"]


def test_tiers_of_ones_own_beat_the_presets(place: Place) -> None:
    place.user.write_text(
        'preset = "reference"\n[[tier]]\nname = "haiku"\nmodel = "claude-haiku-5-5"\n', encoding="utf-8"
    )

    assert (Tier("haiku", "claude-haiku-5-5"),) == place.load().ladder.tiers


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["only"], ["only", "only", "only"]),
        (["small", "large"], ["small", "large", "large"]),
        (["a", "b", "c", "d"], ["a", "c", "d"]),
        (["nano", "haiku", "sonnet", "opus"], ["haiku", "sonnet", "opus"]),
    ],
)
def test_complexities_find_a_tier_on_any_ladder(place: Place, names: list[str], expected: list[str]) -> None:
    rows = "".join(f'[[tier]]\nname = "{name}"\nmodel = "{name}"\n' for name in names)
    place.user.write_text(rows, encoding="utf-8")

    assert expected == list(place.load().complexity.values())


def test_rows_upstreams_and_prices_are_read(place: Place) -> None:
    place.user.write_text(
        """
discount = 0.15
[[tier]]
name = "local"
model = "llama3.2"
upstream = "ollama"
[upstream.ollama]
base_url = "http://localhost:11434/v1/"
[[switch]]
tag = "triage"
mode = "enforce"
percent = 12.5
[[price]]
provider = "ollama"
model = "llama3.2"
input = 0
output = "0.000001"
""",
        encoding="utf-8",
    )

    config = place.load()

    assert Upstream("http://localhost:11434") == config.upstreams["ollama"]
    assert (Switch("triage", "enforce", 12.5),) == config.switches
    assert [(0, 1_000)] == [(rate.input, rate.output) for rate in config.prices]
    assert config.prices == price_book(config).overrides
    assert Decimal("0.15") == price_book(config).discount


def test_the_official_sdks_address_is_the_default_one(place: Place) -> None:
    config = place.load({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8377"})
    place.user.write_text('[upstream.anthropic]\nbase_url = "https://proxy.example"\n', encoding="utf-8")
    with_file = place.load({"ANTHROPIC_BASE_URL": "http://127.0.0.1:8377"})

    assert "http://127.0.0.1:8377" == config.upstreams["anthropic"].base_url
    assert "ANTHROPIC_BASE_URL" == config.origins["upstream.anthropic.base_url"]
    assert "https://proxy.example" == with_file.upstreams["anthropic"].base_url


def test_unknown_arguments_are_refused(place: Place) -> None:
    with pytest.raises(ConfigError, match="argument: moed: not known; did you mean 'mode'"):
        place.load(moed="off")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_CONFIG_HOME": "/etc/x", "HOME": "/home/me"}, Path("/etc/x/leastwise/leastwise.toml")),
        (
            {"XDG_CONFIG_HOME": "relative", "HOME": "/home/me"},
            Path("/home/me/.config/leastwise/leastwise.toml"),
        ),
        ({}, None),
    ],
)
def test_the_users_file_follows_the_xdg_rules(environ: dict[str, str], expected: Path | None) -> None:
    assert expected == user_file(environ)


def test_without_a_home_the_ledger_is_in_memory(tmp_path: Path) -> None:
    config = load(None, {}, cwd=tmp_path)

    assert ":memory:" == config.store.path
    assert (tmp_path / "leastwise.toml",) == config.watched


def test_variables_that_look_like_typing_errors_are_found_and_a_clusters_are_not() -> None:
    environ = {
        "LEASTWISE_MDOE": "off",
        "LEASTWISE_MODE": "off",
        "LEASTWISE_PORT": "x",
        "LEASTWISE_SERVICE_HOST": "x",
    }

    assert {"LEASTWISE_MDOE": "LEASTWISE_MODE"} == misspelt(environ)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:pass@host/0", "redis://***@host/0"),
        ("https://h/?api_key=abc&x=1", "https://h/?api_key=***&x=1"),
        ("sk-ant-oat01-abcdef", "***"),
        ("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY"),
    ],
)
def test_secrets_are_blotted_out(text: str, expected: str) -> None:
    assert expected == masked(text)


def test_a_misspelt_variable_is_said_when_the_configuration_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(None, {"LEASTWISE_MOD": "off", "XDG_CONFIG_HOME": str(tmp_path)}, cwd=tmp_path)
    assert ["LEASTWISE_MOD means nothing here; LEASTWISE_MODE would"] == caplog.messages


def test_a_budget_is_read_with_all_it_may_say(place: Place) -> None:
    place.user.write_text(
        """
[[budget]]
name = "nightly"
limit_usd = 0.25
scope = ["session"]
window = "day"
rolling = true
tz = "Europe/Vienna"
ceilings = []
cap = "block"
critical_limit_usd = 0
reserve = 0
only = ["a", "b"]
[limits]
lease_wait_s = 2.5
unbounded = "estimate"
contact = "platform@example.com"
""",
        encoding="utf-8",
    )

    config = place.load()

    rule = BudgetRule(
        "nightly",
        250_000_000,
        scope=("session",),
        window="day",
        rolling=True,
        tz="Europe/Vienna",
        ceilings=(),
        cap="block",
        critical_limit_nusd=0,
        reserve=Decimal(0),
        only=("a", "b"),
    )
    assert Limits((rule,), 2.5, "estimate", "platform@example.com") == limits(config)
    shown = {one.key: one.plain for one in settings(config)}["budget.1"]
    assert ("nightly", 0.25, "day", [], ["a", "b"]) == (
        shown["name"],
        shown["limit_usd"],
        shown["window"],
        shown["ceilings"],
        shown["only"],
    )


def test_everything_odd_of_a_budget_is_told_with_its_origin(place: Place) -> None:
    said = place.wrong('[[budget]]\nname = "a"\nlimit_usd = -1\nscope = ["global", "key"]\ntz = "Mars"\n')

    assert [
        "[[budget]] 1: 'a': limit_usd = -$1.00: expected from $0 to $9,000,000",
        "[[budget]] 1: 'a': scope = ['global', 'key']: expected global alone, or some of the others",
        "[[budget]] 1: 'a': tz = 'Mars': no such time zone; write one such as Europe/Vienna",
    ] == said


def test_budgets_of_the_working_directory_come_on_top_of_the_users(place: Place) -> None:
    place.user.write_text('[[budget]]\nname = "all"\nlimit_usd = 10\n', encoding="utf-8")
    place.found.write_text('[[budget]]\nname = "here"\nlimit_usd = 1\n', encoding="utf-8")

    assert ["all", "here"] == [rule.name for rule in place.load().budgets]

    place.found.write_text('[[budget]]\nname = "all"\nlimit_usd = 1000\n', encoding="utf-8")
    with pytest.raises(ConfigError, match='name = "all": given twice; keep one of them'):
        place.load()


def test_cache_limits_and_webhook_have_variables(place: Place) -> None:
    config = place.load(
        {
            "LEASTWISE_CACHE_ON": "all",
            "LEASTWISE_CACHE_TAGS": "triage, extract",
            "LEASTWISE_CACHE_TTL_S": "3600",
            "LEASTWISE_CACHE_MAX_MB": "64",
            "LEASTWISE_CACHE_NORMALISE": "true",
            "LEASTWISE_LIMITS_LEASE_WAIT_S": "0.5",
            "LEASTWISE_LIMITS_UNBOUNDED": "estimate",
            "LEASTWISE_LIMITS_CONTACT": "me@example.com",
            "LEASTWISE_NOTIFY_WEBHOOK": "http://127.0.0.1:8080/hook",
        }
    )

    assert CacheOptions("all", ("triage", "extract"), 3600, 64, normalise=True) == config.cache
    assert LimitOptions(0.5, "estimate", "me@example.com") == config.limits
    assert NotifyOptions("http://127.0.0.1:8080/hook") == config.notify


def test_stores_may_lie_apart_and_a_password_comes_from_a_variable(place: Place) -> None:
    place.user.write_text(
        """
[store]
url = "sqlite:////var/lib/x.db"
budget = "redis://me:${REDIS_PASSWORD}@10.0.0.5:6379/2"
ledger = "postgresql://me:secret@db.example/leastwise"
""",
        encoding="utf-8",
    )

    config = place.load({"REDIS_PASSWORD": "p@ss/word"})

    assert "redis://me:p%40ss%2Fword@10.0.0.5:6379/2" == config.store.budget_url
    assert "postgresql://me:secret@db.example/leastwise" == config.store.ledger_url
    assert "" == config.store.path
    shown = {one.key: one.text for one in settings(config)}
    assert '"redis://***@10.0.0.5:6379/2"' == shown["store.budget"]
    assert '"postgresql://***@db.example/leastwise"' == shown["store.ledger"]
    assert (
        "LEASTWISE_STORE_BUDGET"
        == place.load({"LEASTWISE_STORE_BUDGET": "unix:///run/redis.sock", "REDIS_PASSWORD": "x"}).origins[
            "store.budget"
        ]
    )


def test_a_variable_of_an_address_that_is_not_set_is_named(place: Place) -> None:
    assert ["store.cache: the variable REDIS_PASSWORD is not set"] == place.wrong(
        '[store]\ncache = "rediss://:${REDIS_PASSWORD}@host/0"\n'
    )


@pytest.mark.parametrize(
    ("store", "cache"),
    [
        ({}, "sqlite:///{home}/.local/state/leastwise/leastwise-cache.db"),
        ({"store.url": ":memory:"}, ":memory:"),
        ({"store.url": "sqlite:////var/x.db"}, "sqlite:////var/x-cache.db"),
        ({"store.url": "postgresql://host/db"}, "sqlite:///{home}/.cache/leastwise/leastwise-cache.db"),
        ({"store.cache": "redis://host"}, "redis://host"),
        ({"store.cache": ":memory:"}, ":memory:"),
    ],
)
def test_the_cache_lies_beside_the_ledger(place: Place, store: dict[str, object], cache: str) -> None:
    assert (
        cache.format(home=place.home)
        == load(None, {"HOME": str(place.home)}, cwd=place.cwd, arguments=store).cache_url
    )


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("store.cache", "redis://"),
        ("store.cache", "redis://host/name"),
        ("store.cache", "redis://host:99999/0"),
        ("store.cache", "unix://run/redis.sock"),
        ("store.cache", "postgresql://host/db"),
        ("store.ledger", "redis://host/0"),
        ("store.url", ""),
    ],
)
def test_addresses_that_cannot_be_asked_are_refused(place: Place, key: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"argument: {key} = "):
        load(None, {}, cwd=place.cwd, arguments={key: url})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://hooks.slack.com/services/T0/B0/secret", "https://hooks.slack.com/***"),
        ("http://me:secret@host:80/x?token=y", "http://host:80/***"),
        ("nonsense", "***"),
    ],
)
def test_of_a_webhook_only_the_host_is_shown(address: str, expected: str) -> None:
    assert expected == host_only(address)


def test_the_webhook_is_nowhere_shown(place: Place) -> None:
    config = place.load({"LEASTWISE_NOTIFY_WEBHOOK": "https://hooks.example/services/secret"})

    assert '"https://hooks.example/***"' == {one.key: one.text for one in settings(config)}["notify.webhook"]
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////var/x.db", "/var/x.db"),
        (":memory:", ":memory:"),
        ("redis://:pa/ss@host/0", "redis://***@host/0"),
        ("postgresql://host/db?password=secret", "postgresql://host/db?password=***"),
    ],
)
def test_a_place_is_shown_without_its_password(url: str, expected: str) -> None:
    assert expected == shown_place(url)
