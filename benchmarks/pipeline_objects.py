"""The converter's side of the rows `pipeline` with its objects, see `pipeline_converter`."""

from __future__ import annotations

import uvloop
from pipeline_converter import main

if __name__ == "__main__":
    uvloop.run(main("--objects"))
