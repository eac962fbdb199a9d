"""STOW-RS: images over HTTP, as durable as over C-STORE (PS3.18 section 10.5)."""
