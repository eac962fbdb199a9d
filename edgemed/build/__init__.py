"""The build: the stages in order, and the only writer of bundles."""
