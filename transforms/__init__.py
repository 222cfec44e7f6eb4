"""The stages of the graph, a file each: a pure function of a block, and the DoFn around it. Knows no command line."""
