"""The public API: each module is a use case and its route."""
