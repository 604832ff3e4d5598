"""What the reference converters share: models, images, accuracy, containers."""

import os

# ONNX Runtime's wheels for Linux write an id below ~/.cache and tell their maker of what they run, unless this is set
# before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
