"""Properties are judged by what holds, not by how fast a shared machine shows it."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
