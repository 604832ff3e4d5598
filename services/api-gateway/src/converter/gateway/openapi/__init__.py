"""The document of the public API, made from what stands beside each route."""
