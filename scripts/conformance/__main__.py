"""Write the page."""

from __future__ import annotations

from scripts.conformance.page import PAGE, text

if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parent.parent))
