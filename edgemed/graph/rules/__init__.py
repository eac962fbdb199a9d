"""The rules that `edgemed.graph.lint` holds a Q/DQ graph to, grouped by what they look at."""
