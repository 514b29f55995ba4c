"""The table of figures in `benchmarks/README.md`, made from the results that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from benchmarks.measure import RESULTS, Figure

_PAGE: Final = RESULTS.parent / "README.md"
_OPENS, _CLOSES = "<!-- figures -->\n", "<!-- end of figures -->"


def refresh() -> Path:
    """Write the table anew and return the page."""
    lines = ["| result | what | promised | measured | |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        link = f"[{record['name']}](results/{record['name']}.md)"
        for one in record["figures"]:
            figure = Figure(**one)
            cells = (link, figure.what, figure.promise, figure.measured, figure.verdict)
            lines.append(f"| {' | '.join(cells)} |")
        if not record["figures"]:
            lines.append(f"| {link} | {record['title']} | - | see there | - |")
    page = _PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_OPENS)
    _, _, after = rest.partition(_CLOSES)
    table = "\n".join(lines)
    _PAGE.write_text(f"{before}{_OPENS}\n{table}\n\n{_CLOSES}{after}", encoding="utf-8")
    return _PAGE
