"""Readers: files become pixel arrays. Headers are never trusted: limits come before allocation."""
