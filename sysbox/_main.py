"""The first file the launcher's interpreter reads: `python -I -S .../sysbox/_main.py LAUNCHER ARGS`.

Python compiles a script anew at each start, so this file does as little as possible.
"""

import gc
import sys

# a command ends before its garbage matters, and collecting costs a tenth of the import time
gc.disable()

parent = __file__.rpartition("/")[0].rpartition("/")[0]
# register the package by hand: the import system would search for it and read its directory
package = sys.modules["sysbox"] = type(sys)("sysbox")
package.__file__ = f"{parent}/sysbox/__init__.py"
package.__path__ = [f"{parent}/sysbox"]
# last: a package beside sysbox must not shadow one of the standard library
sys.path.append(parent)

try:
    from sysbox.base import precompiled

    precompiled.use(parent)
    from sysbox.cli.dispatch import start
except (ImportError, MemoryError, OSError) as error:
    # no module of sysbox is loaded that could print the error
    print(f"sysbox: cannot be loaded: {error}", file=sys.stderr)
    raise SystemExit(125) from None

start(sys.argv[1], sys.argv[2:])
