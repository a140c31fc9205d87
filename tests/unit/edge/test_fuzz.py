"""Coverage-guided fuzzing, briefly; `python -m tests.edge.fuzz` runs longer."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edge.compile import PROTOS, descriptor_set

SEEDS = {
    "route": [b"GET /v1/shelves/1", b"POST /v1/shelves/x:cancel", b"GET /v1/deep/a%2Fb/c", b"GET /api/v1/echo"],
    "body": [
        b'\x00{"name":"a","sub":{"s":"b"},"ts":"2020-01-02T03:04:05Z","i64":"5","ms":{"a":"b"},"value":[1,null]}',
        b'\x00{"any":{"@type":"/edgetest.v1.Kinds","any":{"@type":"/google.protobuf.Any","value":{}}}}',
    ],
    "nested": [b"\xff\xff\x00[", b'\x80\x00\x08{"value":["', b'\x00\xc8\x00{"deep":', b'\x40\x00\x00{"any":["a",'],
    "reply": [b"\x0a\x01a\x5a\x03\x0a\x01b\xda\x01\x05\x0a\x03\x0a\x01k\xf2\x01\x04\x0a\x02/a\xa2\x02\x00"],
    "query": [b"name=a&sub.s=b&ms[a]=c&i32=5&color=COLOR_RED&mask=name,ts&rs=1&rs=2"],
    "stream": [b'[{"a":"}"},{"b":[1]}]', b'{"a":1}\n{"b":2}'],
    "template": [b"/v1/{name=shelves/*}/**:go"],
    "fields": [b"name,sub(s,sub.n),ms/k,*"],
}


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("target", SEEDS)
def test_a_target_accepts_or_rejects_thousands_of_inputs(target: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(seed)
    options = ("-runs=6000", "-max_total_time=25", "-seed=7", "-timeout=60", "-max_len=400", "-print_final_stats=0")
    command = ("-m", "tests.edge.fuzz", target, str(descriptor_set(PROTOS, tmp_path)), *options, str(corpus))
    done = subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
