"""Tests of personal data: what is found, what only looks like it, what a masked text says."""

from __future__ import annotations

from collections import Counter

import pytest

from sleepd.text.personal_data import PIECE, counts_text, find_personal, masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ilse.m+news@orchard.example, please.", "Write to [e-mail], please."),
        ("a@b.example and c@d.example", "[e-mail] and [e-mail]"),
        ("Call +49 30 901820 or +44 (0)20 7946 0958.", "Call [telephone] or [telephone]."),
        ("Call (212) 555-0147 today", "Call [telephone] today"),
        ("Ruf 030 9018 2000 an.", "Ruf [telephone] an."),
        ("Tel.: 9018200", "Tel.: [telephone]"),
        ("My phone number is 555 0147 22", "My phone number is [telephone]"),
        ("Card 4111 1111 1111 1111, 12/29", "Card [card], 12/29"),
        ("Card 5500-0055-5555-5559.", "Card [card]."),
        ("IBAN: DE89 3704 0044 0532 0130 00.", "IBAN: [IBAN]."),
        ("gb82west12345698765432", "[IBAN]"),
        ("He came from 203.0.113.7.", "He came from [IP address]."),
        ("ssh pi@192.168.1.20", "ssh pi@[IP address]"),
        ("from 2001:db8::8a2e:370:7334 again", "from [IP address] again"),
        ("I live at 12 Old Mill Lane, Leeds.", "I live at [street], Leeds."),
        ("Wohnt in der Lindenstraße 7b, 10115 Berlin", "Wohnt in der [street], 10115 Berlin"),
        ("Elle habite 14 rue de Rivoli à Paris", "Elle habite [street] à Paris"),
        ("Vive en Calle Mayor 5, Madrid", "Vive en [street], Madrid"),
    ],
)
def test_personal_data_is_masked(text: str, expected: str) -> None:
    """Each kind becomes its placeholder, and all else stays as it was."""
    assert masked(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "Card 4111 1111 1111 1112 fails its check.",
        "GB82 WEST 1234 5698 7654 33 fails its check.",
        "The server listens on 127.0.0.1 and 0.0.0.0, version 1.2.3.4.5.",
        "It is 12:30:05 on 2026-11-27, and 00:1a:2b:3c:4d:5e is a hardware address.",
        "std::vector<int> a::b",
        "Run 6fa459ea-ee8a-3ca4-894e-db77e160355e, commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "pi is 3.14159265358979323846, and 2 ** 53 is 9007199254740992",
        "@dataclass def f(self): return x @ y",
        "ISBN 978-3-16-148410-0, pages 120-134, 10 000 000 copies",
        "Take 250 g flour, 2 eggs and 500 ml milk; bake at 180 for 45 minutes.",
        "In 1066, 1492, 1789, 1914 and 1989.",
        "192 168 1 20, 20 000 leagues, 1-2-3",
        "torch 2.5.1+cu124, 10.2.0, 1.10.100",
    ],
)
def test_look_alikes_are_no_personal_data(text: str) -> None:
    """Numbers that fail their check, versions, times, hashes and figures of recipes stay."""
    assert masked(text) == (text, Counter())


def test_masked_text_holds_nothing_more() -> None:
    """Masking a masked text changes nothing, and the counts are told in words."""
    text, found = masked("a@b.example, b@c.example, +49 30 901820")
    assert masked(text) == (text, Counter())
    assert counts_text(found) == "2 e-mail, 1 telephone"


@pytest.mark.parametrize("filler", ["word ", "line\n", "x", "1", "a@", "1 ", "é"])
def test_long_text_is_masked_in_pieces(filler: str) -> None:
    """Wherever an address stands in a long text, all around it stays, and an address at a space is found."""
    before = filler * (3 * PIECE // len(filler))
    text, found = masked(f"{before} ilse@orchard.example {before}")
    assert found["e-mail"] == 1
    assert " [e-mail] " in text
    assert text.count(filler.strip()) == 2 * before.count(filler.strip())


def test_counts_are_those_of_the_mask() -> None:
    """What is counted is what would be masked."""
    assert find_personal("ilse@orchard.example") == Counter({"e-mail": 1})


def test_arguments_stay_json_when_masked() -> None:
    """Personal data in the arguments of a call and in tools are masked, and what is left is JSON."""
    import json

    from sleepd.buffer.masking import masked_example
    from sleepd.protocol.chat_example import ChatExample, ToolCall

    arguments = json.dumps({"body": "Write to\njohn@example.org", "card": 4111111111111111, "count": 3})
    tools = json.dumps([{"function": {"name": "f", "description": "ask\nops@example.org"}}])
    one, found = masked_example(
        ChatExample(prompt="p", response="", calls=(ToolCall(name="f", arguments=arguments),), tools=tools)
    )
    given = json.loads(one.calls[0].arguments)
    assert (given["count"], "john" in given["body"], "4111" in str(given["card"])) == (3, False, False)
    assert "ops@" not in json.loads(one.tools)[0]["function"]["description"]
    assert found.total() == 3
