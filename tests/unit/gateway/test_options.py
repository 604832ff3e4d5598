from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.contracts.job import Options, Preprocess, Stage
from converter.gateway.http.errors import FieldError
from converter.gateway.intake.options import Fields, JobOrder

GOOD = {"user_id": "alice", "platform": "720", "model_id": "32769", "version": "0001"}


def fields(*more: tuple[str, str], **replaced: str) -> Fields:
    form = Fields()
    for name, text in [*(GOOD | replaced).items(), *more]:
        form.add(name, text)
    return form


def order(*more: tuple[str, str], **replaced: str) -> JobOrder:
    made = fields(*more, **replaced).order()
    assert isinstance(made, JobOrder), made
    return made


def problems(*more: tuple[str, str], **replaced: str) -> list[FieldError]:
    made = fields(*more, **replaced).order()
    assert isinstance(made, list)
    return made


def messages(**quantization: object) -> list[str]:
    platform = str(quantization.pop("platform", "730"))
    return [problem.message for problem in problems(platform=platform, quantization=json.dumps(quantization))]


def test_defaults_are_filled_in():
    made = order()
    assert made.options == Options(
        last_stage=Stage.NEF, input_shape={}, preprocess=Preprocess(preset="kneron"), quantization={}
    )
    assert (made.user_id, made.platform, made.model_id, made.version) == ("alice", "720", 32769, "0001")
    assert made.model_sha256 is None
    assert made.warnings == ()


def test_every_missing_field_is_named():
    made = Fields().order()
    assert isinstance(made, list)
    assert {(problem.field, problem.message) for problem in made} == {
        (name, "missing") for name in ("user_id", "platform", "model_id", "version")
    }


def test_all_bad_fields_are_named_at_once():
    found = problems(
        ("surprise", "1"),
        ("targets", "bin"),
        user_id="a b",
        platform="999",
        model_id="0",
        version="00g1",
        preprocess="x",
    )
    assert [problem.field for problem in found] == [
        "user_id",
        "platform",
        "model_id",
        "version",
        "preprocess",
        "surprise",
        "targets",
    ]
    assert all("allowed" in problem.message for problem in found)


def test_a_field_that_has_not_come_is_no_problem_yet():
    form = Fields()
    form.add("user_id", "alice")
    assert form.problems() == []
    assert form.user_id() == "alice"


def test_a_field_sent_twice_is_refused():
    (problem,) = problems(("user_id", "bob"))
    assert problem == FieldError("user_id", "sent 2 times; allowed: once")


@pytest.mark.parametrize("model_id", ["", "0", "65536", "-1", "+5", "1e3", " 7", "٣", "100000000000000000000"])
def test_a_model_id_is_a_number_from_1_to_65535(model_id: str):
    (problem,) = problems(model_id=model_id)
    assert problem.field == "model_id"


@given(st.integers(1, 65535))
def test_every_allowed_model_id_is_taken_and_the_vendors_are_warned_about(model_id: int):
    made = order(model_id=str(model_id))
    assert made.model_id == model_id
    assert bool(made.warnings) == (model_id <= 32767)


@given(st.text(max_size=200))
def test_a_user_id_is_taken_only_in_its_alphabet(user_id: str):
    alphabet = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    made = fields(user_id=user_id).order()
    assert isinstance(made, JobOrder) == (1 <= len(user_id) <= 128 and set(user_id) <= alphabet)


def test_input_shapes_are_read_by_name():
    made = order(("input_shape", "input:0:1,3,224,224"), ("input_shape", "mask:1, 10"))
    assert made.options.input_shape == {"input:0": (1, 3, 224, 224), "mask": (1, 10)}


def test_a_single_shape_needs_no_name():
    assert order(("input_shape", "1,3,8,8")).options.input_shape == {"": (1, 3, 8, 8)}


@pytest.mark.parametrize(
    "shape", ["", "x:", "x:0,3", "x:1,-3", "x:1;3", "x:1,3.5", "x:" + "1," * 8 + "1", "x:99999999999"]
)
def test_a_bad_shape_is_refused(shape: str):
    (problem,) = problems(("input_shape", shape))
    assert problem.field == "input_shape"


def test_shapes_for_one_input_or_without_a_name_among_several_are_refused():
    assert problems(("input_shape", "x:1,2"), ("input_shape", "x:1,3"))
    assert problems(("input_shape", "1,2"), ("input_shape", "x:1,3"))


@pytest.mark.parametrize("preset", ["kneron", "tensorflow", "yolo", "pytorch", "caffe", "none"])
def test_a_preset_is_taken(preset: str):
    assert order(("preprocess", preset)).options.preprocess.preset == preset


def test_mean_and_scale_are_one_number_or_one_for_each_channel():
    made = order(("preprocess", '{"mean": [1, 2.5, 3], "scale": 255, "channel_order": "bgr"}'))
    assert made.options.preprocess == Preprocess(mean=(1.0, 2.5, 3.0), scale=(255.0,), channel_order="bgr")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{",
        '{"mean": "1"}',
        '{"mean": true}',
        '{"mean": []}',
        '{"mean": [1, null]}',
        '{"scale": 0}',
        '{"scale": [1, 0, 1]}',
        '{"mean": NaN}',
        '{"mean": 1e999}',
        '{"mean": [1, 2], "scale": [1, 2, 3]}',
        '{"channel_order": "xyz"}',
        '{"mean": 1, "mean": 2}',
        '{"preset": "yolo"}',
    ],
)
def test_bad_mean_and_scale_are_refused(text: str):
    (problem,) = problems(("preprocess", text))
    assert problem.field == "preprocess"


def test_valid_quantization_is_kept_as_it_was_given():
    given_keywords = {
        "mode": 3,
        "datapath_range_method": "mmse",
        "percentile": 0.01,
        "outlier_factor": 1.2,
        "datapath_bitwidth_mode": "mixbw",
        "weight_bitwidth_mode": "mixbw",
        "flops_ratio": 0.3,
        "min_snr_db": 20,
        "optimize": 2,
        "quan_config": {"Conv_1": "int16"},
    }
    made = order(("quantization", json.dumps(given_keywords)), platform="730")
    assert made.options.quantization == given_keywords


def test_every_bad_keyword_and_value_is_named():
    found = messages(mode=0, quantise_mode="default", percentage=0.5, optimize="1")
    assert len(found) == 4
    assert any(message.startswith('unknown key "quantise_mode"') for message in found)
    assert any(message.startswith("mode: found 0;") for message in found)


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_number_of_another_type_is_no_mode(value: object):
    assert messages(mode=value)


@pytest.mark.parametrize(
    ("datapath", "weight", "allowed"),
    [
        ("mixbw", "int16", True),
        ("int16", "mixbw", True),
        ("mixbw", "mixbw", True),
        ("mixbw", "int8", False),
        ("int8", "mixbw", False),
        ("mixbw", None, False),
        (None, "mixbw", False),
        ("mix light", "mix balance", True),
    ],
)
def test_mixbw_goes_only_with_its_partners(datapath: str | None, weight: str | None, *, allowed: bool):
    keywords = {"datapath_bitwidth_mode": datapath, "weight_bitwidth_mode": weight}
    text = json.dumps({key: value for key, value in keywords.items() if value})
    assert isinstance(fields(platform="730", quantization=text).order(), JobOrder) == allowed


def test_520_has_no_int16_and_720_no_int4():
    assert messages(platform="520", datapath_bitwidth_mode="int16") == [
        'datapath_bitwidth_mode: found "int16", which platform 520 does not have'
    ]
    assert messages(platform="720", weight_bitwidth_mode="int4") == [
        'weight_bitwidth_mode: found "int4", which platform 720 does not have'
    ]
    assert order(("quantization", '{"weight_bitwidth_mode": "int4"}'), platform="530")


def test_keywords_that_need_another_are_refused_without_it():
    assert messages(flops_ratio=0.2)
    assert messages(percentile=0.1)
    assert messages(percentage=1.0, percentage_16b=0.999)
    assert messages(platform="720", quan_config={})


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.integers())))
def test_no_json_object_gets_past_the_table_or_breaks_it(value: dict[str, object]):
    made = fields(quantization=json.dumps(value)).order()
    assert isinstance(made, list) or not value


@given(st.text())
def test_no_text_breaks_a_reader(text: str):
    for name in ("platform", "model_id", "version", "input_shape", "preprocess", "quantization", "targets", "other"):
        form = Fields()
        form.add(name, text)
        form.problems()
