"""Becomes another program, which is killed when the process that started it ends.

    python -m mu.engines.local.tied PID PROGRAM ARGUMENT...

PID is the process that starts it.
"""

import os
import sys

from mu.engines.local.kernel import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
