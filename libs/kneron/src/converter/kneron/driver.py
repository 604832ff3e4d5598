"""Runs under the vendor's Python and calls the vendor's toolchain; nothing else of this project does.

    PYTHON driver.py      in a directory of the job's own, which holds the files that the request names

The first line on standard input is the request, a JSON object. Each line on standard output is a JSON object with one
key: `progress` ([fraction, activity]), and at the end `result` (an object) or `failed` ({step, error}). Everything that
the toolchain prints goes to standard error. When standard input ends, whoever asked is gone, and this process leaves:
a container would otherwise outlive its client.

The syntax is Python 3.7's, which the image's older environments have. Nothing of `converter` can be imported here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict

JOB = Path.cwd()
VERSION = re.compile(r"\d+\.\d+(\.\d+)?")
REPORT = "model_fx_report.html"
LEAVE_S = 5.0


def main() -> None:
    """Serve one request. The status is 0 whenever an answer was given."""
    words = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the toolchain prints, from Python or C, is no word of ours
    request = _request()
    answered = threading.Event()
    threading.Thread(target=_leave_with_the_client, args=(answered,), daemon=True).start()

    def say(**word: Any) -> None:
        words.write(json.dumps(word) + "\n")
        words.flush()

    step = request["step"]
    try:
        result = STEPS[step](request, lambda fraction, activity: say(progress=[fraction, activity]))
        answer = {"result": dict(result, version=version(request["home"]))}
    except BaseException as error:  # noqa: BLE001 - also what calls sys.exit, as programs do
        traceback.print_exc()
        answer = {"failed": {"step": step, "error": _brief(error)}}
    _give_back()
    sys.stdout.flush()
    answered.set()
    say(**answer)


def _request() -> Any:
    received = b""
    while not received.endswith(b"\n"):
        chunk = os.read(0, 1 << 16)
        if not chunk:
            raise EOFError("no request")
        received += chunk
    return json.loads(received.decode())


def _leave_with_the_client(answered: threading.Event) -> None:
    while os.read(0, 1 << 16):
        pass
    if answered.is_set():
        time.sleep(LEAVE_S)  # the toolchain's libraries have their last lines to write, and could hang
    os._exit(0 if answered.is_set() else 1)


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def version(home: str) -> str:
    """The release that stands in `home`; empty where none does."""
    try:
        text = Path(home, "version.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = VERSION.search(text[:4096])
    return found.group() if found else ""


def _give_back() -> None:
    """Files that a container's root made belong to the job directory's owner, who has to read and delete them."""
    owner = JOB.stat()
    if os.getuid() != 0 or owner.st_uid == 0:
        return
    with contextlib.suppress(OSError):  # what is made can be read in any case
        for made in JOB.rglob("*"):
            os.chown(str(made), owner.st_uid, owner.st_gid, follow_symlinks=False)


def _directory(name: str) -> Path:
    path = JOB / name
    path.mkdir(exist_ok=True)
    return path


def _collect(made: Any, name: str) -> str:
    """Copy the file that the toolchain says it made to `name` in the job's directory; returns its own name."""
    os.chdir(str(JOB))  # the toolchain changes it
    if not isinstance(made, str) or not Path(made).is_file():
        raise RuntimeError(f"the toolchain returned no file: {made!r}"[:300])
    shutil.copyfile(made, str(JOB / name))
    return Path(made).name


def release(_request: Any, _progress: Any) -> Dict[str, Any]:
    """Prove that the toolchain can be imported."""
    importlib.import_module("ktc")
    return {}


def optimise(request: Any, progress: Any) -> Dict[str, Any]:
    """`model` becomes `optimised`."""
    onnx, optimiser = importlib.import_module("onnx"), importlib.import_module("kneronnxopt")
    progress(0.1, "optimising")
    optimised = optimiser.optimize(onnx.load(str(JOB / request["model"])))
    (JOB / request["optimised"]).write_bytes(optimised.SerializeToString())
    return {}


def analyse(request: Any, progress: Any) -> Dict[str, Any]:
    """`model` becomes `bie`, calibrated with `inputs`: {name: [.npy file, ...]}; both models are then tried."""
    ktc, numpy = importlib.import_module("ktc"), importlib.import_module("numpy")
    model = _model_config(ktc, request, onnx_path=str(JOB / request["model"]))
    progress(0.05, "estimating the speed")
    evaluation = str(model.evaluate(output_dir=str(_directory("evaluation")), **request["evaluate"]))
    progress(0.15, "quantising")
    mapping = {name: [numpy.load(str(JOB / file)) for file in files] for name, files in request["inputs"].items()}
    flow = _directory("analysis")
    made = model.analysis(mapping, output_dir=str(flow), threads=request["threads"], **request["analysis"])
    del mapping
    result = {"evaluation": evaluation, "bie_name": _collect(made, request["bie"])}
    if (flow / REPORT).is_file():
        _collect(str(flow / REPORT), REPORT)
    progress(0.8, "comparing both models")
    try:
        _compare(ktc, numpy, request)
    except Exception as error:  # noqa: BLE001 - the model is made; that it could not be tried is a finding, not a failure
        traceback.print_exc()
        result["not_compared"] = _brief(error)
    return result


def _compare(ktc: Any, numpy: Any, request: Any) -> None:
    """Run the float and the fixed-point model on each of `samples`, the files of one run's inputs in order.

    The outputs become files: outputs/<sample>.<float or fixed>.<output>.npy.
    """
    directory = _directory("outputs")
    sources = {"float": {"onnx_file": str(JOB / request["model"])}, "fixed": {"bie_file": str(JOB / request["bie"])}}
    for number, files in enumerate(request["samples"]):
        for kind, source in sources.items():
            arrays = [numpy.load(str(JOB / file)) for file in files]
            answers = ktc.kneron_inference(
                arrays, input_names=request["input_names"], platform=int(request["platform"]), **source
            )
            for index, answer in enumerate(answers):
                path = directory / f"{number}.{kind}.{index}.npy"
                numpy.save(str(path), numpy.asarray(answer, dtype=numpy.float32), allow_pickle=False)


def compile_model(request: Any, progress: Any) -> Dict[str, Any]:
    """`bie` becomes `nef`."""
    ktc = importlib.import_module("ktc")
    progress(0.05, "compiling")
    model = _model_config(ktc, request, bie_path=str(JOB / request["bie"]))
    made = ktc.compile([model], output_dir=str(_directory("compilation")), **request["compile"])
    return {"nef_name": _collect(made, request["nef"])}


def _model_config(ktc: Any, request: Any, **source: str) -> Any:
    return ktc.ModelConfig(id=request["id"], version=request["version"], platform=request["platform"], **source)


STEPS: Dict[str, Callable[[Any, Any], Dict[str, Any]]] = {
    "release": release,
    "optimise": optimise,
    "analyse": analyse,
    "compile": compile_model,
}

if __name__ == "__main__":
    main()
