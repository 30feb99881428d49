"""Channel traces as loggers, spreadsheets and data sets write them: what is read, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest

from wire.channel_traces import files, is_5g, read_snr_db, read_trace, rows_text

HEADER = "t_s,network_mode,rsrp_dbm,snr_db,cqi,dl_kbps,ul_kbps,speed_kmh\n"
PLAIN = HEADER + "".join(f"{t},5G,-95,10.5,{3 + t},10000,2000,0\n" for t in range(5))
UCC = (
    "Timestamp,Longitude,Latitude,Speed,Operatorname,CellID,NetworkMode,RSRP,RSRQ,SNR,CQI,RSSI,DL_bitrate,"
    "UL_bitrate,State,PINGAVG,PINGMIN,PINGMAX,PINGSTDEV,PINGLOSS,CELLHEX,NODEHEX,LACHEX,RAWCELLID,NRxRSRP,NRxRSRQ\n"
)
DATA = Path(__file__).parents[2] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
needs_cases = pytest.mark.skipif(
    not (DATA / "field-cases").is_dir(), reason="../shared/data/field-cases is not there"
)


def ucc(stamps: list[str]) -> str:
    rows = [
        f"{s},-8.4,51.8,0,B,11,5G,-95,-12,10.5,{3 + k},-,1000,200,D,-,-,-,-,-,A,B,C,1,-,-\n"
        for k, s in enumerate(stamps)
    ]
    return UCC + "".join(rows)


def zipped(**of: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in of.items():
            archive.writestr(name.replace("_csv", ".csv"), text)
    return out.getvalue()


def write(tmp_path: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


STAMPS = {
    "UCC": [f"2019.12.16_13.40.0{k}" for k in range(5)],
    "ISO": [f"2019-12-16T13:40:0{k}Z" for k in range(5)],
    "ISO with a zone and milliseconds": [f"2019-12-16 13:40:0{k}.250+01:00" for k in range(5)],
    "over midnight": ["23:59:58", "23:59:59", "00:00:00", "00:00:01", "00:00:02"],
    "day first": [f"16.12.2019 13:40:0{k}" for k in range(5)],
    "month first": [f"12/16/2019 1:40:0{k} PM" for k in range(5)],
    "day or month, on one day": [f"1/2/2020 13:40:0{k}" for k in range(5)],
    "ISO with the hours of a zone alone": [f"2019-12-16T13:40:0{k}+01" for k in range(5)],
    "ISO, basic": [f"20191216T13400{k}Z" for k in range(5)],
    "digits alone, over an hour": [f"2019121613595{8 + k}" for k in range(2)]
    + [f"2019121614000{k}" for k in range(3)],
    "s since 1970": [f"{1576503604 + k}" for k in range(5)],
    "ms since 1970": [f"{1576503604250 + 1000 * k}" for k in range(5)],
    "ns since 1970": [f"{1576503604250000000 + 10**9 * k}" for k in range(5)],
}

FORMS = {
    "plain": PLAIN,
    "a byte-order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "semicolons and decimal commas": PLAIN.replace(",", ";").replace(".5", ",5"),
    "semicolons and decimal points": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "a spreadsheet's sep=": "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "blanks after commas": PLAIN.replace(",", ", "),
    "blank lines and a comment": "# a drive\n\n" + PLAIN.replace("\n", "\n\n"),
    "separators at the ends": PLAIN.replace("\n", ",\n"),
    "separators at the ends of rows": HEADER + PLAIN[len(HEADER) :].replace("\n", ",,\n"),
    "quotes": PLAIN.replace(",", '","').replace("\n", '"\n"')[:-1].join(('"', "")),
    "quoted decimal commas": PLAIN.replace("10.5", '"10,5"'),
    "the header again": PLAIN[: PLAIN.index("3,5G")] + HEADER + PLAIN[PLAIN.index("3,5G") :],
    "upper case, blanks, units": PLAIN.replace(
        HEADER, "T_S,Network Mode,RSRP (dBm),SNR [dB],CQI,DL,UL,Speed\n"
    ),
    "Latin-1": PLAIN.replace("speed_kmh", "café").encode("latin-1"),
    "ms": PLAIN.replace("t_s", "t_ms")
    .replace("\n1,", "\n1000,")
    .replace("\n2,", "\n2000,")
    .replace("\n3,", "\n3000,")
    .replace("\n4,", "\n4000,"),
    "gzip": gzip.compress(PLAIN.encode()),
    "bzip2": bz2.compress(PLAIN.encode()),
    "xz": lzma.compress(PLAIN.encode()),
    "zip": zipped(drive_csv=PLAIN),
    **{f"time: {name}": ucc(stamps) for name, stamps in STAMPS.items()},
    "date and time apart": "Date,Time,RAT,CQI,SINR\n"
    + "".join(f"2019-12-16,13:40:0{k},NR,{3 + k},10.5\n" for k in range(5)),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_trace_however_it_is_written(form: str, tmp_path: Path) -> None:
    path = write(tmp_path, FORMS[form])
    trace = read_trace(path)
    assert (trace.times - trace.times[0]).tolist() == [0, 1, 2, 3, 4]
    assert trace.cqi.tolist() == [3, 4, 5, 6, 7] and set(trace.modes) == {None}
    snr, account = read_snr_db(path)
    assert snr.tolist() == [10.5] * 5 and account.used == 5
    assert account.rows == 5 + (form == "the header again")


OF_5G = (
    *("5G", "5g", "5G-NSA", "5G_SA", "5GNSA", "NR", "nr5g", "NR-SA", "NSA", "SA", "NR5G-NSA", "5G+"),
    *("LTE+NR", "LTE/NR", "LTE-NR", "EN-DC", "ENDC", "NGEN-DC"),
    *("5G Non-Standalone", "NR non-standalone", "5G Non-SA", "non-standalone 5G", "5G (Non Stand-Alone)"),
)
NOT_5G = (
    *("LTE", "LTE-A", "LTE_CA", "4G", "HSPA+", "UMTS", "EDGE", "5GE", "5G E"),
    *(
        "No 5G",
        "No Service",
        "WIFI",
        "5G Evolution",
        "LTE (NR_NONE)",
        "LTE (NR_RESTRICTED)",
        "LTE_NR_AVAILABLE",
    ),
    *("LTE (5G available)", "5G_OFF", "5G lost", "pre-5G"),
)


@pytest.mark.parametrize("name", OF_5G)
def test_what_loggers_call_5g(name: str) -> None:
    assert is_5g(name) is True


def test_a_clock_of_two_parts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "time,mode,cqi\n" + "".join(f"00:{k:02},5G,7\n" for k in range(9)))
    with pytest.raises(ValueError, match=r"row .*'00:00' may be hours and minutes or minutes and seconds"):
        read_trace(path)


def test_what_is_not_5g_and_what_is_not_known() -> None:
    for name in NOT_5G:
        assert is_5g(name) is False, name
    for name in ("20", "foo", "6G", "restricted"):
        assert is_5g(name) is None, name


MISSING = (
    *("-", "", "NaN", "n/a", "null", "2147483647", "<NA>", "n.a.", "#NV", "(null)", r"\N", "nil", "-nan"),
    *("1.#QNAN", "NaN(ind)", "#DIV/0!", "\u2013", "Unavailable", "not available", "."),
)


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_cqi_is_no_mistake(missing: str, tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, HEADER + f"0,5G,-1,1,5,0,0,0\n1,5G,-1,{missing},{missing},0,0,0\n"))
    assert np.isnan(trace.cqi).tolist() == [False, True] and trace.account.used == 2
    snr, account = read_snr_db(tmp_path / "a.csv")
    assert snr.tolist() == [1.0]
    assert rows_text(account.to_dict()) == "2 rows, 1 used; left out: 1 without an SNR"


def test_order_and_the_end_of_a_file(tmp_path: Path) -> None:
    rows = PLAIN[len(HEADER) :].splitlines(keepends=True)
    mixed = read_trace(write(tmp_path, HEADER + "".join(rows[k] for k in (0, 2, 1, 3, 4))))
    assert mixed.cqi.tolist() == [3, 4, 5, 6, 7]
    assert mixed.account.notes == ["2 rows out of order were put in order"]
    turned = read_trace(write(tmp_path, HEADER + "".join(rows[::-1]), "b.csv"))
    assert turned.cqi.tolist() == [3, 4, 5, 6, 7]
    assert turned.account.notes == ["the newest row is the first: turned round"]
    cut = read_trace(write(tmp_path, PLAIN + "5,5G,-9", "c.csv"))
    assert cut.cqi.tolist() == [3, 4, 5, 6, 7]
    assert cut.account.left_out == {"cut off at the end of the file": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no header, no rows"),
        (HEADER, "no rows"),
        ("t,cqi\n0,5\n", "column 'network_mode' is not there; columns found: t, cqi; wanted: mode: one of"),
        ("when,rat,quality\n0,NR,5\n", "columns found: when, rat, quality; wanted: time: one of t_s"),
        ("t_s,rat,cqi,CQI\n0,NR,5,6\n", "which column is it? There are 'cqi', 'CQI'"),
        ("t_s,rat,cqi\n0,NR,5,5\n", "row 2 has 4 fields, the header 3; decimal commas go with semicolons"),
        ("t_s,rat,cqi\n0,NR,five\n", "row 2: cqi 'five' is not a number"),
        ("t_s;rat;cqi\n0;NR;5,5\n", "row 2: cqi 5.5 is not a whole number"),
        ('t_s,rat,cqi\n"1,234",NR,5\n', "row 2: t_s '1,234' is not a number"),
        ("t_s,rat,cqi\n0,LTE,5\n1,HSPA,5\n", "no row is 5G (rat: 1 not 5G (LTE), 1 not 5G (HSPA))"),
        ("t_s,rat,cqi\n0,13,5\n1,20,5\n", "of an unknown network mode (13)"),
        ("t_s,rat,cqi\n0,NR,-\n", "no row of 5G has a CQI"),
        ("t_s,rat,cqi\n-,NR,4\n", "no row has a time"),
        ("time,rat,cqi\n0,NR,4\n1000,NR,4\n", "time rises by 1000 from row to row"),
        ("t_s,rat,cqi\n0,NR,4\n1000,NR,4\n2000,NR,4\n", "name the column by its unit, t_s or t_ms"),
        ("t_s,rat,cqi\n" + "".join(f"{t},NR,4\n" for t in [*range(9), *range(9)]), "another recording"),
        ("time,rat,cqi\n2020-01-02 10:00,NR,4\n2020-01-02 10:00,NR,4\n", "whole minutes"),
        ("time,rat,cqi\n1/2/2020 10:00:00,NR,4\n2/2/2020 10:00:00,NR,4\n", "which is the day"),
        ("time,rat,cqi\n2020-13-02 10:00:00,NR,4\n", "row 2: '2020-13-02 10:00:00' is not a time"),
        ("time,rat,cqi\n2020-01-02 10:00:00,NR,4\n17,NR,4\n", "row 3: time '17' is not a time like"),
        ("t_s,rat,cqi\n" + "5,NR,4\n" * 9, "t_s '5' to '5': all 9 rows lie within 0 s"),
        ("time,rat,cqi\n" + "1.57650E+12,NR,4\n" * 9, "Times that a spreadsheet rounded are lost"),
        ("t_ms;rat;cqi\n" + "".join(f"{k}.000;NR;4\n" for k in range(9)), "all 9 rows lie within 0.008 s"),
        (
            "time,rat,cqi\n" + "".join(f"{43815 + k / 86400:.8f},NR,4\n" for k in range(99)),
            "time 43815 looks like the days of a spreadsheet",
        ),
        (
            "t_s,rat,cqi\n2019-12-16 13:40:04 CET,NR,4\n",
            "row 2: t_s '2019-12-16 13:40:04 CET' is not a number, nor",
        ),
        (PLAIN.replace("\n1,5G", '\n1,"5G'), "row 3 has a quote that is not closed"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a spreadsheet, not a table of text"),
        (gzip.compress(PLAIN.encode() * 9)[:-12], ""),
        (b"PK\x03\x04 and no archive", "zip"),
        (zipped(a_csv=PLAIN, b_csv=PLAIN), "an archive of 2 files, not of one: a.csv, b.csv"),
        (zipped(**{"[Content_Types].xml": "x", "a_xml": "y"}), "a spreadsheet, not a table of text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(50), "a.csv: "),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(content: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        read_trace(write(tmp_path, content))
    assert says in str(error.value) and "a.csv" in str(error.value)


@pytest.mark.parametrize("snr_db", ["105", "-9999", "1000"])
def test_an_snr_that_no_ue_has_is_refused(snr_db: str, tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN.replace("\n1,5G,-95,10.5", f"\n1,5G,-95,{snr_db}"))
    with pytest.raises(ValueError, match=rf"row 3: snr_db {snr_db} is outside -40\.\.60 dB"):
        read_snr_db(path)
    assert read_trace(path).account.used == 5


def test_the_traces_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no channel trace"):
        files(tmp_path)
    for name in ("b.CSV", "a.csv.gz", "c.tsv", "d.csv.zip", "._b.CSV", "README.md", "e.csv.bak"):
        write(tmp_path, PLAIN, name)
    (tmp_path / "f.csv").mkdir()
    assert [f.name for f in files(tmp_path)] == ["a.csv.gz", "b.CSV", "c.tsv", "d.csv.zip"]
    assert files(tmp_path / "README.md") == [tmp_path / "README.md"]


@needs_cases
@pytest.mark.parametrize("name", ["trace-bom", "trace-ucc", "trace-mix"])
def test_the_field_cases_are_read_whole(name: str) -> None:
    trace = read_trace(DATA / f"field-cases/{name}.csv")
    assert len(trace.times) == trace.account.used == 40 and set(trace.modes) == {None}
    assert len(read_snr_db(DATA / f"field-cases/{name}.csv")[0]) == 40


@needs_data
def test_the_measured_traces_are_read() -> None:
    rows = {}
    for file in files(DATA / "channel-traces"):
        snr, account = read_snr_db(file)
        assert len(snr) > 100 and -30 < snr.min() <= snr.max() < 50
        rows[file.name.removesuffix(".csv.gz")] = rows_text(account.to_dict())
    said = rows["netflix_driving_2019.11.20_16.55.16"]
    assert said.startswith("2541 rows, 1806 used; left out: 679 not 5G (LTE), 36 not 5G (HSPA+)")
    assert rows["download_static_2019.12.16_13.40.04"] == "2143 rows, all used"
