"""`leastwise init`: write a configuration file that says of every setting what it does.

Lines that begin with `#` and a letter are settings at their defaults, or examples, to be
uncommented. The ladder is written out, so that an upgrade does not change its models.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from leastwise.cli.config import edited_file
from leastwise.cli.console import ConfigFile, say, say_next
from leastwise.cli.switch import write
from leastwise.config import Upstream, load
from leastwise.errors import ConfigError, UpstreamFailure
from leastwise.ladder import DEFAULT_LADDER, Tier
from leastwise.models import canonical
from leastwise.upstream import HttpUpstream

PATIENCE_S = 5.0

Force = Annotated[bool, Parameter(negative=(), show_default=False, help="Overwrite a file that is there.")]
ToStdout = Annotated[
    bool,
    Parameter(name="--stdout", negative=(), show_default=False, help="Print the file instead of writing it."),
]

_TEMPLATE = """\
# Leastwise. Every line that begins with # and a letter is a setting at its default, or an
# example. Changes take effect within a second. Try them: leastwise config check

schema = 1

# What happens to calls that name a real model. observe: they go where they ask, and the
# ledger notes what could move; enforce: a cheaper tier answers where it should do; off:
# nothing is moved. `auto` is routed but under off, tier names always. `leastwise on` edits this.
mode = "observe"

# Share of those calls that enforce routes; the rest is observed.
#percent = 100

# Models that are routed even while the rest is observed.
#reroute = ["claude-opus-*"]

# Where `auto` goes when nothing tells what the task needs: baseline (what would have been
# called without Leastwise), or a tier.
#unsure = "baseline"

# "reference": the older models, word lists, thresholds and caps of the reference; delete the
# tiers below to take its models as well.
#preset = ""

# A request is adapted to the model it goes to: what that model would refuse is translated or
# left out, and `why` says so. true: where something would be left out, it stays where it is.
#strict = false

# Ask the upstream once a day, beside the calls, which models it has and what they take.
#refresh_models = true

# A model without a price is an error, or with "allow" counted at $0.
#unpriced = "error"

# The share of list prices that is not charged to you, such as 0.15.
#discount = 0

# The ladder, cheap to dear.
{tiers}
# Which tier each complexity goes to.
#[complexity]
#simple = "haiku"
#standard = "sonnet"
#complex = "opus"

# Sizes, in tokens, from which a request or its answer counts as small or large.
#[signals]
#small_input_tokens = 500
#large_input_tokens = 3000
#small_output_tokens = 100
#large_output_tokens = 1000

# Who serves the models. The key itself is never written here.
#[upstream.anthropic]
#base_url = "https://api.anthropic.com"
#api_key_env = "ANTHROPIC_API_KEY"
#kind = "anthropic"

# Where ledger, budgets and cache are kept. Default: leastwise.db in your state directory, the
# cache beside it. A server for one of them: ledger and budget = "postgresql://...", cache and budget =
# "redis://:${{REDIS_PASSWORD}}@host:6379/0", with the password from that variable. durability =
# "power" survives a power cut as well, at a price in speed.
#[store]
#url = "sqlite:////var/lib/leastwise/leastwise.db"
#keep_days = 400
#durability = "process"
#cache = ""
#budget = ""
#ledger = ""

# Example: your own rules, asked first. match looks for whole words in the description or the
# ask; tag, role ("main", "subagent", "background") and header are the other conditions. Choose
# a complexity or a tier.
#[[rule]]
#match = "spam or not"
#complexity = "simple"

# How the type of a task is told where no phrase of ours stands in it: by the learned classifier,
# which says when it is not sure. false: by phrases only. llm_tier: a tier whose model is asked,
# at its price, where nothing else tells; "" asks none.
#[classifier]
#learned = true
#llm_tier = ""

# Example: a type of task of your own, known by five to twenty asks, or descriptions, of that
# kind. It comes before our own types; one named like one of ours (leastwise tune table) changes where
# all of ours go, like its examples or not. Choose a complexity or a tier.
#[[type]]
#name = "return slip"
#complexity = "simple"
#examples = [
#"fill in the return slip for order 4711, the shoes are too small",
#"customer sends the lamp back, write the return slip",
#"return slip please: two mugs, broken on arrival",
#]

# Cheap first, checked, and a dearer tier only where the answer does not pass. checks, in this order:
# those of how an answer ended and of its form are free; "judge" asks a model, at its price. judge: a
# tier or a model, "" for the lowest tier; a model's word on its own answers accepts nothing before
# `leastwise tune calibrate`. threshold: the least of its scores, 1 to 5, that is accepted until then.
# unparsable: where a check cannot tell, "escalate" or "accept". escalate_to: the dearest tier that may
# answer instead. stream: "buffer" holds a checked stream to its end, "commit" lets it go when its first
# words pass, "auto" does either by what the checks need. overloaded: "next" goes to the next tier at a 529.
# controls: how often a planted bad answer is judged, too; probes: how often a cascade that does not pay
# is tried all the same; floor_s: how long a session stays where it escalated to.
#[cascade]
#enabled = false
#checks = ["truncation", "empty", "refusal", "schema", "tools", "judge"]
#judge = ""
#threshold = 3
#unparsable = "escalate"
#escalate_to = ""
#stream = "auto"
#overloaded = "fail"
#controls = 0.01
#probes = 0.02
#floor_s = 600

# Example: a check of your own, for `checks` above or Task(check="tests"): a command that gets the answer
# on stdin and whose exit code decides (from your own file only, never from a working directory's; limited
# in time and memory, not isolated; it runs in folder, without in an empty one of its own), or
# labels = ["yes", "no"], pattern, min_words, max_words, language, schema, or function = "module:name".
#[[check]]
#name = "tests"
#command = "python check_answer.py"
#folder = "/home/me/shop/checks"
#timeout_s = 60
#memory_mb = 4096

# Example: another mode for calls with one tag. `leastwise on --tag` writes this.
#[[switch]]
#tag = "triage"
#mode = "enforce"
#percent = 10

# Example: a budget. scope: what has an account of its own: "session", "key", "tag", "tenant",
# "model" (several: each combination), or "global" for all calls; only = ["alice"] for some of
# them. window: "hour", "day", "week", "month", "total", "session"; rolling = true for the last 30 days
# instead of a calendar month. ceilings: above that share spent, nothing above that tier; critical tasks
# are spared. cap: at the limit "allow_critical" lets critical tasks go on, up to critical_limit_usd
# more, "block" nothing. The reserve lets a tool loop that began before the limit end.
#[[budget]]
#name = "team-a"
#limit_usd = 8000
#scope = ["key"]
#window = "month"
#rolling = false
#tz = "UTC"
#ceilings = [{{above = 0.70, tier = "sonnet"}}, {{above = 0.90, tier = "haiku"}}]
#cap = "allow_critical"
#critical_limit_usd = 8000
#reserve = 0.02
#only = []

# For all budgets: how long a call may wait for others to be settled before it is refused; whether
# a call whose cost has no bound (a document by address, a server tool without max_uses) is
# refused or estimated; whom a refused caller is told to ask.
#[limits]
#lease_wait_s = 10
#unbounded = "refuse"
#contact = ""

# Who is told at 50, 70, 90 and 100 % of a budget, and when its forecast crosses the cap: the log,
# and this address by POST.
#[notify]
#webhook = ""

# Answers kept for identical requests. on: "asked" for Task(cache=True) or the header leastwise-cache,
# "all", or "off"; tags: whose requests look as well. normalise: for classify(), which comes in a later
# version, texts that differ only in Unicode forms and white space are one.
#[cache]
#on = "asked"
#tags = []
#ttl_s = 86400
#max_mb = 512
#normalise = false

# Example: your own price, in dollars per million tokens; a local model costs 0.
#[[price]]
#model = "claude-opus-5-5"
#input = 3.5
#output = 17.5
#since = 2026-11-01
#source = "our contract"
#as_of = 2026-11-01
"""


def init(*, force: Force = False, to_stdout: ToStdout = False, config: ConfigFile = None) -> None:
    """Write a commented configuration file.

    With a key in the environment it asks which models the key may call, and notes it beside
    the tiers.
    """
    available = _available()
    if to_stdout:
        sys.stdout.write(template(available))
        return
    file = edited_file(config)
    if file.exists() and not force:
        message = (
            f"{file} is there already. Overwrite it with --force, or see what it says: leastwise config show"
        )
        raise ConfigError(message)
    write(file, template(available))
    sys.stdout.write(f"{file}\n")
    say_next("leastwise doctor")


def template(available: Collection[str] | None = None) -> str:
    """Return the text of a configuration file that equals the defaults.

    Args:
        available: The models that the account may call; None when nobody could be asked.
    """
    return _TEMPLATE.format(tiers="\n".join(_tier(tier, available) for tier in DEFAULT_LADDER))


def _tier(tier: Tier, available: Collection[str] | None) -> str:
    note = ""
    if available is not None:
        has = canonical(tier.model) in map(canonical, available)
        note = "   # your account has it" if has else "   # NOT among the models of your account"
    return f'[[tier]]\nname = "{tier.name}"\nmodel = "{tier.model}"{note}\nupstream = "{tier.upstream}"\n'


def _available() -> set[str] | None:
    """Return the ids of the account's models; None, having said why, when they cannot be read."""
    # No file: an old one may be wrong, and is about to be replaced.
    upstream = load(Path(os.devnull)).upstreams[DEFAULT_LADDER.top.upstream]
    key = os.environ.get(upstream.api_key_env, "")
    if not key:
        say(f"{upstream.api_key_env} is not set, so your account was not asked which models it has")
        return None
    try:
        return {str(row.get("id")) for row in asyncio.run(list_models(upstream, key))}
    except UpstreamFailure as failure:
        say(f"{upstream.base_url} did not list your models ({reason(failure)}); going on without")
        return None


async def list_models(upstream: Upstream, key: str) -> list[dict[str, Any]]:
    """Return the models that an upstream offers to a key, as it describes them.

    Raises:
        UpstreamFailure: no answer, or an error.
    """
    async with HttpUpstream(upstream.base_url, key, timeout_s=PATIENCE_S) as api:
        return await api.models()


def reason(failure: UpstreamFailure) -> str:
    """Return why an upstream could not be asked, in few words."""
    return str(failure.cause) or type(failure.cause).__name__
