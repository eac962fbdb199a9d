"""Where results go, and whether they got there."""
