"""Models at the bedside: their versions, who may run, and whether they answer rightly."""
