"""The old name of this package's main module: `python -m mu.engines.local.api` still works."""

from mu.engines.local.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
