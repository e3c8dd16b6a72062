"""The first file the launcher's interpreter reads: `python -I -S .../sysbox/_main.py LAUNCHER ARGS`.

Python compiles a script anew at each start, so this file does as little as possible.
"""

import gc
import sys

# a command ends before its garbage matters, and collecting costs a tenth of the import time
gc.disable()

parent = __file__.rpartition("/")[0].rpartition("/")[0]
# register two packages by hand: the import system would search for them and read their directories
for name in ("sysbox", "sysbox.base"):
    package = sys.modules[name] = type(sys)(name)
    directory = f"{parent}/{name.replace('.', '/')}"
    package.__file__ = f"{directory}/__init__.py"
    package.__path__ = [directory]
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
