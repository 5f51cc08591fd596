"""vpxenc, without a network."""

from mu.events import Finish, Send
from mu.parameters import Params, read_fields
from mu.pipelines.vpxenc import vpxenc
from mu.testing import run, talk


def params(**given):
    return Params(read_fields(vpxenc.parameters, given), workers=2)


def test_the_keys_are_the_originals():
    assert vpxenc.plan(params(video="v-y4m_06", offset=3)) == [
        {"in_key": "v-y4m_06/00000003.y4m", "out_key": "v-y4m_06/out/00000003.ivf"},
        {"in_key": "v-y4m_06/00000004.y4m", "out_key": "v-y4m_06/out/00000004.ivf"},
    ]


def test_an_actor_retrieves_its_chunk_encodes_and_uploads():
    given = params(video="a {b}", bucket="b")
    answers = ["OK:HELLO", "OK:SETI(nonblock)", *["OK:SET(x)"] * 3, "OK:RETRIEVE(b/k)"]
    answers += ["OK:RETVAL(0):OUTPUT():COMMAND(x)", "OK:UPLOAD(b/k)"]
    effects = talk(vpxenc.begin, *answers, params=given, given=vpxenc.plan(given)[0])
    assert effects == [
        Send("seti:nonblock:0"),
        Send("set:bucket:b"),
        Send("set:cmdinfile:##TMPDIR##/in.y4m"),
        Send("set:cmdoutfile:##TMPDIR##/out.ivf"),
        Send("retrieve:a {b}/00000000.y4m\0##TMPDIR##/in.y4m"),
        Send("run:"),
        Send("upload:a {b}/out/00000000.ivf\0##TMPDIR##/out.ivf"),
        Send("quit:"),
        Finish(result={"key": "a {b}/out/00000000.ivf"}),
    ]


def test_an_encoder_that_fails_fails_its_actor_with_what_it_printed():
    job = run(vpxenc, {"video": "v"}, {"run:": "OK:RETVAL(1):OUTPUT(no codec):COMMAND(x)"})
    assert "no codec" in job.actors[0].finish.error
    assert job.result == {"keys": []}
