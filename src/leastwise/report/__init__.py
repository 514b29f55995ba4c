"""Reports: what was spent and saved, from the ledger or from a file of somebody else's.

`ledger` sums what passed through us, `why` explains one request of it. `usage_csv` reads
the console's usage export, `messages_log` a file of Messages requests; both stream, say
which lines they cannot read, and go on. Each module makes frozen values and turns them
into lines of text of at most 80 columns, or into what `--json` prints; none of them
prints, and none knows a terminal.

Sums saved are *re-priced at list*: nothing here has measured what another model would
have answered, so no sum stands without the word on its quality.
"""
