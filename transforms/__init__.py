"""The stages of the graph, one per file: a pure function of a block, and its DoFn. Knows no command line."""

import os

# Arrow's own pool keeps freed memory, some 30 MB in a merge. The choice is read once, when pyarrow is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
