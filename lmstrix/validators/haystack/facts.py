"""The facts that needles tell: numbers, a few words, two codes, unlike one another.

Each line of a table is a stem, up to its value. See `needles` for what a stem must be like.
"""

from __future__ import annotations

__all__ = ["CODES", "NEAR", "NUMBERS", "WORDS"]

NUMBERS: tuple[str, ...] = (
    "The weight of the great bronze bell in pounds is",
    "The lighthouse lamp burned for a number of hours equal to",
    "The choir of Saint Ives rehearses in room",
    "The royal library keeps the treaty on shelf",
    "The spring marathon was won by the runner wearing bib",
    "The subway train to the airport consists of carriage",
    "The arctic station measured a snow depth in millimetres of",
    "The freight elevator can carry a load in kilograms of",
    "The concert grand was tuned by technician",
    "The submarine can dive to a pressure in millibars of",
    "The tea plantation lies on survey square",
    "The chess champion's rating rose to",
    "The quartz mine was closed at shaft",
    "The vault of the Osprey Hotel opens with the number",
    "The comet will return to our sky on day",
    "The glacier lost a volume in cubic metres of",
    "The summit of Harrow Peak has an altitude in feet of",
    "The oldest oak in Fenwick forest stands on parcel",
    "The telescope in the tower is engraved with the serial",
    "The first edition of the almanac is stored in crate",
    "The winning yacht sailed with the registration",
    "The documentary film was shot on negative roll",
    "The vaccine was delivered to the clinic in batch",
    "The spice caravan made camp at desert well",
    "The stolen violin was insured under policy",
    "The volcano was mapped on chart",
    "The satellite weighs in grams",
    "The pearl divers anchored above reef",
    "The whale was tagged with transmitter",
    "The population of Eastmoor at the last census was",
    "To reach Doctor Ellwood by telephone, dial",
    "The opera house keeps its costumes in locker",
    "The space probe sends on a frequency in kilohertz of",
    "The embassy's parcel is tracked as consignment",
    "The missing bicycle has the frame engraving",
    "The jury sealed its verdict in envelope",
    "The lottery's first prize went to ticket",
    "The hydroelectric dam produces a power in kilowatts of",
    "The museum lists the dinosaur skull as exhibit",
    "The prime minister's speech is kept on magnetic tape",
)
"""Stems that end with a number."""

WORDS: tuple[str, ...] = (
    "The secret password of the sailors' guild is",
    "The captain's favourite fruit is the",
    "The astronomers named the new planet",
    "The racehorse in the last stall is called",
)
"""Stems that end with a word."""

CODES: tuple[str, ...] = (
    "The black locomotive is registered under the code",
    "The treasure map is marked with the sign",
)
"""Stems that end with letters and digits; the two are of different shapes."""

NEAR: dict[str, str] = {
    "The vault of the Osprey Hotel opens with the number": (
        "The cellar of the Osprey Hotel is locked with the combination"
    ),
    "The choir of Saint Ives rehearses in room": "The theatre club of Saint Ives meets in hall",
    "To reach Doctor Ellwood by telephone, dial": (
        "The brother of Doctor Ellwood has his practice at box"
    ),
    "The summit of Harrow Peak has an altitude in feet of": (
        "The summit of Mount Selby was first climbed by party"
    ),
    "The opera house keeps its costumes in locker": "The opera house sold its old scores as lot",
    "The population of Eastmoor at the last census was": (
        "The population of Northgate at the last fair bought"
    ),
    "The oldest oak in Fenwick forest stands on parcel": (
        "The tallest pine in Fenwick forest carries the label"
    ),
    "The weight of the great bronze bell in pounds is": (
        "The weight of the little silver bell was noted on page"
    ),
}
"""Stems that are near to an asked one. Their sentences distract, and are never asked for.

Near in subject, not in their last words: SmolLM2-135M finishes two sentences that end alike with
each other's value at 4k already.
"""
