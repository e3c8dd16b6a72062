"""The first file the launcher's interpreter reads: `python -I -S .../sysbox/_main.py LAUNCHER ARGS`.

A script is compiled anew at each start, so there is as little here as possible.
"""

import gc
import sys

# a command ends before its garbage would matter, and looking for it costs a tenth of the imports
gc.disable()

parent = __file__.rpartition("/")[0].rpartition("/")[0]
# the package without looking for it: not even its directory is read
package = sys.modules["sysbox"] = type(sys)("sysbox")
package.__file__ = f"{parent}/sysbox/__init__.py"
package.__path__ = [f"{parent}/sysbox"]
# behind: none of a package beside ours may take the place of the standard library's
sys.path.append(parent)

try:
    from sysbox.base import precompiled

    precompiled.use(parent)
    from sysbox.cli.dispatch import start
except (ImportError, MemoryError, OSError) as error:
    # nothing of ours is there to say it
    print(f"sysbox: cannot be loaded: {error}", file=sys.stderr)
    raise SystemExit(125) from None

start(sys.argv[1], sys.argv[2:])
