"""insightv.toml and plugins: settings that are checked, and the roles made from them.

Knows sections, keys and factories; starts no run and asks no model.
Start at `settings.py` (the file), then `roles.py` (the parts) and `plugin_loading.py`.
"""

from insightv.config.plugin_loading import default_registry
from insightv.config.settings import Settings, check_settings, load_settings

__all__ = ["Settings", "check_settings", "default_registry", "load_settings"]
