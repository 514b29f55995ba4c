"""Reading a table of outcomes from parquet; comes with the extra `parquet`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from leastwise.errors import LogError


def read_columns(path: Path, is_read: Callable[[str], bool]) -> Mapping[str, list[Any]]:
    """Return the columns whose name `is_read`, by name.

    Raises:
        LogError: it is no parquet file.
        OSError: it cannot be opened.
    """
    try:
        with path.open("rb") as source:
            file = parquet.ParquetFile(source)
            names = [name for name in file.schema_arrow.names if is_read(name)]
            found: Mapping[str, list[Any]] = file.read(columns=names).to_pydict()
            return found
    except pa.ArrowException as error:
        message = f"{path}: no parquet file, or a damaged one: {error}"
        raise LogError(message) from None
