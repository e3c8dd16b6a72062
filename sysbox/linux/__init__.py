"""One kernel ABI per file, over the C extension `_sys`: the lowest row of the package."""
