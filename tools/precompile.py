"""Usage: precompile.py FILE [DIRECTORY]

Compile the package that is in DIRECTORY (this checkout) into one file; sysbox/precompiled.py says what for.
"""

from __future__ import annotations

import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path


def main(target: Path, parent: Path) -> None:
    """Write the file; it is there whole or not at all."""
    index, codes, begin = {}, [], 0
    for path in sorted(parent.glob("sysbox/**/*.py")):
        source = path.relative_to(parent)
        name = ".".join(source.with_suffix("").parts).removesuffix(".__init__")
        # a traceback finds the source by sys.path; nobody reads a docstring at run time
        code = compile(path.read_bytes(), str(source), "exec", dont_inherit=True, optimize=2)
        data = marshal.dumps(code)
        index[name] = (begin, len(data), str(source))
        codes.append(data)
        begin += len(data)
    head = marshal.dumps((MAGIC_NUMBER, index))
    made = target.with_suffix(f".{os.getpid()}")
    made.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(codes))
    made.replace(target)


if __name__ == "__main__":
    checkout = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else checkout)
