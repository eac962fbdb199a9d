"""The page that the daemon serves: whole without JavaScript, alive with it."""

from edgemed.serve.http.page.routes import include_page

__all__ = ["include_page"]
