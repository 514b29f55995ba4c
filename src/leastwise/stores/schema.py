"""The tables of ledger and budgets, as migrations: number n brings a database from schema n to n + 1.

They are only ever appended to. Charges have no index by budget: three more writes for each paid call would
serve what is read seldom and, ids sorting by time, found by a range of ids.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final = (
    """
CREATE TABLE exchange (
  id TEXT PRIMARY KEY, at REAL NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, session TEXT NOT NULL,
  tag TEXT NOT NULL, kind TEXT NOT NULL, mode TEXT NOT NULL, asked TEXT NOT NULL, served TEXT NOT NULL,
  tier TEXT NOT NULL, upstream TEXT NOT NULL, would TEXT NOT NULL, result TEXT NOT NULL,
  status INTEGER NOT NULL,
  decision_json TEXT NOT NULL, policy_hash TEXT NOT NULL, baseline TEXT NOT NULL, baseline_how TEXT NOT NULL,
  baseline_nusd INTEGER NOT NULL, spent_nusd INTEGER NOT NULL, discarded_nusd INTEGER NOT NULL,
  saved_nusd INTEGER NOT NULL, could_nusd INTEGER NOT NULL, arm TEXT NOT NULL, complexity TEXT NOT NULL,
  task_type TEXT NOT NULL, certainty TEXT NOT NULL, latency_s REAL NOT NULL,
  fault TEXT NOT NULL, misfit TEXT NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX exchange_at ON exchange (at);
CREATE TABLE entry (
  id TEXT PRIMARY KEY, exchange_id TEXT NOT NULL, parent TEXT NOT NULL, purpose TEXT NOT NULL,
  provider TEXT NOT NULL, model TEXT NOT NULL, asked_at REAL NOT NULL, status INTEGER NOT NULL,
  input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, cache_read_input_tokens INTEGER NOT NULL,
  cache_write_5m_tokens INTEGER NOT NULL, cache_write_1h_tokens INTEGER NOT NULL,
  thinking_tokens INTEGER NOT NULL, web_search_requests INTEGER NOT NULL, service_tier TEXT NOT NULL,
  speed TEXT NOT NULL, inference_geo TEXT NOT NULL, price_row TEXT NOT NULL, cost_nusd INTEGER NOT NULL,
  worst_nusd INTEGER NOT NULL, certainty TEXT NOT NULL, message_id TEXT NOT NULL, request_id TEXT NOT NULL)
  WITHOUT ROWID;
CREATE INDEX entry_exchange ON entry (exchange_id);
CREATE INDEX entry_message ON entry (message_id) WHERE message_id <> '';
CREATE INDEX entry_request ON entry (request_id) WHERE request_id <> '';
CREATE TABLE charge (
  entry_id TEXT NOT NULL, budget_id TEXT NOT NULL, window_key TEXT NOT NULL, nusd INTEGER NOT NULL,
  PRIMARY KEY (entry_id, budget_id, window_key)) WITHOUT ROWID;
CREATE INDEX charge_window ON charge (budget_id, window_key);
CREATE TABLE hourly (
  hour INTEGER NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, tag TEXT NOT NULL, mode TEXT NOT NULL,
  asked TEXT NOT NULL, served TEXT NOT NULL, tier TEXT NOT NULL, result TEXT NOT NULL,
  calls INTEGER NOT NULL, moved INTEGER NOT NULL, could_move INTEGER NOT NULL, failed INTEGER NOT NULL,
  estimated INTEGER NOT NULL, faults INTEGER NOT NULL,
  spent_nusd INTEGER NOT NULL, baseline_nusd INTEGER NOT NULL,
  saved_nusd INTEGER NOT NULL, could_nusd INTEGER NOT NULL, discarded_nusd INTEGER NOT NULL,
  assumed_nusd INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  PRIMARY KEY (hour, tenant, key, tag, mode, asked, served, tier, result)) WITHOUT ROWID;
CREATE INDEX hourly_tag ON hourly (tag, hour);
CREATE TABLE pin (tool_use_id TEXT PRIMARY KEY, model TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX pin_at ON pin (at);
CREATE TABLE ratio (tokenizer TEXT PRIMARY KEY, estimated INTEGER NOT NULL, actual INTEGER NOT NULL)
""",
    """
CREATE TABLE warmth (
  tenant TEXT NOT NULL, session TEXT NOT NULL, model TEXT NOT NULL, at REAL NOT NULL,
  prefix_tokens INTEGER NOT NULL, hour_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  turns INTEGER NOT NULL,
  PRIMARY KEY (tenant, session, model)) WITHOUT ROWID;
CREATE INDEX warmth_at ON warmth (at);
ALTER TABLE exchange ADD COLUMN misfit_field TEXT NOT NULL DEFAULT '';
ALTER TABLE exchange ADD COLUMN lost_cache_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN lost_cache_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE exchange ADD COLUMN checks_nusd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN checks_nusd INTEGER NOT NULL DEFAULT 0;
CREATE TABLE opinion (ask_key TEXT PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX opinion_at ON opinion (at)
""",
    """
CREATE TABLE account (
  account TEXT NOT NULL, window_key TEXT NOT NULL,
  spent_nusd INTEGER NOT NULL, leased_nusd INTEGER NOT NULL, calls INTEGER NOT NULL,
  PRIMARY KEY (account, window_key)) WITHOUT ROWID;
CREATE INDEX account_window ON account (window_key);
CREATE TABLE lease (
  id TEXT PRIMARY KEY, exchange_id TEXT NOT NULL, purpose TEXT NOT NULL, provider TEXT NOT NULL,
  model TEXT NOT NULL, at REAL NOT NULL, worst_nusd INTEGER NOT NULL, charges_json TEXT NOT NULL,
  owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE owner (id TEXT PRIMARY KEY, beat REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE notice (
  account TEXT NOT NULL, window_key TEXT NOT NULL, what TEXT NOT NULL,
  PRIMARY KEY (account, window_key, what)) WITHOUT ROWID;
CREATE TABLE raised (
  budget TEXT NOT NULL, nusd INTEGER NOT NULL, until REAL NOT NULL, why TEXT NOT NULL, who TEXT NOT NULL,
  at REAL NOT NULL);
CREATE TABLE step_down (
  at REAL NOT NULL, exchange_id TEXT NOT NULL, account TEXT NOT NULL, window_key TEXT NOT NULL,
  before TEXT NOT NULL, after TEXT NOT NULL, percent REAL NOT NULL, trigger TEXT NOT NULL);
CREATE INDEX step_down_at ON step_down (at);
CREATE INDEX entry_lost ON entry (asked_at) WHERE certainty = 'lost';
DROP INDEX charge_window;
ALTER TABLE exchange ADD COLUMN cache TEXT NOT NULL DEFAULT '';
ALTER TABLE hourly ADD COLUMN cache_hits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN cache_misses INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN cache_nusd INTEGER NOT NULL DEFAULT 0
""",
    """
ALTER TABLE exchange ADD COLUMN checked TEXT NOT NULL DEFAULT '';
ALTER TABLE exchange ADD COLUMN escalations INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN checked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hourly ADD COLUMN escalated INTEGER NOT NULL DEFAULT 0;
CREATE TABLE verdict (
  exchange_id TEXT NOT NULL, place INTEGER NOT NULL, checks TEXT NOT NULL, accepted INTEGER,
  "check" TEXT NOT NULL, says TEXT NOT NULL, words TEXT NOT NULL, score REAL, probability REAL,
  cost_nusd INTEGER NOT NULL, blames INTEGER NOT NULL, is_self INTEGER NOT NULL, tier TEXT NOT NULL,
  is_control INTEGER NOT NULL, stamp TEXT NOT NULL,
  PRIMARY KEY (exchange_id, place)) WITHOUT ROWID;
CREATE INDEX verdict_control ON verdict (is_control, stamp, says) WHERE is_control = 1;
CREATE TABLE rung (
  checks TEXT NOT NULL, task_type TEXT NOT NULL, tier TEXT NOT NULL,
  at REAL NOT NULL, halved_at REAL NOT NULL DEFAULT 0,
  checked INTEGER NOT NULL, accepted INTEGER NOT NULL, answers_nusd INTEGER NOT NULL,
  checks_nusd INTEGER NOT NULL, output_tokens INTEGER NOT NULL, after_tokens INTEGER NOT NULL,
  PRIMARY KEY (checks, task_type, tier)) WITHOUT ROWID;
CREATE TABLE floor (
  tenant TEXT NOT NULL, session TEXT NOT NULL, tier TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (tenant, session)) WITHOUT ROWID;
CREATE INDEX floor_at ON floor (at);
CREATE TABLE feedback (
  exchange_id TEXT NOT NULL, ok INTEGER NOT NULL, source TEXT NOT NULL, at REAL NOT NULL,
  tier TEXT NOT NULL, note TEXT NOT NULL,
  PRIMARY KEY (exchange_id, tier, source)) WITHOUT ROWID;
CREATE TABLE calibration (
  stamp TEXT NOT NULL, task_type TEXT NOT NULL, at REAL NOT NULL, value_json TEXT NOT NULL,
  PRIMARY KEY (stamp, task_type)) WITHOUT ROWID;
CREATE TABLE trial (
  tag TEXT NOT NULL, tier TEXT NOT NULL, against TEXT NOT NULL, compared TEXT NOT NULL, n INTEGER NOT NULL,
  agreed INTEGER NOT NULL, cost_nusd INTEGER NOT NULL, at REAL NOT NULL, model TEXT NOT NULL);
CREATE TABLE open_trial (
  id TEXT PRIMARY KEY, tag TEXT NOT NULL, tier TEXT NOT NULL, model TEXT NOT NULL, compare TEXT NOT NULL,
  judge TEXT NOT NULL, wanted INTEGER NOT NULL, limit_nusd INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE trial_pairs (
  trial_id TEXT NOT NULL, how TEXT NOT NULL, against TEXT NOT NULL, n INTEGER NOT NULL,
  agreed INTEGER NOT NULL, spent_nusd INTEGER NOT NULL, measure_nusd INTEGER NOT NULL,
  tier_nusd INTEGER NOT NULL,
  PRIMARY KEY (trial_id, how, against)) WITHOUT ROWID
""",
)
