"""Who asks: tokens, the keys that they are signed with, and how often a client may ask."""
