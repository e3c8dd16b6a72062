"""The first file the launcher's interpreter reads: `python -I -S .../sysbox/_main.py LAUNCHER ARGS`.

A script is compiled anew at each start, so there is as little here as possible.
"""

import gc
import sys

# a command ends before its garbage would matter, and looking for it costs a tenth of the imports
gc.disable()

sys.path.append(__file__.rpartition("/")[0].rpartition("/")[0])

from sysbox.cli.dispatch import start  # noqa: E402 (the path comes first)

start(sys.argv[1], sys.argv[2:])
