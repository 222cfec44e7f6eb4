"""The stages of the graph, a file each: a pure function of a block, and the DoFn around it. Knows no command line."""

import os

# Arrow's own pool keeps what is freed, some 30 MB in a merge. It asks once, when pyarrow is imported: now or never.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
