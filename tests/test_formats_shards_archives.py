"""Tar, gzipped tar and zip: what is listed, read and streamed, and what becomes of damaged and hostile ones."""

from __future__ import annotations

import gzip
import io
import os
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pictures
import pytest

from transforms.formats.records import Entry, FormatError, Limits, Member, Reason
from transforms.formats.shards import zip as zip_files
from transforms.formats.shards.forward import read_at
from transforms.formats.shards.gunzip import Gunzip
from transforms.formats.shards.loose_files import Skipped
from transforms.formats.shards.tar import Tar, TarGz
from transforms.formats.shards.zip import Zip

LIMITS = Limits()
DAMAGED = Member("", None, reason=Reason.DAMAGED_ARCHIVE)
FILES = {"happy/a.jpg": b"one", "sad/b.png": b"two" * 500, "top.jpg": b"", "deep/er/c.gif": b"x" * 512}
MEMBERS = [
    Member("happy/a.jpg", b"one", "happy"),
    Member("sad/b.png", b"two" * 500, "sad"),
    Member("top.jpg", b"", None),
    Member("deep/er/c.gif", b"x" * 512, "er"),
]


def _tar(data: bytes, limits: Limits = LIMITS) -> list[Member]:
    """Reads by listing; streaming, plain and gzipped, must give the same."""
    file = io.BytesIO(data)
    members = list(Tar().read(file, list(Tar().list(file, limits)), limits))
    assert list(Tar().stream(io.BytesIO(data), limits)) == members
    assert list(TarGz().stream(io.BytesIO(gzip.compress(data, 1)), limits)) == members
    return members


def _zip(data: bytes, limits: Limits = LIMITS) -> list[Member]:
    file = io.BytesIO(data)
    members = list(Zip().read(file, list(Zip().list(file, limits)), limits))
    assert list(Zip().stream(io.BytesIO(data), limits)) == members
    return members


def _zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **info: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            for key, value in info.items():
                setattr(member, key, value)
            archive.writestr(member, data, method)
    return packed.getvalue()


def _summary(members: list[Member]) -> list[tuple[str, Reason | None]]:
    return [(member.name, member.reason) for member in members]


# --- what every archive does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_members(form: int) -> None:
    assert _tar(pictures.tar_bytes(FILES, form)) == MEMBERS


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_members(method: int) -> None:
    assert _zip(_zip_bytes(FILES, method)) == MEMBERS


@pytest.mark.parametrize("form", [Tar, TarGz, Zip])
def test_what_is_no_image_is_skipped_and_counted(form: type, tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "README.txt": b"r", "x/.DS_Store": b"d", "__MACOSX/._a.jpg": b"m", "Thumbs.db": b"t"}
    write = pictures.write_zip if form is Zip else pictures.write_tar
    path = write(tmp_path / f"a{form.suffixes[0]}", files)
    skipped = Skipped()
    with path.open("rb") as file:
        assert [m.name for m in form(skipped).stream(file, LIMITS)] == ["a.jpg"]
    assert (skipped.count, skipped.names) == (4, ["README.txt", "x/.DS_Store", "__MACOSX/._a.jpg", "Thumbs.db"])


HOSTILE = ["../up.jpg", "/abs.jpg", "a/../../b.jpg", "C:\\win.jpg", "..\\up.jpg"]
CLEANED = ["%2E%2E/up.jpg", "%2Fabs.jpg", "a/%2E%2E/%2E%2E/b.jpg", "C%3A/win.jpg", "%2E%2E/up.jpg"]


def test_names_that_climb_out_are_unsafe() -> None:
    expected = [(name, Reason.UNSAFE_NAME) for name in CLEANED] + [("good.jpg", None)]
    files = dict.fromkeys([*HOSTILE, "good.jpg"], b"x")
    assert _summary(_tar(pictures.tar_bytes(files))) == expected
    assert _summary(_zip(_zip_bytes(files))) == expected
    hidden = _zip_bytes({"aXb.jpg": b"x"}).replace(b"aXb.jpg", b"a\0b.jpg")
    assert _summary(_zip(hidden)) == [("a%00b.jpg", Reason.UNSAFE_NAME)]


def test_the_same_name_twice_is_given_out_twice() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for data in (b"one", b"two"):
            member = tarfile.TarInfo("a.jpg")
            member.size = 3
            archive.addfile(member, io.BytesIO(data))
    assert _tar(packed.getvalue()) == [Member("a.jpg", b"one"), Member("a.jpg", b"two")]
    zipped = _zip_bytes({"a.jpg": b"one", "b.jpg": b"two"}).replace(b"b.jpg", b"a.jpg")
    assert _zip(zipped) == [Member("a.jpg", b"one"), Member("a.jpg", b"two")]


def test_members_are_read_in_any_order_and_over_gaps() -> None:
    files = {f"{i:03d}.jpg": os.urandom(i * 997 % 70_000) for i in range(60)}
    for form, data in ((Tar(), pictures.tar_bytes(files)), (Zip(), _zip_bytes(files))):
        file = io.BytesIO(data)
        entries = list(form.list(file, LIMITS))
        random.Random(0).shuffle(entries)
        assert {m.name: m.data for m in form.read(file, entries, LIMITS)} == files
        chosen = entries[::5]
        assert [m.name for m in form.read(file, chosen, LIMITS)] == [entry.name for entry in chosen]


class _CountingFile(io.BytesIO):
    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size)


@pytest.mark.parametrize("form", [Tar(), Zip()])
def test_neighbours_are_read_at_one_go(form: Tar | Zip) -> None:
    files = {f"{i:03d}.jpg": os.urandom(2500) for i in range(256)}
    file = _CountingFile(pictures.tar_bytes(files) if isinstance(form, Tar) else _zip_bytes(files))
    entries = list(form.list(file, LIMITS))
    assert file.reads < 12
    file.reads = 0
    assert len(list(form.read(file, entries, LIMITS))) == 256
    assert file.reads == 1


class _DribblingFile(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 77) if size and size > 0 else size)


def test_short_reads_are_no_end() -> None:
    for form, data in ((Tar(), pictures.tar_bytes(FILES)), (Zip(), _zip_bytes(FILES))):
        file = _DribblingFile(data)
        assert list(form.read(file, list(form.list(file, LIMITS)), LIMITS)) == MEMBERS
    assert list(TarGz().stream(_DribblingFile(gzip.compress(pictures.tar_bytes(FILES))), LIMITS)) == MEMBERS
    assert read_at(_DribblingFile(bytes(500)), 100, 300) == bytes(300)


class _FailingFile(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise TimeoutError("the network is away")


@pytest.mark.parametrize("form", [Tar(), Zip()])
def test_a_failing_disk_is_no_damage(form: Tar | Zip) -> None:
    with pytest.raises(TimeoutError):
        list(form.list(_FailingFile(bytes(5000)), LIMITS))
    with pytest.raises(TimeoutError):
        list(TarGz().stream(_FailingFile(bytes(5000)), LIMITS))


# --- tar --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(form: int) -> None:
    names = ["f" * 60 + "/" + "n" * 90 + ".jpg", "x" * 300 + ".jpg", "ü/日本.jpg", "ä" * 90 + ".png", "./tidy//me.jpg"]
    expected = [*names[:-1], "tidy/me.jpg"]
    assert [m.name for m in _tar(pictures.tar_bytes(dict.fromkeys(names, b"x"), form))] == expected


def test_names_that_are_no_utf_8() -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (member,) = _tar(pictures.tar_bytes({"caf\udce9.jpg": b"x"}, form))
        assert member.name == "caf%E9.jpg"


def _special(kind: bytes, name: str = "l.jpg") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
        good = tarfile.TarInfo("good.jpg")
        good.size = 1
        archive.addfile(good, io.BytesIO(b"x"))
    return packed.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_no_files(kind: bytes) -> None:
    assert _summary(_tar(_special(kind))) == [("l.jpg", Reason.NOT_A_FILE), ("good.jpg", None)]


def test_folders_are_passed_over() -> None:
    skipped = Skipped()
    data = _special(tarfile.DIRTYPE, "folder")
    assert [e.name for e in Tar(skipped).list(io.BytesIO(data), LIMITS)] == ["good.jpg"]
    assert skipped.count == 0


def test_sparse_files_are_refused() -> None:
    header = bytearray(_special(tarfile.FIFOTYPE))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    assert _summary(_tar(_with_sum(header))) == [("l.jpg", Reason.UNSUPPORTED_COMPRESSION), ("good.jpg", None)]


def _with_sum(data: bytearray, at: int = 0) -> bytes:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


def test_a_tar_member_above_the_limit() -> None:
    data = pictures.tar_bytes({"big.jpg": bytes(1001), "fits.jpg": bytes(1000)})
    expected = [("big.jpg", Reason.TOO_MANY_BYTES), ("fits.jpg", None)]
    assert _summary(_tar(data, Limits(max_image_bytes=1000))) == expected


@pytest.mark.parametrize(
    "damage", [b"", b"text, not an archive", b"\1" * 2000, b"x" * 511, gzip.compress(b"x" * 9999, mtime=0)]
)
def test_no_tar_file(damage: bytes) -> None:
    assert _tar(damage) == [DAMAGED]


def test_a_zip_directory_that_lists_other_members_than_it_states_is_damage() -> None:
    data = bytearray(_zip_bytes(FILES))
    end = data.rfind(b"PK\5\6")
    data[end + 12 : end + 16] = bytes(4)  # bytes of the directory: none
    assert _zip(bytes(data)) == [*MEMBERS, DAMAGED]
    data = bytearray(_zip_bytes(FILES))
    data[end + 10 : end + 12] = (len(FILES) + 7).to_bytes(2, "little")
    assert _zip(bytes(data)) == [*MEMBERS, DAMAGED]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_one_behind_the_other_are_read_to_the_last(form: int) -> None:
    names = list(FILES)
    one = pictures.tar_bytes({name: FILES[name] for name in names[:2]}, form)
    two = pictures.tar_bytes({name: FILES[name] for name in names[2:]}, form)
    assert _tar(one + two) == MEMBERS
    assert (
        _tar(one.rstrip(b"\0") + bytes(-len(one.rstrip(b"\0")) % 512) + bytes(512) + two) == MEMBERS
    )  # one zero block
    assert _tar(one + b"padding that is no header".ljust(1024, b"!") + two) == MEMBERS[:2]
    spoiled = bytearray(two)
    spoiled[3] ^= 1  # the name in the first header
    assert _tar(one + bytes(spoiled)) == [*MEMBERS[:2], DAMAGED]


def test_a_name_for_all_members_ends_with_its_archive() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "all.jpg"}) as archive:
        member = tarfile.TarInfo("a.jpg")
        archive.addfile(member, io.BytesIO())
    both = packed.getvalue() + pictures.tar_bytes({"b.jpg": b"x"})
    assert [member.name for member in _tar(both)][-1] == "b.jpg"


def _mac_zip(gap: int) -> dict[int, bytes]:
    """Returns the pieces of a zip file above 4 GB as Archive Utility writes it, by their places; zeros lie between."""
    pieces, directory, at = {}, b"", 0
    for number, (name, data) in enumerate(FILES.items()):
        crc, sizes = zlib.crc32(data), (len(data), len(data))
        fixed = (zlib.crc32(data), *sizes, len(name), 0)
        pieces[at] = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, *fixed) + name.encode() + data
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, crc, *sizes, len(name), 0, 0, 0, 0, 0, at % 2**32
        )
        directory += name.encode()
        at += len(pieces[at]) + gap * (number < 3)
    pieces[at] = directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 4, 4, len(directory), at % 2**32, 0)
    return pieces


@pytest.mark.parametrize("gap", [0, 2**30, 3 * 2**30])
def test_a_zip_above_4_gb_without_zip64_is_read_whole(tmp_path: Path, gap: int) -> None:
    path = tmp_path / "mac.zip"
    with path.open("wb") as file:  # a file with holes: little of it takes space
        for at, piece in _mac_zip(gap).items():
            file.seek(at)
            file.write(piece)
    with path.open("rb") as file:
        entries = list(Zip().list(file, LIMITS))
        assert list(Zip().read(file, entries, LIMITS)) == MEMBERS


def test_the_unicode_name_of_a_zip_member_counts_where_it_belongs_to_the_name() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for raw, belongs in (("x.jpg", b"x.jpg"), ("y.jpg", b"other")):
            info = zipfile.ZipInfo(raw)
            name = f"фото_{raw}".encode()
            info.extra = struct.pack("<2HBI", 0x7075, 5 + len(name), 1, zlib.crc32(belongs)) + name
            archive.writestr(info, b"data")
    assert [member.name for member in _zip(packed.getvalue())] == ["фото_x.jpg", "y.jpg"]


def test_a_folder_of_a_zip_file_without_a_slash_is_no_image() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in (("folder", b""), ("full", b"data")):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 0, 0x10
            archive.writestr(info, data)
    assert [member.name for member in _zip(packed.getvalue())] == ["full"]


@pytest.mark.parametrize("comment", [b"PK\5\6", b"PK\5\6" + bytes(30), b"see PK\5\6 in the manual of PK\5\6"])
def test_a_comment_may_hold_the_mark_of_the_end(comment: bytes) -> None:
    packed = io.BytesIO(_zip_bytes(FILES))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.comment = comment
    assert _zip(packed.getvalue()) == MEMBERS


@pytest.mark.parametrize("behind", [bytes(70_000), bytes(65_560), b"xxPK\5\6yy" + bytes(30), b"PK\5\6" + bytes(18)])
def test_what_stands_after_a_zip_file_costs_a_row_and_no_member(behind: bytes) -> None:
    found = _zip(_zip_bytes(FILES) + behind)
    assert found in (MEMBERS, [*MEMBERS, DAMAGED])


def test_a_damaged_zip_directory_in_another_order_loses_no_member() -> None:
    """Of a directory that begins with the last member and is cut after it, the others are found by their headers."""
    data = bytearray(_zip_bytes({"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"three"}))
    first = data.find(b"PK\1\2")
    last, end = data.rfind(b"PK\1\2"), data.rfind(b"PK\5\6")
    data[first:end] = data[last:end] + data[first:last]
    data[first + end - last : first + end - last + 4] = b"ruin"
    names = {member.name for member in _zip(bytes(data)) if member.reason is None}
    assert names == {"a.jpg", "b.jpg", "c.jpg"}


def test_an_archive_of_nothing_is_whole() -> None:
    assert _tar(pictures.tar_bytes({})) == []
    assert _zip(_zip_bytes({})) == []


@pytest.mark.parametrize("keep, members", [(600, 1), (1124, 1), (2236, 1), (3072, 2)])
def test_a_cut_tar_keeps_what_came_before(keep: int, members: int) -> None:
    data = pictures.tar_bytes({"a.jpg": b"one", "b.jpg": bytes(1500), "c.jpg": b"three"}, tarfile.USTAR_FORMAT)
    assert _tar(data[:keep])[-1] == DAMAGED
    assert [m.name for m in _tar(data[:keep])] == [*["a.jpg", "b.jpg"][:members], ""]


def test_a_damaged_header_ends_the_listing() -> None:
    data = bytearray(pictures.tar_bytes({"a.jpg": b"one", "b.jpg": b"two", "c.jpg": b"three"}, tarfile.USTAR_FORMAT))
    data[1024 + 5] ^= 1
    assert _tar(bytes(data)) == [Member("a.jpg", b"one"), DAMAGED]


def test_a_size_that_lies_is_a_cut() -> None:
    data = bytearray(pictures.tar_bytes({"a.jpg": b"one", "b.jpg": b"two"}, tarfile.USTAR_FORMAT))
    data[1024 + 124 : 1024 + 136] = b"\x80" + (2**70).to_bytes(11, "big")
    assert _summary(_tar(_with_sum(data, 1024)))[0] == ("a.jpg", None)
    assert _tar(_with_sum(data, 1024))[-1] == DAMAGED


@pytest.mark.parametrize("record", [b"99999 path=a\n", b"12 path=a", b"x path=a\n", b"0 path=a\n", b"14 size=1x2y\n\0"])
def test_damaged_pax_records_end_the_listing(record: bytes) -> None:
    data = pictures.tar_bytes({"ü" * 60 + ".jpg": b"one"}, tarfile.PAX_FORMAT)
    assert _tar(data[:512] + record.ljust(512, b"\0") + data[1024:]) == [DAMAGED]


def test_a_header_as_large_as_memory_is_damage() -> None:
    data = bytearray(pictures.tar_bytes({"x" * 300 + ".jpg": b"one"}, tarfile.GNU_FORMAT))
    data[124:136] = b"%011o\0" % 2**21
    long = _with_sum(data)[:512] + b"x" * 2**21 + bytes(data[1024:])
    assert _tar(long) == [DAMAGED]


def test_listing_a_tar_does_not_grow_memory() -> None:
    packed = io.BytesIO(pictures.tar_bytes({f"{i:05d}.jpg": b"" for i in range(4000)}, tarfile.USTAR_FORMAT))
    tracemalloc.start()
    count = sum(1 for _ in Tar().list(packed, LIMITS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000
    assert peak < 1_500_000


def _overlapping_zip(entries: int, *, quoted: bool) -> bytes:
    """Returns a zip file of two good members and of `entries` that share one stream of 1 MB, 4 KB packed or more.

    Args:
        quoted: every entry begins within the one before, else all are one and the same.
    """
    plain = bytes(2**20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(plain) + packer.flush() + bytes(4096)
    names = ["first.jpg", *(f"{number:05d}.jpg" for number in range(entries)), "last.jpg"]
    local, directory = bytearray(), bytearray()

    def add(name: str, body: bytes, full: bytes, at: int | None = None) -> None:
        fields = (20, 0, 8 if full is plain else 0, 0, 0, zlib.crc32(full), len(body), len(full), len(name), 0)
        offset = len(local) if at is None else at
        if at is None:
            local.extend(struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + name.encode() + body)
        directory.extend(struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, *fields, 0, 0, 0, 0, offset) + name.encode())

    add(names[0], b"good", b"good")
    shared = len(local)
    add(names[1], packed, plain)
    for number, name in enumerate(names[2:-1], 1):
        add(name, packed, plain, shared + (number if quoted and number < len(packed) else 0))
    local.extend(bytes(entries))  # else the last quoted one would reach into what follows
    add(names[-1], b"good too", b"good too")
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(names), len(names), len(directory), len(local), 0)
    return bytes(local + directory + end)


@pytest.mark.parametrize("quoted", [False, True])
def test_of_2000_zip_entries_that_share_one_stream_few_are_read(quoted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0
    unpack = zip_files._unpack

    def counted(*given: Any) -> bytes:
        nonlocal opened
        opened += 1
        return unpack(*given)

    monkeypatch.setattr(zip_files, "_unpack", counted)
    data = _overlapping_zip(2000, quoted=quoted)
    members = {member.name: member for member in _zip(data)}
    assert len(members) == 2002
    assert members["first.jpg"].data == b"good"
    assert members["last.jpg"].data == b"good too"
    refused = sum(member.reason is Reason.DAMAGED_MEMBER for member in members.values())
    assert refused >= 1900
    assert 4 <= opened <= 2 * (2 * len(data) / 5000 + 2)  # read by listing, and streamed


def test_a_wrong_size_in_a_zip_directory_costs_its_own_member_alone() -> None:
    files = {f"{number:03d}.jpg": os.urandom(500) for number in range(200)}
    data = bytearray(_zip_bytes(files, zipfile.ZIP_STORED))
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[entry + 20 + 2] |= 1  # 64 KB more packed bytes: as if it held the next hundred members
    found = {member.name: member.reason for member in _zip(bytes(data))}
    assert found == {**dict.fromkeys(files), "001.jpg": Reason.DAMAGED_MEMBER}


# --- gzipped tar ------------------------------------------------------------------------------------------------------


def test_several_gzip_members_and_padding_are_one_stream() -> None:
    data = pictures.tar_bytes(FILES)
    packed = gzip.compress(data[:700]) + bytes(300_000) + gzip.compress(data[700:]) + bytes(10)
    assert list(TarGz().stream(io.BytesIO(packed), LIMITS)) == MEMBERS


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_a_cut_gzip_stream_ends_with_a_row(cut: int) -> None:
    packed = gzip.compress(pictures.tar_bytes({"a.jpg": os.urandom(5000)}))
    members = list(TarGz().stream(io.BytesIO(packed[:-cut]), LIMITS))
    assert members[-1] == DAMAGED


def test_a_wrong_check_sum_shows_at_the_end() -> None:
    packed = bytearray(gzip.compress(pictures.tar_bytes(FILES)))
    packed[-6] ^= 1
    assert list(TarGz().stream(io.BytesIO(packed), LIMITS)) == [*MEMBERS, DAMAGED]


@pytest.mark.parametrize("data", [b"", b"no gzip at all", pictures.tar_bytes(FILES)])
def test_no_gzip_file(data: bytes) -> None:
    assert list(TarGz().stream(io.BytesIO(data), LIMITS)) == [DAMAGED]


def test_rubbish_behind_a_gzip_stream_is_damage() -> None:
    packed = gzip.compress(pictures.tar_bytes(FILES)) + b"rubbish"
    assert list(TarGz().stream(io.BytesIO(packed), LIMITS)) == [*MEMBERS, DAMAGED]


def test_a_gzip_bomb_stays_small() -> None:
    bomb = gzip.compress(pictures.tar_bytes({"bomb.jpg": bytes(40_000_000), "a.jpg": b"one"}))
    assert len(bomb) < 100_000
    tracemalloc.start()
    members = list(TarGz().stream(io.BytesIO(bomb), Limits(max_image_bytes=1_000_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert members == [Member("bomb.jpg", None, reason=Reason.TOO_MANY_BYTES), Member("a.jpg", b"one")]
    assert peak < 3_000_000


def test_gunzip_gives_what_is_asked_for_and_no_more() -> None:
    source = Gunzip(io.BytesIO(gzip.compress(bytes(1_000_000))))
    sizes = [len(source.read(1000)) for _ in range(1000)]
    assert sum(sizes) == 1_000_000 and max(sizes) <= 1000
    assert source.read(1000) == b""


def test_a_gzipped_tar_refuses_what_it_cannot() -> None:
    with pytest.raises(FormatError, match="use stream"):
        TarGz().list(io.BytesIO(), LIMITS)
    with pytest.raises(FormatError, match="use stream"):
        TarGz().read(io.BytesIO(), [], LIMITS)


# --- zip --------------------------------------------------------------------------------------------------------------


def test_where_suffices_to_read_a_member() -> None:
    data = _zip_bytes({"a.jpg": b"one", "b.jpg": b"two" * 99})
    (_, entry) = Zip().list(io.BytesIO(data), LIMITS)
    offset, packed, size, method, crc = entry.where
    assert (size, method, crc) == (297, 8, zlib.crc32(b"two" * 99))
    without_directory = data[: offset + packed + 100]
    without_directory = without_directory[: without_directory.rindex(b"PK\1\2")]
    assert list(Zip().read(io.BytesIO(without_directory), [entry], LIMITS)) == [Member("b.jpg", b"two" * 99)]


def test_zip_names() -> None:
    assert [m.name for m in _zip(_zip_bytes({"ü/日本.jpg": b"x"}))] == ["ü/日本.jpg"]
    old = _zip_bytes({"b1ld.jpg": b"x"}).replace(b"b1ld", b"b\x81ld")  # code page 437, as DOS wrote it
    assert [m.name for m in _zip(old)] == ["büld.jpg"]
    unflagged = _zip_bytes({"b12ld.jpg": b"x"}).replace(b"b12ld", "büld".encode())
    assert [m.name for m in _zip(unflagged)] == ["büld.jpg"]
    windows = _zip_bytes({"happy|a.jpg": b"x"}).replace(b"happy|a", b"happy\\a")
    assert _zip(windows) == [Member("happy/a.jpg", b"x", "happy")]


def test_zip_folders_and_links() -> None:
    assert _zip(_zip_bytes({"folder/": b"", "folder/a.jpg": b"x"})) == [Member("folder/a.jpg", b"x", "folder")]
    link = _zip_bytes({"l.jpg": b"/etc/passwd"}, create_system=3, external_attr=(stat.S_IFLNK | 0o777) << 16)
    assert _summary(_zip(link)) == [("l.jpg", Reason.NOT_A_FILE)]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(method: int) -> None:
    assert _summary(_zip(_zip_bytes({"a.jpg": b"x"}, method))) == [("a.jpg", Reason.UNSUPPORTED_COMPRESSION)]


def test_encrypted_members_are_refused() -> None:
    data = bytearray(_zip_bytes({"a.jpg": b"x"}))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert _summary(_zip(bytes(data))) == [("a.jpg", Reason.UNSUPPORTED_COMPRESSION)]


def test_a_zip_bomb_stays_small() -> None:
    data = _zip_bytes({"bomb.jpg": bytes(40_000_000), "a.jpg": b"one"})
    limits = Limits(max_image_bytes=1_000_000)
    expected = [("bomb.jpg", Reason.TOO_MANY_BYTES), ("a.jpg", None)]
    assert _summary(_zip(data, limits)) == expected
    lying = data.replace(struct.pack("<I", 40_000_000), struct.pack("<I", 10))  # in both headers
    tracemalloc.start()
    assert _summary(_zip(lying, limits)) == expected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_member_costs_itself(method: int) -> None:
    noise = random.Random(0).randbytes(3000)
    data = bytearray(_zip_bytes({"a.jpg": noise, "b.jpg": b"two"}, method))
    data[1500] ^= 0x10
    assert _summary(_zip(bytes(data))) == [("a.jpg", Reason.DAMAGED_MEMBER), ("b.jpg", None)]


def test_a_missing_local_header_costs_the_member() -> None:
    data = bytearray(_zip_bytes({"a.jpg": b"one", "b.jpg": b"two"}))
    data[0] ^= 1
    assert _summary(_zip(bytes(data))) == [("a.jpg", Reason.DAMAGED_MEMBER), ("b.jpg", None)]


def test_an_offset_outside_the_file_costs_the_member() -> None:
    data = bytearray(_zip_bytes({"a.jpg": b"one"}))
    at = data.index(b"PK\1\2")
    data[at + 42 : at + 46] = struct.pack("<I", 2**32 - 2)
    assert _summary(_zip(bytes(data))) == [("a.jpg", Reason.DAMAGED_MEMBER)]


def test_a_long_extra_field_is_read_over() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a.jpg", "b.jpg"):
            member = zipfile.ZipInfo(name)
            member.extra = struct.pack("<2H", 0x9999, 5000) + bytes(5000)
            archive.writestr(member, b"one")
    assert _zip(packed.getvalue()) == [Member("a.jpg", b"one"), Member("b.jpg", b"one")]


def test_bytes_in_front_of_a_zip_file_shift_it() -> None:
    assert _zip(b"#!/bin/sh\n" * 50 + _zip_bytes(FILES)) == MEMBERS
    assert _zip(_zip_bytes(FILES) + b"trailing") == MEMBERS


def test_zip64() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as member:
        member.write(b"one")
    assert _zip(packed.getvalue()) == [Member("a.jpg", b"one")]
    assert _zip(_as_zip64(_zip_bytes(FILES))) == MEMBERS


def _as_zip64(data: bytes) -> bytes:
    """Moves the numbers of the end record, and the sizes in the directory, into 64-bit fields."""
    at = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, at + 16)[0]
    entries, position = b"", start
    while data[position : position + 4] == b"PK\1\2":
        fixed, (name_len,) = bytearray(data[position : position + 46]), struct.unpack_from("<H", data, position + 28)
        packed, size = struct.unpack_from("<2I", fixed, 20)
        extra = struct.pack("<2H2Q", 1, 16, size, packed)
        fixed[20:28], fixed[30:32] = b"\xff" * 8, struct.pack("<H", len(extra))
        entries += bytes(fixed) + data[position + 46 : position + 46 + name_len] + extra
        position += 46 + name_len
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, len(FILES), len(FILES), len(entries), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entries), 1)
    end = b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)
    return data[:start] + entries + end64 + locator + end


def _streamed_zip(files: dict[str, bytes]) -> bytes:
    """Returns a zip file whose sizes follow the data, as writers do that cannot seek."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise OSError("a pipe")

        def tell(self) -> int:
            raise OSError("a pipe")

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return pipe.getvalue()


@pytest.mark.parametrize("make", [_zip_bytes, _streamed_zip])
def test_a_zip_without_its_directory_is_recovered(make: object) -> None:
    data = make(FILES)  # type: ignore[operator]
    assert _zip(data) == MEMBERS
    assert _zip(data[: data.index(b"PK\1\2")]) == [*MEMBERS, DAMAGED]
    assert _zip(data[: data.index(b"PK\5\6")]) == [*MEMBERS, DAMAGED]
    last = data.index(b"c.gif")
    assert _zip(data[: last + 6]) == [*MEMBERS[:3], DAMAGED]


def test_a_zip_with_half_a_directory_gives_each_member_once() -> None:
    data = bytearray(_zip_bytes(FILES))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    data[second] ^= 1
    assert _zip(bytes(data)) == [*MEMBERS, DAMAGED]


@pytest.mark.parametrize("damage", [b"", b"no archive", b"PK\3\4", b"PK\5\6", bytes(99), b"PK\5\6" + b"\xff" * 18])
def test_no_zip_file(damage: bytes) -> None:
    assert _zip(damage) == [DAMAGED]


# --- any bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bytes_never_raise(seed: int) -> None:
    draw = random.Random(seed)
    limits = Limits(max_image_bytes=100_000)
    for _ in range(60):
        for form, data in ((_tar, pictures.tar_bytes(FILES)), (_tar, LONG), (_zip, ZIPPED)):
            raw = bytearray(data)
            for _ in range(draw.choice((1, 2, 8))):
                raw[draw.randrange(len(raw))] = draw.choice((0, 255, draw.randrange(256)))
            raw = raw[: draw.randrange(len(raw))] if draw.random() < 0.3 else raw
            for member in _read_one_way(form is _zip, bytes(raw), limits):
                assert (member.data is None) == (member.reason is not None)
                assert member.name or member.reason is Reason.DAMAGED_ARCHIVE
                member.name.encode("utf-8")


def _read_one_way(zipped: bool, data: bytes, limits: Limits) -> list[Member]:
    file, form = io.BytesIO(data), Zip() if zipped else Tar()
    entries: list[Entry] = list(form.list(file, limits))
    members = list(form.read(file, entries, limits))
    assert len(members) == len(entries)
    return members


LONG = pictures.tar_bytes({"ü" * 80 + ".jpg": b"one", "x" * 200 + ".jpg": b"two"}, tarfile.PAX_FORMAT)
ZIPPED = _zip_bytes(FILES)
