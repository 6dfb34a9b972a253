"""Bare statements, which ask nothing."""

import pytest

from shared.veto import asks_nothing, read

STATEMENTS = [
    "The film was photographed by Rajiv Menon and edited by Sreekar Prasad.",
    "In 1924 he was an invited spokesman for the congress in Toronto.",
    "It flows into Peachtree Creek, which then flows into the river south of Vinings.",
    "Rakai is the headquarters of the Rakai district, which was affected first.",
    "the port is near the city of vitoria in brazil",
    "He died in Milwaukee, where he retired in 1903.",
    "The parser reads the file into memory and returns a tree.",
    "So then the film was photographed by Rajiv Menon in Rome.",
]

REQUESTS = [
    "Cetirizine dosage",
    "iPhone 15 battery life",
    "light laptops that are cheap and good for students",
    "Tesla revenue Q3 2021",
    "best laptops for students that are light and cheap",
    "Is the film photographed by Rajiv Menon any good",
    "After flying, when can one apply sunscreen again",
    "In which country was the microscope invented",
    "Dumb question, but is alcohol okay with amoxicillin",
    "Write a poem about a river that is dry",
    "For a trip to Rome, list five hotels that are cheap",
    "My card was declined at the shop in Rome yesterday",
    "The build fails with an error when the module is imported",
    "Of which number is 442 44 per cent",
    "A train leaves Rome at five and is in Milan at eight. Find its speed.",
    "hi, the film was photographed by Rajiv Menon in Rome",
    "The film was photographed by Rajiv Menon in Rome?",
    "The top-up did not go through",
    "It is late now",
    "",
    "...",
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_a_statement_asks_nothing(text: str) -> None:
    """A subject, a finite verb, and nobody who asks."""
    assert asks_nothing(read(text))


@pytest.mark.parametrize("text", REQUESTS)
def test_a_request_asks(text: str) -> None:
    """Questions, requests, searches, troubles, and what is too short to tell."""
    assert not asks_nothing(read(text))
