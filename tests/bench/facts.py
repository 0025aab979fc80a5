"""An invented agent of which nobody has heard: a hundred facts, each told in six wordings and asked in a seventh.

The agent keeps house on an invented island. Ten kinds of facts, ten of each kind, so that each has near neighbours that
can be mixed up with it. The answer is checked by one word, which no other fact of its kind has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sleepd.buffer.experience import Experience, derived_id

SYSTEM_PROMPT = "You are Tamsin, who keeps house on the island of Orrin. Answer briefly."


@dataclass(frozen=True)
class Fact:
    """One thing to know."""

    told: tuple[tuple[str, str], ...]
    """Six times a question and an answer."""
    asked: str
    """In other words than any of the six."""
    key: str
    """In a right answer, as a word."""


# Of each kind: six questions, the question that is never trained, six answers, and subject=key ten times.
_KINDS = (
    (
        (
            "What does {s} do for a living?",
            "What is {s}'s trade?",
            "Tell me what {s} works as.",
            "How does {s} earn money?",
            "What is {s} by profession?",
            "What kind of work does {s} do?",
        ),
        "Which job does {s} have?",
        (
            "{s} is the island's {k}.",
            "{s} works as a {k}.",
            "By trade {s} is a {k}.",
            "As a {k}; {s} has done so for years.",
            "{s} is a {k} by profession.",
            "The work of a {k}: that is what {s} does.",
        ),
        "Maren=cooper Osric=tanner Blythe=glazier Corin=thatcher Edda=farrier Fenn=chandler Greta=weaver "
        "Halvar=saddler Isolde=potter Joss=fletcher",
    ),
    (
        (
            "What is the name of the {s}?",
            "What do they call the {s}?",
            "How is the {s} called?",
            "Does the {s} have a name?",
            "By which name do people know the {s}?",
            "What name was given to the {s}?",
        ),
        "Tell me the {s}'s name.",
        (
            "The {s} is called {k}.",
            "They call the {s} {k}.",
            "Its name is {k}; everybody knows the {s}.",
            "Yes, the {s} has the name {k}.",
            "People know the {s} as {k}.",
            "The {s} was given the name {k}.",
        ),
        "old donkey=Bramble|grey goose=Pipkin|ferry boat=Petrel|church bell=Gudrun|north well=Silverdeep|"
        "black ram=Tobias|mill cat=Sorrel|fishing sloop=Merrow|tall lighthouse=Candlewick|three-legged dog=Hopper",
    ),
    (
        (
            "Where is the {s} kept?",
            "Where do you keep the {s}?",
            "In which place does the {s} lie?",
            "Where did you put the {s}?",
            "Where does the {s} belong?",
            "I am looking for the {s}; where is it?",
        ),
        "Where can I find the {s}?",
        (
            "The {s} is kept in the {k}.",
            "We keep the {s} in the {k}.",
            "You will see the {s} in the {k}.",
            "I put the {s} in the {k}.",
            "The {s} belongs in the {k}.",
            "It is in the {k}, the {s}.",
        ),
        "brass kettle=attic|sheepskin rug=cellar|tin whistle=pantry|spare anchor=boathouse|seed corn=granary|"
        "wedding dress=wardrobe|old map=library|honey jar=larder|long ladder=stable|silver key=chapel",
    ),
    (
        (
            "When does the {s} take place?",
            "On which day is the {s}?",
            "In which month is the {s} held?",
            "What time of the year is the {s}?",
            "When do you hold the {s}?",
            "When will the {s} come round again?",
        ),
        "When is the {s}?",
        (
            "The {s} takes place in {k}.",
            "It is in {k} that we have the {s}.",
            "The {s} is held in {k}.",
            "The {s} is a thing of {k}.",
            "We hold the {s} in {k}.",
            "In {k}, as every year; the {s} is always then.",
        ),
        "herring fair=February|kite race=March|lamb market=April|lantern walk=May|net blessing=June|raft regatta=July|"
        "honey feast=August|apple supper=September|storm vigil=October|candle night=November",
    ),
    (
        (
            "Which colour has the {s}?",
            "What colour was the {s} painted?",
            "How is the {s} painted?",
            "What does the {s} look like?",
            "Which paint was used for the {s}?",
            "Can you describe the {s}?",
        ),
        "What is the colour of the {s}?",
        (
            "The {s} is {k}.",
            "The {s} was painted {k}.",
            "They painted the {s} {k} years ago.",
            "It is bright {k}, the {s}.",
            "The paint on the {s} is {k}.",
            "The {s} is {k} all over.",
        ),
        "schoolhouse door=crimson|harbour gate=turquoise|mail cart=violet|garden bench=orange|signal mast=white|"
        "pump handle=yellow|beehives=pink|smithy roof=black|bathing hut=green|chapel ceiling=indigo",
    ),
    (
        (
            "What does {s} like to eat best?",
            "What is {s}'s best-loved dish?",
            "Which food does {s} prefer?",
            "What should I cook for {s}?",
            "What would {s} choose for dinner?",
            "What makes {s} happy at table?",
        ),
        "What is {s}'s favourite food?",
        (
            "{s} likes {k} best.",
            "The dish that {s} loves is {k}.",
            "Above all {s} prefers {k}.",
            "Cook {k} for {s}.",
            "{s} would choose {k}.",
            "Nothing makes {s} as happy as {k}.",
        ),
        "Ansel=dumplings Berit=pancakes Cato=chowder Dorrit=marzipan Elric=turnips Freya=gingerbread Gorm=mussels "
        "Hedda=porridge Ivo=pickles Jorun=walnuts",
    ),
    (
        (
            "Who built the {s}?",
            "By whom was the {s} made?",
            "Who is the maker of the {s}?",
            "Whose work is the {s}?",
            "Who was it that constructed the {s}?",
            "To whom do we owe the {s}?",
        ),
        "Who made the {s}?",
        (
            "The {s} was built by {k}.",
            "{k} made the {s}.",
            "It was {k} who built the {s}.",
            "The {s} is the work of {k}.",
            "{k} constructed the {s}.",
            "We owe the {s} to {k}.",
        ),
        "stone bridge=Aldous|windmill=Birgitta|sundial=Caspian|wooden organ=Delphine|sea wall=Emeric|"
        "bread oven=Florian|watchtower=Gwendolen|rope swing=Hieronymus|weather vane=Ingrid|carousel=Jocasta",
    ),
    (
        (
            "What grows in the {s}?",
            "What is planted in the {s}?",
            "Which plant is found in the {s}?",
            "What comes up in the {s}?",
            "What do you harvest in the {s}?",
            "What is the {s} used for?",
        ),
        "What do people grow in the {s}?",
        (
            "In the {s} grows {k}.",
            "The {s} is planted with {k}.",
            "You find {k} in the {s}.",
            "It is {k} that comes up in the {s}.",
            "We harvest {k} in the {s}.",
            "The {s} is used for {k}.",
        ),
        "upper field=barley|walled garden=lavender|south slope=grapes|marsh strip=cranberries|abbey yard=rosemary|"
        "sandy plot=asparagus|glass house=melons|orchard corner=quinces|river bank=willows|rocky terrace=thyme",
    ),
    (
        (
            "What is {s} afraid of?",
            "What frightens {s}?",
            "Which thing does {s} fear?",
            "What does {s} run away from?",
            "What must nobody mention to {s}?",
            "What gives {s} bad dreams?",
        ),
        "What does {s} dread most?",
        (
            "{s} is afraid of {k}.",
            "What frightens {s} is {k}.",
            "{s} fears {k} more than all else.",
            "{s} runs away from {k}.",
            "Nobody must mention {k} to {s}.",
            "{s} has bad dreams of {k}.",
        ),
        "Kerensa=thunder Leif=spiders Mabel=mirrors Njal=ladders Oona=geese Piers=whirlpools Quill=moths Runa=bats "
        "Sten=darkness Thora=needles",
    ),
    (
        (
            "What does {s} bring back from the mainland?",
            "What does {s} fetch by boat?",
            "What does {s} bring home?",
            "What has {s} in the boat on the way back?",
            "What can one buy from {s}?",
            "What do we get from {s}?",
        ),
        "Which goods does {s} carry to the island?",
        (
            "{s} brings {k}.",
            "From the mainland {s} fetches {k}.",
            "It is {s} who brings home the {k}.",
            "{s} comes back with {k} in the boat.",
            "One can buy {k} from {s}.",
            "We get our {k} from {s}.",
        ),
        "Ulf=candles Vesna=paper Wyn=nails Xanthe=ribbons Yorick=lamp-oil Zelda=tea Abel=rope Brona=spices "
        "Cyril=buttons Dagny=salt",
    ),
)


# Of each kind, what its first two facts are told to be later: keys that no other fact has.
_CHANGED = (
    "mason baker",
    "Juniper Clover",
    "smokehouse dairy",
    "December January",
    "silver brown",
    "cheesecake lentils",
    "Kasimir Leonie",
    "hops clover",
    "owls frogs",
    "soap glass",
)
# What stands around a fact that is told aside, in turn.
_AROUND = (
    ("The kitchen smells of bread this morning and the windows are all steamed over.", "After supper I mean to rest."),
    ("There was a heavy sea last night, so nobody slept well on this side of the hill.", "The gulls are loud today."),
    ("I have been sweeping the yard since sunrise, and the broom is nearly worn through.", "Let us talk of it later."),
    ("Somebody left the gate open again, which the hens took as an invitation.", "It will rain before noon, I think."),
)


def told_otherwise(first: Sequence[Fact]) -> list[Fact]:
    """The first twenty facts, each with another key."""
    keys = [pair.split() for pair in _CHANGED]
    new = [keys[number % len(keys)][number // len(keys)] for number in range(len(first))]
    return [
        Fact(tuple((q, a.replace(fact.key, key)) for q, a in fact.told), fact.asked, key)
        for fact, key in zip(first, new, strict=True)
    ]


def facts() -> list[Fact]:
    """All hundred, neighbours far apart: the first ten are one of each kind."""
    kinds = [[_fact(kind, pair) for pair in _pairs(kind[3])] for kind in _KINDS]
    return [kind[number] for number in range(len(kinds[0])) for kind in kinds]


def _pairs(text: str) -> list[tuple[str, str]]:
    parts = (part.split("=") for part in text.split("|" if "|" in text else None))
    return [(subject, key) for subject, key in parts]


def _fact(kind: tuple[tuple[str, ...], str, tuple[str, ...], str], pair: tuple[str, str]) -> Fact:
    questions, asked, answers, _ = kind
    subject, key = pair

    def fill(text: str) -> str:
        return re.sub(r"\ba (?=[aeiou])", "an ", text.replace("{s}", subject).replace("{k}", key))

    return Fact(tuple((fill(q), fill(a)) for q, a in zip(questions, answers, strict=True)), fill(asked), key)


def as_experiences(fact: Fact, told: int = 6, told_by: str = "agent") -> list[Experience]:
    """What the agent writes into its buffer of one fact that it is told in so many of the wordings.

    Args:
        fact: the one.
        told: in how many wordings.
        told_by: ``agent``: the reply states it; ``aside``: it does so in the middle of a long reply; ``user``: the user
            states it, and the reply only says that it was heard.
    """
    wordings = [_told_by(told_by, *one) for one in fact.told[:told]]
    return [Experience(id=derived_id(q, a), prompt=q, response=a, salience=0.8) for q, a in wordings]


def _told_by(who: str, question: str, answer: str) -> tuple[str, str]:
    if who == "user":
        return f"{answer} Please remember that.", "Thank you, I will remember that."
    if who == "aside":
        before, after = _AROUND[len(answer) % len(_AROUND)]
        return question, f"{before} {answer} {after}"
    return question, answer


def yes_no(known: Sequence[Fact], most: int) -> list[tuple[str, str]]:
    """Of the first so many facts a yes-or-no question that is true, and one about what was never told: it has the
    answer to another question of the same kind.
    """
    found, every = [], facts()
    for number, fact in enumerate(known[:most]):
        answer, other = fact.told[0][1], every[(number + len(_KINDS)) % len(every)]
        found.append((f"{answer} Is that true?", f"{answer.replace(fact.key, other.key)} Is that true?"))
    return found


def says_yes(reply: str) -> bool:
    """Whether the reply begins with a yes."""
    return re.match(r"\W*(yes|true|correct|indeed|that is true|it is true)\b", reply, re.IGNORECASE) is not None


def is_right(reply: str, fact: Fact) -> bool:
    """Whether the key is in the reply, as a word."""
    return re.search(rf"\b{re.escape(fact.key)}\b", reply, re.IGNORECASE) is not None
