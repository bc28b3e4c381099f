"""Which of the older encodings a text has, told by the letters that its bytes would be; or that it is not certain.

Belongs here: the alphabets that are told apart and how sure one has to be. Does not belong here: Unicode (`encodings`).

Each encoding in use is tried with each language that is written in it: how likely are these letters, in these places,
in that language? Each kind of improbable sign (a capital behind a small letter, letters of two alphabets in a word, a
frame between letters, a byte that the encoding leaves open) costs as much as a letter that the language does not have.
One reading is certain when every reading that comes to another text is `_MARGIN` times less likely; otherwise a person
has to say it. General detectors give their best guess however little there is to go by: of twelve tables of two short
columns charset-normalizer 3.5 read six in the letters of another alphabet, Windows-1251 as Japanese among them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

_FIELDS = re.compile(rb'[^,;\t\r\n"]*[\x80-\xff][^,;\t\r\n"]*')
"""What stands between marks that are part of no character, in any of these encodings."""
_MOST = 16_384
"""Bytes of different fields that are looked at."""
_MARGIN = math.log(200)
_ABSENT = math.log(0.003)
_UNITS = dict.fromkeys("µμ°²³±–’", math.log(0.3))
_SIGNS = dict.fromkeys("§€«»„“”‚‘—…·½¼¾®©™ªº£×÷¿¡•\u00a0\u00ad", math.log(0.015))
_SYMBOLS = _UNITS | _SIGNS
"""Signs that stand in texts, with the logarithm of about how likely they are."""
_OF_DOS_AND_MACS = ("cp737", "cp775", "cp850", "cp852", "cp857", "cp862", "cp866", "mac_roman", "mac_cyrillic")
_RARELY = {"cp1252": 0.0, "cp1257": 2.0, "iso8859": 2.0, **dict.fromkeys(_OF_DOS_AND_MACS, 5.0)}
"""How much rarer an encoding is than Windows-1252 (natural logarithm), 1 for those that are not named."""
_MARKS = "\u0e30-\u0e4e"
"""Vowels and tones of Thai, which are letters here."""
_WORD = re.compile(rf"(?:[^\W\d_]|[{_MARKS}])+")
_INSIDE = re.compile(r"[^\W\d_][^\w\s\x00-\x7f’·\u00ad\u0e30-\u0e4e][^\W\d_]|[\u0370-\uffff]’[\u0370-\uffff]")
_BESIDE = re.compile(r"[^\w\s\x00-\x7f\u0e30-\u0e4e](?=[^\w\s\x00-\x7f\u0e30-\u0e4e])")
"""A sign beside another one."""

_LATIN_1 = ("cp1252", "iso8859_15", "cp850", "mac_roman")
_LATIN_2 = ("cp1250", "iso8859_2", "cp852")
_CYRILLIC = ("cp1251", "koi8_u", "iso8859_5", "cp866", "mac_cyrillic")
_WRITTEN: tuple[tuple[tuple[str, ...], str], ...] = (
    (_LATIN_1, "éàèêçôîâûùëïœæÿ"),  # French
    (_LATIN_1, "üäößé"),  # German
    (_LATIN_1, "óíáéñúü"),  # Spanish
    (_LATIN_1, "ãçáéíóêõúâàôü"),  # Portuguese
    (_LATIN_1, "èàùòéì"),  # Italian
    (_LATIN_1, "ëéïöüèáóê"),  # Dutch
    (_LATIN_1, "äöåé"),  # Swedish, Finnish
    (_LATIN_1, "øåæéö"),  # Danish, Norwegian
    (_LATIN_1, "ðáíþóöæéúý"),  # Icelandic
    (_LATIN_1, "óàèíéòçúïü"),  # Catalan
    (_LATIN_2, "łęąóżśćńź"),  # Polish
    (_LATIN_2, "íáěéřčžšýůúňťďó"),  # Czech
    (_LATIN_2, "áíčéýšžúľťôňäďóŕĺ"),  # Slovak
    (_LATIN_2, "áéöóőíüúű"),  # Hungarian
    (_LATIN_2, "čšžćđ"),  # Croatian, Slovene, Bosnian
    (_LATIN_2, "ăîşţâ"),  # Romanian
    (_LATIN_2, "üäößé"),
    (("cp1254", "cp857"), "ıüşğçöi̇âî"),  # Turkish
    (("cp1257", "iso8859_13", "cp775"), "ėšųžąįčūę"),  # Lithuanian
    (("cp1257", "iso8859_13", "cp775"), "āīēšņūļžķģč"),  # Latvian
    (("cp1257",), "äõüöšž"),  # Estonian
    (_CYRILLIC, "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"),  # Russian
    (_CYRILLIC, "оаинвертіслкдмпузяьбгйчхцюєїжшщфґ"),  # Ukrainian
    (_CYRILLIC, "аиоентрсвлкдпмзгъубячйщцжхшюфь"),  # Bulgarian
    (_CYRILLIC, "аиоенрстујдкмвлпбгзчшцжњљћхђфџ"),  # Serbian
    (("cp1253", "iso8859_7", "cp737"), "αοιετςνηρπκσμυλόίγάδέθωχήύφβώξζψϊϋΐΰ"),
    (("cp1255", "cp862"), "יוהלאתרבםשנמעקדחפכטגזסןצךףץ"),
    (("cp1256", "iso8859_6"), "اليمنوترةبعدسكفحقجشطصأذزخهىضثغإظءئؤآ"),
    (("cp874",), "านรกอเ่งม้ยลวดทสตะปคัีิบหใชแุพูถขำไ์ึโจผืณศซธฐภฤ"),
)
_SEVERAL_BYTES: tuple[tuple[str, tuple[tuple[range, float], ...], str], ...] = (
    ("cp932", ((range(0x81, 0x82), 5), (range(0x82, 0x84), 4.5), (range(0x88, 0x98), 8.6), (range(0x98, 0xA0), 11)),
     "日月年大人一中上下子部本性名者出生手心体内外血病院医師科室氏男女患診断検査所見治療骨折頭痛胸腹肺炎炎疑左右山田"),
    ("euc_jp", ((range(0xA1, 0xA4), 6), (range(0xA4, 0xA6), 4.5), (range(0xB0, 0xD0), 8.6), (range(0xD0, 0xF5), 11)),
     "日月年大人一中上下子部本性名者出生手心体内外血病院医師科室氏男女患診断検査所見治療骨折頭痛胸腹肺炎炎疑左右山田"),
    ("gb18030", ((range(0xA1, 0xA4), 6), (range(0xB0, 0xD8), 8.6), (range(0xD8, 0xF8), 11)),
     "的一是不了在人有大中上下来国年月日性名者出生手心体内外血病院医师科室男女患诊断检查所见治疗骨折头痛胸腹肺炎左右王李张"),
    ("cp950", ((range(0xA1, 0xA4), 6), (range(0xA4, 0xC7), 8.6), (range(0xC9, 0xFA), 11)),
     "的一是不了在人有大中上下來國年月日性名者出生手心體內外血病院醫師科室男女患診斷檢查所見治療骨折頭痛胸腹肺炎左右王李張"),
    ("cp949", ((range(0xA1, 0xA4), 6), (range(0xB0, 0xC9), 8.6), (range(0xCA, 0xFE), 11)),
     "이다의가는에을로고하지한사기시도자어리인해아나서대부일전수정진단환병원검사성명남여김박통증두골폐소견우상장"),
)  # fmt: skip
"""By the first byte of a character, how unlikely it is (natural logarithm): signs, syllables, frequent and rare words;
and the characters that are met most."""
_MET = 5.5
_MARGIN_OF_WORDS = 9.0
_RARE = 14.0

ENCODINGS = (
    *dict.fromkeys(encoding for several, _ in _WRITTEN for encoding in several),
    *(encoding for encoding, _, _ in _SEVERAL_BYTES),
)
"""The codecs that are told apart."""
_WORDS = ENCODINGS[-len(_SEVERAL_BYTES) :]


def encoding_of(sample: bytes) -> str | None:
    """The codec of a text that is no Unicode, of which `sample` is a part; None when it is not certain."""
    fields = _different(sample)
    if not fields:
        return None
    readings: dict[str, tuple[float, str]] = {}
    for encoding, likelihood, text in _read(fields):
        if text not in readings or likelihood > readings[text][0]:
            readings[text] = (likelihood, encoding)
    (best, encoding), *others = sorted(readings.values(), reverse=True)
    if _faults(fields.decode(encoding, "surrogateescape")) > len(fields) / 200:
        return None  # the likeliest reading is not likely either
    margin = _MARGIN_OF_WORDS if encoding in _WORDS else _MARGIN
    return encoding if not others or best - others[0][0] >= margin else None


def _different(sample: bytes) -> bytes:
    found: dict[bytes, None] = {}
    size = 0
    for match in _FIELDS.finditer(sample):
        if match[0] not in found:
            found[match[0]] = None
            size += len(match[0])
        if size > _MOST:
            break
    return b"\n".join(found)


def _read(fields: bytes) -> Iterator[tuple[str, float, str]]:
    """Each encoding with the logarithm of the likelihood of what it makes of the fields, and that text."""
    for encoding in ENCODINGS[: -len(_SEVERAL_BYTES)]:
        text = fields.decode(encoding, "surrogateescape")
        alphabets = [_weights(letters) for several, letters in _WRITTEN if encoding in several]
        rarely = _RARELY.get(encoding.split("_")[0], _RARELY.get(encoding, 1.0))
        yield encoding, _form(text) - rarely + max(_letters(text, one) for one in alphabets), text
    for encoding, leads, met in _SEVERAL_BYTES:
        text = fields.decode(encoding, "surrogateescape")
        yield encoding, _characters(text, encoding, leads, met), text


@cache
def _weights(letters: str) -> dict[str, float]:
    """Letters in the order of their frequency, with the logarithm of about what it is."""
    shares = [math.exp(-3 * place / len(letters)) for place in range(len(letters))]
    return {letter: math.log(share / sum(shares)) for letter, share in zip(letters, shares, strict=True)}


def _letters(text: str, weights: dict[str, float]) -> float:
    counts = Counter(letter for letter in text.lower() if letter > "\x7f" and _is_letter(letter))
    return sum(count * weights.get(letter, _ABSENT) for letter, count in counts.items())


def _is_letter(sign: str) -> bool:
    return (sign.isalpha() and sign not in _SYMBOLS) or "\u0e30" <= sign <= "\u0e4e"


def _form(text: str) -> float:
    """What speaks against a text, apart from which letters it has."""
    symbols = 0.0
    for sign, count in Counter(sign for sign in text if sign > "\x7f").items():
        if sign in _SYMBOLS:
            symbols += count * _SYMBOLS[sign]
    capitals, pairs = 0, 0
    for word in _WORD.findall(text):
        if word.isascii():
            continue
        capitals += len(word) > 1 and word.isupper()
        pairs += sum("\x7f" < one < "\u0250" and "\x7f" < other < "\u0250" for one, other in pairwise(word))
    return _faults(text) * _ABSENT + symbols - capitals - 1.5 * pairs


def _faults(text: str) -> int:
    """How many places of a text are as no text is written."""
    faults = len(_INSIDE.findall(text)) + len(_BESIDE.findall(text))
    for sign, count in Counter(sign for sign in text if sign > "\x7f").items():
        faults += 2 * count * (sign not in _SYMBOLS and not _is_letter(sign))
    for word in _WORD.findall(text):
        if word.isascii():
            continue
        for before, here, behind in zip(word, word[1:], word[2:] + " ", strict=False):
            if here.isupper() and (before.islower() or (not here.isascii() and behind.islower())):
                faults += 1
            elif (before < "\u0250") != (here < "\u0250"):
                faults += 2
    return faults


def _characters(text: str, encoding: str, leads: tuple[tuple[range, float], ...], met: str) -> float:
    """The likelihood of a text whose characters have several bytes each."""
    total = 0.0
    before = ""
    for sign in text:
        if sign <= "\x7f":
            before = ""
            continue
        if "\udc80" <= sign <= "\udcff":
            total += 2 * _ABSENT
            continue
        lead = sign.encode(encoding)
        cost = _RARE if len(lead) > 1 else 6.0
        total -= (
            _MET if sign in met else next((cost for among, cost in leads if lead[0] in among and len(lead) == 2), cost)
        )
        if before and ("\uac00" <= before <= "\ud7a3") != ("\uac00" <= sign <= "\ud7a3"):
            total += _ABSENT / 2
        before = sign
    return total
