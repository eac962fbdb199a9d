"""`bedside.toml`: what a site writes about its peers, its models and where results go.

Everything is denied that is not named. Each module has the sections of one subject.
"""

from edgemed.serve.config.bedside import Config, load_config

__all__ = ["Config", "load_config"]
