"""Questions with short answers for the tiny chat model: facts of a small world and sums of small numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

from tiny_chat_stories import article
from tiny_chat_words import (
    ANIMALS,
    BODY,
    CATEGORIES,
    COLORS,
    DAYS,
    FANTASY,
    LEGS,
    MIXES,
    MONTHS,
    NATURE,
    NUMBERS,
    OPPOSITES,
    PEOPLE,
    QUIET_ANIMALS,
    SEASONS,
    SHAPES,
    SIZES,
    SIZES_THINGS,
    THINGS,
    WEATHER,
)

Turn = tuple[str, str]


def _ask(rng: random.Random, *forms: str) -> str:
    """Picks a form of the question and gives it the looks that users give it."""
    text = rng.choice(forms)
    text = text[:1].upper() + text[1:]
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip("?.")
    return text


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sound(rng: random.Random) -> list[Turn]:
    animals = rng.sample(list(ANIMALS), 3)
    turns = []
    for place, animal in enumerate(animals[: rng.choice([1, 1, 2, 3])]):
        a, sound = article(animal), ANIMALS[animal][2]
        forms = [
            f"what sound does {a} make?",
            f"what does {a} say?",
            f"what noise does {a} make?",
            f"how does {a} sound?",
        ]
        if place:
            forms = [f"and {a}?", f"what about {a}?", f"and what does {a} say?"]
        turns.append(
            (_ask(rng, *forms), rng.choice([f"{_cap(a)} says {sound}.", f"{_cap(a)} says {sound}!"]))
        )
    return turns


def _animal(rng: random.Random) -> list[Turn]:
    animal = rng.choice([*ANIMALS, *QUIET_ANIMALS])
    a = article(animal)
    home, food = ANIMALS[animal][:2] if animal in ANIMALS else QUIET_ANIMALS[animal]
    kind = rng.choice(["home", "food", "baby", "what", "is"])
    if kind == "baby" and animal in ANIMALS:
        baby = ANIMALS[animal][3]
        forms = (
            f"what is a baby {animal} called?",
            f"what do you call a baby {animal}?",
            f"what is the baby of {a}?",
        )
        return [(_ask(rng, *forms), f"A baby {animal} is called {article(baby)}.")]
    if kind == "food":
        turns = [
            (
                _ask(rng, f"what does {a} eat?", f"what do you feed {a}?", f"what does {a} like to eat?"),
                f"{_cap(a)} likes to eat {food}.",
            )
        ]
        if rng.random() < 0.3:
            turns.append(
                (
                    _ask(rng, "and where does it live?", "where does it live?"),
                    f"{_cap(a)} may live in {_at(home)}.",
                )
            )
        return turns
    if kind == "home":
        turns = [
            (
                _ask(rng, f"where does {a} live?", f"where can I find {a}?"),
                f"{_cap(a)} may live in {_at(home)}.",
            )
        ]
        if rng.random() < 0.3:
            turns.append(
                (_ask(rng, "and what does it eat?", "what does it eat?"), f"{_cap(a)} likes to eat {food}.")
            )
        return turns
    if kind == "is":
        thing = rng.choice(list(THINGS))
        if rng.random() < 0.5:
            return [(_ask(rng, f"is {a} an animal?"), f"Yes, {a} is an animal.")]
        return [
            (
                _ask(rng, f"is {article(thing)} an animal?"),
                f"No, {article(thing)} is not an animal. It is a thing.",
            )
        ]
    many = {"mouse": "mice", "goose": "geese", "wolf": "wolves", "butterfly": "butterflies"}.get(
        animal, animal + "s"
    )
    if animal in ("sheep", "fish", "deer"):
        many = animal
    forms = (
        f"what is {a}?", f"what's {a}?", f"do you know what {a} is?", f"tell me about {a}.", f"tell me about {many}.",
        f"what do you know about {many}?", f"what are {many}?", f"tell me about the {animal}.",
    )  # fmt: skip
    answer = f"{_cap(a)} is an animal. It likes to eat {food}."
    if animal in ANIMALS:
        answer = f"{_cap(a)} is an animal that says {ANIMALS[animal][2]}. It likes to eat {food}."
    turns = [(_ask(rng, *forms), answer)]
    if rng.random() < 0.3:
        turns.append(
            (
                _ask(rng, "where does it live?", "and where does it live?"),
                f"{_cap(a)} may live in {_at(home)}.",
            )
        )
    if rng.random() < 0.3 and animal in ANIMALS:
        sound = ANIMALS[animal][2]
        turns.append(
            (_ask(rng, "what sound does it make?", "and what does it say?"), f"{_cap(a)} says {sound}.")
        )
    return turns


def _at(home: str) -> str:
    return home.removeprefix("in ")


def _thing(rng: random.Random) -> list[Turn]:
    thing = rng.choice(list(THINGS))
    a, use = article(thing), THINGS[thing][1]
    if thing == "scissors":
        a = "scissors"
    forms = (
        f"what do you do with {a}?", f"what can you do with {a}?", f"what is {a} for?", f"what is {a}?", f"how do you use {a}?",
        f"what do I do with {a}?", f"why do people have {a}?", f"what do you use {a} for?", f"what can I do with {a}?",
    )  # fmt: skip
    if use.endswith("it") or " it" in use:
        return [(_ask(rng, *forms), f"If you have {a}, you can {use}.")]
    return [(_ask(rng, *forms), f"With {a}, you can {use}.")]


def _who(rng: random.Random) -> list[Turn]:
    if rng.random() < 0.5:
        nature = rng.choice(list(NATURE))
        where, gift = NATURE[nature]
        the = "the " + nature
        if rng.random() < 0.5:
            return [(_ask(rng, f"where is {the}?"), f"In my stories, {the} is {where}.")]
        return [
            (
                _ask(rng, f"what does {the} give us?", f"what is {the}?", f"tell me about {the}."),
                f"{_cap(the)} gives us {gift}.",
            )
        ]
    person = rng.choice([*PEOPLE, *FANTASY])
    home, food = PEOPLE.get(person) or FANTASY[person]
    a = article(person)
    if rng.random() < 0.5:
        return [
            (
                _ask(rng, f"where does {a} live?"),
                f"In my stories, {a} lives in {_at(home)}.".replace("in a place under", "under"),
            )
        ]
    return [
        (
            _ask(rng, f"what does {a} eat?", f"what does {a} like to eat?"),
            f"In my stories, {a} likes to eat {food}.",
        )
    ]


def _opposite(rng: random.Random) -> list[Turn]:
    turns = []
    for place, (one, two) in enumerate(rng.sample(OPPOSITES, rng.choice([1, 1, 2, 3]))):
        if rng.random() < 0.4 and one not in ("new", "heavy") and two not in ("light", "old"):
            one, two = two, one
        forms = [
            f"what is the opposite of {one}?",
            f"what's the opposite of {one}?",
            f"tell me the opposite of {one}.",
            f"opposite of {one}?",
        ]
        if place:
            forms = [f"and of {one}?", f"what about {one}?", f"and the opposite of {one}?", f"and {one}?"]
        turns.append((_ask(rng, *forms), f"The opposite of {one} is {two}."))
    return turns


def _color(rng: random.Random) -> list[Turn]:
    if rng.random() < 0.15:
        one, two, mix = rng.choice(MIXES)
        forms = (f"what do you get when you mix {one} and {two}?", f"what color do {one} and {two} make?")
        return [(_ask(rng, *forms), f"{_cap(one)} and {two} make {mix}.")]
    turns = []
    for place, thing in enumerate(rng.sample(list(COLORS), rng.choice([1, 1, 2]))):
        forms = [
            f"what color is {thing}?",
            f"what colour is {thing}?",
            f"which color does {thing} have?",
            f"what is the color of {thing}?",
        ]
        if place:
            forms = [f"and {thing}?", f"what about {thing}?"]
        turns.append((_ask(rng, *forms), f"{_cap(thing)} is {COLORS[thing]}."))
    return turns


def _calendar(rng: random.Random) -> list[Turn]:
    names, word = (DAYS, "day") if rng.random() < 0.6 else (MONTHS, "month")
    kind = rng.choice(["after", "after", "before", "list", "count", "season"])
    place = rng.randrange(len(names))
    if kind == "after":
        turns = []
        for step in range(rng.choice([1, 1, 2])):
            name, result = names[(place + step) % len(names)], names[(place + step + 1) % len(names)]
            forms = [
                f"what {word} comes after {name}?",
                f"which {word} is after {name}?",
                f"what comes after {name}?",
            ]
            turns.append(
                (
                    _ask(rng, *(["and after that?", "and then?"] if step else forms)),
                    f"After {name} comes {result}.",
                )
            )
        return turns
    if kind == "before":
        forms = (f"what {word} comes before {names[place]}?", f"which {word} is before {names[place]}?")
        return [(_ask(rng, *forms), f"Before {names[place]} comes {names[place - 1]}.")]
    if kind == "list":
        where = "the week" if word == "day" else "the year"
        listed = ", ".join(names[:-1]) + " and " + names[-1]
        return [
            (
                _ask(
                    rng,
                    f"what are the {word}s of {where}?",
                    f"name the {word}s of {where}.",
                    f"tell me the {word}s of {where}.",
                ),
                f"The {word}s of {where} are {listed}.",
            )
        ]
    if kind == "count":
        if word == "day":
            return [
                (
                    _ask(rng, "how many days are in a week?", "how many days does a week have?"),
                    "A week has seven days.",
                )
            ]
        return [
            (
                _ask(rng, "how many months are in a year?", "how many months does a year have?"),
                "A year has twelve months.",
            )
        ]
    if rng.random() < 0.2:
        return [
            (
                _ask(rng, "what are the four seasons?", "name the seasons."),
                "The four seasons are spring, summer, autumn and winter.",
            )
        ]
    season = rng.choice(list(SEASONS))
    return [
        (
            _ask(rng, f"what is {season}?", f"tell me about {season}.", f"what happens in {season}?"),
            SEASONS[season],
        )
    ]


def _count(rng: random.Random) -> list[Turn]:
    kind = rng.choice(["to", "after", "legs", "sides", "body", "bigger", "hand"])
    if kind == "to":
        top = rng.randint(3, 12)
        listed = ", ".join(NUMBERS[1:top]) + " and " + NUMBERS[top]
        return [
            (
                _ask(
                    rng,
                    f"count to {rng.choice([NUMBERS[top], str(top)])}.",
                    f"can you count to {NUMBERS[top]}?",
                ),
                _cap(listed) + ".",
            )
        ]
    if kind == "after":
        n = rng.randint(0, 19)
        return [
            (
                _ask(rng, f"what number comes after {n}?", f"which number is after {n}?"),
                f"After {n} comes {n + 1}.",
            )
        ]
    if kind == "legs":
        animal = rng.choice(list(LEGS))
        return [
            (
                _ask(rng, f"how many legs does {animal} have?", f"how many legs has {animal}?"),
                f"{_cap(animal)} has {LEGS[animal]} legs.",
            )
        ]
    if kind == "sides":
        shape = rng.choice(list(SHAPES))
        return [
            (
                _ask(rng, f"how many sides does {article(shape)} have?"),
                f"{_cap(article(shape))} has {SHAPES[shape]}.",
            )
        ]
    if kind == "body":
        use, part = rng.choice(BODY)
        return [
            (
                _ask(rng, f"what do you {use} with?", f"which part of the body do we {use} with?"),
                f"You {use} with your {part}.",
            )
        ]
    if kind == "bigger":
        sizes = rng.choice([SIZES, SIZES_THINGS])
        small, large = sorted(rng.sample(range(len(sizes)), 2))
        pair = [sizes[small], sizes[large]]
        shown = pair if rng.random() < 0.5 else pair[::-1]
        if rng.random() < 0.5:
            return [
                (
                    _ask(
                        rng,
                        f"what is bigger, {shown[0]} or {shown[1]}?",
                        f"which is bigger, {shown[0]} or {shown[1]}?",
                    ),
                    f"{_cap(pair[1])} is bigger than {pair[0]}.",
                )
            ]
        return [
            (
                _ask(
                    rng,
                    f"what is smaller, {shown[0]} or {shown[1]}?",
                    f"which is smaller, {shown[0]} or {shown[1]}?",
                ),
                f"{_cap(pair[0])} is smaller than {pair[1]}.",
            )
        ]
    return [
        (
            _ask(rng, "how many fingers are on one hand?", "how many fingers does a hand have?"),
            "A hand has five fingers.",
        )
    ]


def _advice(rng: random.Random) -> list[Turn]:
    when, answer = rng.choice(WEATHER)
    mine = when.replace("you are", "I am").replace("your", "my").replace("you ", "I ")
    return [
        (
            _ask(
                rng,
                f"what can you do when {when}?",
                f"what should I do when {mine}?",
                f"what can I do if {mine}?",
            ),
            answer,
        )
    ]


def _list(rng: random.Random) -> list[Turn]:
    category = rng.choice(list(CATEGORIES))
    count = rng.randint(2, 4)
    items = rng.sample(CATEGORIES[category], count)
    listed = _cap(", ".join(items[:-1]) + " and " + items[-1]) + "."
    number = rng.choice([NUMBERS[count], str(count)])
    turns = [
        (
            _ask(
                rng,
                f"name {number} {category}.",
                f"tell me {number} {category}.",
                f"list {number} {category}.",
                f"can you name {number} {category}?",
            ),
            listed,
        )
    ]
    if rng.random() < 0.3:
        rest = rng.choice([item for item in CATEGORIES[category] if item not in items])
        turns.append((_ask(rng, "and one more?", "one more, please.", "another one?"), f"{_cap(rest)}."))
    return turns


def _sum(rng: random.Random) -> Turn:
    return _sum_with(rng, None)


def _sum_with(rng: random.Random, left: int | None) -> Turn:
    """One sum; with `left` it goes on from an earlier result."""
    kind = rng.choice(["plus", "plus", "minus", "times"] if left is None else ["plus", "minus", "times"])
    if kind == "times":
        a, b = (rng.randint(0, 10) if left is None else left), rng.randint(0, 10)
        if left is not None and left > 10:
            kind = "plus"
    if kind == "plus":
        a, b = (rng.randint(0, 10) if left is None else left), rng.randint(0, 10)
        if left is None and rng.random() < 0.15:
            a = rng.randint(0, 20)
    if kind == "minus":
        a = rng.randint(0, 20 if rng.random() < 0.3 else 10) if left is None else left
        b = rng.randint(0, min(a, 10))
    result = {"plus": a + b, "minus": a - b, "times": a * b}[kind]
    if left is not None:
        return _ask(
            rng, f"and {kind} {b}?", f"and that {kind} {b}?", f"now {kind} {b}."
        ), f"{left} {kind} {b} is {result}."
    x, y = str(a), str(b)
    if max(a, b) <= 20 and rng.random() < 0.12:
        x, y = NUMBERS[a], NUMBERS[b]
    sign = {"plus": "+", "minus": "-", "times": rng.choice(["*", "x"])}[kind]
    forms = [
        f"what is {x} {kind} {y}?",
        f"what is {x} {kind} {y}?",
        f"how much is {x} {kind} {y}?",
        f"{x} {kind} {y}?",
        f"what's {x} {kind} {y}?",
    ]
    forms += [
        f"{a}{sign}{b}",
        f"{a} {sign} {b} = ?",
        f"what is {a} {sign} {b}?",
        f"{a}{sign}{b}=?",
        f"can you tell me what {x} {kind} {y} is?",
    ]
    return _ask(rng, *forms), f"{a} {kind} {b} is {result}."


def _arithmetic(rng: random.Random) -> list[Turn]:
    turns = [_sum(rng)]
    while rng.random() < 0.4 and len(turns) < 4:
        result = int(turns[-1][1].rstrip(".").split()[-1])
        if rng.random() < 0.4 and result <= 20:
            turns.append(_sum_with(rng, result))
        else:
            ask, answer = _sum(rng)
            words = answer.split(" is ")[0]
            turns.append((_ask(rng, f"and {words}?", f"what about {words}?", ask), answer))
    return turns


def _word_problem(rng: random.Random) -> list[Turn]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    item = rng.choice(["apples", "balls", "cookies", "books", "coins", "toys", "shells", "stones"])
    who = rng.choice(["I", "Tom", "Lily", "Ben", "Mia"])
    have, get, lose = ("have", "get", "give away") if who == "I" else ("has", "gets", "gives away")
    owner = ("do", "I") if who == "I" else ("does", who)
    answer = "You have" if who == "I" else f"{who} has"
    if rng.random() < 0.5:
        ask = f"{who} {have} {a} {item} and {get} {b} more. How many {item} {owner[0]} {owner[1]} have?"
        return [(ask, f"{answer} {a + b} {item}, because {a} plus {b} is {a + b}.")]
    a, b = max(a, b), min(a, b)
    ask = f"{who} {have} {a} {item} and {lose} {b}. How many {item} {owner[0]} {owner[1]} have now?"
    return [(ask, f"{answer} {a - b} {item}, because {a} minus {b} is {a - b}.")]


_MAKERS: dict[Callable[[random.Random], list[Turn]], float] = {
    _arithmetic: 30, _word_problem: 1, _sound: 2, _animal: 3, _thing: 3, _who: 1, _opposite: 2, _color: 2, _calendar: 2, _count: 3,
    _advice: 1, _list: 1.5,
}  # fmt: skip


def fact(rng: random.Random) -> list[Turn]:
    """Makes one exchange, or a few that refer to each other, about a fact or a sum."""
    return rng.choices(list(_MAKERS), list(_MAKERS.values()))[0](rng)
