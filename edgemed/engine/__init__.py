"""The only room that imports tensorrt and tensorrt_rtx: one bridge, graph to plan, plans kept on the board."""
