"""The adapter to the vendor's toolchain (`TOOLCHAIN=kneron`). docs/toolchains.md says what is known of it and how.

    converter (onnx, bie, nef)     in the stage's jail: checks before and after, files, report
        `deployment`, `run`        start the vendor's Python, here or in its image, and listen to it
            `driver`               under the vendor's Python: calls ktc and kneronnxopt; imports nothing of ours

`limits` refuses what the toolchain is known not to take, `known_failures` reads its log, `evaluation` its reports,
`nef` what it made, `release` its version.
"""
