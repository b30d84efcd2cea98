"""Values of the format, as hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

from envfs.crypto.aead import Suite
from envfs.format.context import encode_context
from envfs.format.directory import DirectoryFile
from envfs.format.fields import ONES_ID, ZERO_ID
from envfs.format.header import Slot
from envfs.format.place import Kind, Where
from envfs.format.volume import VolumeFile

ids = st.binary(min_size=16, max_size=16)
directory_ids = ids.filter(lambda value: value not in {ZERO_ID, ONES_ID})
suites = st.sampled_from(list(Suite))
kinds = st.sampled_from(list(Kind))
block_log2s = st.integers(12, 16)
u64s = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 1])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
contexts = st.dictionaries(texts.filter(bool), texts, max_size=6)
labels = st.dictionaries(
    texts.filter(lambda key: key != "" and not key.startswith(("envfs:", "aws:"))), texts, max_size=3
).filter(lambda pairs: len(encode_context(pairs)) <= 200)

name_bytes = st.binary(min_size=1, max_size=255).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
names = name_bytes.filter(lambda name: name not in {b".", b".."})
targets = st.binary(min_size=1, max_size=4095).map(lambda raw: raw.replace(b"\0", b"/"))
places = st.builds(Where, ids, st.binary(max_size=362))


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    encoded = encode_context(draw(labels))
    holes = sorted((draw(u64s), draw(u64s)))
    hole_start, hole_end = holes if holes[0] < holes[1] else (0, 0)
    return Slot(
        suite=draw(suites),
        block_log2=draw(block_log2s),
        sequence=max(1, draw(u64s)),
        file_id=draw(ids),
        length_bound=draw(u64s),
        sealed_blocks=draw(u64s),
        hole_start=hole_start,
        hole_end=hole_end,
        blob=draw(st.binary(min_size=1, max_size=344 - len(encoded))),
        labels=encoded,
    )


directory_files = st.builds(DirectoryFile, directory_ids, st.text(st.characters(codec="utf-8"), max_size=60), labels)

volume_files = st.builds(
    VolumeFile,
    suites,
    block_log2s,
    ids,
    ids,
    directory_ids,
    u64s,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=60),
    st.binary(min_size=1, max_size=300),
)
