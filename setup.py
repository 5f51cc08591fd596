"""Compiles the core with mypyc if MU_COMPILED is set. All else is in setup.cfg."""

import os

from setuptools import setup

CORE = (
    *("mu/wire.py", "mu/machine.py", "mu/outbox.py", "mu/session.py"),
    "mu/journal/allowance.py",
)

if os.environ.get("MU_COMPILED"):
    from mypyc.build import mypycify

    level = os.environ.get("MYPYC_OPT_LEVEL", "3")  # as mypyc has it
    setup(ext_modules=mypycify(["--config-file=", *CORE], opt_level=level, debug_level="0"))
else:
    setup()
