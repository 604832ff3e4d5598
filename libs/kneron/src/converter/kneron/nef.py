"""The nef stage of the vendor's toolchain: compiles a quantised model, and believes only what the file itself says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from converter.common.conversion import Conversion, ConversionRefused, ConversionTask, Progress
from converter.contracts.quantization import arguments
from converter.kneron import nef_file, release
from converter.kneron.run import Result
from converter.kneron.session import NEF_MEDIA_TYPE, Session
from converter.toolchain.reporting import file_record

_NEF = "compiled.nef"


def convert(task: ConversionTask, progress: Progress) -> Conversion:
    """Makes `<model>.kdp<chip>.nef` of the bie stage's artifact.

    Raises:
        ConversionRefused: `bie_incompatible`, `artifact_invalid`, or what the toolchain failed with.
        MemoryError: the toolchain was killed for want of memory.
    """
    session = Session(task, progress)
    source = task.inputs["bie"]
    session.ask("release", at=0.0, until=0.05)
    release.check_compilable(task.made_by, session.version)
    bie = f"input.kdp{task.platform}.scaled.bie"
    shutil.copyfile(source, session.directory / bie)
    result = session.ask(
        "compile",
        at=0.05,
        until=0.9,
        bie=bie,
        nef=_NEF,
        id=task.model_id,
        version=task.version.lower(),
        platform=task.platform,
        compile=arguments(task.options.quantization, "compile"),
    )
    with session.steps.step("verify", at=0.9, code="artifact_invalid", activity="verifying the compiled model"):
        nef = _verified(session.made(_NEF), result, task)
        session.steps.say(f"for {nef.platform or nef.chips[0]}, {nef.models_bytes} bytes of models")
    target = session.deliver(_NEF, f".kdp{task.platform}.nef")
    report = {
        "stage": "nef",
        "bie_sha256": file_record(source)["sha256"],
        "result": {**file_record(target), "name": result.nef_name},
        "nef": nef_file.record(nef),
    }
    return session.conversion(target, NEF_MEDIA_TYPE, report)


def _verified(path: Path, result: Result, task: ConversionTask) -> nef_file.Nef:
    """What the compiler made, if it is what was asked for.

    Raises:
        ConversionRefused: `artifact_invalid`.
    """
    named = re.fullmatch(r"models_(\d{3})\.nef", result.nef_name)
    if named and named[1] != task.platform:
        raise ConversionRefused(
            "artifact_invalid", f"the compiler made {result.nef_name}, asked for was chip {task.platform}"
        )
    try:
        nef = nef_file.read(path.read_bytes())
        nef_file.check(nef, platform=task.platform, model_id=task.model_id, version=task.version)
    except nef_file.NefInvalid as invalid:
        raise ConversionRefused(
            "artifact_invalid", f"the compiler's file is not what was asked for: {invalid}"
        ) from invalid
    return nef
