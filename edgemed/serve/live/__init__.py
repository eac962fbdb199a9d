"""Live sources: every frame in the account, the newest answer on the board, and its age beside it."""
