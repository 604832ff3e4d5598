"""The internal face: every client's jobs for the operators and their web page. It authenticates nobody."""
