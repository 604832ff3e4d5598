"""Does once, before any conversion, what libraries put off until their first use.

A conversion is a fork of a process that has imported its converter. What that process has not loaded every fork loads
again: a tenth of a second of a small job, and more where compiled bytecode cannot be written.
"""

from __future__ import annotations

import encodings.cp437  # noqa: F401 - the names of a ZIP's members

import numpy.ma  # numpy.percentile's
import numpy.random  # noqa: F401 - a seeded generator
from PIL import Image

from converter.common import operators
from converter.toolchain import reference

Image.init()  # every decoder: a file that none of the usual ones takes would have a fork import the others
operators.report({}, "720")  # reads its table
reference.libraries()
